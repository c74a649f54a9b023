//! Whose an address is, and as whom policies know it: two tables of prefixes, merged into the one that the programs read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use sluice_abi::{AddressEntry, AddressKind, Endpoint, Identity, Ipv4, Ipv6, RevisionSlot, Slot};
use sluice_policy::Prefixes;

/// Where the addresses of a prefix live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    kind: AddressKind,
    slot: Slot,
}

impl Owner {
    /// Of what nothing is said of.
    const UNKNOWN: Self = Self { kind: AddressEntry::UNKNOWN.kind, slot: AddressEntry::UNKNOWN.slot };

    fn of(entry: &AddressEntry) -> Self {
        Self { kind: entry.kind, slot: entry.slot }
    }
}

/// As whom policies know an endpoint by one of its addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The endpoint's slot.
    pub slot: Slot,
    is_ipv4: bool,
    identity: Identity,
}

impl Known {
    /// Writes it down there.
    pub fn put(self, endpoint: &mut Endpoint) {
        let place = if self.is_ipv4 { &mut endpoint.identity4 } else { &mut endpoint.identity6 };
        *place = self.identity;
    }
}

/// What follows from what was written of a prefix, so that the flows of its addresses are judged again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequel {
    /// Nothing.
    None,
    /// It is an endpoint's: its identity is written there, and with that, if it is another, the endpoint's revision.
    Endpoint(Known),
    /// It is another's, whose flows are judged by a revision that it shares.
    Revise(RevisionSlot),
}

/// Both tables. What is said of a prefix holds for all addresses below it that a longer one says nothing of.
#[derive(Debug, Default)]
pub struct Addresses {
    owners: Prefixes<Owner>,
    /// Of addresses that are an endpoint's: whose they were, and will be again.
    lent: BTreeMap<IpNet, Option<Owner>>,
    identities: Prefixes<Identity>,
}

impl Addresses {
    /// Takes what the programs' table holds for both tables' content.
    pub fn read_back(&mut self, net: IpNet, entry: &AddressEntry) {
        self.owners.insert(net, Owner::of(entry));
        if entry.kind == AddressKind::Endpoint {
            self.lent.insert(net, None);
        }
        self.identities.insert(net, entry.identity);
    }

    /// What the programs' table must hold for a prefix; `None`: nothing. Of endpoints, the identity is not in it.
    pub fn entry(&self, net: &IpNet) -> Option<AddressEntry> {
        if self.owners.get(net).is_none() && self.identities.get(net).is_none() {
            return None;
        }
        let Owner { kind, slot } = self.owners.longest(net).map_or(Owner::UNKNOWN, |(_, owner)| *owner);
        let identity = if kind == AddressKind::Endpoint { Identity::ANYONE } else { self.identity(net) };
        Some(AddressEntry { kind, slot, identity })
    }

    /// As whom policies know the addresses of a prefix.
    pub fn identity(&self, net: &IpNet) -> Identity {
        self.identities.longest(net).map_or(Identity::ANYONE, |(_, identity)| *identity)
    }

    /// What follows for the flows of an address whose entry was written anew, or may have been. (What a longer prefix changes
    /// is known by it; what a shorter one does, no rule set that is in force tells apart.)
    pub fn sequel(&self, net: &IpNet, before: Option<AddressEntry>, now: Option<AddressEntry>) -> Sequel {
        if net.prefix_len() < net.max_prefix_len() {
            return Sequel::None;
        }
        if let Some(AddressEntry { kind: AddressKind::Endpoint, slot, .. }) = now {
            return Sequel::Endpoint(Known { slot, is_ipv4: net.addr().is_ipv4(), identity: self.identity(net) });
        }
        if before.map(|entry| entry.identity) == now.map(|entry| entry.identity) {
            return Sequel::None;
        }
        Sequel::Revise(match net.addr() {
            IpAddr::V4(address) => RevisionSlot::of_address(Ipv4::from(address)),
            IpAddr::V6(address) => RevisionSlot::of_address(Ipv6::from(address)),
        })
    }

    /// All prefixes with their identities, sorted.
    pub fn identities(&self) -> impl Iterator<Item = (&IpNet, &Identity)> {
        self.identities.iter()
    }

    /// Says as whom policies know a prefix, or with `None` that it is not told apart. Gives the prefixes whose entries may
    /// be others now.
    pub fn identify(&mut self, net: IpNet, identity: Option<Identity>) -> Vec<IpNet> {
        match identity {
            Some(identity) => self.identities.insert(net, identity),
            None => self.identities.remove(&net),
        };
        // Those below it that have an owner of their own and no identity but its.
        let below = self.owners.inside(&net).map(|(inner, _)| *inner);
        let heirs = below.filter(|inner| *inner != net && self.identities.get(inner).is_none());
        std::iter::once(net).chain(heirs).collect()
    }

    /// Makes these the owners of prefixes, beside the endpoints. Gives the prefixes whose entries may be others now: those
    /// that are to be written first, and those that are to be removed then.
    pub fn plan(&mut self, table: &BTreeMap<IpNet, AddressEntry>) -> Vec<IpNet> {
        let known: Vec<(IpNet, Option<Owner>)> = self.owners.iter().map(|(net, _)| (*net, self.planned(net))).collect();
        let gone = known.iter().filter(|(net, owner)| owner.is_some() && !table.contains_key(net)).map(|(net, _)| *net);
        let fresh = table
            .iter()
            .map(|(net, entry)| (*net, Owner::of(entry)))
            .filter(|(net, owner)| self.planned(net) != Some(*owner));
        let changes: Vec<(IpNet, Option<Owner>)> =
            fresh.map(|(net, owner)| (net, Some(owner))).chain(gone.map(|net| (net, None))).collect();
        changes.into_iter().flat_map(|(net, owner)| self.own(net, owner)).collect()
    }

    /// Whose a prefix is by the plan.
    fn planned(&self, net: &IpNet) -> Option<Owner> {
        self.lent.get(net).copied().unwrap_or_else(|| self.owners.get(net).copied())
    }

    fn own(&mut self, net: IpNet, owner: Option<Owner>) -> Vec<IpNet> {
        if let Some(lent) = self.lent.get_mut(&net) {
            *lent = owner;
            return Vec::new();
        }
        match owner {
            Some(owner) => self.owners.insert(net, owner),
            None => self.owners.remove(&net),
        };
        self.heirs(net)
    }

    /// A prefix, and those below it that have an identity of their own and no owner but its.
    fn heirs(&self, net: IpNet) -> Vec<IpNet> {
        let below = self.identities.inside(&net).map(|(inner, _)| *inner);
        let heirs = below.filter(|inner| *inner != net && self.owners.get(inner).is_none());
        std::iter::once(net).chain(heirs).collect()
    }

    /// Gives an address to an endpoint.
    pub fn lend(&mut self, address: IpAddr, slot: Slot) {
        let net = IpNet::from(address);
        let before = self.owners.insert(net, Owner { kind: AddressKind::Endpoint, slot });
        self.lent.entry(net).or_insert(before);
    }

    /// Takes an address from an endpoint, and gives it back to whom it was before.
    pub fn give_back(&mut self, net: IpNet) {
        match self.lent.remove(&net) {
            Some(Some(owner)) => {
                self.owners.insert(net, owner);
            }
            Some(None) => {
                self.owners.remove(&net);
            }
            None => {}
        }
    }

    /// Whose an address is, where there is an entry for it alone.
    pub fn owner(&self, address: IpAddr) -> Option<(AddressKind, Slot)> {
        self.owners.get(&IpNet::from(address)).map(|owner| (owner.kind, owner.slot))
    }

    /// The addresses of the endpoint in a slot.
    pub fn of_endpoint(&self, slot: Slot) -> Vec<IpNet> {
        let nets = self.lent.keys();
        nets.filter(|net| self.owners.get(net).is_some_and(|owner| owner.slot == slot)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a CIDR")
    }

    fn entry(kind: AddressKind, slot: u32) -> AddressEntry {
        AddressEntry { kind, slot: Slot(slot), identity: Identity::ANYONE }
    }

    /// The programs' table, as a writer keeps it that looks only at prefixes that may have changed.
    #[derive(Default)]
    struct Written(BTreeMap<IpNet, AddressEntry>);

    impl Written {
        fn refresh(&mut self, addresses: &Addresses, nets: impl IntoIterator<Item = IpNet>) {
            for net in nets {
                match addresses.entry(&net) {
                    Some(entry) => self.0.insert(net, entry),
                    None => self.0.remove(&net),
                };
            }
            let all: BTreeSet<IpNet> = addresses
                .owners
                .iter()
                .map(|(net, _)| *net)
                .chain(addresses.identities.iter().map(|(net, _)| *net))
                .collect();
            assert!(self.0.keys().eq(all.iter()), "{:?} instead of {all:?}", self.0);
            for (net, entry) in &self.0 {
                assert_eq!(Some(*entry), addresses.entry(net), "{net}");
            }
        }
    }

    #[test]
    fn what_changes_is_named_and_no_prefix_hides_what_a_shorter_one_says() {
        let mut addresses = Addresses::default();
        let mut written = Written::default();
        let pods = entry(AddressKind::RemotePods, 3);
        let changed = addresses.plan(&[(net("10.2.0.0/16"), pods)].into());
        written.refresh(&addresses, changed);
        for (prefix, identity) in [("10.2.0.7/32", 5), ("10.0.0.0/8", 6), ("10.2.1.0/24", 7), ("0.0.0.0/0", 8)] {
            let changed = addresses.identify(net(prefix), Some(Identity(identity)));
            written.refresh(&addresses, changed);
        }
        assert_eq!(written.0[&net("10.2.0.7/32")], AddressEntry { identity: Identity(5), ..pods });
        assert_eq!(written.0[&net("10.2.0.0/16")], AddressEntry { identity: Identity(6), ..pods });
        let moved = entry(AddressKind::RemotePods, 4);
        let changed = addresses.plan(&[(net("10.2.0.0/16"), moved), (net("10.3.0.0/16"), pods)].into());
        written.refresh(&addresses, changed);
        assert_eq!(written.0[&net("10.2.1.0/24")], AddressEntry { identity: Identity(7), ..moved });
        let changed = addresses.plan(&BTreeMap::new());
        written.refresh(&addresses, changed);
        assert_eq!(written.0[&net("10.2.0.7/32")].kind, AddressKind::Outside);
        for prefix in ["10.0.0.0/8", "10.2.0.7/32", "0.0.0.0/0", "10.2.1.0/24"] {
            let changed = addresses.identify(net(prefix), None);
            written.refresh(&addresses, changed);
        }
        assert!(written.0.is_empty());
    }

    #[test]
    fn an_address_is_lent_to_an_endpoint_and_given_back() {
        let mut addresses = Addresses::default();
        let address: IpAddr = "10.1.0.5".parse().expect("an address");
        addresses.plan(&[(net("10.1.0.0/24"), entry(AddressKind::LocalPods, 0))].into());
        addresses.identify(address.into(), Some(Identity(9)));
        addresses.lend(address, Slot(4));
        assert_eq!(addresses.entry(&address.into()), Some(entry(AddressKind::Endpoint, 4)));
        assert_eq!(addresses.identity(&address.into()), Identity(9));
        assert_eq!(addresses.of_endpoint(Slot(4)), [IpNet::from(address)]);
        // The cluster has seen the pod elsewhere: that counts once it is not here any more.
        let elsewhere = entry(AddressKind::RemotePods, 2);
        assert_eq!(addresses.plan(&[(address.into(), elsewhere)].into()), [net("10.1.0.0/24")]);
        assert_eq!(addresses.owner(address), Some((AddressKind::Endpoint, Slot(4))));
        addresses.give_back(address.into());
        assert_eq!(addresses.entry(&address.into()), Some(AddressEntry { identity: Identity(9), ..elsewhere }));
    }

    #[test]
    fn what_follows_depends_on_whose_an_address_is() {
        let mut addresses = Addresses::default();
        let [v4, v6] = ["10.1.0.5", "fd00::5"].map(|text| text.parse::<IpAddr>().expect("an address"));
        let mut follows = |net: IpNet, identity| {
            let before = addresses.entry(&net);
            addresses.identify(net, Some(Identity(identity)));
            addresses.sequel(&net, before, addresses.entry(&net))
        };
        let shared = RevisionSlot::of_address(Ipv4::from(std::net::Ipv4Addr::new(10, 1, 0, 5)));
        assert_eq!(follows(v4.into(), 3), Sequel::Revise(shared));
        assert_eq!(follows(v4.into(), 3), Sequel::None, "as before");
        assert_eq!(follows(net("10.1.0.0/24"), 4), Sequel::None, "no single address");
        addresses.lend(v4, Slot(7));
        addresses.lend(v6, Slot(7));
        let mut endpoint = Endpoint::default();
        for (address, identity) in [(v4, 5), (v6, 6)] {
            let before = addresses.entry(&address.into());
            addresses.identify(address.into(), Some(Identity(identity)));
            let Sequel::Endpoint(known) = addresses.sequel(&address.into(), before, addresses.entry(&address.into()))
            else {
                panic!("{address} is an endpoint's");
            };
            assert_eq!(known.slot, Slot(7));
            known.put(&mut endpoint);
        }
        assert_eq!((endpoint.identity4, endpoint.identity6), (Identity(5), Identity(6)));
        let lent = addresses.entry(&v4.into());
        addresses.give_back(v4.into());
        assert_eq!(addresses.sequel(&v4.into(), lent, addresses.entry(&v4.into())), Sequel::Revise(shared));
    }

    #[test]
    fn what_was_read_back_and_is_not_planned_goes() {
        let mut addresses = Addresses::default();
        let mut written = Written::default();
        for (prefix, entry) in
            [("10.0.0.0/8", entry(AddressKind::Outside, 0)), ("10.2.0.0/16", entry(AddressKind::RemotePods, 1))]
        {
            addresses.read_back(net(prefix), &AddressEntry { identity: Identity(3), ..entry });
            written.0.insert(net(prefix), addresses.entry(&net(prefix)).expect("an entry"));
        }
        let changed = addresses.plan(&BTreeMap::new());
        written.refresh(&addresses, changed);
        assert_eq!(written.0[&net("10.2.0.0/16")], AddressEntry { identity: Identity(3), ..AddressEntry::UNKNOWN });
        for prefix in ["10.0.0.0/8", "10.2.0.0/16"] {
            let changed = addresses.identify(net(prefix), None);
            written.refresh(&addresses, changed);
        }
        assert!(written.0.is_empty());
    }
}

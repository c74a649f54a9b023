//! Other network plugins, by what they have on a node while they work, and leave there when they go.

use sluice_netlink::Link;

use super::Sight;

/// What a plugin is known by.
struct Plugin {
    name: &'static str,
    devices: &'static [Name],
    /// In any table of any kind.
    chains: &'static [Name],
    /// Of nf_tables.
    tables: &'static [Name],
    /// Tables of routes that rules lead to.
    rules: &'static [u32],
    programs: &'static [Name],
}

/// What a name is, or how it begins.
#[derive(Clone, Copy, Debug)]
enum Name {
    Is(&'static str),
    Begins(&'static str),
    /// So does that of the host's side of a pod's pair of devices; others may be anybody's.
    Pair(&'static str),
}
use Name::{Begins, Is, Pair};

const NOTHING: Plugin = Plugin { name: "", devices: &[], chains: &[], tables: &[], rules: &[], programs: &[] };

const PLUGINS: [Plugin; 9] = [
    Plugin {
        name: "Calico",
        devices: &[
            Begins("cali"),
            Is("vxlan.calico"),
            Is("vxlan-v6.calico"),
            Is("wireguard.cali"),
            Is("wg-v6.cali"),
            Begins("bpfin.cali"),
            Begins("bpfout.cali"),
        ],
        chains: &[Begins("cali-")],
        tables: &[Is("calico")],
        programs: &[Begins("cali")],
        ..NOTHING
    },
    Plugin {
        name: "Cilium",
        devices: &[Begins("cilium_"), Pair("lxc")],
        chains: &[Begins("CILIUM_"), Begins("OLD_CILIUM_")],
        // To its proxy, and from there.
        rules: &[2004, 2005],
        programs: &[Begins("cil_")],
        ..NOTHING
    },
    Plugin {
        name: "Flannel",
        devices: &[Begins("flannel."), Begins("flannel-")],
        chains: &[Begins("FLANNEL-")],
        tables: &[Begins("flannel-ipv")],
        ..NOTHING
    },
    Plugin {
        name: "the plugin bridge, or who uses it (Flannel, kubenet)",
        devices: &[Is("cni0"), Is("cbr0")],
        ..NOTHING
    },
    Plugin {
        name: "kube-router",
        devices: &[Is("kube-bridge"), Is("kube-dummy-if")],
        chains: &[Begins("KUBE-ROUTER-"), Begins("KUBE-POD-FW-"), Begins("KUBE-NWPLCY-")],
        rules: &[77, 78, 79],
        ..NOTHING
    },
    Plugin {
        name: "Weave Net",
        devices: &[Is("weave"), Begins("vethwe-"), Begins("vxlan-6784")],
        chains: &[Is("WEAVE"), Begins("WEAVE-")],
        ..NOTHING
    },
    Plugin {
        name: "Antrea",
        devices: &[Begins("antrea-")],
        chains: &[Begins("ANTREA-")],
        tables: &[Is("antrea")],
        ..NOTHING
    },
    Plugin {
        name: "OVN-Kubernetes",
        devices: &[Begins("ovn-k8s-")],
        chains: &[Begins("OVN-KUBE-")],
        tables: &[Is("ovn-kubernetes")],
        ..NOTHING
    },
    Plugin {
        name: "the Amazon VPC CNI",
        devices: &[Pair("eni")],
        chains: &[Begins("AWS-SNAT-CHAIN"), Begins("AWS-CONNMARK-CHAIN")],
        ..NOTHING
    },
];

impl Name {
    fn is_of(self, name: &str) -> bool {
        match self {
            Self::Is(whole) => name == whole,
            Self::Begins(start) | Self::Pair(start) => name.starts_with(start),
        }
    }

    fn is_device(self, link: &Link) -> bool {
        let is_pair = || matches!(link.kind.as_deref(), Some("veth" | "netkit"));
        self.is_of(&link.name) && (is_pair() || !matches!(self, Self::Pair(_)))
    }

    /// What stands for all that have it: how many there are changes with each pod that comes or goes.
    fn show(self) -> String {
        match self {
            Self::Is(name) => name.into(),
            Self::Begins(start) | Self::Pair(start) => format!("{start}*"),
        }
    }
}

/// What is there of other plugins, and what to do, one for each.
pub fn problems(sight: &Sight) -> Vec<String> {
    let of_plugin = |plugin: &Plugin| {
        let found = plugin.found(sight);
        (!found.is_empty()).then(|| {
            format!(
                "{} is on this node, or has left something here ({}): it may change, drop or send elsewhere what pods send and \
                 receive; take it off the cluster, then reboot the node, or remove by hand what is named (docs/install.md, \
                 \"After another plugin\")",
                plugin.name,
                found.join("; ")
            )
        })
    };
    PLUGINS.iter().filter_map(of_plugin).collect()
}

impl Plugin {
    fn found(&self, sight: &Sight) -> Vec<String> {
        let mut found = Vec::new();
        for name in self.devices {
            let mut devices = sight.links.iter().filter(|link| name.is_device(link)).map(|link| &*link.name);
            if let Some(first) = devices.next() {
                let others =
                    if devices.next().is_some() { format!(" and others, {}", name.show()) } else { String::new() };
                found.push(format!("interface {first}{others}"));
            }
        }
        for place in &sight.netfilter {
            let tables = place.tables.iter().filter(|table| self.tables.iter().any(|name| name.is_of(table)));
            found.extend(tables.map(|table| format!("table {} {table}", place.place.family())));
            for name in self.chains {
                let mut tables: Vec<&str> =
                    place.chains.iter().filter(|chain| name.is_of(&chain.name)).map(|chain| &*chain.table).collect();
                tables.sort_unstable();
                tables.dedup();
                if !tables.is_empty() {
                    found.push(format!("chains {} of table {} ({})", name.show(), tables.join(", "), place.place));
                }
            }
        }
        let rules = self.rules.iter().filter(|table| sight.rules.contains(table));
        found.extend(rules.map(|table| format!("a routing rule for table {table}")));
        let programs = self.programs.iter().filter(|name| sight.programs.iter().any(|program| name.is_of(program)));
        found.extend(programs.map(|name| format!("eBPF programs {}", name.show())));
        found
    }
}

#[cfg(test)]
mod tests {
    use sluice_netlink::{NftChain, NftFamily};

    use super::super::netfilter::{Chains, LEGACY, Place};
    use super::*;

    fn link(name: &str, kind: &str) -> Link {
        Link { name: name.into(), kind: Some(kind.into()), ..Link::default() }
    }

    fn chains(place: Place, chains: &[(&str, &str)]) -> Chains {
        let chain = |(table, name): &(&str, &str)| NftChain { table: (*table).into(), name: (*name).into() };
        Chains { place, tables: Vec::new(), chains: chains.iter().map(chain).collect() }
    }

    fn told(sight: &Sight) -> String {
        let [problem] = &problems(sight)[..] else { panic!("{:?} is not one problem", problems(sight)) };
        problem.clone()
    }

    #[test]
    fn a_plugin_is_named_with_all_that_is_there_of_it() {
        let sight = Sight {
            links: vec![
                link("eth0", "veth"),
                link("cali1", "veth"),
                link("cali2", "veth"),
                link("vxlan.calico", "vxlan"),
            ],
            netfilter: vec![
                Chains {
                    tables: vec!["calico".into()],
                    ..chains(Place::Nft(NftFamily::V6), &[("filter", "cali-FORWARD")])
                },
                chains(Place::Legacy(&LEGACY[0]), &[("raw", "cali-a"), ("nat", "cali-b"), ("nat", "cali-c")]),
            ],
            programs: vec!["cali_tc_prog".into(), "from_pod".into()],
            ..Sight::default()
        };
        let told = told(&sight);
        for part in [
            "Calico is on this node",
            "(interface cali1 and others, cali*; interface vxlan.calico; table ip6 calico; chains cali-* of table filter \
             (ip6, iptables); chains cali-* of table nat, raw (iptables-legacy); eBPF programs cali*)",
            "take it off the cluster, then reboot the node",
        ] {
            assert!(told.contains(part), "{part} is not in {told}");
        }
    }

    #[test]
    fn rules_tell_of_one_too() {
        let sight = Sight { rules: vec![254, 2004], ..Sight::default() };
        assert!(told(&sight).starts_with("Cilium "), "{}", told(&sight));
        assert!(told(&sight).contains("a routing rule for table 2004"));
    }

    #[test]
    fn each_is_known_by_what_it_makes() {
        for (name, kind, plugin) in [
            ("cilium_host", "veth", "Cilium"),
            ("lxc0123456789ab", "veth", "Cilium"),
            ("lxc_health", "netkit", "Cilium"),
            ("flannel.1", "vxlan", "Flannel"),
            ("cni0", "bridge", "the plugin bridge"),
            ("kube-bridge", "bridge", "kube-router"),
            ("weave", "bridge", "Weave Net"),
            ("antrea-gw0", "openvswitch", "Antrea"),
            ("ovn-k8s-mp0", "openvswitch", "OVN-Kubernetes"),
            ("eni01234567890", "veth", "the Amazon VPC CNI"),
        ] {
            let told = told(&Sight { links: vec![link(name, kind)], ..Sight::default() });
            assert!(told.starts_with(plugin) && told.contains(&format!("interface {name}")), "{told}");
        }
    }

    #[test]
    fn what_others_have_is_no_plugins() {
        let sight = Sight {
            links: [
                ("lxcbr0", "bridge"),
                ("docker0", "bridge"),
                ("tunl0", "ipip"),
                ("eni0", "dummy"),
                ("sl0123456789ab", "veth"),
                ("sluice_vxlan", "vxlan"),
                ("ovs-system", "openvswitch"),
            ]
            .map(|(name, kind)| link(name, kind))
            .into(),
            netfilter: vec![chains(
                Place::Nft(NftFamily::V4),
                &[
                    ("nat", "KUBE-SERVICES"),
                    ("filter", "KUBE-FIREWALL"),
                    ("nat", "CNI-HOSTPORT-DNAT"),
                    ("nat", "DOCKER"),
                ],
            )],
            rules: vec![253, 254, 255, 83],
            programs: vec!["from_net".into(), "sd_devices".into()],
            ..Sight::default()
        };
        assert_eq!(problems(&sight), [""; 0]);
    }
}

//! Rules in the order in which they are asked, turned into the fewest prefixes of protocol and port.

use std::collections::BTreeMap;

use sluice_abi::{Identity, PolicyDirection, Port, Protocol, Rule, RuleKey, RuleSetId, RuleVerdict};

use crate::object::Action;
use crate::traffic::Transport;

/// Nothing applies.
const DEFAULT: Rule = Rule { verdict: RuleVerdict::Allow, policy: 0 };

/// What a rule reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Any protocol.
    Everything,
    /// Ports of protocols, both ends included.
    Ports(Vec<(Transport, u16, u16)>),
}

/// A rule that applies to the peer in question.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub action: Action,
    /// The id of the reason that it gives.
    pub policy: u32,
    pub reach: Reach,
}

/// All rules that apply to the peer in question, each tier in the order in which its rules are asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    pub admin: Vec<Claim>,
    /// Of NetworkPolicies: they only accept.
    pub namespaced: Vec<Claim>,
    /// What denies whatever no NetworkPolicy accepts: the id of the reason.
    pub isolated: Option<u32>,
    pub baseline: Vec<Claim>,
}

/// One entry of a rule set for an identity and direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// As [`RuleKey::length`].
    pub length: u32,
    protocol: Protocol,
    port: u16,
    pub rule: Rule,
}

impl Entry {
    fn whole(rule: Rule) -> Self {
        Self { length: RuleKey::ANY_PROTOCOL, protocol: Protocol(0), port: 0, rule }
    }

    pub fn key(&self, rule_set: RuleSetId, direction: PolicyDirection, identity: Identity) -> RuleKey {
        RuleKey::new(rule_set, direction, identity, self.protocol, Port::new(self.port)).prefix(self.length)
    }
}

const ADMIN: u8 = 0;
const NAMESPACED: u8 = 1;
const BASELINE: u8 = 2;

/// Claims that reach a port, by tier and order, and how many of their ranges do.
type Active = BTreeMap<(u8, usize), u32>;

/// Ports at which ranges of claims begin, `true`, or have ended.
type Edges = BTreeMap<u32, Vec<(u8, usize, bool)>>;

impl Claims {
    fn tiers(&self) -> [(u8, &[Claim]); 3] {
        [(ADMIN, &self.admin), (NAMESPACED, &self.namespaced), (BASELINE, &self.baseline)]
    }

    /// What the claims say where these are active.
    fn answer(&self, active: &Active) -> Rule {
        let first = |tier: u8, claims: &'_ [Claim]| {
            let ((_, at), _) = active.range((tier, 0)..(tier + 1, 0)).next()?;
            claims.get(*at).map(|claim| (claim.action, claim.policy))
        };
        let decided = |claim: Option<(Action, u32)>| match claim {
            Some((Action::Accept, policy)) => Some(Rule { verdict: RuleVerdict::Allow, policy }),
            Some((Action::Deny, policy)) => Some(Rule { verdict: RuleVerdict::Deny, policy }),
            Some((Action::Pass, _)) | None => None,
        };
        decided(first(ADMIN, &self.admin))
            .or_else(|| decided(first(NAMESPACED, &self.namespaced)))
            .or_else(|| self.isolated.map(|policy| Rule { verdict: RuleVerdict::Isolate, policy }))
            .or_else(|| decided(first(BASELINE, &self.baseline)))
            .unwrap_or(DEFAULT)
    }

    /// The whole answer as prefixes. The first is for any protocol.
    pub fn flatten(&self) -> Vec<Entry> {
        let mut everywhere = Active::new();
        let mut edges: [Edges; 3] = Default::default();
        for (tier, claims) in self.tiers() {
            for (at, claim) in claims.iter().enumerate() {
                match &claim.reach {
                    Reach::Everything => {
                        everywhere.insert((tier, at), 1);
                    }
                    Reach::Ports(ranges) => {
                        for (transport, first, last) in ranges {
                            let edges = &mut edges[*transport as usize];
                            edges.entry(u32::from(*first)).or_default().push((tier, at, true));
                            edges.entry(u32::from(*last) + 1).or_default().push((tier, at, false));
                        }
                    }
                }
            }
        }
        let others = self.answer(&everywhere);
        let mut entries = vec![Entry::whole(others)];
        for (transport, edges) in Transport::ALL.into_iter().zip(edges) {
            if edges.is_empty() {
                continue;
            }
            let mut active = everywhere.clone();
            let mut pieces = vec![(0, others)];
            for (port, changes) in edges {
                for (tier, at, begins) in changes {
                    let count = active.entry((tier, at)).or_default();
                    // Ends come with their begins; at one port, in any order.
                    *count = if begins { count.wrapping_add(1) } else { count.wrapping_sub(1) };
                    if *count == 0 {
                        active.remove(&(tier, at));
                    }
                }
                if port > u32::from(u16::MAX) {
                    break;
                }
                let rule = self.answer(&active);
                match pieces.last_mut() {
                    Some((start, last)) if *start == port => *last = rule,
                    Some((_, last)) if *last == rule => {}
                    _ => pieces.push((port, rule)),
                }
            }
            cover(&pieces, others, |port, bits, rule| {
                entries.push(Entry { length: RuleKey::ANY_PORT + bits, protocol: transport.protocol(), port, rule });
            });
        }
        entries
    }
}

/// What may hold of a node of the binary trie of ports, so that the fewest prefixes are needed below it (Draves, King,
/// Venkatachary and Zill, "Constructing Optimal IP Routing Tables", 1999).
enum Node {
    Leaf(Rule),
    Branch(Vec<Rule>, Box<[Node; 2]>),
}

impl Node {
    fn of(pieces: &[(u32, Rule)], start: u32, size: u32) -> Self {
        // The piece that `start` lies in, and those that begin within.
        let first = pieces.partition_point(|(at, _)| *at <= start).saturating_sub(1);
        let end = pieces.partition_point(|(at, _)| *at < start + size);
        let within = &pieces[first..end];
        if within.iter().all(|(_, rule)| *rule == within[0].1) {
            return Self::Leaf(within[0].1);
        }
        let half = size / 2;
        let children = [Self::of(within, start, half), Self::of(within, start + half, half)];
        let [left, right] = [children[0].candidates(), children[1].candidates()];
        let mut candidates: Vec<Rule> = left.iter().filter(|rule| right.contains(rule)).copied().collect();
        if candidates.is_empty() {
            candidates = [left, right].concat();
            candidates.sort_unstable();
            candidates.dedup();
        }
        Self::Branch(candidates, Box::new(children))
    }

    fn candidates(&self) -> &[Rule] {
        match self {
            Self::Leaf(rule) => std::slice::from_ref(rule),
            Self::Branch(candidates, _) => candidates,
        }
    }

    fn write(&self, start: u32, bits: u32, inherited: Rule, write: &mut impl FnMut(u16, u32, Rule)) {
        let mut rule = inherited;
        if !self.candidates().contains(&inherited) {
            rule = self.candidates()[0];
            write(start as u16, bits, rule);
        }
        if let Self::Branch(_, children) = self {
            children[0].write(start, bits + 1, rule, write);
            children[1].write(start + (1 << (15 - bits)), bits + 1, rule, write);
        }
    }
}

/// Covers all ports by the fewest prefixes: tells the first port of each, how many of its bits count, and the rule.
/// `pieces` begin at 0; `inherited` holds where no prefix is.
fn cover(pieces: &[(u32, Rule)], inherited: Rule, mut write: impl FnMut(u16, u32, Rule)) {
    Node::of(pieces, 0, 1 << 16).write(0, 0, inherited, &mut write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOW: Rule = Rule { verdict: RuleVerdict::Allow, policy: 7 };
    const ISOLATE: Rule = Rule { verdict: RuleVerdict::Isolate, policy: 8 };

    fn claim(action: Action, policy: u32, ports: &[(u16, u16)]) -> Claim {
        let ranges = ports.iter().map(|(first, last)| (Transport::Tcp, *first, *last)).collect::<Vec<_>>();
        Claim { action, policy, reach: if ranges.is_empty() { Reach::Everything } else { Reach::Ports(ranges) } }
    }

    fn answer(entries: &[Entry], of: Protocol, port: u16) -> Rule {
        let matches = |entry: &&Entry| {
            let key = |of, port| RuleKey::new(RuleSetId(1), PolicyDirection::Ingress, Identity(1), of, Port::new(port));
            entry.key(RuleSetId(1), PolicyDirection::Ingress, Identity(1)) == key(of, port).prefix(entry.length)
        };
        entries.iter().filter(matches).max_by_key(|entry| entry.length).expect("a whole answer").rule
    }

    fn allowed(first: u16, last: u16) -> Vec<Entry> {
        let namespaced = vec![claim(Action::Accept, 7, &[(first, last)])];
        Claims { namespaced, isolated: Some(8), ..Claims::default() }.flatten()
    }

    #[test]
    fn ranges_are_few_prefixes() {
        assert_eq!(allowed(80, 80).len(), 2);
        assert_eq!(allowed(0, u16::MAX).len(), 2);
        assert_eq!(allowed(1, u16::MAX).len(), 3, "any port, but for 0");
        assert_eq!(allowed(1024, u16::MAX).len(), 3, "any port, but for 1024");
        assert!(allowed(1, 65534).len() <= 4);
    }

    #[test]
    fn protocols_without_ports_are_reached_only_by_rules_without_ports() {
        let entries = allowed(1, u16::MAX);
        assert_eq!(answer(&entries, Protocol::ICMP, 0), ISOLATE);
        assert_eq!(answer(&entries, Protocol::UDP, 53), ISOLATE);
        assert_eq!((answer(&entries, Protocol::TCP, 0), answer(&entries, Protocol::TCP, 1)), (ISOLATE, ALLOW));
    }

    #[test]
    fn tiers_are_asked_in_order() {
        let claims = Claims {
            admin: vec![
                claim(Action::Deny, 1, &[(1, 1)]),
                claim(Action::Pass, 2, &[(1, 3)]),
                claim(Action::Accept, 3, &[(1, 4)]),
            ],
            namespaced: vec![claim(Action::Accept, 4, &[(2, 2)])],
            isolated: Some(5),
            baseline: vec![claim(Action::Accept, 6, &[])],
        };
        let ports = |claims: &Claims| [1, 2, 3, 4, 5].map(|port| answer(&claims.flatten(), Protocol::TCP, port).policy);
        assert_eq!(ports(&claims), [1, 4, 5, 3, 5]);
        assert_eq!(ports(&Claims { isolated: None, ..claims.clone() }), [1, 4, 6, 3, 6]);
        let mut passing = Claims { isolated: None, ..claims };
        passing.baseline.insert(0, claim(Action::Pass, 9, &[(3, 3)]));
        assert_eq!(ports(&passing), [1, 4, 0, 3, 6]);
    }

    #[test]
    fn overlapping_ranges_of_one_rule_are_one() {
        let namespaced = vec![claim(Action::Accept, 7, &[(10, 20), (15, 30), (20, 20)])];
        let entries = Claims { namespaced, isolated: Some(8), ..Claims::default() }.flatten();
        let allowed: Vec<u16> = (0..50).filter(|port| answer(&entries, Protocol::TCP, *port) == ALLOW).collect();
        assert_eq!(allowed, (10..=30).collect::<Vec<u16>>());
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![Just(Action::Accept), Just(Action::Deny), Just(Action::Pass)]
    }

    fn claims(actions: impl Strategy<Value = Action>) -> impl Strategy<Value = Vec<Claim>> {
        let port = prop_oneof![0u16..20, 65500u16..=65535, any::<u16>()];
        let range = (prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)], port.clone(), port);
        let range = range.prop_map(|(transport, a, b)| (transport, a.min(b), a.max(b)));
        let reach = prop_oneof![
            1 => Just(Reach::Everything),
            4 => proptest::collection::vec(range, 0..4).prop_map(Reach::Ports),
        ];
        proptest::collection::vec((actions, 1u32..9, reach), 0..4).prop_map(|claims| {
            claims.into_iter().map(|(action, policy, reach)| Claim { action, policy, reach }).collect()
        })
    }

    proptest! {
        #[test]
        fn prefixes_say_what_the_rules_say(
            admin in claims(action()),
            namespaced in claims(Just(Action::Accept)),
            isolated in proptest::option::of(10u32..12),
            baseline in claims(action()),
            more in any::<[u16; 4]>(),
        ) {
            let claims = Claims { admin, namespaced, isolated, baseline };
            let entries = claims.flatten();
            let reaches = |claim: &Claim, of: Protocol, port: u16| match &claim.reach {
                Reach::Everything => true,
                Reach::Ports(ranges) => ranges.iter().any(|(transport, first, last)| {
                    transport.protocol() == of && (*first..=*last).contains(&port)
                }),
            };
            let ports = (0..25).chain(65495..=65535).chain(more);
            for (of, port) in ports.flat_map(|port| [Protocol::TCP, Protocol::UDP, Protocol::ICMP].map(|of| (of, port))) {
                let mut active = Active::new();
                for (tier, list) in claims.tiers() {
                    for (at, _) in list.iter().enumerate().filter(|(_, claim)| reaches(claim, of, port)) {
                        active.insert((tier, at), 1);
                    }
                }
                prop_assert_eq!(answer(&entries, of, port), claims.answer(&active));
            }
        }
    }
}

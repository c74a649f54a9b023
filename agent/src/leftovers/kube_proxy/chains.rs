//! Which chains of iptables are kube-proxy's, and what has to go for them to go. The same for iptables over nf_tables and
//! for its predecessor.

use std::collections::{BTreeMap, BTreeSet};

use sluice_netlink::NftChain as Chain;

/// Chains that kube-proxy makes once, in whatever table, in any of its modes since Kubernetes 1.12. Those of the kubelet
/// (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT, KUBE-MARK-DROP) are none of them.
const SINGLE: [&str; 13] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-NODE-PORT",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-LOAD-BALANCER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
];

/// How the names begin of those that it makes for each Service and endpoint.
const PREFIXES: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-", "KUBE-XLB-"];

/// The tables that it has chains in.
const TABLES: [&str; 3] = ["nat", "filter", "mangle"];

/// The chains that are there by themselves. In these it puts rules of its own.
const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Whether a chain is kube-proxy's.
pub fn is_kube_proxys(Chain { table, name }: &Chain) -> bool {
    TABLES.contains(&table.as_str())
        && (SINGLE.contains(&name.as_str()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

/// A rule, with what it is removed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule<H> {
    /// The chain that it is in.
    pub chain: Chain,
    /// The chains that it may go on with, of the same table.
    pub targets: Vec<String>,
    /// What it is removed by.
    pub handle: H,
}

impl<H> Rule<H> {
    fn leads_to(&self) -> impl Iterator<Item = Chain> {
        self.targets.iter().map(|name| Chain { table: self.chain.table.clone(), name: name.clone() })
    }
}

/// What has to be removed, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal<H> {
    /// Rules of other chains that lead to kube-proxy's.
    pub rules: Vec<Rule<H>>,
    /// The chains, each emptied before the first goes.
    pub chains: BTreeSet<Chain>,
    /// What is left, and why.
    pub left: Vec<String>,
}

/// What has to be removed of these chains and rules.
pub fn removal<H>(chains: impl IntoIterator<Item = Chain>, rules: Vec<Rule<H>>) -> Removal<H> {
    let mut ours: BTreeSet<Chain> = chains.into_iter().filter(is_kube_proxys).collect();
    let mut left = Vec::new();
    let mut leads_to: BTreeMap<Chain, BTreeSet<Chain>> = BTreeMap::new();
    let mut kept: Vec<Chain> = Vec::new();
    let mut unlinked = Vec::new();
    for rule in rules {
        let targets: BTreeSet<Chain> = rule.leads_to().filter(|chain| ours.contains(chain)).collect();
        if ours.contains(&rule.chain) {
            leads_to.entry(rule.chain).or_default().extend(targets);
        } else if !targets.is_empty() && BUILT_IN.contains(&rule.chain.name.as_str()) {
            unlinked.push(rule);
        } else {
            // Somebody has built on them.
            for target in targets {
                left.push(format!("chain {target}: a rule of chain {} leads there", rule.chain));
                kept.push(target);
            }
        }
    }
    // What stays stays whole, with all that it leads to.
    while let Some(chain) = kept.pop() {
        if ours.remove(&chain) {
            kept.extend(leads_to.remove(&chain).into_iter().flatten());
        }
    }
    left.sort();
    left.dedup();
    unlinked.retain(|rule| rule.leads_to().any(|chain| ours.contains(&chain)));
    Removal { rules: unlinked, chains: ours, left }
}

/// So many chains of which tables, for people.
pub fn count<'a>(chains: impl IntoIterator<Item = &'a Chain>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for chain in chains {
        *counts.entry(&chain.table).or_default() += 1;
    }
    counts.into_iter().map(|(table, count)| format!("{} of table {table}", several(count, "chain"))).collect()
}

/// So many of them, for people.
pub fn several(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(text: &str) -> Chain {
        let (table, name) = text.split_once(' ').expect("a table and a name");
        Chain { table: table.into(), name: name.into() }
    }

    fn rules(list: &[(&str, &str)]) -> Vec<Rule<usize>> {
        let rule = |(handle, (from, to)): (usize, &(&str, &str))| {
            let targets = to.split(' ').filter(|to| !to.is_empty()).map(str::to_owned).collect();
            Rule { chain: chain(from), targets, handle }
        };
        list.iter().enumerate().map(rule).collect()
    }

    #[test]
    fn chains_of_others_are_told_from_kube_proxys() {
        for own in ["nat KUBE-SERVICES", "nat KUBE-SVC-ABC", "filter KUBE-FORWARD", "mangle KUBE-PROXY-CANARY"] {
            assert!(is_kube_proxys(&chain(own)), "{own}");
        }
        for others in [
            "filter KUBE-FIREWALL",
            "mangle KUBE-KUBELET-CANARY",
            "mangle KUBE-IPTABLES-HINT",
            "nat KUBE-MARK-DROP",
            "filter KUBE-ROUTER-INPUT",
            "filter KUBE-NWPLCY-ABC",
            "filter KUBE-POD-FW-ABC",
            "nat PREROUTING",
            "nat CNI-HOSTPORT-DNAT",
            "mine KUBE-SERVICES",
        ] {
            assert!(!is_kube_proxys(&chain(others)), "{others}");
        }
    }

    #[test]
    fn what_leads_to_them_goes_and_nothing_else() {
        let chains =
            ["nat PREROUTING", "nat KUBE-SERVICES", "nat KUBE-SVC-A", "filter KUBE-FIREWALL", "filter KUBE-FORWARD"];
        let rules = rules(&[
            ("nat PREROUTING", "CNI-HOSTPORT-DNAT"),
            ("nat PREROUTING", "KUBE-SERVICES"),
            ("nat KUBE-SERVICES", "KUBE-SVC-A"),
            ("filter INPUT", "KUBE-FIREWALL"),
            // A chain of this name is in another table.
            ("filter FORWARD", "KUBE-SERVICES"),
            ("nat POSTROUTING", ""),
        ]);
        let removal = removal(chains.map(chain), rules);
        assert_eq!(removal.rules.iter().map(|rule| rule.handle).collect::<Vec<_>>(), [1]);
        assert!(
            removal.chains.into_iter().eq(["filter KUBE-FORWARD", "nat KUBE-SERVICES", "nat KUBE-SVC-A"].map(chain))
        );
        assert_eq!(removal.left, [""; 0]);
    }

    #[test]
    fn what_others_have_built_on_stays_whole() {
        let chains = ["nat KUBE-SERVICES", "nat KUBE-SVC-A", "nat KUBE-SEP-A", "nat KUBE-SVC-B", "nat KUBE-MARK-MASQ"];
        let rules = rules(&[
            ("nat OUTPUT", "KUBE-SERVICES"),
            ("nat OUTPUT", "KUBE-SVC-A"),
            ("nat MINE", "KUBE-SVC-A"),
            ("nat MINE", "KUBE-SVC-A"),
            ("nat KUBE-SERVICES", "KUBE-SVC-A"),
            ("nat KUBE-SERVICES", "KUBE-SVC-B"),
            ("nat KUBE-SVC-A", "KUBE-SEP-A"),
            ("nat KUBE-SEP-A", "KUBE-MARK-MASQ"),
            ("nat KUBE-SVC-B", "KUBE-MARK-MASQ"),
        ]);
        let removal = removal(chains.map(chain), rules);
        assert_eq!(removal.rules.iter().map(|rule| rule.handle).collect::<Vec<_>>(), [0]);
        assert!(removal.chains.into_iter().eq(["nat KUBE-SERVICES", "nat KUBE-SVC-B"].map(chain)));
        assert_eq!(removal.left, ["chain nat KUBE-SVC-A: a rule of chain nat MINE leads there"]);
    }
}

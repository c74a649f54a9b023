//! What kube-proxy leaves on a node: rules that translate packets for Services before Sluice sees them. Telling it from what
//! else is there, and removing it.

mod chains;
mod ipvs;
mod legacy;
mod tables;

use std::fmt::Display;

use anyhow::{Result, bail};

use super::Sight;
use super::netfilter::Place;
use crate::causes;
use chains::{count, is_kube_proxys};

/// What is wrong with what is there of it, and what to do.
pub fn problem(sight: &Sight) -> Option<String> {
    let found = found(sight);
    (!found.is_empty()).then(|| {
        format!(
            "kube-proxy's rules are on this node ({}), and translate packets for Services before Sluice sees them: \
             stop kube-proxy here, then run `sluice-agent cleanup-kube-proxy`",
            found.join("; ")
        )
    })
}

/// What is there of it.
fn found(sight: &Sight) -> Vec<String> {
    let mut found = Vec::new();
    for there in &sight.netfilter {
        if let Place::Nft(family) = there.place
            && there.tables.iter().any(|name| name == tables::TABLE)
        {
            found.push(format!("table {family} {}", tables::TABLE));
        }
        let counted = count(there.chains.iter().filter(|chain| is_kube_proxys(chain)));
        found.extend(counted.into_iter().map(|what| format!("{what} ({})", there.place)));
    }
    if sight.links.iter().any(|link| link.name == ipvs::DEVICE) {
        found.push(format!("interface {}", ipvs::DEVICE));
    }
    found
}

/// What was removed, which is said at once, and what was not.
#[derive(Debug, Default)]
struct Report {
    removed: usize,
    left: Vec<String>,
}

impl Report {
    fn removed(&mut self, what: impl Display) {
        println!("removed {what}");
        self.removed += 1;
    }

    fn left(&mut self, what: impl Display) {
        self.left.push(what.to_string());
    }
}

/// Removes what kube-proxy has left in this network namespace, and says what. Others' rules, the kubelet's among them, and
/// connections that are tracked stay.
///
/// # Errors
/// Where something is left, with what that is and why.
pub fn clean_up() -> Result<()> {
    let mut report = Report::default();
    type Step = (&'static str, fn(&mut Report) -> Result<()>);
    let steps: [Step; 3] = [("nf_tables", tables::remove), ("iptables-legacy", legacy::remove), ("IPVS", ipvs::remove)];
    for (where_, step) in steps {
        if let Err(error) = step(&mut report) {
            report.left(format!("{where_}: {}", causes::of(error.as_ref())));
        }
    }
    if !report.left.is_empty() {
        bail!("not everything of kube-proxy could be removed:\n  {}", report.left.join("\n  "));
    }
    if report.removed == 0 {
        println!("nothing of kube-proxy is on this node");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sluice_netlink::{Link, NftChain, NftFamily};

    use super::super::netfilter::{Chains, LEGACY};
    use super::*;

    #[test]
    fn only_what_is_there_is_a_problem() {
        let chains = |place, table: &str, names: &[&str]| Chains {
            place,
            tables: Vec::new(),
            chains: names.iter().map(|name| NftChain { table: table.into(), name: (*name).into() }).collect(),
        };
        let mut sight = Sight {
            netfilter: vec![chains(Place::Nft(NftFamily::V6), "filter", &["KUBE-FIREWALL", "MINE"])],
            unknown: vec!["iptables-legacy: not known".into()],
            ..Sight::default()
        };
        assert_eq!(problem(&sight), None);
        sight.netfilter[0].tables.push("kube-proxy".into());
        sight.netfilter.push(chains(Place::Legacy(&LEGACY[0]), "nat", &["KUBE-SERVICES", "KUBE-SVC-A", "MINE"]));
        sight.links.push(Link { name: "kube-ipvs0".into(), ..Link::default() });
        let problem = problem(&sight).expect("a problem");
        for part in [
            "(table ip6 kube-proxy; 2 chains of table nat (iptables-legacy); interface kube-ipvs0)",
            "cleanup-kube-proxy",
        ] {
            assert!(problem.contains(part), "{part} is not in {problem}");
        }
    }
}

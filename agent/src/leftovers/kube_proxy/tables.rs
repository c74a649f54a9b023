//! In nf_tables: kube-proxy's own tables, and chains of iptables that is made of them.

use anyhow::Result;
use sluice_netlink::{NftFamily, NftRemoval};

use super::Report;
use super::chains::{Removal, Rule, count, is_kube_proxys, removal, several};
use crate::leftovers::netfilter::open;

/// The name of kube-proxy's own tables.
pub const TABLE: &str = "kube-proxy";

/// Removes both.
pub fn remove(report: &mut Report) -> Result<()> {
    let Some(mut tables) = open()? else { return Ok(()) };
    for family in NftFamily::ALL {
        if tables.tables(family)?.iter().any(|name| name == TABLE) {
            tables.remove(family, &[NftRemoval::Table(TABLE.into())])?;
            report.removed(format!("table {family} {TABLE}"));
        }
        let chains = tables.chains(family)?;
        if !chains.iter().any(is_kube_proxys) {
            continue;
        }
        let rules = tables.rules(family)?.into_iter().map(|rule| Rule {
            chain: rule.chain,
            targets: rule.targets,
            handle: rule.handle,
        });
        let Removal { rules, chains, left } = removal(chains, rules.collect());
        let unlinked = rules.len();
        let unlinking = rules.into_iter().map(|rule| NftRemoval::Rule(rule.chain, rule.handle));
        let emptying = chains.iter().cloned().map(NftRemoval::Rules);
        let removing = chains.iter().cloned().map(NftRemoval::Chain);
        tables.remove(family, &unlinking.chain(emptying).chain(removing).collect::<Vec<_>>())?;
        if unlinked > 0 {
            report.removed(format!("{} that led to them ({family}, iptables)", several(unlinked, "rule")));
        }
        count(&chains).into_iter().for_each(|what| report.removed(format!("{what} ({family}, iptables)")));
        left.into_iter().for_each(|what| report.left(format!("{what} ({family}, iptables)")));
    }
    Ok(())
}

//! In the tables of iptables as it was before nf_tables. Changing them takes iptables' own programs.

use std::collections::BTreeSet;
use std::io;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use sluice_netlink::NftChain as Chain;

use super::Report;
use super::chains::{Removal, Rule, count, is_kube_proxys, removal, several};
use crate::leftovers::netfilter::LEGACY;

/// Removes them.
pub fn remove(report: &mut Report) -> Result<()> {
    for tables in &LEGACY {
        let name = tables.name;
        let mut present = tables.chains()?;
        present.retain(is_kube_proxys);
        if present.is_empty() {
            continue;
        }
        let Some(listing) = listing(name)? else {
            let present = count(&present).join(", ");
            report.left(format!(
                "{present}: {name}-save is not here, without which they cannot be removed; run `sluice-agent \
                 cleanup-kube-proxy` where it is (package iptables), or `kube-proxy --cleanup`"
            ));
            continue;
        };
        let (chains, rules) = parse(&listing);
        let removal = removal(chains, rules);
        if !removal.chains.is_empty() {
            restore(name, &script(&removal))?;
        }
        if !removal.rules.is_empty() {
            report.removed(format!("{} that led to them ({name})", several(removal.rules.len(), "rule")));
        }
        count(&removal.chains).into_iter().for_each(|what| report.removed(format!("{what} ({name})")));
        removal.left.into_iter().for_each(|what| report.left(format!("{what} ({name})")));
    }
    Ok(())
}

/// What the listing program prints, where it is here.
fn listing(name: &str) -> Result<Option<String>> {
    let program = format!("{name}-save");
    let output = match Command::new(&program).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        output => output.with_context(|| format!("starting {program}"))?,
    };
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Has the restoring program do what a script says.
fn restore(name: &str, script: &str) -> Result<()> {
    let program = format!("{name}-restore");
    let run = || -> io::Result<_> {
        let mut restore = Command::new(&program);
        restore.args(["--noflush", "-w", "5"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = restore.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(script.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The chains and rules of a listing.
fn parse(listing: &str) -> (Vec<Chain>, Vec<Rule<String>>) {
    let mut table = "";
    let (mut chains, mut rules) = (Vec::new(), Vec::new());
    let chain = |table: &str, name: &str| Chain { table: table.to_owned(), name: name.to_owned() };
    for line in listing.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(name) = line.strip_prefix(':').and_then(|rest| rest.split(' ').next()) {
            chains.push(chain(table, name));
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let words = words(rest);
            let Some(name) = words.first() else { continue };
            let leads = |pair: &[&str]| matches!(pair[0], "-j" | "-g").then(|| pair[1].to_owned());
            let targets = words.windows(2).filter_map(leads).collect();
            rules.push(Rule { chain: chain(table, name), targets, handle: rest.to_owned() });
        }
    }
    (chains, rules)
}

/// The words of a rule; what is in quotes is one.
fn words(rule: &str) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_end = |letter: char| {
        let ends = letter == ' ' && !is_quoted;
        is_quoted ^= letter == '"' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        ends
    };
    rule.split(is_end).filter(|word| !word.is_empty()).collect()
}

/// What the restoring program is to do, one table after the other, each at once.
fn script(removal: &Removal<String>) -> String {
    let tables: BTreeSet<&str> = removal.chains.iter().map(|chain| chain.table.as_str()).collect();
    let mut script = String::new();
    for table in tables {
        let chains = || removal.chains.iter().filter(|chain| chain.table == table);
        script += &format!("*{table}\n");
        // One that is named here is emptied.
        chains().for_each(|chain| script += &format!(":{} - [0:0]\n", chain.name));
        for rule in removal.rules.iter().filter(|rule| rule.chain.table == table) {
            script += &format!("-D {}\n", rule.handle);
        }
        chains().for_each(|chain| script += &format!("-X {}\n", chain.name));
        script += "COMMIT\n";
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = r#"# Generated by iptables-save v1.8.9
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-A - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m comment --comment "mine \" -j KUBE-SERVICES " -j MINE
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-A
COMMIT
*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
COMMIT
"#;

    #[test]
    fn a_listing_becomes_a_script_that_removes_what_is_kube_proxys() {
        let (chains, rules) = parse(LISTING);
        assert_eq!((chains.len(), rules.len()), (6, 4));
        let expected = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-A - [0:0]\n\
                        -D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
                        -X KUBE-SERVICES\n-X KUBE-SVC-A\nCOMMIT\n";
        assert_eq!(script(&removal(chains, rules)), expected);
    }

    #[test]
    fn what_is_quoted_is_no_target() {
        assert_eq!(
            words(r#"A -m comment --comment "a \" -j B" -j C"#),
            ["A", "-m", "comment", "--comment", r#""a \" -j B""#, "-j", "C"]
        );
    }
}

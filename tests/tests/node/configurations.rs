//! CNI configurations of others, and ours in others' hands.

use std::fs;

use anyhow::{Result, ensure};
use sluice_tests::lab::traffic::{Steady, tcp};
use sluice_tests::lab::{Lab, Node, Plan, binary, until, until_so};

const OURS: &str = "10-sluice.conflist";

fn problems(node: &Node) -> Result<String> {
    Ok(node.status()?.problems.join("\n"))
}

#[test]
fn a_configuration_before_ours_is_told_of_until_it_is_gone() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (node, a, b) = (&lab.nodes[0], lab.pod(1, "a")?, lab.pod(1, "b")?);
    let steady = Steady::start(&a.place, &b.place, b.addresses[0])?;
    assert_eq!(problems(node)?, "");
    let file = node.directory.join("cni/05-flannel.conflist");
    fs::write(&file, r#"{"name": "cbr0", "plugins": [{"type": "flannel"}]}"#)?;
    until("it is told of", || {
        let told = problems(node)?;
        ensure!(
            told.contains("05-flannel.conflist (network cbr0, plugin flannel) before 10-sluice.conflist"),
            "{told}"
        );
        Ok(())
    })?;
    assert!(node.status()?.ready);
    fs::rename(&file, node.directory.join("cni/90-flannel.conflist"))?;
    until_so("nothing is wrong any more", || Ok(problems(node)?.is_empty()))?;
    steady.goes_on(20)?;
    let (sent, answered) = steady.stop()?;
    assert_eq!(sent, answered, "who runs already keeps his network");
    Ok(())
}

#[test]
fn ours_is_written_anew_whatever_becomes_of_it() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (node, a) = (&lab.nodes[0], lab.pod(1, "a")?);
    let file = node.directory.join("cni").join(OURS);
    let ours = fs::read_to_string(&file)?;
    let comes_back = |what: &str| {
        until(&format!("it comes back, {what}"), || {
            ensure!(fs::read_to_string(&file)? == ours, "it is another");
            let told = problems(node)?;
            ensure!(told.contains(&format!("somebody has {what} {}", file.display())), "{told}");
            Ok(())
        })
    };
    fs::write(&file, "{}")?;
    comes_back("overwritten")?;
    fs::rename(&file, file.with_extension("conflist.cilium_bak"))?;
    comes_back("removed")?;
    fs::remove_dir_all(node.directory.join("cni"))?;
    comes_back("removed")?;
    assert!(node.status()?.ready);
    let b = lab.pod(1, "b")?;
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    Ok(())
}

#[test]
fn a_plugin_of_another_version_is_told_of() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let directory = lab.nodes[0].directory.join("bin");
    fs::create_dir(&directory)?;
    lab.nodes[0].restart_with(&format!("cni_bin_dir: {}\n", directory.display()))?;
    let node = &lab.nodes[0];
    until_so("it is missed", || Ok(problems(node)?.contains("bin/sluice is not there: new pods have no network")))?;
    fs::copy(binary("sluice"), directory.join("sluice"))?;
    // What happens among configurations is a reason to look at the plugin, too.
    fs::write(node.directory.join("cni/99-any.conf"), "{}")?;
    until_so("it is there", || Ok(problems(node)?.is_empty()))
}

//! What other network plugins have left on a node.

use anyhow::{Context, Result, ensure};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use sluice_tests::lab::traffic::tcp;
use sluice_tests::lab::{Lab, Node, Place, Plan, until, until_so};

fn nft(place: &Place, command: &str) -> Result<()> {
    let output = place.command("nft").args(command.split(' ')).output().context("running nft")?;
    ensure!(output.status.success(), "nft {command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn problems(node: &Node) -> Result<Vec<String>> {
    Ok(node.status()?.problems)
}

#[test]
fn other_plugins_are_named_with_what_they_have_left() -> Result<()> {
    let mut lab = Lab::start(Plan::default())?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(2, "b")?);
    let place = &lab.nodes[0].place;
    // By their names: not every kernel has dummies.
    place.ip("link add cali123 type veth peer name other")?;
    nft(place, "add table ip filter")?;
    nft(place, "add chain ip filter cali-FORWARD")?;
    nft(place, "add table ip6 flannel-ipv6")?;
    place.ip("rule add fwmark 0x200/0xf00 lookup 2004")?;
    lab.nodes[0].restart_with("")?;
    let node = &lab.nodes[0];
    until_so("they are told of", || Ok(problems(node)?.len() == 3))?;
    let told = problems(node)?.join("\n");
    for part in [
        "Calico is on this node, or has left something here (interface cali123; chains cali-* of table filter (ip, iptables))",
        "Cilium is on this node, or has left something here (a routing rule for table 2004)",
        "Flannel is on this node, or has left something here (table ip6 flannel-ipv6)",
        "reboot the node",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert_eq!(node.metric("sluice_problems{severity=\"warning\"}")?, 3.0);
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    assert!(node.place.ip("link show cali123").is_ok(), "what is others' stays");
    Ok(())
}

#[test]
fn a_device_with_the_overlays_port_is_named() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "vxlan", ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    lab.nodes[0].stop_agent();
    let place = &lab.nodes[0].place;
    place.ip("link del sluice_vxlan")?;
    place.ip("link add flannel.1 type vxlan id 1 dev eth0 dstport 8472")?;
    place.ip("link set flannel.1 up")?;
    lab.nodes[0].start_agent()?;
    let node = &lab.nodes[0];
    until("it is told what for the agent waits", || {
        let status = node.status()?;
        let waiting_for = status.waiting_for.unwrap_or_default();
        ensure!(waiting_for.contains("UDP port 8472") && waiting_for.contains("that of flannel.1"), "{waiting_for}");
        ensure!(
            status.problems.iter().any(|problem| problem.contains("ip link delete flannel.1")),
            "{:?}",
            status.problems
        );
        Ok(())
    })?;
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    node.place.ip("link delete flannel.1")?;
    lab.nodes[0].wait_until_ready()?;
    Ok(())
}

#[test]
fn another_program_in_the_place_of_ours_is_told_of() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let node = &mut lab.nodes[0];
    let pin = node.pinned_program("xdp_lb")?.display().to_string();
    let output =
        node.place.command("bpftool").args(["net", "attach", "xdpgeneric", "pinned", &pin, "dev", "eth0"]).output()?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    node.stop_agent();
    std::fs::write(node.directory.join("agent.yaml"), "xdp: generic\n")?;
    node.start_agent()?;
    until("it is told what for the agent waits", || {
        let waiting_for = node.status()?.waiting_for.unwrap_or_default();
        ensure!(waiting_for.contains("another XDP program is") && waiting_for.contains("xdp off"), "{waiting_for}");
        Ok(())
    })?;
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    node.place.ip("link set dev eth0 xdpgeneric off")?;
    node.wait_until_ready()?;
    Ok(())
}

#[test]
fn programs_in_front_of_ours_are_named() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    let pin = node.pinned_program("to_pod")?;
    // Somebody's; what it does matters to nobody here.
    let attached = node.place.inside(|| {
        let mut program = SchedClassifier::from_pin(&pin)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        program.attach_with_options("eth0", TcAttachType::Ingress, options)?;
        Ok(program)
    });
    // Before Linux 6.6 there is no such place.
    let Ok(attached) = attached else { return Ok(()) };
    lab.nodes[0].restart_with("")?;
    let node = &lab.nodes[0];
    until("it is told of", || {
        let told = problems(node)?.join("\n");
        ensure!(told.contains("program to_pod sees what comes in by eth0 before Sluice"), "{told}");
        Ok(())
    })?;
    drop(attached);
    Ok(())
}

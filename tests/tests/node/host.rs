//! Hosts whose networks change, or stand in the way.

use std::fs;

use anyhow::{Result, ensure};
use sluice_tests::lab::traffic::tcp;
use sluice_tests::lab::{Lab, Plan, until, until_so};

#[test]
fn pods_leave_with_the_address_that_their_node_has_now() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (node, a) = (&lab.nodes[0], lab.pod(1, "a")?);
    for (old, new) in [("192.0.2.1/24", "192.0.2.77/24"), ("2001:db8:0::1/64", "2001:db8:0::77/64")] {
        let plain: std::net::IpAddr = new.split('/').next().unwrap().parse()?;
        let address = lab.stranger_addresses().into_iter().find(|other| other.is_ipv4() == plain.is_ipv4()).unwrap();
        let seen = tcp(&a.place, &lab.stranger, address, 100)?;
        assert!(node.addresses.contains(&seen), "seen as {seen}");
        // The route stays the same all the time: one of the same subnet comes before the other goes.
        if plain.is_ipv4() {
            node.place.inside(|| Ok(fs::write("/proc/sys/net/ipv4/conf/eth0/promote_secondaries", "1")?))?;
        }
        node.place.ip(&format!("addr add {new} dev eth0{}", if plain.is_ipv6() { " nodad" } else { "" }))?;
        node.place.ip(&format!("addr del {old} dev eth0"))?;
        until("pods leave with the new address", || {
            let seen = tcp(&a.place, &lab.stranger, address, 100)?;
            ensure!(seen == plain, "seen as {seen}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_disk_that_has_room_again_is_enough() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &mut lab.nodes[0];
    node.stop_agent();
    let directory = node.directory.join("cni");
    fs::remove_dir_all(&directory)?;
    fs::write(&directory, "in the way")?;
    node.start_agent()?;
    until_so("the agent says what it waits for", || {
        Ok(node.status()?.waiting_for.is_some_and(|what| what.contains("CNI configuration")))
    })?;
    fs::remove_file(&directory)?;
    node.wait_until_ready()?;
    assert!(directory.join("10-sluice.conflist").exists());
    Ok(())
}

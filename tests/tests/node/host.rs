//! Hosts whose networks change, or stand in the way.

use std::fs;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use sluice_tests::lab::traffic::{tcp, tcp_by_service};
use sluice_tests::lab::{FullDisk, Lab, Node, Place, Plan, until, until_so};

/// Another node's manifest.
fn write_node(lab: &Lab, name: &str, pod_cidr: &str, address: &str) -> Result<()> {
    let text = format!(
        "kind: Node\napiVersion: v1\nmetadata: {{name: {name}}}\nspec: {{podCIDRs: [\"{pod_cidr}\"]}}\n\
         status: {{addresses: [{{type: InternalIP, address: \"{address}\"}}]}}\n"
    );
    Ok(fs::write(lab.manifests().join(format!("{name}.yaml")), text)?)
}

fn show(node: &Node, arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8(node.place.command("ip").args(arguments).output()?.stdout)?)
}

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
    // Over the one that has the configuration.
    let disk = FullDisk::at(&directory)?;
    node.start_agent()?;
    until_so("the agent says what it waits for", || {
        let waiting_for = node.status()?.waiting_for.unwrap_or_default();
        Ok(waiting_for.contains("CNI configuration") && waiting_for.contains("No space left"))
    })?;
    let left = || Ok::<_, anyhow::Error>(fs::read_dir(&directory)?.count());
    assert_eq!(left()?, 1, "only what fills the disk");
    disk.make_room()?;
    node.wait_until_ready()?;
    assert!(directory.join("10-sluice.conflist").exists());
    Ok(())
}

#[test]
fn pins_need_a_bpf_file_system() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &mut lab.nodes[0];
    node.stop_agent();
    let elsewhere = node.directory.join("pins").display().to_string();
    let output = node.agent_command(&["--bpf-dir", &elsewhere]).output()?;
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("pins") && told.contains("is not on a BPF file system; mount one: mount -t bpf"), "{told}");
    Ok(())
}

#[test]
fn routes_that_the_host_lives_by_are_left_alone() -> Result<()> {
    let lab = Lab::start(Plan::default())?;
    let (node, a, b) = (&lab.nodes[0], lab.pod(1, "a")?, lab.pod(2, "b")?);
    node.place.ip("route add 10.1.9.0/24 via 192.0.2.254")?;
    let before = show(node, &["route", "show"])?;
    write_node(&lab, "n8", "192.0.2.0/24", "192.0.2.8")?;
    write_node(&lab, "n9", "10.1.9.0/24", "192.0.2.9")?;
    until_so("both are refused", || {
        let problems = node.status()?.problems.join("\n");
        Ok(problems.contains("192.0.2.0/24 of node n8 contains") && problems.contains("10.1.9.0/24 via 192.0.2.254"))
    })?;
    assert_eq!(show(node, &["route", "show"])?, before);
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    Ok(())
}

#[test]
fn a_node_that_only_seems_near_is_reached_through_the_overlay() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    lab.nodes[0].stop_agent();
    lab.nodes[0].place.ip("addr add 198.51.100.1/24 dev eth0 noprefixroute")?;
    write_node(&lab, "n8", "10.1.8.0/24", "198.51.100.8")?;
    lab.nodes[0].start_agent()?;
    lab.nodes[0].wait_until_ready()?;
    let node = &lab.nodes[0];
    let routing = || match node.ask(sluice_api::Call::Nodes {})? {
        sluice_api::Answer::Nodes(nodes) => {
            Ok(nodes.into_iter().find(|other| other.name == "n8").map(|other| other.routing).unwrap_or_default())
        }
        other => anyhow::bail!("{other:?}"),
    };
    assert_eq!(routing()?, "vxlan");
    node.place.ip("route add 198.51.100.0/24 dev eth0")?;
    until_so("it is near", || Ok(routing()? == "native"))
}

#[test]
fn the_overlay_is_as_the_settings_have_it() -> Result<()> {
    for (routing, kept) in [("vxlan", true), ("native", false)] {
        let mut lab = Lab::start(Plan { routing, ..Plan::default() })?;
        let (a, b) = (lab.pod(1, "a")?, lab.pod(2, "b")?);
        lab.nodes[0].stop_agent();
        // As an agent with other settings may have left it.
        let place = &lab.nodes[0].place;
        if kept {
            place.ip("link del sluice_vxlan")?;
        }
        place.ip("link add sluice_vxlan type vxlan external dstport 4789")?;
        place.ip("link set sluice_vxlan up")?;
        lab.nodes[0].start_agent()?;
        lab.nodes[0].wait_until_ready()?;
        let device = show(&lab.nodes[0], &["-d", "link", "show", "sluice_vxlan"])?;
        assert_eq!(device.contains("dstport 8472"), kept, "{device}");
        assert!(!device.contains("dstport 4789"), "{device}");
        for address in &b.addresses {
            tcp(&a.place, &b.place, *address, 100)?;
        }
    }
    Ok(())
}

#[test]
fn a_wrong_address_for_the_overlay_is_told_of() -> Result<()> {
    let lab = Lab::start(Plan { routing: "vxlan", ..Plan::default() })?;
    let (node, pod) = (&lab.nodes[0], lab.pod(2, "b")?);
    let problems = || Ok::<_, anyhow::Error>(node.status()?.problems.join("\n"));
    assert_eq!(problems()?, "");
    node.place.ip("route change 192.0.2.0/24 dev eth0 src 192.0.2.77").unwrap_err();
    node.place.ip("addr add 192.0.2.77/32 dev lo")?;
    node.place.ip("route replace 192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.77")?;
    until_so("it is told of", || {
        Ok(problems()?.contains("from 192.0.2.77, and not from this node's address 192.0.2.1"))
    })?;
    // The node's own packets say where they come from.
    tcp(&node.place, &pod.place, pod.addresses[0], 100)?;
    Ok(())
}

#[test]
fn every_way_of_a_default_route_is_an_uplink() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    node.place.ip("link add eth1 type veth peer name eth9")?;
    for device in ["eth1", "eth9"] {
        node.place.ip(&format!("link set {device} up"))?;
    }
    // Without an address, it would be none but for the route.
    node.place
        .ip("route replace default nexthop via 192.0.2.254 dev eth0 nexthop via 198.51.100.254 dev eth1 onlink")?;
    until_so("both are uplinks", || Ok(node.status()?.uplinks == ["eth0", "eth1"]))
}

#[test]
fn who_comes_in_by_another_network_card_is_served() -> Result<()> {
    const TARGET: u16 = 8080;
    let lab = Lab::start(Plan { routing: "native", ..Plan::default() })?;
    let (node, here, there) = (&lab.nodes[0], lab.pod(1, "here")?, lab.pod(2, "there")?);
    for (pod, number) in [(&here, 80), (&there, 81)] {
        lab.declare(pod, &[("app", &pod.name)], &[TARGET])?;
        let ports = format!("[{{port: 80, targetPort: {TARGET}, nodePort: 300{number}}}]");
        lab.tell(
            &format!("service-{}.yaml", pod.name),
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {0}}}\nspec: {{type: NodePort, selector: {{app: {0}}}, \
                 clusterIP: 10.96.0.{number}, clusterIPs: [10.96.0.{number}, 'fd00:96::{number}'], \
                 ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, ports: {ports}}}\n",
                pod.name
            ),
        )?;
    }
    let before = node.status()?;
    let client = Place::make(&format!("{}-client", node.place.name))?;
    node.place.ip(&format!("link add eth1 mtu 1400 type veth peer name eth1 netns {}", client.name))?;
    let nets = |number: u8| [format!("198.51.100.{number}/24"), format!("2001:db8:7::{number}/64")];
    for (place, number) in [(&node.place, 1), (&client, 9)] {
        place.ip("link set eth1 up")?;
        nets(number).iter().try_for_each(|net| place.ip(&format!("addr add {net} dev eth1 nodad")))?;
    }
    until_so("it is an uplink", || Ok(node.status()?.uplinks == ["eth0", "eth1"]))?;
    until_so("the services are there", || Ok(node.services()?.len() == 4))?;

    let plain = |number| nets(number).map(|net| net.split('/').next().unwrap_or_default().parse::<IpAddr>());
    for (family, (at, own)) in plain(1).into_iter().zip(plain(9)).enumerate() {
        let (at, own) = (at?, own?);
        assert_eq!(tcp_by_service(&client, &here.place, TARGET, (at, 30_080).into(), 10_000)?, own);
        assert_eq!(tcp_by_service(&client, &there.place, TARGET, (at, 30_081).into(), 10_000)?, node.addresses[family]);
        // What the host had it do before.
        client.ip(&format!("route add {} via {at}", node.pod_cidrs[family]))?;
        assert_eq!(tcp(&here.place, &client, own, 10_000)?, here.addresses[family], "pods are not masqueraded");
    }
    assert_eq!(node.status()?.mtu, before.mtu, "pods send as large packets as by the other");
    Ok(())
}

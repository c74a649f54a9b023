//! The plugin under real runtimes, and in chains with other plugins.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sluice_tests::lab::{Call, Containerd, Lab, Place, Plan, Podman, traffic};

/// Writes another list of plugins, with more behind ours, under another name.
fn chain(lab: &Lab, name: &str, behind: &[Value]) -> Result<()> {
    let directory = lab.nodes[0].directory.join("cni");
    let mut list: Value = serde_json::from_slice(&fs::read(directory.join("10-sluice.conflist"))?)?;
    list["name"] = name.into();
    list["plugins"].as_array_mut().context("a list of plugins")?.extend_from_slice(behind);
    fs::write(directory.join(format!("20-{name}.conflist")), list.to_string())?;
    Ok(())
}

#[test]
fn podman_runs_containers_that_talk_and_publishes_their_ports() -> Result<()> {
    let lab = Lab::start(Plan::default())?;
    let bandwidth = json!({
        "type": "bandwidth", "ingressRate": 1_000_000_000, "ingressBurst": 100_000_000,
        "egressRate": 1_000_000_000, "egressBurst": 100_000_000,
    });
    let tuning = json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.IFNAME.log_martians": "1" }, "mtu": 1400 });
    let portmap = json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true });
    chain(&lab, "chained", &[tuning, bandwidth, portmap])?;
    let podman = Podman::on(&lab.nodes[0])?;
    let there = lab.pod(2, "there")?;

    let run = |name: &str, network: &str, more: &[&str]| {
        let mut words = vec!["run", "-d", "--name", name, "--network", network, "--security-opt", "seccomp=unconfined"];
        words.extend(more);
        words.push(sluice_tests::lab::IMAGE);
        podman.run(&words)
    };
    run("plain", "sluice", &[])?;
    for address in &there.addresses {
        podman.run(&["exec", "plain", "/bin/ping", "-c", "1", "-W", "5", &address.to_string()])?;
    }

    run("chained", "chained", &["-p", "8080:80"])?;
    let link = podman.run(&["exec", "chained", "/bin/ip", "link", "show", "eth0"])?;
    assert!(link.contains("mtu 1400"), "tuning has done its work: {link}");
    let martians = podman.run(&["exec", "chained", "/bin/cat", "/proc/sys/net/ipv4/conf/eth0/log_martians"])?;
    assert_eq!(martians, "1");
    podman.run(&["exec", "-d", "chained", "/bin/sh", "-c", "echo hello | /bin/nc -l -p 80"])?;
    let node = lab.nodes[0].addresses.iter().find(|address| address.is_ipv4()).context("an address")?;
    assert_eq!(traffic::read_all(&lab.stranger, *node, 8080)?, "hello\n", "portmap has published the port");

    let endpoints = lab.nodes[0].status()?.endpoints;
    assert_eq!(endpoints, 2);
    podman.run(&["rm", "-f", "-t", "0", "plain", "chained"])?;
    assert_eq!(lab.nodes[0].status()?.endpoints, 0);
    assert_eq!(fs::read_dir(lab.nodes[0].directory.join("run/endpoints"))?.count(), 0);
    Ok(())
}

#[test]
fn podman_gives_a_container_two_networks_and_takes_one_away() -> Result<()> {
    let lab = Lab::start(Plan::default())?;
    chain(&lab, "second", &[])?;
    let podman = Podman::on(&lab.nodes[0])?;
    let there = lab.pod(2, "there")?;
    let options = ["--network", "sluice", "--network", "second", "--security-opt", "seccomp=unconfined"];
    podman.run(&[&["run", "-d", "--name", "both"][..], &options, &[sluice_tests::lab::IMAGE]].concat())?;
    let addresses = podman.run(&["exec", "both", "/bin/ip", "-o", "-4", "address", "show", "scope", "global"])?;
    let addresses: Vec<IpAddr> =
        addresses.split_whitespace().filter_map(|word| word.strip_suffix("/32")?.parse().ok()).collect();
    assert_eq!(addresses.len(), 2);
    let to_there =
        ["exec", "both", "/bin/ping", "-c", "1", "-W", "5", &there.addresses[0].to_string()].map(str::to_owned);
    let ping_there = || podman.run(&to_there.each_ref().map(String::as_str));
    for address in &addresses {
        traffic::ping(&there.place, *address)?;
    }
    ping_there()?;
    podman.run(&["network", "disconnect", "second", "both"])?;
    assert_eq!(lab.nodes[0].status()?.endpoints, 1);
    ping_there()?;
    podman.run(&["rm", "-f", "-t", "0", "both"])?;
    assert_eq!(lab.nodes[0].status()?.endpoints, 0);
    Ok(())
}

#[test]
fn containerd_runs_pods_as_kubelet_has_it() -> Result<()> {
    let lab = Lab::start(Plan::default())?;
    let image = Podman::on(&lab.nodes[0])?.save()?;
    let containerd = Containerd::on(&lab.nodes[0], &image)?;
    let info: Value = serde_json::from_str(&containerd.run(&["info"])?)?;
    let ready = info["status"]["conditions"].as_array().into_iter().flatten();
    assert!(ready.into_iter().any(|condition| condition["type"] == "NetworkReady" && condition["status"] == true));
    let there = lab.pod(2, "there")?;
    let (sandbox, container) = containerd.pod("p1")?;
    let state: Value = serde_json::from_str(&containerd.run(&["inspectp", &sandbox])?)?;
    let network = &state["status"]["network"];
    assert!(network["ip"].as_str().context("an address")?.starts_with("10.1.1."));
    assert!(network["additionalIps"][0]["ip"].as_str().context("a second address")?.starts_with("fd00:1:1::"));
    for address in &there.addresses {
        containerd.run(&["exec", "--sync", &container, "/bin/ping", "-c", "1", "-W", "5", &address.to_string()])?;
    }
    containerd.run(&["stopp", &sandbox])?;
    containerd.run(&["rmp", &sandbox])?;
    assert_eq!(lab.nodes[0].status()?.endpoints, 0);
    Ok(())
}

#[test]
fn addresses_come_from_another_plugin_where_that_is_asked_for() -> Result<()> {
    let lab = Lab::start(Plan::default())?;
    let node = &lab.nodes[0];
    let data = node.directory.join("host-local");
    let place = Place::make(&format!("{}-delegated", lab.stranger.name.trim_end_matches("-stranger")))?;
    let ipam = json!({ "type": "host-local", "dataDir": data, "ranges": [[{ "subnet": "10.77.0.0/24" }]] });
    let call = |verb: &str| {
        let call = Call::new(node, verb, "delegated", &place.path())?;
        Ok::<_, anyhow::Error>(
            call.with("CNI_PATH", "/usr/lib/cni").config("cniVersion", "1.0.0".into()).config("ipam", ipam.clone()),
        )
    };
    let result = call("ADD")?.run()?;
    assert_eq!(result["ips"][0]["address"], "10.77.0.2/32");
    let address: IpAddr = "10.77.0.2".parse()?;
    traffic::tcp(&node.place, &place, address, 100_000)?;
    call("CHECK")?.config("prevResult", result).run()?;
    call("DEL")?.run()?;
    call("DEL")?.run()?;
    let left = fs::read_dir(data.join("sluice"))?.flatten().filter(|file| file.file_name() == "10.77.0.2").count();
    assert_eq!(left, 0, "host-local has its address back");
    Ok(())
}

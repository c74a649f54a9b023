//! The plugin's verbs and errors against a real agent.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::IpNet;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sluice_api::MISSED;
use sluice_policy::question::Traffic;
use sluice_tests::lab::exchange::{Client, End};
use sluice_tests::lab::traffic::ping;
use sluice_tests::lab::{Call, FullDisk, Lab, Node, Place, Plan, Pod, until_so};

fn lab() -> Result<Lab> {
    Lab::start(Plan { nodes: 1, ..Plan::default() })
}

/// What a node has of endpoints: host sides, files of addresses, files of records.
fn traces(lab: &Lab) -> Result<(usize, usize, usize)> {
    let node = &lab.nodes[0];
    let links = String::from_utf8(node.place.command("ip").args(["-o", "link"]).output()?.stdout)?;
    let count = |path: &Path| {
        let listing = fs::read_dir(path).into_iter().flatten().flatten();
        let names = listing.map(|entry| entry.file_name().to_string_lossy().into_owned());
        // These two stay.
        names.filter(|name| name != ".lock" && !name.starts_with(".last-")).count()
    };
    let state = node.directory.join("state/addresses");
    let pairs = links.matches(": sl").count() - links.matches(": sluice_vxlan").count();
    Ok((pairs, count(&state), count(&node.directory.join("run/endpoints"))))
}

#[test]
fn what_is_added_can_be_checked_and_deleted_twice() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let pod = lab.pod(1, "a")?;
    assert_eq!(pod.result["cniVersion"], "1.1.0");
    assert_eq!(traces(&lab)?, (1, 2, 1));
    pod.call(node, "CHECK")?.run()?;
    let (code, message) = Call::new(node, "ADD", &pod.place.name, &pod.place.path())?.fails()?;
    assert!(code == 106 && message.contains("wired already"), "{code} {message}");

    pod.place.ip("route del default")?;
    let (code, message) = pod.call(node, "CHECK")?.fails()?;
    assert!(code == 103 && message.contains("no route to 0.0.0.0/0"), "{code} {message}");

    pod.delete()?;
    assert_eq!(traces(&lab)?, (0, 0, 0));
    pod.delete()?;
    pod.call(node, "DEL")?.with("CNI_NETNS", "").run()?;
    let (code, _) = pod.call(node, "CHECK")?.fails()?;
    assert_eq!(code, 103);
    Ok(())
}

#[test]
fn every_version_gets_what_it_knows() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let place = Place::make(&format!("{}-v{}", node.place.name, version.replace('.', "")))?;
        let call = |verb| {
            Ok::<_, anyhow::Error>(
                Call::new(node, verb, &place.name, &place.path())?.config("cniVersion", version.into()),
            )
        };
        let result = call("ADD")?.run()?;
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0].get("version").is_some(), version < "1.0.0");
        call("DEL")?.run()?;
    }
    let answer = Call::new(node, "VERSION", "x", Path::new("/"))?.run()?;
    assert_eq!(answer["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let old = Call::new(node, "STATUS", "x", Path::new("/"))?.config("cniVersion", "1.0.0".into());
    assert_eq!(old.fails()?.0, 1);
    let unknown = Call::new(node, "ADD", "x", Path::new("/"))?.config("cniVersion", "9.0.0".into());
    assert_eq!(unknown.fails()?.0, 1);
    Ok(())
}

#[test]
fn without_an_agent_nothing_is_added_but_all_can_be_deleted() -> Result<()> {
    let mut lab = lab()?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    Call::new(&lab.nodes[0], "STATUS", "x", Path::new("/"))?.run()?;
    lab.nodes[0].stop_agent();
    let node = &lab.nodes[0];
    assert_eq!(Call::new(node, "STATUS", "x", Path::new("/"))?.fails()?.0, 50, "nobody comes");
    // The time is over that the next one has, until there is one.
    assert!(node.socket().with_file_name(MISSED).exists());
    let place = Place::make(&format!("{}-c", node.place.name))?;
    assert_eq!(Call::new(node, "ADD", "c", &place.path())?.fails()?.0, 11);
    assert_eq!(traces(&lab)?, (2, 4, 2));
    let gone = b.place.name.clone();
    a.delete()?;
    assert_eq!(traces(&lab)?, (1, 2, 1));
    let gc = Call::new(node, "GC", "x", Path::new("/"))?;
    let (code, message) = gc.fails()?;
    assert!(code == 7 && message.contains("valid-attachments"), "{code} {message}");
    assert_eq!(traces(&lab)?, (1, 2, 1));
    gc.config("cni.dev/valid-attachments", Value::Null).run()?;
    assert_eq!(traces(&lab)?, (0, 0, 0), "{gone} was not among the valid");
    Ok(())
}

#[test]
fn a_node_is_not_broken_whose_agent_gives_way_to_another() -> Result<()> {
    let mut lab = lab()?;
    let node = &mut lab.nodes[0];
    let asked = Call::new(node, "STATUS", "x", Path::new("/"))?;
    node.stop_agent();
    thread::scope(|scope| {
        let answered = scope.spawn(|| asked.run());
        node.start_agent()?;
        answered.join().expect("no panic")
    })?;
    assert!(!node.socket().with_file_name(MISSED).exists(), "the next one has its own time");
    Ok(())
}

#[test]
fn garbage_is_collected_and_nothing_else() -> Result<()> {
    let lab = lab()?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let gc = Call::new(&lab.nodes[0], "GC", "x", Path::new("/"))?;
    gc.config("cni.dev/valid-attachments", json!([a.attachment()])).run()?;
    assert_eq!(traces(&lab)?, (1, 2, 1));
    ping(&a.place, lab.nodes[0].addresses[0])?;
    assert!(ping(&b.place, lab.nodes[0].addresses[0]).is_err());
    Ok(())
}

#[test]
fn garbage_is_collected_as_far_as_possible() -> Result<()> {
    let lab = lab()?;
    let (_a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    // As of an ADD that was killed while it wrote.
    let records = lab.nodes[0].directory.join("run/endpoints");
    fs::copy(records.join(format!("{}.json", b.host_interface)), records.join(format!(".{}.new", b.host_interface)))?;
    let gc = Call::new(&lab.nodes[0], "GC", "x", Path::new("/"))?.config("cni.dev/valid-attachments", json!([]));
    let (code, message) = gc.config("ipam", json!({ "type": "no-such" })).fails()?;
    assert!(code == 7 && message.contains("no-such"), "{code} {message}");
    assert_eq!(traces(&lab)?, (0, 0, 0));
    Ok(())
}

/// Puts an IPAM plugin into a node's directory that writes down what it is asked for and gives this; and its configuration.
fn ipam(node: &Node, result: &Value) -> Result<Value> {
    ipam_that(node, "cat result", &result.to_string())
}

/// As [`ipam`], of a plugin that does this with ADD, and has a file with its result.
fn ipam_that(node: &Node, act: &str, result: &str) -> Result<Value> {
    let directory = node.directory.join("plugins");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("result"), result)?;
    let script = format!(
        "#!/bin/sh\ncd $(dirname $0) && cat >config && echo $CNI_COMMAND $CNI_CONTAINERID >>calls\n\
         [ $CNI_COMMAND != ADD ] || {{ {act}; }}\n"
    );
    fs::write(directory.join("given"), script)?;
    fs::set_permissions(directory.join("given"), fs::Permissions::from_mode(0o755))?;
    Ok(json!({ "type": "given", "mark": "by then" }))
}

#[test]
fn addresses_go_back_to_where_they_came_from() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let ipam = ipam(node, &json!({ "cniVersion": "1.1.0", "ips": [{ "address": "10.77.0.9/24" }] }))?;
    let plugins = node.directory.join("plugins");
    let path = plugins.display().to_string();
    let calls = || fs::read_to_string(plugins.join("calls"));

    // From another plugin, and the configuration is back to own pools, or says nothing, when they are given back.
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let call = |verb| Ok::<_, anyhow::Error>(Call::new(node, verb, "x", &place.path())?.with("CNI_PATH", &path));
    call("ADD")?.config("ipam", ipam.clone()).run()?;
    assert_eq!(traces(&lab)?, (1, 0, 1));
    call("DEL")?.run()?;
    assert_eq!(calls()?, "ADD x\nDEL x\n");
    assert!(fs::read_to_string(plugins.join("config"))?.contains("by then"));
    call("ADD")?.config("ipam", ipam.clone()).run()?;
    let gc = Call::new(node, "GC", "", Path::new("/"))?.with("CNI_PATH", &path).without("ipam");
    gc.config("cni.dev/valid-attachments", json!([])).run()?;
    assert_eq!(calls()?, "ADD x\nDEL x\nADD x\nDEL x\n");
    assert_eq!(traces(&lab)?, (0, 0, 0));

    // From own pools, and the configuration names another plugin by then.
    call("ADD")?.run()?;
    assert_eq!(traces(&lab)?, (1, 2, 1));
    call("DEL")?.config("ipam", ipam).run()?;
    assert_eq!(traces(&lab)?, (0, 0, 0));
    Ok(())
}

#[test]
fn what_another_ipam_plugin_does_wrong_is_told() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let plugins = node.directory.join("plugins");
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let own = json!({ "cniVersion": "1.1.0", "code": 999, "msg": "the pool is dry" }).to_string();
    let twice = json!({ "ips": [{ "address": "10.77.0.9/24" }, { "address": "10.77.0.10/24" }] }).to_string();
    let cases = [
        ("exit 1", "", 105, "exit status: 1 without saying why"),
        ("echo nonsense; exit 1", "", 105, "exit status: 1 without saying why"),
        ("kill -9 $$", "", 105, "signal: 9"),
        ("cat result; exit 1", &own, 999, "the pool is dry"),
        ("cat result", "nonsense", 105, "answered something else"),
        ("cat result", "{}", 105, "gave no address"),
        ("cat result", &twice, 105, "several addresses of one family"),
    ];
    for (act, result, code, word) in cases {
        let ipam = ipam_that(node, act, result)?;
        let add = Call::new(node, "ADD", "x", &place.path())?.with("CNI_PATH", &plugins.display().to_string());
        let (actual, message) = add.config("ipam", ipam).fails()?;
        assert!(actual == code && message.contains(word), "{code} {word:?}: {actual} {message}");
        assert_eq!(traces(&lab)?, (0, 0, 0), "{message}");
        // What it may have taken all the same is given back.
        let calls = fs::read_to_string(plugins.join("calls"))?;
        assert!(calls.starts_with("ADD x\nDEL x\n"), "{calls}");
        fs::remove_file(plugins.join("calls"))?;
    }
    Ok(())
}

#[test]
fn addresses_that_others_have_are_refused_whoever_gives_them() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let pod = lab.pod(1, "a")?;
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let path = node.directory.join("plugins").display().to_string();
    let refused = |address: std::net::IpAddr, owner: &str| {
        let ipam = ipam(node, &json!({ "ips": [{ "address": IpNet::from(address) }] }))?;
        let add = Call::new(node, "ADD", "x", &place.path())?.with("CNI_PATH", &path);
        let (code, message) = add.config("ipam", ipam).fails()?;
        let told = format!("{address} is the address of {owner} too");
        assert!(code == 104 && message.contains(&told), "{code} {message}");
        assert_eq!(traces(&lab)?, (1, 2, 1), "{message}");
        Ok::<_, anyhow::Error>(())
    };
    for address in &node.addresses {
        refused(*address, "this node")?;
    }
    for address in &pod.addresses {
        refused(*address, &pod.host_interface)?;
        ping(&node.place, *address)?;
    }
    pod.call(node, "CHECK")?.run().map(drop)
}

#[test]
fn the_plugin_writes_a_log_where_it_is_told_to() -> Result<()> {
    let mut lab = lab()?;
    let log = lab.nodes[0].directory.join("plugin.log");
    let first = lab.pod(1, "a")?;
    lab.nodes[0].restart_with(&format!("plugin_log_file: {}\n", log.display()))?;
    // Runtimes keep the configuration that a pod was added with.
    first.delete()?;
    assert!(!log.exists());
    let second = lab.pod(1, "b")?;
    let (id, node) = (&second.place.name, &lab.nodes[0]);
    let (code, message) = Call::new(node, "ADD", id, &second.place.path())?.fails()?;
    second.delete()?;
    let lines = fs::read_to_string(&log)?;
    let told: Vec<_> = lines.lines().filter_map(|line| line.split_once(' ')).map(|(_, told)| told).collect();
    // That ADD names no pod.
    let failed = format!("Add {id} eth0: failed, code {code}: {message}");
    assert_eq!(
        told,
        [format!("Add {id} eth0 of default/b: done"), failed, format!("Del {id} eth0 of default/b: done")]
    );
    // A log that cannot be written stops nothing.
    lab.nodes[0].restart_with("plugin_log_file: /proc/version/no/log\n")?;
    lab.pod(1, "c").map(drop)
}

#[test]
fn routes_and_names_of_another_ipam_plugin_are_passed_on() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let dns = json!({ "nameservers": ["10.77.0.1"] });
    let result = json!({
        "cniVersion": "1.1.0", "ips": [{ "address": "10.77.0.9/24", "gateway": "10.77.0.1" }],
        "routes": [{ "dst": "192.0.2.0/24" }, { "dst": "fd77::/16" }], "dns": dns,
    });
    let ipam = ipam(node, &result)?;
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let path = node.directory.join("plugins").display().to_string();
    let call = |verb| {
        Ok::<_, anyhow::Error>(
            Call::new(node, verb, "x", &place.path())?.with("CNI_PATH", &path).config("ipam", ipam.clone()),
        )
    };
    let result = call("ADD")?.run()?;
    assert_eq!(result["dns"], dns);
    let gateway = "169.254.1.1";
    let expected = json!([{ "dst": "10.77.0.0/24", "gw": gateway }, { "dst": "192.0.2.0/24", "gw": gateway }]);
    assert_eq!(result["routes"], expected);
    let routes = routes(&place)?.join("\n");
    assert!(!routes.contains("default") && routes.contains("192.0.2.0/24 via 169.254.1.1 dev eth0"), "{routes}");
    ping(&place, node.addresses[0])?;
    call("CHECK")?.config("prevResult", result).run()?;
    call("DEL")?.run()?;
    let own = json!({ "domain": "cluster.local" });
    assert_eq!(call("ADD")?.config("dns", own.clone()).run()?["dns"], own);
    call("DEL")?.run().map(drop)
}

#[test]
fn plugins_behind_may_add_addresses_and_move_routes() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let pod = lab.pod(1, "a")?;
    let check = |result: &Value| Ok::<_, anyhow::Error>(pod.call(node, "CHECK")?.config("prevResult", result.clone()));
    // Source-based routing moves routes to a table of its own.
    pod.place.ip("route del default")?;
    pod.place.ip("route add default via 169.254.1.1 dev eth0 table 100")?;
    check(&pod.result)?.run()?;
    // Others take a route away, and say so, or add an address.
    pod.place.ip("route del default table 100")?;
    let mut result = pod.result.clone();
    result["routes"].as_array_mut().context("routes")?.retain(|route| route["dst"] != "0.0.0.0/0");
    result["ips"].as_array_mut().context("addresses")?.push(json!({ "address": "10.88.0.1/24", "interface": 1 }));
    check(&result)?.run()?;
    result["ips"].as_array_mut().context("addresses")?.remove(0);
    let (code, message) = check(&result)?.fails()?;
    assert!(code == 103 && message.contains("lacks the address"), "{code} {message}");
    Ok(())
}

/// What a runtime asks for with these port mappings.
fn ports(mappings: Value) -> Value {
    json!({ "portMappings": mappings })
}

/// The mapping of a port of the node to 80.
fn mapping(host_port: u32, protocol: &str) -> Value {
    json!({ "hostPort": host_port, "containerPort": 80, "protocol": protocol })
}

#[test]
fn host_ports_are_kept_in_the_record_and_checked() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let list = fs::read_to_string(node.directory.join("cni/10-sluice.conflist"))?;
    let list: Value = serde_json::from_str(&list)?;
    assert_eq!(list["plugins"][0]["capabilities"]["portMappings"], true);
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let call = |verb| Call::new(node, verb, "x", &place.path());
    let (http, dns) = (mapping(8080, "tcp"), mapping(53, "udp"));
    let result = call("ADD")?.config("runtimeConfig", ports(json!([http, dns]))).run()?;
    let host = result["interfaces"][0]["name"].as_str().context("a host side")?;
    let told = node.ask(sluice_api::Call::Endpoints {})?;
    let sluice_api::Answer::Endpoints(endpoints) = told else { anyhow::bail!("{told:?}") };
    let ours = endpoints.iter().find(|endpoint| endpoint.record.host_interface == host).context("the endpoint")?;
    let known: Vec<_> = ours.record.port_mappings.iter().map(|port| (port.host_port, port.container_port)).collect();
    assert_eq!(known, [(8080, 80), (53, 80)]);

    let check = |mappings: Value| {
        let check = call("CHECK")?.config("prevResult", result.clone());
        Ok::<_, anyhow::Error>(check.config("runtimeConfig", ports(mappings)))
    };
    check(json!([dns, http]))?.run()?;
    for others in [json!([http]), json!([http, mapping(53, "tcp")]), Value::Null] {
        let (code, message) = check(others)?.fails()?;
        assert!(code == 103 && message.contains("other port mappings"), "{code} {message}");
    }
    // Whatever it is told by then.
    call("DEL")?.config("runtimeConfig", ports(json!([{}]))).run()?;
    assert_eq!(traces(&lab)?, (0, 0, 0));
    Ok(())
}

#[test]
fn bad_input_is_named() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let add = || Call::new(node, "ADD", "x", &place.path());
    let pipe = node.directory.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR)?;
    let cases: Vec<(Call, u64, &str)> = vec![
        (add()?.with("CNI_NETNS", "/run/netns/no-such"), 3, "no-such"),
        (add()?.with("CNI_NETNS", "/proc/version"), 4, "is no namespace"),
        (add()?.with("CNI_NETNS", "/proc/self/ns/mnt"), 4, "is it one?"),
        (add()?.with("CNI_NETNS", &pipe.display().to_string()), 4, "is no namespace"),
        (add()?.with("CNI_NETNS", "/proc/self/ns/net"), 4, "the host's own"),
        (add()?.with("CNI_NETNS", &node.place.path().display().to_string()), 4, "the host's own"),
        (add()?.with("CNI_NETNS", ""), 4, "CNI_NETNS"),
        (add()?.with("CNI_IFNAME", "../../etc"), 4, "CNI_IFNAME"),
        (add()?.with("CNI_CONTAINERID", "../x"), 4, "CNI_CONTAINERID"),
        (add()?.with("CNI_COMMAND", "DANCE"), 4, "DANCE"),
        (add()?.with("CNI_ARGS", "nonsense"), 4, "nonsense"),
        (add()?.config("ipam", json!({ "type": "no-such" })), 7, "no-such"),
        (add()?.config("ipam", json!({ "type": "sluice", "ranges": [[{ "subnet": "10.1.1.0" }]] })), 7, "IP address"),
        (add()?.config("mtu", "large".into()), 7, "large"),
        (add()?.config("prevResult", json!({})), 7, "first plugin"),
        (add()?.config("runtimeConfig", json!({ "ips": ["10.9.9.9"] })), 102, "10.9.9.9"),
        (add()?.config("runtimeConfig", json!({ "ips": ["10.1.1.8", "10.1.1.9"] })), 102, "10.1.1.9"),
        (add()?.config("runtimeConfig", ports(json!([{ "hostPort": 0 }]))), 7, "containerPort"),
        (add()?.config("runtimeConfig", ports(json!([mapping(65_536, "tcp")]))), 7, "hostPort 65536"),
        (add()?.config("runtimeConfig", ports(json!([mapping(1, "tcp"), mapping(2, "icmp")]))), 7, "icmp"),
        (add()?.config("name", Value::Null), 7, "null"),
        (add()?.config("name", "../x".into()), 7, "../x"),
    ];
    let (code, message) = add()?.input("{\"cniVersion\": ").fails()?;
    assert!(code == 6 && message.contains("not JSON"), "{code} {message}");
    for (call, code, word) in cases {
        let (actual, message) = call.fails()?;
        assert!(actual == code && message.contains(word), "{code} {word:?}: {actual} {message}");
        assert_eq!(traces(&lab)?, (0, 0, 0), "{message}");
    }
    Ok(())
}

#[test]
fn requested_addresses_are_given_and_pools_end() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, pod_bits: 30, ..Plan::default() })?;
    let node = &lab.nodes[0];
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let add = Call::new(node, "ADD", "x", &place.path())?;
    let result = add.clone().config("runtimeConfig", json!({ "ips": ["10.1.1.2/24", "fd00:1:1::77"] })).run()?;
    assert_eq!(result["ips"][0]["address"], "10.1.1.2/32");
    assert_eq!(result["ips"][1]["address"], "fd00:1:1::77/128");
    let _second = lab.pod(1, "b")?;
    let third = Place::make(&format!("{}-y", node.place.name))?;
    let (code, message) = Call::new(node, "ADD", "y", &third.path())?.fails()?;
    assert!(code == 100 && message.contains("all 2 addresses"), "{code} {message}");
    assert_eq!(traces(&lab)?, (2, 4, 2));
    Call::new(node, "DEL", "x", &place.path())?.run()?;
    Ok(())
}

#[test]
fn what_cannot_be_told_is_undone() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let mut child = Call::new(node, "ADD", "x", &place.path())?.spawn()?;
    drop(child.stdout.take());
    assert!(!child.wait()?.success());
    assert_eq!(traces(&lab)?, (0, 0, 0));
    Ok(())
}

#[test]
fn a_full_disk_is_named_and_nothing_is_left() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let add = || Call::new(node, "ADD", "x", &place.path());
    for (what, disk) in [("addresses", "state"), ("endpoint record", "run/endpoints")] {
        let directory = node.directory.join(disk);
        let _disk = FullDisk::at(&directory)?;
        // Directories take no room, and this one is there already.
        fs::create_dir_all(directory.join("addresses"))?;
        let (code, message) = add()?.fails()?;
        assert!(code == 5 && message.contains("No space left") && message.contains(what), "{code} {message}");
        let left = |path: &Path| {
            let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.filter(|name| ![FullDisk::FILL, ".lock", "addresses"].iter().any(|own| name == own)).count()
        };
        assert_eq!((traces(&lab)?.0, left(&directory), left(&directory.join("addresses"))), (0, 0, 0), "{disk}");
    }
    assert_eq!(traces(&lab)?, (0, 0, 0));
    add()?.run()?;
    Call::new(node, "DEL", "x", &place.path())?.run().map(drop)
}

#[test]
fn sixty_four_at_once() -> Result<()> {
    let lab = lab()?;
    let places: Vec<Place> =
        (0..64).map(|number| Place::make(&format!("{}-p{number}", lab.nodes[0].place.name))).collect::<Result<_>>()?;
    let calls: Vec<Call> = places
        .iter()
        .map(|place| Call::new(&lab.nodes[0], "ADD", &place.name, &place.path()))
        .collect::<Result<_>>()?;
    let children: Vec<_> = calls.iter().map(Call::spawn).collect::<Result<_>>()?;
    let mut addresses = std::collections::BTreeSet::new();
    for child in children {
        let output = child.wait_with_output()?;
        let result: Value = serde_json::from_slice(&output.stdout)?;
        assert!(output.status.success(), "{result}");
        addresses.insert(result["ips"][0]["address"].to_string());
    }
    assert_eq!(addresses.len(), 64);
    assert_eq!(traces(&lab)?, (64, 128, 64));
    for call in calls {
        call.with("CNI_COMMAND", "DEL").run()?;
    }
    assert_eq!(traces(&lab)?, (0, 0, 0));
    Ok(())
}

#[test]
fn whoever_was_added_answers_the_first_packet() -> Result<()> {
    let lab = lab()?;
    let asker = lab.pod(1, "asker")?;
    let echo: Traffic = "ICMP".parse().map_err(anyhow::Error::msg)?;
    // Several at once, for the kernel to be late.
    let add = |thread: usize| -> Result<()> {
        for number in 0..8 {
            let pod = lab.pod(1, &format!("p{thread}x{number}"))?;
            let ends = asker.addresses.iter().map(|address| End { place: &asker.place, address: *address });
            let asked = ends.zip(&pod.addresses).map(|(end, to)| Client::ask(end, *to, echo));
            for (client, to) in asked.collect::<Result<Vec<_>>>()?.iter().zip(&pod.addresses) {
                until_so(&format!("{to} answers"), || client.is_answered())?;
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let add = &add;
                scope.spawn(move || add(thread))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

#[test]
fn a_plugin_that_is_killed_leaves_nothing_that_del_does_not_find() -> Result<()> {
    /// About 0.4 ms apart where an ADD takes 20.
    const INSTANTS: u32 = 48;
    let lab = lab()?;
    let node = &lab.nodes[0];
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let call = |verb| Call::new(node, verb, "x", &place.path());
    let (add, del) = (call("ADD")?, call("DEL")?);
    let mut length = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        add.run()?;
        length = length.min(started.elapsed());
        del.run()?;
    }
    let step = length / INSTANTS;
    let mut killed = 0;
    for instant in 0..INSTANTS {
        let mut child = add.spawn()?;
        // The instant of the kill: any will do, and each another.
        std::thread::sleep(step * instant);
        child.kill()?;
        killed += u32::from(child.wait()?.signal() == Some(Signal::SIGKILL as i32));
        del.run()?;
        assert_eq!(traces(&lab)?, (0, 0, 0), "killed after {instant} times {step:?}");
    }
    assert!(killed > 0, "none of the plugins was killed before its end");
    let pod: Pod = lab.pod(1, "a")?;
    ping(&pod.place, node.addresses[0])
}

#[test]
fn a_pod_whose_namespace_vanished_can_be_deleted() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    for number in 0..8 {
        let place = Place::make(&format!("{}-v{number}", node.place.name))?;
        let call = |verb| Call::new(node, verb, &format!("v{number}"), &place.path());
        let del = call("DEL")?;
        call("ADD")?.run()?;
        // The kernel takes the pair away some time after this: before, while or after DEL looks for it.
        drop(place);
        del.run()?;
        assert_eq!(traces(&lab)?, (0, 0, 0));
    }
    Ok(())
}

#[test]
fn a_pod_with_two_interfaces_is_reached_by_both_and_keeps_the_other() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let (pod, peer) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let before = routes(&pod.place)?;
    let second = |verb| Ok::<_, anyhow::Error>(pod.call(node, verb)?.with("CNI_IFNAME", "eth1"));
    let add = second("ADD")?.without("prevResult");
    let result = add.run()?;
    assert_eq!(traces(&lab)?, (3, 6, 3));
    for line in &before {
        assert!(routes(&pod.place)?.contains(line), "{line} has stayed");
    }
    let mut others = Vec::new();
    for ip in result["ips"].as_array().into_iter().flatten() {
        others.push(ip["address"].as_str().unwrap_or_default().split('/').next().unwrap_or_default().parse()?);
    }
    assert_eq!(others.len(), 2);
    for address in pod.addresses.iter().chain(&others) {
        ping(&peer.place, *address)?;
        ping(&node.place, *address)?;
    }
    ping(&pod.place, peer.addresses[0])?;
    second("CHECK")?.config("prevResult", result).run()?;
    pod.call(node, "CHECK")?.run()?;

    second("DEL")?.run()?;
    assert_eq!(routes(&pod.place)?, before);
    ping(&pod.place, peer.addresses[0])?;

    // The one that is left takes over.
    add.run()?;
    pod.delete()?;
    for address in &peer.addresses {
        ping(&pod.place, *address)?;
    }
    second("DEL")?.run()?;
    assert_eq!(traces(&lab)?, (1, 2, 1));
    Ok(())
}

/// The routes of a place, a line each.
fn routes(place: &Place) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for family in ["-4", "-6"] {
        let output = place.command("ip").args([family, "route"]).output()?;
        lines.extend(String::from_utf8(output.stdout)?.lines().map(str::to_owned));
    }
    Ok(lines)
}

#[test]
fn an_address_that_another_device_has_is_not_taken_from_it() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    node.place.ip("link add other type veth peer name rehto")?;
    node.place.ip("link set other up")?;
    node.place.ip("route add 10.1.1.77/32 dev other")?;
    let place = Place::make(&format!("{}-x", node.place.name))?;
    let add = Call::new(node, "ADD", "x", &place.path())?;
    let (code, message) = add.config("runtimeConfig", json!({ "ips": ["10.1.1.77"] })).fails()?;
    assert!(code == 102 && message.contains("10.1.1.77/32"), "{code} {message}");
    assert_eq!(traces(&lab)?, (0, 0, 0));
    assert!(routes(&node.place)?.iter().any(|line| line.starts_with("10.1.1.77 dev other")));
    Ok(())
}

#[test]
fn what_a_reboot_leaves_on_disk_goes_with_the_first_del() -> Result<()> {
    let lab = lab()?;
    let node = &lab.nodes[0];
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    // A reboot: devices and records are gone, address files stay and are of another boot.
    for pod in [&a, &b] {
        node.place.ip(&format!("link delete {}", pod.host_interface))?;
        fs::remove_file(node.directory.join(format!("run/endpoints/{}.json", pod.host_interface)))?;
        for address in &pod.addresses {
            let file = node.directory.join(format!("state/addresses/{address}"));
            let mut content: Value = serde_json::from_slice(&fs::read(&file)?)?;
            content["boot"] = "another".into();
            fs::write(&file, content.to_string())?;
        }
    }
    a.delete()?;
    assert_eq!(traces(&lab)?, (0, 0, 0));
    b.delete()
}

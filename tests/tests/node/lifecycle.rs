//! Agents that come, die and go.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{self, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use sluice_api::EndpointStatus;
use sluice_netlink::{Netlink, Xdp};
use sluice_tests::lab::traffic::{Steady, ping, tcp};
use sluice_tests::lab::{Lab, Node, Plan, until_so};

#[test]
fn who_finds_no_record_of_pods_that_are_served_leaves_them_alone() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let node = &mut lab.nodes[0];
    node.stop_agent();
    let elsewhere = node.directory.join("elsewhere").display().to_string();
    let output = node.agent_command(&["--run-dir", &elsewhere]).output()?;
    let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(
        !output.status.success() && told.contains("serve 2 pods of this node") && told.contains("run_dir"),
        "{told}"
    );
    ping(&a.place, b.addresses[0])?;
    node.start_agent()?;
    node.wait_until_ready()?;
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    // Those of which nothing is left are no pods.
    node.stop_agent();
    a.delete()?;
    b.delete()?;
    node.start_agent()?;
    node.wait_until_ready()?;
    Ok(())
}

/// The agents of both ends are killed and come again, the second time to programs of another generation.
fn agents_that_die_and_return_lose_no_packet(routing: &'static str) -> Result<()> {
    let mut lab = Lab::start(Plan { routing, ..Plan::default() })?;
    let (a, b, near) = (lab.pod(1, "a")?, lab.pod(2, "b")?, lab.pod(1, "c")?);
    let mut flows = vec![("to its neighbour", Steady::start(&a.place, &near.place, near.addresses[0])?)];
    for address in &b.addresses {
        flows.push(("to another node", Steady::start(&a.place, &b.place, *address)?));
        flows.push(("connected to another node", Steady::stream(&a.place, &b.place, *address)?));
    }
    for address in lab.stranger_addresses() {
        flows.push(("to the world", Steady::start(&a.place, &lab.stranger, address)?));
        flows.push(("connected to the world", Steady::stream(&b.place, &lab.stranger, address)?));
    }
    let go_on = |more, when: &'static str| flows.iter().try_for_each(|(_, flow)| flow.goes_on(more).context(when));
    let before = [endpoints(&lab.nodes[0])?, endpoints(&lab.nodes[1])?];
    go_on(20, "at first")?;
    for is_upgrade in [false, true] {
        for node in &mut lab.nodes {
            node.stop_agent();
        }
        go_on(20, "without agents")?;
        ping(&a.place, b.addresses[0]).context("without agents")?;
        let generations = lab.nodes.iter().map(generation).collect::<Result<Vec<_>>>()?;
        for (node, generation) in lab.nodes.iter_mut().zip(&generations) {
            if is_upgrade {
                // As an agent with other programs, and the same tables, would have named its own.
                fs::rename(generation, generation.with_file_name("0123456789abcdef"))?;
            }
            node.start_agent()?;
        }
        for node in &mut lab.nodes {
            node.wait_until_ready()?;
        }
        let after = [endpoints(&lab.nodes[0])?, endpoints(&lab.nodes[1])?];
        assert_eq!(before, after, "the same endpoints in the same slots");
        assert_eq!(lab.nodes.iter().map(generation).collect::<Result<Vec<_>>>()?, generations);
        go_on(100, "with other agents")?;
    }
    for (at, (what, flow)) in flows.into_iter().enumerate() {
        let (sent, answered) = flow.stop()?;
        assert_eq!(sent, answered, "flow {at}, {what}");
    }
    Ok(())
}

#[test]
fn agents_that_die_and_return_lose_no_packet_natively() -> Result<()> {
    agents_that_die_and_return_lose_no_packet("native")
}

#[test]
fn agents_that_die_and_return_lose_no_packet_in_the_overlay() -> Result<()> {
    agents_that_die_and_return_lose_no_packet("vxlan")
}

fn endpoints(node: &Node) -> Result<Vec<EndpointStatus>> {
    match node.ask(sluice_api::Call::Endpoints {})? {
        sluice_api::Answer::Endpoints(endpoints) => Ok(endpoints),
        other => anyhow::bail!("{other:?}"),
    }
}

/// Where a node's programs are, which are of one generation.
fn generation(node: &Node) -> Result<PathBuf> {
    let listing = fs::read_dir(node.bpf_dir().join("v3/programs"))?;
    let generations = listing.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    match &generations[..] {
        [only] => Ok(only.clone()),
        other => anyhow::bail!("one generation is expected: {other:?}"),
    }
}

#[test]
fn a_pod_that_lies_is_not_heard_and_counted() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    a.place.ip("addr add 10.1.1.200/32 dev eth0")?;
    let listener = b.place.inside(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    listener.set_read_timeout(Some(Duration::from_millis(300)))?;
    let liar = a.place.inside(|| Ok(UdpSocket::bind("10.1.1.200:0")?))?;
    liar.send_to(b"it is me", (b.addresses[0], listener.local_addr()?.port()))?;
    assert!(listener.recv(&mut [0; 16]).is_err(), "a forged packet arrived");
    assert_eq!(lab.nodes[0].counter("from_pod", "forged_source")?, 1);
    Ok(())
}

#[test]
fn nodes_join_change_and_leave() -> Result<()> {
    let lab = Lab::start(Plan::default())?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(2, "b")?);
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    let manifest = lab.manifests().join("n3.yaml");
    fs::write(
        &manifest,
        "kind: Node\napiVersion: v1\nmetadata: {name: n3}\nspec: {podCIDRs: [10.1.2.128/25]}\n\
         status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}\n---\nkind: Node\nmetadata: [\n",
    )?;
    let problems = || Ok::<_, anyhow::Error>(lab.nodes[0].status()?.problems);
    until_so("both problems are reported", || Ok(problems()?.len() == 2))?;
    let text = problems()?.join("\n");
    assert!(text.contains("10.1.2.128/25") && text.contains("n3.yaml:8"), "{text}");
    tcp(&a.place, &b.place, b.addresses[0], 100).context("the older node keeps its pods")?;
    fs::remove_file(&manifest)?;
    until_so("the problems are gone", || Ok(problems()?.is_empty()))?;
    fs::remove_file(lab.manifests().join("n2.json"))?;
    until_so("the node is forgotten", || match lab.nodes[0].ask(sluice_api::Call::Nodes {})? {
        sluice_api::Answer::Nodes(nodes) => Ok(nodes.len() == 1),
        other => anyhow::bail!("{other:?}"),
    })
}

#[test]
fn tables_can_be_resized_and_lost() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let talk = || tcp(&a.place, &b.place, b.addresses[0], 100);
    let node = &mut lab.nodes[0];
    node.stop_agent();
    // As agents that were killed while they made other tables may leave it.
    let maps = node.bpf_dir().join("v3/maps");
    fs::remove_file(maps.join("flows4"))?;
    node.start_agent()?;
    node.wait_until_ready()?;
    talk()?;
    node.stop_agent();

    let before = generation(node)?;
    node.restart_with("flow_entries: 20000\n")?;
    talk()?;
    let resized = generation(node)?;
    assert_ne!(resized, before);
    // Without a wish, tables stay as they are.
    node.restart_with("")?;
    talk()?;
    assert_eq!(generation(node)?, resized);
    Ok(())
}

#[test]
fn programs_run_where_other_settings_say() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &mut lab.nodes[0];
    let ways = [
        ("driver", Some(Xdp::Driver)),
        ("generic", Some(Xdp::Generic)),
        ("driver", Some(Xdp::Driver)),
        ("driver", Some(Xdp::Driver)),
        ("off", None),
        ("generic", Some(Xdp::Generic)),
    ];
    for (at, (setting, expected)) in ways.into_iter().enumerate() {
        node.restart_with(&format!("xdp: {setting}\n"))?;
        let link = node.place.inside(|| Ok(Netlink::open()?.link("eth0")?))?;
        assert_eq!(link.context("eth0 is gone")?.xdp, expected, "{at}: {setting}");
    }
    Ok(())
}

#[test]
fn an_agent_of_another_layout_is_succeeded() -> Result<()> {
    let mut lab = Lab::start(Plan { routing: "vxlan", ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(2, "b")?);
    let node = &mut lab.nodes[0];
    node.stop_agent();
    let (own, other) = (node.bpf_dir().join("v3"), node.bpf_dir().join("v0"));
    let links = || Ok::<_, anyhow::Error>(fs::read_dir(own.join("links"))?.count());
    let before = links()?;
    fs::rename(&own, &other)?;
    node.start_agent()?;
    node.wait_until_ready()?;
    assert!(!other.exists());
    assert_eq!(links()?, before);
    for address in &b.addresses {
        tcp(&a.place, &b.place, *address, 1000)?;
    }
    Ok(())
}

#[test]
fn an_agent_ends_when_it_is_told_to() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let node = &mut lab.nodes[0];
    node.stop_agent();
    let mut agent = node.agent_command(&["--log-format", "json", "--log-level", "error"]).spawn()?;
    until_so("it is ready", || Ok(node.status()?.ready))?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.id() as i32), nix::sys::signal::Signal::SIGTERM)?;
    assert!(agent.wait()?.success());
    tcp(&a.place, &b.place, b.addresses[0], 100).context("without an agent")?;
    Ok(())
}

#[test]
fn only_pods_are_enforced_and_nobody_gets_anothers_address() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    let (_a, _b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let records: Vec<_> = endpoints(node)?.into_iter().map(|endpoint| endpoint.record).collect();
    let enforce = |record: &sluice_api::EndpointRecord| node.ask(sluice_api::Call::Enforce(record.clone()));
    let (mut first, mut second) = (records[0].clone(), records[1].clone());
    second.addresses.clone_from(&first.addresses);
    assert!(enforce(&second).is_err_and(|error| error.to_string().contains(&first.host_interface)));
    second.addresses = node.addresses.clone();
    assert!(enforce(&second).is_err_and(|error| error.to_string().contains("this node")));
    let uplink = sluice_api::EndpointRecord { host_interface: "eth0".into(), ..second.clone() };
    assert!(enforce(&uplink).is_err_and(|error| error.to_string().contains("eth0")));
    // What one no longer has, another may have.
    second.addresses = std::mem::replace(&mut first.addresses, vec!["10.1.1.99".parse()?]);
    enforce(&first)?;
    enforce(&second)?;
    Ok(())
}

#[test]
fn in_a_container_the_agent_is_waited_for_before_its_node_is_cleaned() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    // As a container has the node's: its process 1 is one that sees the files that this one sees.
    let proc = lab.nodes[0].directory.join("proc");
    fs::create_dir(&proc)?;
    symlink(format!("/proc/{}", process::id()), proc.join("1"))?;
    let mut uninstall = lab.nodes[0].agent_command(&["uninstall", "--host-proc"]);
    uninstall.arg(&proc);
    let mut uninstall = uninstall.stdout(Stdio::piped()).spawn().context("starting to uninstall")?;
    let mut said = BufReader::new(uninstall.stdout.take().context("its output")?);
    let mut line = String::new();
    said.read_line(&mut line)?;
    assert!(line.starts_with("waiting for the agent of this node to end"), "{line}");
    assert!(lab.nodes[0].status()?.ready, "nothing is taken from it");
    lab.nodes[0].stop_agent();
    let rest = std::io::read_to_string(&mut said)?;
    assert!(uninstall.wait()?.success() && rest.contains("removed "), "{rest}");
    assert!(!lab.nodes[0].directory.join("run").exists());
    Ok(())
}

#[test]
fn uninstalling_leaves_nothing() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, routing: "vxlan", ..Plan::default() })?;
    let pod = lab.pod(1, "a")?;
    let running = lab.nodes[0].agent_command(&["uninstall"]).output()?;
    assert!(!running.status.success(), "an agent runs");
    lab.nodes[0].stop_agent();
    // As an agent that was killed while it attached programs has left it.
    fs::write("/sys/kernel/rcu_expedited", "1")?;
    fs::write(lab.nodes[0].directory.join("run/rcu-expedited"), "")?;
    fs::write(lab.nodes[0].directory.join("run/last-error"), "")?;
    fs::write(lab.nodes[0].directory.join("cni/.10-sluice.conflist.new"), "{")?;
    fs::write(lab.nodes[0].directory.join("state/not-ours"), "")?;
    let done = lab.nodes[0].agent_command(&["uninstall"]).output()?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(text.contains(&pod.host_interface) && text.contains("links below"), "{text}");
    let node = &lab.nodes[0];
    let show = |arguments: &[&str]| -> Result<String> {
        Ok(String::from_utf8(node.place.command("ip").args(arguments).output()?.stdout)?)
    };
    let links = show(&["-o", "link"])?;
    assert!(!links.contains("sluice_vxlan") && !links.contains(" sl"), "{links}");
    assert_eq!(show(&["route", "show", "proto", "83"])?, "");
    assert_eq!(show(&["-6", "route", "show", "proto", "83"])?, "");
    assert!(!node.directory.join("cni/10-sluice.conflist").exists());
    assert_eq!(fs::read_dir(node.directory.join("cni"))?.count(), 0);
    assert!(!node.directory.join("run").exists() && !node.bpf_dir().exists());
    let left: Vec<_> =
        fs::read_dir(node.directory.join("state"))?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
    assert_eq!(left, ["not-ours"]);
    // Other agents of this machine switch it, too.
    until_so("grace periods are as they were", || Ok(fs::read_to_string("/sys/kernel/rcu_expedited")?.trim() == "0"))?;
    Ok(())
}

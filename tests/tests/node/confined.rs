//! Agents that are not let, and what tells so.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sluice_tests::lab::traffic::{ping, tcp};
use sluice_tests::lab::{Lab, Node, Plan, binary, until};

/// The agent, without some capabilities.
fn without(node: &Node, capabilities: &str, more: &[&str]) -> Result<Command> {
    let agent = binary("sluice-agent");
    let command = node.agent_command(more);
    let arguments = command.get_args().skip_while(|argument| *argument != agent.as_os_str()).skip(1);
    let mut confined = node.place.command("setpriv");
    confined.args(["--bounding-set", capabilities]).arg(&agent).args(arguments).env("NO_COLOR", "1");
    Ok(confined)
}

/// What is told of the node's agent, for people or for machines.
fn status(node: &Node, format: &str) -> Result<Output> {
    let mut sluicectl = Command::new(binary("sluicectl"));
    sluicectl.args(["status", "-o", format, "--socket"]).arg(node.socket());
    sluicectl.output().context("running sluicectl")
}

fn said(output: &Output) -> String {
    let text = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn an_agent_without_its_capabilities_says_which_it_lacks() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    lab.nodes[0].stop_agent();
    for (dropped, lacking) in [
        ("-net_admin", "lacks CAP_NET_ADMIN:"),
        ("-sys_admin,-bpf,-perfmon", "lacks CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN:"),
    ] {
        let output = without(&lab.nodes[0], dropped, &[])?.output().context("running the agent")?;
        assert!(!output.status.success());
        let said = said(&output);
        assert!(said.contains("the agent cannot work on this node: this process ") && said.contains(lacking), "{said}");
        assert!(said.contains("securityContext.capabilities.add"), "{said}");
        ping(&a.place, b.addresses[0]).context("pods keep their network")?;
    }
    lab.nodes[0].start_agent()?;
    lab.nodes[0].wait_until_ready()?;
    Ok(())
}

#[test]
fn what_an_agent_has_ended_with_is_told_until_another_has_started() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let told = |node: &Node| -> Result<String> {
        let output = status(node, "table")?;
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{}", said(&output));
        Ok(said(&output))
    };
    // An agent runs: what is wrong with a second one is nobody's business.
    let second = lab.nodes[0].agent_command(&[]).output()?;
    assert!(said(&second).contains("another agent runs on this node"), "{}", said(&second));
    lab.nodes[0].stop_agent();
    assert!(told(&lab.nodes[0])?.contains("is sluice-agent running on this node?"));

    without(&lab.nodes[0], "-net_admin", &[])?.output().context("running the agent")?;
    let lacking = "the agent cannot work on this node: this process lacks CAP_NET_ADMIN: give it them";
    let people = told(&lab.nodes[0])?;
    assert!(
        people.contains("no agent answers at ") && people.contains("; sluice-agent ") && people.contains(lacking),
        "{people}"
    );
    let machines = status(&lab.nodes[0], "json")?;
    assert_eq!(machines.status.code(), Some(2));
    let answer: serde_json::Value = serde_json::from_slice(&machines.stdout).with_context(|| said(&machines))?;
    assert!(
        answer["ready"] == false && answer["problems"][0].as_str().is_some_and(|it| it.contains(lacking)),
        "{answer}"
    );
    let refused = lab.pod(1, "a").err().context("no agent answers the plugin")?;
    assert!(format!("{refused:#}").contains(lacking), "{refused:#}");

    // A variable of a pod may make no sense, or its settings.
    lab.nodes[0].agent_command(&[]).env("SLUICE_API_SERVER", "").output()?;
    let people = told(&lab.nodes[0])?;
    assert!(people.contains("\"\" is no address of an API server; use one such as"), "{people}");
    std::fs::write(lab.nodes[0].directory.join("agent.yaml"), "mtu: 1\n")?;
    lab.nodes[0].agent_command(&[]).output()?;
    assert!(told(&lab.nodes[0])?.contains("mtu 1 is less than"), "{}", told(&lab.nodes[0])?);

    lab.nodes[0].restart_with("")?;
    assert!(said(&status(&lab.nodes[0], "table")?).contains("ready"));
    lab.nodes[0].stop_agent();
    assert!(told(&lab.nodes[0])?.contains("is sluice-agent running on this node?"));
    Ok(())
}

/// A directory that cannot be written to; as it was when dropped.
struct ReadOnly(std::path::PathBuf);

impl ReadOnly {
    fn at(directory: &std::path::Path) -> Result<Self> {
        let tmpfs = Some("tmpfs");
        mount(tmpfs, directory, tmpfs, MsFlags::MS_RDONLY, None::<&str>).context("mounting a disk")?;
        Ok(Self(directory.to_owned()))
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_told_of_with_what_to_do() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let (a, b) = (lab.pod(1, "a")?, lab.pod(1, "b")?);
    let disk = ReadOnly::at(&lab.nodes[0].directory.join("cni"))?;
    lab.nodes[0].stop_agent();
    lab.nodes[0].start_agent()?;
    let node = &lab.nodes[0];
    until("the agent says what it waits for", || {
        let told = node.status()?.waiting_for.unwrap_or_default();
        ensure!(told.contains("cni: Read-only file system") && told.contains("without readOnly"), "{told}");
        Ok(())
    })?;
    tcp(&a.place, &b.place, b.addresses[0], 100)?;
    let checked = node.agent_command(&["check"]).output()?;
    assert!(
        !checked.status.success() && said(&checked).contains("or set cni_conf_dir to another"),
        "{}",
        said(&checked)
    );
    drop(disk);
    lab.nodes[0].wait_until_ready()?;
    Ok(())
}

#[test]
fn in_the_rights_of_its_pod_a_check_finds_nothing_wrong() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    // No directory of the container's root can be written to that the agent does not need.
    std::fs::create_dir_all(node.directory.join("state"))?;
    let _state = ReadOnly::at(&node.directory.join("state"))?;
    let output = without(node, "-all,+bpf,+net_admin,+perfmon,+sys_admin", &["check", "-o", "json"])?.output()?;
    assert!(output.status.success(), "{}", said(&output));
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
    let capabilities =
        findings.iter().find(|finding| finding["check"] == "capabilities").context("it looks at them")?;
    assert_eq!(capabilities["verdict"], "ok", "{capabilities}");
    Ok(())
}

#[test]
fn a_node_is_checked_before_and_while_an_agent_runs() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    for is_running in [true, false] {
        if !is_running {
            lab.nodes[0].stop_agent();
        }
        let output = lab.nodes[0].agent_command(&["check", "-o", "json"]).output()?;
        let findings: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| said(&output))?;
        let findings = findings.as_array().context("a list")?;
        assert!(output.status.success(), "{findings:#?}");
        for check in ["kernel", "type information", "capabilities", "eBPF", "veth", "VXLAN", "CNI configurations"] {
            let found = findings.iter().find(|finding| finding["check"] == check);
            assert!(found.is_some_and(|finding| finding["verdict"] == "ok"), "{check}: {findings:#?}");
        }
    }
    let node = &lab.nodes[0];
    std::fs::write(node.directory.join("cni/00-other.conf"), r#"{"name": "other", "type": "bridge"}"#)?;
    let output = node.agent_command(&["check"]).output()?;
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let line = told.lines().find(|line| line.contains("00-other.conf")).context(told.clone())?;
    assert!(line.contains("FAILURE") && line.contains("network other, plugin bridge"), "{line}");
    assert!(told.contains("1 of "), "{told}");
    let confined = without(node, "-net_admin", &["check"])?.output()?;
    assert!(said(&confined).contains("lacks CAP_NET_ADMIN"), "{}", said(&confined));
    Ok(())
}

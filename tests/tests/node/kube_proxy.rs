//! What kube-proxy has left on a node.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sluice_tests::lab::{Lab, Node, Place, Plan, until_so};

/// Rules as kube-proxy makes them, in its mode `iptables`, of the kubelet, and of somebody else.
const OTHERS: &str = r#"
*mangle
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:MINE - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "not -j KUBE-FORWARD" -j MINE
-A KUBE-FIREWALL ! -s <loopback> -d <loopback> -j DROP
-A MINE -p tcp -m tcp --dport 22 -j ACCEPT
COMMIT
*nat
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
COMMIT
"#;
const KUBE_PROXYS: &str = r#"
*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-CANARY - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-SERVICES -d <service> -p tcp -m comment --comment "x/y has no endpoints" -m tcp --dport 80 -j REJECT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-NWPGDJHQZ4BLOBZZ - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-NPX46M4PTMTKRN6Y - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-SEP-NWPGDJHQZ4BLOBZZ -s <backend> -m comment --comment "default/kubernetes:https" -j KUBE-MARK-MASQ
-A KUBE-SERVICES -d <service> -p tcp -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-NPX46M4PTMTKRN6Y -j KUBE-SEP-NWPGDJHQZ4BLOBZZ
COMMIT
"#;

/// A family and kind of iptables: how its programs' names begin, and addresses.
const FAMILIES: [(&str, [(&str, &str); 3]); 4] =
    [("iptables-nft", V4), ("ip6tables-nft", V6), ("iptables-legacy", V4), ("ip6tables-legacy", V6)];
const V4: [(&str, &str); 3] =
    [("<loopback>", "127.0.0.0/8"), ("<service>", "10.96.0.1/32"), ("<backend>", "192.0.2.7/32")];
const V6: [(&str, &str); 3] =
    [("<loopback>", "::1/128"), ("<service>", "fd96::1/128"), ("<backend>", "2001:db8::7/128")];

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {out}{err}");
    Ok(out.into_owned())
}

/// Adds rules, beside those that there are.
fn add(place: &Place, (family, addresses): (&str, [(&str, &str); 3]), rules: &str) -> Result<()> {
    use std::io::Write;

    let rules = addresses.iter().fold(rules.to_owned(), |rules, (name, address)| rules.replace(name, address));
    let mut restore = place.command(format!("{family}-restore"));
    let mut child = restore.arg("--noflush").stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("its input")?.write_all(rules.as_bytes())?;
    ensure!(child.wait()?.success(), "{family}-restore");
    Ok(())
}

/// All rules, without what differs each time.
fn rules(place: &Place) -> Result<String> {
    let mut all = output(place.command("nft").args(["list", "tables"]))?;
    for (family, _) in FAMILIES {
        let saved = output(&mut place.command(format!("{family}-save")))?;
        let lines =
            saved.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(" [").next().unwrap_or(line));
        all += &lines.map(|line| format!("{family}: {line}\n")).collect::<String>();
    }
    Ok(all)
}

fn clean_up(node: &Node) -> Result<String> {
    output(&mut node.agent_command(&["cleanup-kube-proxy"]))
}

fn problems(node: &Node) -> Result<Vec<String>> {
    let named = |problem: &String| problem.contains("kube-proxy");
    Ok(node.status()?.problems.into_iter().filter(named).collect())
}

#[test]
fn what_kube_proxy_has_left_is_told_and_removed_and_nothing_else() -> Result<()> {
    let mut lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    for family in FAMILIES {
        add(&node.place, family, OTHERS)?;
    }
    output(node.place.command("nft").args(["add", "table", "inet", "kube-proxy"]))?;
    let others = rules(&node.place)?;
    assert_eq!(clean_up(node)?, "nothing of kube-proxy is on this node\n");
    assert_eq!(problems(node)?, [""; 0]);

    for family in FAMILIES {
        add(&node.place, family, KUBE_PROXYS)?;
    }
    for family in ["ip", "ip6"] {
        output(node.place.command("nft").args(["add", "table", family, "kube-proxy"]))?;
        output(node.place.command("nft").args(["add", "chain", family, "kube-proxy", "services"]))?;
    }
    // By its name: not every kernel has dummies.
    node.place.ip("link add kube-ipvs0 type veth peer name other")?;
    lab.nodes[0].restart_with("")?;
    let node = &lab.nodes[0];
    until_so("it is told", || Ok(!problems(node)?.is_empty()))?;
    let told = problems(node)?.join("\n");
    for part in [
        "table ip kube-proxy",
        "table ip6 kube-proxy",
        "6 chains of table nat (ip, iptables)",
        "6 chains of table filter (ip6, iptables)",
        "6 chains of table nat (iptables-legacy)",
        "1 chain of table mangle (ip6tables-legacy)",
        "interface kube-ipvs0",
        "sluice-agent cleanup-kube-proxy",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }

    let said = clean_up(node)?;
    for part in [
        "removed table ip6 kube-proxy\n",
        "removed 7 rules that led to them (ip, iptables)\n",
        "removed 6 chains of table nat (ip6, iptables)\n",
        "removed 7 rules that led to them (ip6tables-legacy)\n",
        "removed 1 chain of table mangle (iptables-legacy)\n",
        "removed interface kube-ipvs0\n",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(rules(&node.place)?, others);
    assert_eq!(clean_up(node)?, "nothing of kube-proxy is on this node\n");
    Ok(())
}

#[test]
fn what_others_have_built_on_stays_and_is_told() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    let mine = "*nat\n:MINE - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n-A MINE -j KUBE-MARK-MASQ\nCOMMIT\n";
    for family in [FAMILIES[0], FAMILIES[2]] {
        add(&node.place, family, KUBE_PROXYS)?;
        add(&node.place, family, mine)?;
    }
    let error = clean_up(node).expect_err("it cannot").to_string();
    for part in [
        "chain nat KUBE-MARK-MASQ: a rule of chain nat MINE leads there (ip, iptables)",
        "chain nat KUBE-MARK-MASQ: a rule of chain nat MINE leads there (iptables-legacy)",
        "removed 5 chains of table nat (ip, iptables)",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    Ok(())
}

#[test]
fn thousands_of_chains_are_removed() -> Result<()> {
    /// More than are removed at once.
    const SERVICES: usize = 1200;
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    let (mut chains, mut jumps) =
        ("*nat\n:KUBE-SERVICES - [0:0]\n".to_owned(), "-A OUTPUT -j KUBE-SERVICES\n".to_owned());
    for number in 0..SERVICES {
        chains += &format!(":KUBE-SVC-{number} - [0:0]\n:KUBE-SEP-{number} - [0:0]\n");
        jumps +=
            &format!("-A KUBE-SERVICES -d <service> -j KUBE-SVC-{number}\n-A KUBE-SVC-{number} -j KUBE-SEP-{number}\n");
        jumps += &format!("-A KUBE-SEP-{number} -p tcp -j DNAT --to-destination 192.0.2.7:{}\n", number + 1);
    }
    add(&node.place, FAMILIES[0], &format!("{chains}{jumps}COMMIT\n"))?;
    let said = clean_up(node)?;
    assert!(said.contains(&format!("removed {} chains of table nat", 2 * SERVICES + 1)), "{said}");
    assert_eq!(clean_up(node)?, "nothing of kube-proxy is on this node\n");
    Ok(())
}

#[test]
fn what_takes_programs_that_are_not_here_is_told() -> Result<()> {
    let lab = Lab::start(Plan { nodes: 1, ..Plan::default() })?;
    let node = &lab.nodes[0];
    for family in FAMILIES {
        add(&node.place, family, KUBE_PROXYS)?;
    }
    // Programs of iptables are in sbin.
    let mut agent = node.agent_command(&["cleanup-kube-proxy"]);
    let error = output(agent.env("PATH", "/usr/bin:/bin")).expect_err("it cannot").to_string();
    for part in [
        "removed 6 chains of table nat (ip6, iptables)",
        "6 chains of table filter, 1 chain of table mangle, 6 chains of table nat: iptables-legacy-save is not here",
        "6 chains of table filter, 1 chain of table mangle, 6 chains of table nat: ip6tables-legacy-save is not here",
    ] {
        assert!(error.contains(part), "{part} is not in {error}");
    }
    Ok(())
}

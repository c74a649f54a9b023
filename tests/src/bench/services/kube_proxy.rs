//! A node whose services are served by rules of the form that kube-proxy makes, for iptables and for nftables, and whose pods
//! are wired with nothing but routes.
//!
//! No kube-proxy: it has rules made by an API server's leave only. The rules are those that it makes of the same services.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::cluster::{PORT, target, vip};
use crate::lab::Place;

/// Where the pods are, of which rules tell that they need no masquerading.
const PODS: &str = "10.7.0.0/16";
/// The pod that serves.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 7, 2, 2);

/// What rules are made for.
#[derive(Clone, Copy, Debug)]
pub enum Rules {
    /// Nothing: packets are forwarded.
    None,
    /// What `iptables` is by default.
    Iptables,
    /// `nft`.
    Nftables,
}

impl Rules {
    /// What a node with them is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "routed veth",
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// A node with two pods.
pub struct Node {
    /// The pod that asks.
    pub client: Place,
    /// The pod that serves.
    pub server: Place,
    _node: Place,
}

impl Node {
    /// Makes one with so many services, all served by the same pod.
    ///
    /// # Errors
    /// Where the kernel, or a program, refuses.
    pub fn make(name: &str, rules: Rules, services: usize) -> Result<Self> {
        let make = |what: &str| Place::make(&format!("{name}-{what}"));
        let (node, client, server) = (make("node")?, make("client")?, make("server")?);
        for (pod, number) in [(&client, 1), (&server, 2)] {
            node.ip(&format!("link add pod{number} type veth peer name eth0 netns {}", pod.name))?;
            node.ip(&format!("addr add 10.7.{number}.1/24 dev pod{number}"))?;
            node.ip(&format!("link set pod{number} up"))?;
            pod.ip(&format!("addr add 10.7.{number}.2/24 dev eth0"))?;
            pod.ip("link set eth0 up")?;
            pod.ip(&format!("route add default via 10.7.{number}.1"))?;
        }
        node.forward()?;
        match rules {
            Rules::None => {}
            Rules::Iptables => feed(&node, "iptables-restore", &[], &iptables(services))?,
            Rules::Nftables => feed(&node, "nft", &["-f", "-"], &nftables(services))?,
        }
        Ok(Self { client, server, _node: node })
    }
}

/// What the program is that `iptables` stands for.
///
/// # Errors
/// Where there is none.
pub fn iptables_version() -> Result<String> {
    let output = std::process::Command::new("iptables").arg("--version").output().context("running iptables")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn feed(place: &Place, program: &str, arguments: &[&str], text: &str) -> Result<()> {
    let mut child = place
        .command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it does not read, it says why.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("waiting for {program}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

fn iptables(services: usize) -> String {
    let mut chains = String::new();
    let (mut portals, mut rules) = (String::new(), String::new());
    for number in 0..services {
        let (vip, target) = (vip(number), target(number));
        let (service, endpoint) = (format!("KUBE-SVC-{number:016}"), format!("KUBE-SEP-{number:016}"));
        let comment = format!("-m comment --comment \"default/s{number}\"");
        let portal = format!("-m tcp -p tcp -d {vip} --dport {PORT}");
        let _ = writeln!(chains, ":{service} - [0:0]\n:{endpoint} - [0:0]");
        let _ = writeln!(portals, "-A KUBE-SERVICES {comment} {portal} -j {service}");
        let _ = writeln!(rules, "-A {service} {comment} {portal} ! -s {PODS} -j KUBE-MARK-MASQ");
        let _ = writeln!(rules, "-A {service} {comment} -j {endpoint}");
        let _ = writeln!(rules, "-A {endpoint} {comment} -s {SERVER} -j KUBE-MARK-MASQ");
        let _ = writeln!(rules, "-A {endpoint} {comment} -m tcp -p tcp -j DNAT --to-destination {SERVER}:{target}");
    }
    let new = "-m conntrack --ctstate NEW -m comment --comment kubernetes";
    let all = "-m comment --comment kubernetes";
    format!(
        "*filter\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-EXTERNAL-SERVICES - [0:0]\n:KUBE-FORWARD - [0:0]\n:KUBE-NODEPORTS - [0:0]\n\
         :KUBE-PROXY-FIREWALL - [0:0]\n\
         -A INPUT {new} -j KUBE-PROXY-FIREWALL\n-A INPUT {all} -j KUBE-NODEPORTS\n\
         -A INPUT {new} -j KUBE-EXTERNAL-SERVICES\n\
         -A FORWARD {new} -j KUBE-PROXY-FIREWALL\n-A FORWARD {all} -j KUBE-FORWARD\n\
         -A FORWARD {new} -j KUBE-SERVICES\n-A FORWARD {new} -j KUBE-EXTERNAL-SERVICES\n\
         -A OUTPUT {new} -j KUBE-PROXY-FIREWALL\n-A OUTPUT {new} -j KUBE-SERVICES\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-FORWARD {all} -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD {all} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         COMMIT\n\
         *nat\n\
         :KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n{chains}\
         -A PREROUTING {all} -j KUBE-SERVICES\n-A OUTPUT {all} -j KUBE-SERVICES\n\
         -A POSTROUTING {all} -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n\
         -A KUBE-POSTROUTING {all} -j MASQUERADE --random-fully\n-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         {portals}-A KUBE-SERVICES {all} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n{rules}COMMIT\n"
    )
}

fn nftables(services: usize) -> String {
    let (mut addresses, mut portals, mut chains) = (Vec::new(), Vec::new(), String::new());
    for number in 0..services {
        let (vip, target) = (vip(number), target(number));
        let name = format!("{number:08}-default/s{number}/tcp/");
        let (service, endpoint) = (format!("service-{name}"), format!("endpoint-{name}__{SERVER}/{target}"));
        addresses.push(vip.to_string());
        portals.push(format!("{vip} . tcp . {PORT} : goto {service}"));
        let _ = writeln!(
            chains,
            "chain {endpoint} {{\n ip saddr {SERVER} jump mark-for-masquerade\n meta l4proto tcp dnat to {SERVER}:{target}\n}}\n\
             chain {service} {{\n ip daddr {vip} ip saddr != {PODS} jump mark-for-masquerade\n \
             numgen random mod 1 vmap {{ 0 : goto {endpoint} }}\n}}"
        );
    }
    let key = "type ipv4_addr . inet_proto . inet_service : verdict;";
    let node_key = "type inet_proto . inet_service : verdict;";
    format!(
        "table ip kube-proxy {{\n\
         set cluster-ips {{ type ipv4_addr; elements = {{ {} }}; }}\n\
         set nodeport-ips {{ type ipv4_addr; }}\n\
         map firewall-ips {{ {key} }}\nmap no-endpoint-services {{ {key} }}\n\
         map no-endpoint-nodeports {{ {node_key} }}\nmap service-nodeports {{ {node_key} }}\n\
         chain mark-for-masquerade {{ mark set mark or 0x4000; }}\n{chains}\
         map service-ips {{ {key} elements = {{ {} }}; }}\n\
         chain services {{\n ip daddr . meta l4proto . th dport vmap @service-ips\n \
         ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n}}\n\
         chain masquerading {{\n mark and 0x4000 == 0 return\n mark set mark xor 0x4000\n masquerade fully-random\n}}\n\
         chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}\n\
         chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}\n\
         chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}\n\
         chain cluster-ips-check {{ ip daddr @cluster-ips reject; }}\n\
         chain filter-prerouting-pre-dnat {{ type filter hook prerouting priority -110; ct state new jump firewall-check; }}\n\
         chain filter-output-pre-dnat {{ type filter hook output priority -110; ct state new jump firewall-check; }}\n\
         chain filter-forward {{ type filter hook forward priority 0;\n ct state new jump service-endpoints-check\n \
         ct state new jump cluster-ips-check\n}}\n\
         chain filter-input {{ type filter hook input priority 0;\n ct state new jump nodeport-endpoints-check\n \
         ct state new jump service-endpoints-check\n}}\n\
         chain filter-output {{ type filter hook output priority 0;\n ct state new jump service-endpoints-check\n \
         ct state new jump cluster-ips-check\n}}\n\
         chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
         chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}\n}}\n",
        addresses.join(", "),
        portals.join(", "),
    )
}

//! Load balancers: what a cloud does for Services of that type, played by the tests.

use std::net::IpAddr;
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use serde_json::json;
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

/// The Service's load balancer is the test's: of its class, others leave it alone.
const BALANCED: &str = "type: LoadBalancer\nloadBalancerClass: sluice.test/by-hand";

/// Where the Service of a test is to be reached: nobody has these addresses, and each test its own.
fn address(cluster: &Cluster, number: u8) -> Result<IpAddr> {
    let is_v4 = cluster.outsider()?.is_ipv4();
    Ok(if is_v4 { [203, 0, 113, number].into() } else { [0x2001, 0xdb8, 0x113, 0, 0, 0, 0, u16::from(number)].into() })
}

/// Says in a Service's status where its load balancer is, and in which way that gets packets to nodes.
fn announce(namespace: &Namespace<'_>, service: &str, at: IpAddr, mode: &str) -> Result<()> {
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": at, "ipMode": mode}]}}}).to_string();
    namespace.kubectl(&["patch", "service", service, "--subresource=status", "--type=merge", "-p", &status]).map(|_| ())
}

/// A router before the nodes, which leaves packets as they are, until this goes.
struct Router<'a> {
    cluster: &'a Cluster,
    at: String,
}

impl<'a> Router<'a> {
    fn at(cluster: &'a Cluster, address: IpAddr) -> Self {
        Self { cluster, at: address.to_string() }
    }

    /// Sends what comes by way of a node.
    fn by(&self, node: &str) -> Result<()> {
        let node = self.cluster.address(node)?.to_string();
        self.cluster.outside(&["ip", "route", "replace", &self.at, "via", &node]).map(|_| ())
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.outside(&["ip", "route", "del", &self.at]);
    }
}

/// A machine outside that has the address itself and answers there, until this goes.
struct Machine<'a> {
    cluster: &'a Cluster,
    at: String,
    server: Child,
}

impl<'a> Machine<'a> {
    fn at(cluster: &'a Cluster, address: IpAddr) -> Result<Self> {
        let at = address.to_string();
        cluster.outside(&["ip", "address", "add", &at, "dev", "lo"])?;
        let server = cluster
            .program_beside("agnhost", &["netexec", "--http-port=80", "--udp-port=-1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting a server outside")?;
        Ok(Self { cluster, at, server })
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.outside(&["ip", "address", "del", &self.at, "dev", "lo"]);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Whether a node's health check says that it has endpoints of the Service.
fn is_offered(cluster: &Cluster, node: &str, port: u16) -> Result<bool> {
    let url = hostname_at(cluster.address(node)?, port);
    let code = ["curl", "-sSg", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}", &url];
    match cluster.outside(&code)?.as_str() {
        "200" => Ok(true),
        "503" => Ok(false),
        other => anyhow::bail!("{node}'s health check says {other}"),
    }
}

#[test]
fn a_load_balancers_address_is_served_by_every_node() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "balancer")?;
    let at = address(&cluster, 1)?;
    let (router, url) = (Router::at(&cluster, at), hostname_at(at, 80));
    namespace.pod("served").on("n2").role("web").serve()?;
    // It needs no port of nodes.
    namespace.service("web", &format!("{BALANCED}\nallocateLoadBalancerNodePorts: false"))?;
    let ask = || cluster.fetch(&url);
    router.by("n1")?;
    ensure!(ask().is_err(), "nobody is there yet");
    announce(&namespace, "web", at, "VIP")?;
    for node in ["n1", "n2"] {
        router.by(node)?;
        assert_eq!(until("the address is served", ask)?, "served", "by {node}");
    }
    // The cloud takes its balancer away.
    namespace.kubectl(&[
        "patch",
        "service",
        "web",
        "-p",
        r#"{"spec": {"type": "ClusterIP", "allocateLoadBalancerNodePorts": null}}"#,
    ])?;
    until("the address is nobody's again", || {
        let answer = ask();
        ensure!(answer.is_err(), "{answer:?}");
        Ok(())
    })
}

#[test]
fn a_load_balancer_of_local_traffic_follows_the_health_checks_and_keeps_clients_addresses() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "balanced")?;
    let at = address(&cluster, 2)?;
    let (router, url) = (Router::at(&cluster, at), hostname_at(at, 80));
    namespace.pod("first").on("n2").role("web").serve()?;
    namespace.service("web", &format!("{BALANCED}\nexternalTrafficPolicy: Local"))?;
    announce(&namespace, "web", at, "VIP")?;
    let health = namespace.field("service/web", ".spec.healthCheckNodePort")?.parse()?;
    // What a cloud's controller does: a node that says it has endpoints is sent the clients.
    let follow = |with: &str, without: &str| {
        until("health checks say where the endpoints are", || {
            let offered = [is_offered(&cluster, with, health)?, is_offered(&cluster, without, health)?];
            ensure!(offered == [true, false], "{with} and {without}: {offered:?}");
            Ok(())
        })?;
        router.by(with)
    };
    let ask = |what: &str| cluster.fetch(&url.replace("hostname", what));
    follow("n2", "n1")?;
    assert_eq!(until("the address is served", || ask("hostname"))?, "first");
    let seen = ask("clientip")?;
    ensure!(seen.contains(&cluster.outsider()?.to_string()), "it sees who asks: {seen}");
    router.by("n1")?;
    let elsewhere = ask("hostname");
    ensure!(elsewhere.is_err(), "there is no endpoint on n1: {elsewhere:?}");

    namespace.pod("second").on("n1").role("web").serve()?;
    namespace.kubectl(&["delete", "pod", "first"])?;
    follow("n1", "n2")?;
    assert_eq!(until("the address is served elsewhere", || ask("hostname"))?, "second");
    Ok(())
}

#[test]
fn a_load_balancer_lets_in_whom_source_ranges_name() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "ranges")?;
    let at = address(&cluster, 3)?;
    let (router, url) = (Router::at(&cluster, at), hostname_at(at, 80));
    namespace.pod("served").on("n2").role("web").serve()?;
    namespace.serve("client", "n1")?;
    namespace.service("web", BALANCED)?;
    announce(&namespace, "web", at, "VIP")?;
    router.by("n1")?;
    let outside = || cluster.outside(&["curl", "-sSfg", "--connect-timeout", "1", &url]);
    let only = |address: IpAddr| {
        let patch = json!({"spec": {"loadBalancerSourceRanges": [IpNet::from(address)]}}).to_string();
        namespace.kubectl(&["patch", "service", "web", "-p", &patch]).map(|_| ())
    };
    assert_eq!(until("everybody is let in", outside)?, "served");
    only(namespace.addresses("client")?[0])?;
    until("clients outside are dropped", || {
        let answer = outside();
        ensure!(answer.as_ref().is_err_and(|error| format!("{error:#}").contains("(28)")), "{answer:?}");
        Ok(())
    })?;
    assert_eq!(namespace.fetch("client", &url)?, "served", "the pod is let in");
    only(cluster.outsider()?)?;
    assert_eq!(until("clients outside are let in", outside)?, "served");
    namespace.is_cut_off("client", &url)
}

#[test]
fn pods_are_led_to_backends_at_once_unless_the_load_balancer_is_a_proxy() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "short")?;
    let at = address(&cluster, 4)?;
    let (_machine, url) = (Machine::at(&cluster, at)?, hostname_at(at, 80));
    namespace.pod("backend").on("n2").role("web").serve()?;
    namespace.serve("client", "n1")?;
    namespace.service("web", BALANCED)?;
    let balancer = until("the load balancer answers", || cluster.fetch(&url))?;
    ensure!(balancer != "backend", "they have different names");
    let is_answered_by = |who: &str| {
        until("another answers", || {
            let name = namespace.fetch("client", &url)?;
            ensure!(name == who, "{name} answers");
            Ok(())
        })
    };
    is_answered_by(&balancer).context("without a status")?;
    announce(&namespace, "web", at, "VIP")?;
    is_answered_by("backend").context("by VIP")?;
    announce(&namespace, "web", at, "Proxy")?;
    is_answered_by(&balancer).context("by Proxy")
}

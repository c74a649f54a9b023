//! The health checks of Services (`healthCheckNodePort`): each has a port at which load balancers ask.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::{io, thread};

use anyhow::{Context, Result};
use hyper::header::{HeaderName, HeaderValue};
use ipnet::IpNet;
use sluice_service::{Health as Check, ServiceName};
use sluice_topology::serves_node_ports;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::node::{Health, page};
use crate::http::{self, EVERYWHERE, Page, TAKEN};

/// How much of a load balancer's traffic this node is to have, compared with others.
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// All that is to be told, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What load balancers are told of which Services.
    pub checks: BTreeMap<ServiceName, Check>,
    /// At which addresses; see [`addresses`].
    pub addresses: Vec<IpAddr>,
}

/// The addresses at which node ports are served: those of the node that are in one of these nets (`node_port_addresses`),
/// all of a family where a net is, or where none is of the family.
pub fn addresses(nets: &[IpNet], own: &[IpAddr]) -> Vec<IpAddr> {
    let is_all = |ip: IpAddr| {
        let mut of_family = nets.iter().filter(|net| net.addr().is_ipv4() == ip.is_ipv4()).peekable();
        of_family.peek().is_none() || of_family.any(|net| net.prefix_len() == 0)
    };
    let is_link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let all = EVERYWHERE.into_iter().filter(|ip| is_all(*ip));
    // A link-local address is one only together with a device.
    let single = own.iter().copied().filter(|ip| !is_all(*ip) && !is_link_local(ip));
    all.chain(single.filter(|ip| serves_node_ports(nets, *ip))).collect()
}

/// The servers of all health checks, on a thread of their own, for as long as this is there.
#[derive(Debug)]
pub struct Checks(watch::Sender<Wanted>);

/// The servers of one.
struct Open {
    port: u16,
    servers: BTreeMap<IpAddr, JoinHandle<io::Result<()>>>,
}

impl Checks {
    /// Starts without any. Problems are told whenever they are others than before; what could not be done is tried again.
    ///
    /// # Errors
    /// Where there can be no thread for it.
    pub fn start(health: Health, tell: impl Fn(Vec<String>) + Send + 'static) -> Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().context("starting the servers of health checks")?;
        let (checks, wanted) = watch::channel(Wanted::default());
        let serving = move || runtime.block_on(keep(wanted, &health, tell));
        thread::Builder::new()
            .name("health-checks".into())
            .spawn(serving)
            .context("starting the thread health-checks")?;
        Ok(Self(checks))
    }

    /// Makes these all that there are.
    pub fn set(&self, wanted: Wanted) {
        self.0.send_if_modified(|now| {
            let differs = *now != wanted;
            *now = wanted;
            differs
        });
    }
}

/// Opens and closes servers until nobody wants any.
async fn keep(mut wanted: watch::Receiver<Wanted>, health: &Health, tell: impl Fn(Vec<String>)) {
    let mut open: BTreeMap<ServiceName, Open> = BTreeMap::new();
    let mut told = Vec::new();
    loop {
        let now = wanted.borrow_and_update().clone();
        close(&mut open, &now).await;
        let mut problems = Vec::new();
        for (name, check) in &now.checks {
            let answer: Arc<http::Answer> = {
                let (name, health, wanted) = (name.clone(), health.clone(), wanted.clone());
                Arc::new(move |_| answer(&name, wanted.borrow().checks.get(&name), health.is_healthy()))
            };
            let open = open.entry(name.clone()).or_insert_with(|| Open { port: check.port, servers: BTreeMap::new() });
            if let Err(problem) = open.complete(&now.addresses, &answer) {
                problems.push(format!("the health check of Service {name}: {problem}"));
            }
        }
        let is_complete = problems.is_empty();
        if problems != told {
            told.clone_from(&problems);
            tell(problems);
        }
        let changed = wanted.changed();
        let changed = if is_complete { Ok(changed.await) } else { timeout(TAKEN, changed).await };
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

/// Closes what is not wanted any more. Their ports are free afterwards: others may want them.
async fn close(open: &mut BTreeMap<ServiceName, Open>, wanted: &Wanted) {
    let mut closed = Vec::new();
    open.retain(|name, open| {
        let stays = wanted.checks.get(name).is_some_and(|check| check.port == open.port);
        let leaves = open.servers.extract_if(.., |ip, _| !stays || !wanted.addresses.contains(ip));
        closed.extend(leaves.map(|(_, server)| server));
        stays
    });
    for server in closed {
        server.abort();
        // It was aborted: nothing else is to be heard of it.
        let _ = server.await;
    }
}

impl Open {
    /// Opens what is missing: all of it or, so that load balancers see the same everywhere, nothing.
    fn complete(&mut self, addresses: &[IpAddr], answer: &Arc<http::Answer>) -> Result<(), String> {
        self.servers.retain(|_, server| !server.is_finished());
        let missing = addresses.iter().filter(|ip| !self.servers.contains_key(ip));
        let mut listeners = Vec::new();
        for ip in missing {
            let address = SocketAddr::new(*ip, self.port);
            match http::bind(address) {
                Ok(listener) => listeners.push((*ip, listener)),
                Err(error) if http::is_absent(address, &error) => {}
                Err(error) => {
                    let again = TAKEN.as_secs();
                    return Err(format!(
                        "port {address} cannot be listened at: {error}; `ss -ltnp` says who does; it is tried again every {again} s"
                    ));
                }
            }
        }
        let serve = |(ip, listener)| (ip, tokio::spawn(http::serve(listener, Arc::clone(answer))));
        self.servers.extend(listeners.into_iter().map(serve));
        Ok(())
    }
}

/// What a load balancer is told that asks for a Service.
fn answer(name: &ServiceName, check: Option<&Check>, is_healthy: bool) -> Page {
    // One that has just ended has none.
    let count = check.map_or(0, |check| check.local_endpoints);
    let text = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\t\"localEndpoints\": {count},\n\
         \t\"serviceProxyHealthy\": {is_healthy}\n}}",
        name.namespace, name.name
    );
    let mut page = page(count != 0 && is_healthy, text);
    page.headers.push((WEIGHT, HeaderValue::from(count)));
    page
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::http::tests::until;

    const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn node_ports_are_at_those_addresses_that_are_asked_for() {
        let own = ips(&["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1", "127.0.0.1"]);
        let at = |nets: &[&str]| {
            let nets: Vec<IpNet> = nets.iter().map(|net| net.parse().expect("a CIDR")).collect();
            addresses(&nets, &own)
        };
        assert_eq!(at(&[]), ips(&["0.0.0.0", "::"]));
        assert_eq!(at(&["0.0.0.0/0", "::/0"]), ips(&["0.0.0.0", "::"]));
        assert_eq!(at(&["::/0", "192.0.2.0/24"]), ips(&["::", "192.0.2.1"]));
        assert_eq!(at(&["10.0.0.0/8", "2001:db8::/32", "fe80::/10"]), ips(&["10.0.0.1", "2001:db8::1"]));
        assert_eq!(at(&["172.16.0.0/12"]), ips(&["::"]));
        assert_eq!(at(&["172.16.0.0/12", "2001:db9::/32"]), ips(&[]));
    }

    #[test]
    fn load_balancers_hear_what_kube_proxy_tells_them() {
        let name = ServiceName::new("shop", "web");
        let check = |local_endpoints| Check { service: name.clone(), port: 30_000, local_endpoints };
        let told = answer(&name, Some(&check(2)), true);
        let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"shop\",\n\t\t\"name\": \"web\"\n\t},\n\
                        \t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        assert_eq!((told.status.as_u16(), told.text.as_str()), (200, expected));
        for (check, is_healthy) in [(Some(check(0)), true), (Some(check(2)), false), (None, true)] {
            assert_eq!(answer(&name, check.as_ref(), is_healthy).status, 503, "{check:?} {is_healthy}");
        }
    }

    /// Health checks at the loopback addresses.
    struct Served {
        checks: Checks,
        problems: Receiver<Vec<String>>,
    }

    impl Served {
        fn start() -> Self {
            Self::start_with(Health::default())
        }

        fn start_with(health: Health) -> Self {
            let (told, problems) = mpsc::channel();
            let checks = Checks::start(health, move |problems| drop(told.send(problems))).expect("starts");
            Self { checks, problems }
        }

        fn set(&self, checks: &[(&str, u16, usize)]) {
            let named = |(name, port, local_endpoints): &(&str, u16, usize)| {
                let service = ServiceName::new("x", name);
                (service.clone(), Check { service, port: *port, local_endpoints: *local_endpoints })
            };
            self.checks.set(Wanted { checks: checks.iter().map(named).collect(), addresses: LOOPBACKS.into() });
        }
    }

    fn until_at(ip: IpAddr, port: u16, is_so: impl Fn(&io::Result<String>) -> bool) {
        until((ip, port).into(), "/", is_so);
    }

    fn says(status: &str, name: &str, count: usize) -> impl Fn(&io::Result<String>) -> bool {
        let start = format!("HTTP/1.1 {status} ");
        let headers = [
            format!("X-Load-Balancing-Endpoint-Weight: {count}\r\n"),
            "Content-Type: application/json\r\n".into(),
            "X-Content-Type-Options: nosniff\r\n".into(),
        ];
        let body = format!("\"name\": {name:?}");
        move |answer| {
            answer.as_ref().is_ok_and(|answer| {
                answer.starts_with(&start)
                    && answer.contains(&body)
                    && headers.iter().all(|header| answer.contains(header))
            })
        }
    }

    fn is_closed(answer: &io::Result<String>) -> bool {
        answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Ports that are free at both addresses: nobody else here asks for one by its number.
    fn free<const N: usize>() -> [u16; N] {
        let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("[::]:0").expect("binds"));
        listeners.map(|listener| listener.local_addr().expect("has an address").port())
    }

    #[test]
    fn checks_come_change_and_go() {
        let served = Served::start();
        let [first, second] = free();
        served.set(&[("a", first, 1), ("b", second, 0)]);
        for ip in LOOPBACKS {
            until_at(ip, first, says("200", "a", 1));
            until_at(ip, second, says("503", "b", 0));
        }
        served.set(&[("a", first, 0), ("b", second, 3)]);
        until_at(LOOPBACKS[0], first, says("503", "a", 0));
        until_at(LOOPBACKS[1], second, says("200", "b", 3));
        // One goes, and the other takes its port.
        served.set(&[("b", first, 3)]);
        until_at(LOOPBACKS[0], first, says("200", "b", 3));
        until_at(LOOPBACKS[0], second, is_closed);
        served.set(&[]);
        until_at(LOOPBACKS[1], first, is_closed);
        assert_eq!(served.problems.try_recv().ok(), None);
        served.set(&[("a", first, 1)]);
        until_at(LOOPBACKS[0], first, says("200", "a", 1));
        drop(served.checks);
        until_at(LOOPBACKS[0], first, is_closed);
    }

    #[test]
    fn a_port_that_is_taken_is_told_and_the_others_are_served() {
        let served = Served::start();
        let [free, taken] = free();
        let other = TcpListener::bind(("::1", taken)).expect("takes it");
        served.set(&[("a", taken, 1), ("b", free, 1)]);
        let problems = served.problems.recv().expect("it is told");
        let named =
            problems.len() == 1 && problems[0].contains("x/a") && problems[0].contains(&format!("[::1]:{taken}"));
        assert!(named, "{problems:?}");
        until_at(LOOPBACKS[0], free, says("200", "b", 1));
        // Not at the other address either.
        until_at(LOOPBACKS[0], taken, is_closed);
        drop(other);
        // With the next change, or some time later.
        served.set(&[("a", taken, 2), ("b", free, 1)]);
        assert_eq!(served.problems.recv().expect("it is told"), [""; 0]);
        until_at(LOOPBACKS[1], taken, says("200", "a", 2));
    }

    #[test]
    fn of_two_services_with_one_port_the_one_that_has_it_keeps_it() {
        let served = Served::start();
        let [port] = free();
        served.set(&[("b", port, 1)]);
        until_at(LOOPBACKS[0], port, says("200", "b", 1));
        served.set(&[("a", port, 1), ("b", port, 2)]);
        let problems = served.problems.recv().expect("it is told");
        assert!(problems.len() == 1 && problems[0].contains("x/a"), "{problems:?}");
        until_at(LOOPBACKS[0], port, says("200", "b", 2));
    }

    #[test]
    fn a_node_that_is_not_well_says_so_at_each() {
        let served = Served::start_with(Health::sick());
        let [port] = free();
        served.set(&[("a", port, 1)]);
        until_at(LOOPBACKS[0], port, says("503", "a", 1));
    }
}

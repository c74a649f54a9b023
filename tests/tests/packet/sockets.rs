//! Sockets are told the same by both builds. Test runs do not know the programs for them: they are attached to a control
//! group, and what real sockets of it are told is held against what the native build says by the same tables.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use sluice_abi::{
    AddressKind, Affinity, AffinityKey, Features, IpAddress, Ipv4, Ipv6, Port, Protocol, SocketKey, SocketPeer, maps,
};
use sluice_agent::host::namespace;
use sluice_datapath::service::ServiceTables;
use sluice_datapath::socket::{self, Talk};
use sluice_tests::lab::group;
use sluice_tests::packet::addresses::{NODE, OUTSIDE, POD_A, POD_B, Pair};
use sluice_tests::packet::{Both, Native, Served, Serving};

const PATIENCE: Duration = Duration::from_secs(5);

const LOOPBACK: Pair = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
const VIP: Pair = vip(1);
/// Whose clients stay.
const STICKY: Pair = vip(2);
/// Whose endpoints are on other nodes only, and policy says that they do not count.
const ELSEWHERE: Pair = vip(3);
/// Which not everybody may ask.
const RANGED: Pair = vip(4);
const NODE_PORT: u16 = 30_080;
const FIRST: (Pair, u16) = (POD_A, 8080);
const SECOND: (Pair, u16) = (POD_B, 8081);

/// Whom sockets talk to.
const NAMES: [(Pair, u16); 8] = [
    (VIP, 80),
    (VIP, 81),
    (STICKY, 80),
    (ELSEWHERE, 80),
    (RANGED, 80),
    (NODE, NODE_PORT),
    (LOOPBACK, NODE_PORT),
    // Nobody's but its own.
    SECOND,
];

const fn vip(last: u8) -> Pair {
    (Ipv4Addr::new(10, 96, 0, last), Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, last as u16))
}

/// Of which family a socket is, and which it talks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speech {
    V4,
    V6,
    /// IPv4 by a socket of IPv6.
    Mapped,
}

impl Speech {
    const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Mapped];

    fn any(self) -> SocketAddr {
        let any: IpAddr = if self == Self::V4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        SocketAddr::new(any, 0)
    }

    /// An end as such a socket calls it.
    fn name(self, ((v4, v6), port): (Pair, u16)) -> SocketAddr {
        let address = match self {
            Self::V4 => v4.into(),
            Self::V6 => v6.into(),
            Self::Mapped => v4.to_ipv6_mapped().into(),
        };
        SocketAddr::new(address, port)
    }

    /// Such a socket hears from this end.
    fn hears(self, heard: SocketAddr, expected: SocketAddr) -> Result<()> {
        let canonical = SocketAddr::new(heard.ip().to_canonical(), heard.port());
        let is_of_its_family = heard.is_ipv4() == (self == Self::V4);
        ensure!(is_of_its_family && canonical == expected, "hears {heard} instead of {expected}");
        Ok(())
    }
}

/// By what a socket is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Means {
    Connection,
    ConnectedDatagram,
    Datagram,
}

impl Means {
    const ALL: [Self; 3] = [Self::Connection, Self::ConnectedDatagram, Self::Datagram];

    fn protocol(self) -> Protocol {
        match self {
            Self::Connection => Protocol::TCP,
            Self::ConnectedDatagram | Self::Datagram => Protocol::UDP,
        }
    }
}

/// A family of the tables.
trait Side: IpAddress + aya::Pod {
    const SOCKETS: &str;
    fn ip(self) -> IpAddr;
    fn known(native: &Native) -> &RefCell<HashMap<SocketKey<Self>, SocketPeer<Self>>>;
}

impl Side for Ipv4 {
    const SOCKETS: &str = maps::SOCKETS4;

    fn ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }

    fn known(native: &Native) -> &RefCell<HashMap<SocketKey<Self>, SocketPeer<Self>>> {
        &native.v4.sockets
    }
}

impl Side for Ipv6 {
    const SOCKETS: &str = maps::SOCKETS6;

    fn ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }

    fn known(native: &Native) -> &RefCell<HashMap<SocketKey<Self>, SocketPeer<Self>>> {
        &native.v6.sockets
    }
}

/// The group whose sockets are told; gone when dropped.
struct Group(PathBuf);

impl Group {
    fn make() -> Result<Self> {
        Ok(Self(group::make(&format!("sluice-sockets-{}", std::process::id()))?))
    }

    /// Makes something that is of this group.
    fn make_here<T: Send>(&self, make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let make = || {
            group::enter(&self.0)?;
            make()
        };
        thread::scope(|scope| scope.spawn(make).join().expect("no panic"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Who listens: at every name, in case that nobody translates it, and at the backends.
struct Listeners(HashMap<SocketAddr, (UdpSocket, TcpListener)>);

impl Listeners {
    fn start() -> Result<Self> {
        let mut listeners = HashMap::new();
        for end in NAMES.into_iter().chain([FIRST]) {
            for at in [Speech::V4.name(end), Speech::V6.name(end)] {
                let what = || format!("listening at {at}");
                let socket = UdpSocket::bind(at).with_context(what)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                listeners.insert(at, (socket, TcpListener::bind(at).with_context(what)?));
            }
        }
        Ok(Self(listeners))
    }

    fn at(&self, at: SocketAddr) -> Result<&(UdpSocket, TcpListener)> {
        self.0.get(&at).with_context(|| format!("nobody listens at {at}"))
    }

    /// A datagram has come to one, who answers it.
    fn answer(&self, at: SocketAddr) -> Result<()> {
        let (socket, _) = self.at(at)?;
        let (_, from) = socket.recv_from(&mut [0; 8]).with_context(|| format!("nothing comes to {at}"))?;
        socket.send_to(b"!", from)?;
        Ok(())
    }
}

/// Where sockets are, and what the node serves at its loopback addresses.
#[derive(Clone, Copy, Debug)]
struct Setting {
    namespace: u64,
    is_host: bool,
    serves_loopback: bool,
}

/// A scene with all of that.
struct Play {
    both: Both,
    group: Group,
    listeners: Listeners,
    setting: Setting,
}

impl Play {
    fn change(&mut self, setting: Setting) -> Result<()> {
        self.setting = setting;
        let Setting { namespace, is_host, serves_loopback } = setting;
        self.both.configure(|config| {
            config.namespace = if is_host { namespace } else { namespace + 1 };
            let loopback = Features::LOOPBACK4.0 | Features::LOOPBACK6.0;
            let others = config.features.0 & !loopback;
            config.features = Features(if serves_loopback { others | loopback } else { others });
        })
    }

    /// What the native build says: whom a socket is to talk to, and whom it hears then.
    fn expected(&self, means: Means, name: SocketAddr) -> (SocketAddr, SocketAddr) {
        match name.ip().to_canonical() {
            IpAddr::V4(address) => self.expected_of(means, Ipv4::from(address), name.port()),
            IpAddr::V6(address) => self.expected_of(means, Ipv6::from(address), name.port()),
        }
    }

    fn expected_of<A: Side>(&self, means: Means, address: A, port: u16) -> (SocketAddr, SocketAddr)
    where
        Native: ServiceTables<A>,
    {
        let Setting { namespace, is_host, serves_loopback } = self.setting;
        let (protocol, port) = (means.protocol(), Port::new(port));
        let talk = Talk { socket: SOCKET, namespace, is_host, serves_loopback, protocol, address, port };
        let native = &self.both.native;
        let target = match means {
            Means::Connection | Means::ConnectedDatagram => socket::connect(&talk, native),
            Means::Datagram => socket::send(&talk, native),
        };
        let to = target.map_or((address, port), |target| (target.address, target.port));
        let hears = socket::name(SOCKET, to.0, to.1, native).unwrap_or(to);
        let [to, hears] = [to, hears].map(|(address, port)| SocketAddr::new(address.ip(), port.get()));
        (to, hears)
    }

    /// A socket is told, and talks. Whether it is told of another than it names.
    fn is_translated(&mut self, speech: Speech, means: Means, end: (Pair, u16)) -> Result<bool> {
        let name = speech.name(end);
        let to = match means {
            Means::Connection => {
                let (to, hears) = self.expected(means, name);
                let (_, listener) = self.listeners.at(to)?;
                listener.set_nonblocking(true)?;
                let stream = self.group.make_here(|| Ok(TcpStream::connect(name)?))?;
                listener.accept().with_context(|| format!("nobody connects to {to}"))?;
                speech.hears(stream.peer_addr()?, hears)?;
                to
            }
            Means::ConnectedDatagram => {
                let (to, hears) = self.expected(means, name);
                let socket = self.socket(speech)?;
                socket.connect(name)?;
                speech.hears(socket.peer_addr()?, hears)?;
                socket.send(b"?")?;
                self.listeners.answer(to)?;
                speech.hears(socket.recv_from(&mut [0; 8])?.1, hears)?;
                to
            }
            Means::Datagram => {
                let socket = self.socket(speech)?;
                let first = self.asks(speech, &socket, name)?;
                ensure!(first == self.asks(speech, &socket, name)?, "{first} is asked, then another");
                first
            }
        };
        self.compare()?;
        Ok(to != SocketAddr::new(name.ip().to_canonical(), name.port()))
    }

    fn socket(&self, speech: Speech) -> Result<UdpSocket> {
        let socket = self.group.make_here(|| Ok(UdpSocket::bind(speech.any())?))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    /// A socket that is not connected asks, and is answered. By whom.
    fn asks(&self, speech: Speech, socket: &UdpSocket, name: SocketAddr) -> Result<SocketAddr> {
        let (to, hears) = self.expected(Means::Datagram, name);
        socket.send_to(b"?", name)?;
        self.listeners.answer(to)?;
        speech.hears(socket.recv_from(&mut [0; 8])?.1, hears)?;
        Ok(to)
    }

    /// Both builds remember the same; then they forget it.
    fn compare(&mut self) -> Result<()> {
        self.compare_sockets::<Ipv4>()?;
        self.compare_sockets::<Ipv6>()?;
        self.compare_affinities()
    }

    fn compare_sockets<A: Side>(&mut self) -> Result<()>
    where
        SocketKey<A>: aya::Pod + Hash,
        SocketPeer<A>: aya::Pod,
    {
        let kernel: Vec<(SocketKey<A>, SocketPeer<A>)> = self.both.kernel.entries(A::SOCKETS)?;
        let cookie = kernel.first().map_or(0, |(key, _)| key.socket);
        ensure!(kernel.iter().all(|(key, _)| key.socket == cookie && cookie != 0), "of which socket is {kernel:?}?");
        let kernel: HashMap<_, _> =
            kernel.into_iter().map(|(key, peer)| (SocketKey { socket: SOCKET, ..key }, peer)).collect();
        let native = A::known(&self.both.native).take();
        ensure!(native == kernel, "{}: native {native:?}\nkernel {kernel:?}", A::SOCKETS);
        self.both.kernel.retain::<SocketKey<A>, SocketPeer<A>>(A::SOCKETS, |_| false)
    }

    fn compare_affinities(&mut self) -> Result<()> {
        let kernel: Vec<(AffinityKey, Affinity)> = self.both.kernel.entries(maps::AFFINITIES)?;
        let kernel: HashMap<_, _> = kernel.into_iter().map(|(key, stays)| (key, stays.backend)).collect();
        let native: HashMap<_, _> =
            self.both.native.affinities.take().into_iter().map(|(key, stays)| (key, stays.backend)).collect();
        ensure!(native == kernel, "native {native:?}\nkernel {kernel:?}");
        self.both.kernel.retain::<AffinityKey, Affinity>(maps::AFFINITIES, |_| false)
    }
}

/// What stands for the cookie of the only socket.
const SOCKET: u64 = 1;

/// The scene, with Services of all kinds, each with one backend: so that both builds choose the same.
fn scene() -> Result<Both> {
    let mut both = Both::set()?;
    both.addresses(NODE, (32, 128), AddressKind::Host, 1)?;
    for protocol in [Protocol::TCP, Protocol::UDP] {
        both.serve(&Served::new(VIP, 80, protocol, &[FIRST]))?;
        both.serve(&Served { affinity: 60, ..Served::new(STICKY, 80, protocol, &[SECOND]) })?;
        both.serve(&Served { inside: Serving::Drop, ..Served::new(ELSEWHERE, 80, protocol, &[FIRST]) })?;
        let source_ranges = vec![(OUTSIDE, (24, 64))];
        both.serve(&Served { source_ranges, ..Served::new(RANGED, 80, protocol, &[FIRST]) })?;
        both.serve(&Served::node_port(NODE_PORT, protocol, &[FIRST]))?;
    }
    both.reject_rest(VIP)?;
    for (v4, v6) in [VIP, STICKY, ELSEWHERE, RANGED, POD_A, POD_B] {
        for address in [format!("{v4}/32"), format!("{v6}/128")] {
            // Without, they are tentative until a workqueue comes to them, though nobody could have them twice.
            let status = Command::new("ip").args(["addr", "add", &address, "dev", "lo", "nodad"]).status();
            ensure!(status.context("running ip")?.success(), "adding {address} failed");
        }
    }
    Ok(both)
}

#[test]
fn both_builds_tell_sockets_the_same() -> Result<()> {
    let mut both = scene()?;
    // Before Linux 5.14 nobody can tell which namespace is the node's.
    let Some(namespace) = namespace::cookie() else { return Ok(()) };
    let group = Group::make()?;
    both.kernel.attach_to_group(&group.0)?;
    let setting = Setting { namespace, is_host: false, serves_loopback: false };
    let mut play = Play { both, group, listeners: Listeners::start()?, setting };
    let mut translated = 0;
    for (is_host, serves_loopback) in [(true, true), (true, false), (false, true)] {
        let setting = Setting { namespace, is_host, serves_loopback };
        play.change(setting)?;
        for speech in Speech::ALL {
            for means in Means::ALL {
                for end in NAMES {
                    let what = || format!("{speech:?} {means:?} to {}, {setting:?}", speech.name(end));
                    translated += usize::from(play.is_translated(speech, means, end).with_context(what)?);
                }
            }
        }
    }
    // Of those names three always are, by three means each, and the loopback's where it is served.
    assert_eq!(translated, 3 * 3 * (3 * 3 + 1));
    let served = |backend| Served::new(VIP, 80, Protocol::UDP, &[backend]);
    for speech in Speech::ALL {
        let (socket, name) = (play.socket(speech)?, speech.name((VIP, 80)));
        for (before, now) in [(FIRST, SECOND), (SECOND, FIRST)] {
            let first = play.asks(speech, &socket, name)?;
            play.both.unserve(&served(before))?;
            play.both.serve(&served(now))?;
            let then = play.asks(speech, &socket, name)?;
            ensure!((first.port(), then.port()) == (before.1, now.1), "{first} is asked, then {then}");
        }
        play.compare()?;
    }
    Ok(())
}

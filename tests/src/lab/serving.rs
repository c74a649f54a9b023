//! Those who serve, and say who they are and whom they see; and those who ask them by any address.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::Place;

/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing is waited for: longer than an answer ever takes, however busy the machine is.
pub const SILENCE: Duration = Duration::from_secs(1);
/// How often a server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Somebody who serves, over TCP and UDP and both families, until dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What a server says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Who it is.
    pub name: String,
    /// Whom it sees.
    pub client: SocketAddr,
}

/// What becomes of who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// An answer.
    Said(Said),
    /// That nobody serves.
    Refused,
    /// Nothing.
    Nothing,
    /// That its socket is no longer connected to anybody.
    Disconnected,
}

impl Heard {
    /// Who has answered.
    ///
    /// # Errors
    /// Where nobody has.
    pub fn said(self) -> Result<Said> {
        match self {
            Self::Said(said) => Ok(said),
            other => Err(anyhow!("heard {other:?}")),
        }
    }
}

impl Server {
    /// Has somebody of this name serve at a port of a place.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub fn start(place: &Place, port: u16, name: &str) -> Result<Self> {
        let mut this = Self { stop: Arc::default(), threads: Vec::new() };
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let at = |address: IpAddr| SocketAddr::new(address, port);
        // One of IPv6 takes both families, where there is IPv6 at all.
        let address = place.inside(|| Ok(UdpSocket::bind((any[1], 0)).map_or(any[0], |_| any[1])))?;
        let what = || format!("serving at port {port} of {}", place.name);
        let listener = place.inside(|| Ok(TcpListener::bind(at(address))?)).with_context(what)?;
        let socket = place.inside(|| Ok(UdpSocket::bind(at(address))?)).with_context(what)?;
        listener.set_nonblocking(true)?;
        socket.set_read_timeout(Some(LOOK))?;
        let (stop, own) = (this.stop.clone(), name.to_owned());
        this.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((mut stream, client)) => {
                        // Who has asked may be gone.
                        let _ = stream.write_all(said(&own, client).as_bytes());
                    }
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        }));
        let (stop, own) = (this.stop.clone(), name.to_owned());
        this.threads.push(thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, client)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(said(&own, client).as_bytes(), client);
                }
            }
        }));
        Ok(this)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn said(name: &str, client: SocketAddr) -> String {
    format!("{name} {}", SocketAddr::new(client.ip().to_canonical(), client.port()))
}

fn understand(text: &str) -> Result<Said> {
    let (name, client) = text.split_once(' ').with_context(|| format!("a server says {text:?}"))?;
    Ok(Said { name: name.into(), client: client.parse()? })
}

/// Whether an error says that nobody serves.
fn is_refusal(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused
}

/// Whether an error says that a socket is no longer connected: to who listens, or to who sends.
fn is_disconnection(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionAborted || error.raw_os_error() == Some(nix::errno::Errno::EDESTADDRREQ as i32)
}

/// Whether an error says that nothing was heard.
fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// By what somebody asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Means {
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
    /// A datagram of a socket that is connected first: whoever has one is told of a refusal.
    ConnectedUdp,
}

impl Means {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::ConnectedUdp];

    /// Asks from here, the place that this thread is in, and waits so long.
    ///
    /// # Errors
    /// Where something else comes of it than an answer, a refusal or silence.
    pub fn ask(self, at: SocketAddr, patience: Duration) -> Result<Heard> {
        match self {
            Self::Tcp => ask_here(at, patience),
            Self::Udp => Asker::here(at, false)?.ask(patience),
            Self::ConnectedUdp => Asker::here(at, true)?.ask(patience),
        }
    }
}

/// Asks over TCP. The client's own end of the connection must know its server by the name that it was asked by.
///
/// # Errors
/// Where something else comes of it than an answer, a refusal or silence.
pub fn ask(from: &Place, address: IpAddr, port: u16) -> Result<Heard> {
    from.inside(|| ask_here((address, port).into(), PATIENCE))
}

/// As [`ask`], where nothing is expected.
///
/// # Errors
/// As [`ask`].
pub fn ask_in_vain(from: &Place, address: IpAddr, port: u16) -> Result<Heard> {
    from.inside(|| ask_here((address, port).into(), SILENCE))
}

fn ask_here(at: SocketAddr, patience: Duration) -> Result<Heard> {
    let mut stream = match TcpStream::connect_timeout(&at, patience) {
        Ok(stream) => stream,
        Err(error) if is_refusal(&error) => return Ok(Heard::Refused),
        Err(error) if is_silence(&error) => return Ok(Heard::Nothing),
        Err(error) => return Err(error).with_context(|| format!("connecting to {at}")),
    };
    ensure!(stream.peer_addr()? == at, "has asked {at} and is connected to {}", stream.peer_addr()?);
    stream.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("hearing what {at} says"))?;
    understand(&text).map(Heard::Said)
}

/// Asks by a datagram; with `connected`, of a socket that is connected first. The answer must come from whom was asked.
///
/// # Errors
/// As [`ask`].
pub fn ask_datagram(from: &Place, address: IpAddr, port: u16, connected: bool) -> Result<Heard> {
    Asker::new(from, (address, port).into(), connected)?.ask(PATIENCE)
}

/// A socket with a port that nobody has had for a long time: no flow is known of it.
fn fresh(address: IpAddr) -> Result<UdpSocket> {
    /// Beyond those that nodes take for translated flows, and node ports.
    const FIRST: u32 = 33_000;
    const COUNT: u32 = 32_000;
    static LAST: AtomicU32 = AtomicU32::new(0);
    let next = || (FIRST + LAST.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
    let free = (0..COUNT).find_map(|_| UdpSocket::bind((address, next())).ok());
    free.with_context(|| format!("no port is free beside {address}"))
}

/// Somebody who asks by datagrams, from one and the same port.
pub struct Asker {
    socket: UdpSocket,
    at: SocketAddr,
    connected: bool,
}

impl Asker {
    /// Makes a socket at a place, to ask an address and port.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(from: &Place, at: SocketAddr, connected: bool) -> Result<Self> {
        from.inside(|| Self::here(at, connected))
    }

    fn here(at: SocketAddr, connected: bool) -> Result<Self> {
        let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = fresh(any)?;
        if connected {
            socket.connect(at)?;
            ensure!(socket.peer_addr()? == at, "is connected to {} instead of {at}", socket.peer_addr()?);
        }
        Ok(Self { socket, at, connected })
    }

    /// Asks once.
    ///
    /// # Errors
    /// As [`ask`].
    pub fn ask(&self, patience: Duration) -> Result<Heard> {
        self.socket.set_read_timeout(Some(patience))?;
        let sent = if self.connected { self.socket.send(b"?") } else { self.socket.send_to(b"?", self.at) };
        let mut buffer = [0; 256];
        match sent.and_then(|_| self.socket.recv_from(&mut buffer)) {
            Ok((length, sender)) => {
                ensure!(sender == self.at, "{} was asked, and {sender} answers", self.at);
                understand(std::str::from_utf8(&buffer[..length])?).map(Heard::Said)
            }
            Err(error) if is_refusal(&error) => Ok(Heard::Refused),
            Err(error) if is_silence(&error) => Ok(Heard::Nothing),
            Err(error) if is_disconnection(&error) => Ok(Heard::Disconnected),
            Err(error) => Err(error).with_context(|| format!("asking {}", self.at)),
        }
    }

    /// Asks once more: a socket that was disconnected meanwhile is connected again.
    ///
    /// # Errors
    /// As [`ask`].
    pub fn ask_again(&self, patience: Duration) -> Result<Heard> {
        if self.connected && self.socket.peer_addr().is_err() {
            self.socket.connect(self.at)?;
        }
        self.ask(patience)
    }
}

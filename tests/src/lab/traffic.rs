//! Traffic between places.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket;

use super::{Place, until, until_so};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn any(address: IpAddr) -> SocketAddr {
    match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Connects from one place to an address of another, sends so many bytes and gets them back. Gives the address that the
/// server saw.
///
/// # Errors
/// Where anything of it fails.
pub fn tcp(client: &Place, server: &Place, address: IpAddr, bytes: usize) -> Result<IpAddr> {
    let listener = server.inside(|| Ok(TcpListener::bind(any(address))?))?;
    let at = SocketAddr::new(address, listener.local_addr()?.port());
    tcp_with(client, &listener, at, bytes)
}

/// As [`tcp`], by way of a Service: where the server listens is one thing, where it is asked another.
///
/// # Errors
/// As [`tcp`].
pub fn tcp_by_service(client: &Place, server: &Place, port: u16, at: SocketAddr, bytes: usize) -> Result<IpAddr> {
    let own = SocketAddr::new(any(at.ip()).ip(), port);
    let listener = server.inside(|| TcpListener::bind(own).with_context(|| format!("listening at {own}")))?;
    let seen = tcp_with(client, &listener, at, bytes);
    // A process that is just being started may hold the socket for a moment longer: the port is to be free for the next one.
    socket::shutdown(listener.as_raw_fd(), socket::Shutdown::Read)?;
    seen
}

fn tcp_with(client: &Place, listener: &TcpListener, at: SocketAddr, bytes: usize) -> Result<IpAddr> {
    let stream = client
        .inside(|| Ok(TcpStream::connect_timeout(&at, PATIENCE)?))
        .with_context(|| format!("TCP from {} to {at}", client.name))?;
    // The handshake is over: somebody waits to be accepted.
    let (accepted, peer) = listener.accept()?;
    for stream in [&stream, &accepted] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
    }
    // A prime number of bytes, again and again: no two segments are alike.
    let piece: Vec<u8> = (0..65_521_usize).map(|at| (at * 31 / 7) as u8).collect();
    let mut sent = piece.repeat(bytes / piece.len() + 1);
    sent.truncate(bytes);
    let mut received = Vec::with_capacity(bytes);
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let (mut reader, mut writer) = (&accepted, &accepted);
            std::io::copy(&mut reader, &mut writer)?;
            accepted.shutdown(Shutdown::Write)
        });
        let send = scope.spawn(|| {
            (&stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        (&stream).read_to_end(&mut received).context("reading the echo")?;
        send.join().expect("no panic").context("sending")?;
        echo.join().expect("no panic").context("echoing")
    })
    .with_context(|| format!("{bytes} bytes over TCP from {} to {at}", client.name))?;
    ensure!(sent == received, "TCP from {} to {at} garbles what it carries", client.name);
    Ok(peer.ip())
}

/// Sends a datagram of so many bytes and gets it back. Gives the address that the server saw.
///
/// # Errors
/// Where anything of it fails.
pub fn udp(client: &Place, server: &Place, address: IpAddr, bytes: usize) -> Result<IpAddr> {
    let listener = server.inside(|| Ok(UdpSocket::bind(any(address))?))?;
    let port = listener.local_addr()?.port();
    let socket = client.inside(|| Ok(UdpSocket::bind(any(address))?))?;
    listener.set_read_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let what = || format!("{bytes} bytes over UDP from {} to {address} ({})", client.name, server.name);
    let sent: Vec<u8> = (0..bytes).map(|at| (at * 13) as u8).collect();
    socket.send_to(&sent, (address, port)).with_context(what)?;
    let mut buffer = vec![0; 65_536];
    let (length, peer) = listener.recv_from(&mut buffer).with_context(what)?;
    ensure!(buffer[..length] == sent, "{} is garbled", what());
    listener.send_to(&buffer[..length], peer).with_context(what)?;
    let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("the answer to {}", what()))?;
    ensure!(from.ip() == address, "the answer to {} comes from {from}", what());
    ensure!(buffer[..length] == sent, "the answer to {} is garbled", what());
    Ok(peer.ip())
}

/// Asks for an echo.
///
/// # Errors
/// Where there is none.
pub fn ping(from: &Place, address: IpAddr) -> Result<()> {
    let status = from
        .command("ping")
        .args(["-c", "1", "-W", "3", &address.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("running ping")?;
    ensure!(status.success(), "{} gets no echo from {address}", from.name);
    Ok(())
}

/// Whether an echo of so many bytes, its headers included, goes in one piece; where not, the sender is told, by its own
/// host or a router.
///
/// # Errors
/// Where it does not come back, and nobody says why.
pub fn fits(from: &Place, address: IpAddr, bytes: u32) -> Result<bool> {
    // Headers of IP and ICMP.
    let payload = bytes - if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let output = from
        .command("ping")
        .args(["-M", "do", "-c", "1", "-W", "3", "-s", &payload.to_string(), &address.to_string()])
        .output()
        .context("running ping")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let is_too_long = ["message too long", "Frag needed", "Packet too big"].iter().any(|words| said.contains(words));
    ensure!(output.status.success() || is_too_long, "{} gets no echo from {address}: {said}", from.name);
    Ok(!is_too_long)
}

/// Connects to a port, and reads until the other side is done. One who does not listen yet is asked again.
///
/// # Errors
/// Where nobody answers.
pub fn read_all(from: &Place, address: IpAddr, port: u16) -> Result<String> {
    until("somebody answers", || {
        from.inside(|| {
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    })
}

/// What happens to a datagram to a port that nobody listens on: an error that the sender is told of.
///
/// # Errors
/// Where it is told of none.
pub fn is_refused(from: &Place, address: IpAddr) -> Result<()> {
    let socket = from.inside(|| Ok(UdpSocket::bind(any(address))?))?;
    socket.connect((address, 9))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"anybody?")?;
    let error = socket.recv(&mut [0; 16]).expect_err("nobody answers");
    ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{} is not told: {error}", from.name);
    Ok(())
}

/// A steady exchange, a question and its answer each millisecond, that counts.
pub struct Steady {
    stop: Arc<AtomicBool>,
    /// The client has had its last answer.
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    client: JoinHandle<Result<(u64, u64)>>,
    server: JoinHandle<Result<()>>,
}

impl Steady {
    /// Starts one of datagrams, which the server is to see coming from one and the same port.
    ///
    /// # Errors
    /// Where sockets cannot be made.
    pub fn start(client: &Place, server: &Place, address: IpAddr) -> Result<Self> {
        Self::start_with_patience(client, server, address, PATIENCE)
    }

    /// As [`start`](Steady::start), for a flow that may be stopped: it asks on where an answer takes longer than this.
    ///
    /// # Errors
    /// As [`start`](Steady::start).
    pub fn start_with_patience(client: &Place, server: &Place, address: IpAddr, patience: Duration) -> Result<Self> {
        let listener = server.inside(|| Ok(UdpSocket::bind(any(address))?))?;
        let at = SocketAddr::new(address, listener.local_addr()?.port());
        Self::datagrams(client, listener, at, patience)
    }

    /// As [`start`](Steady::start), by way of a Service: where the server listens is one thing, where it is asked another.
    ///
    /// # Errors
    /// As [`start`](Steady::start).
    pub fn by_service(client: &Place, server: &Place, port: u16, at: SocketAddr) -> Result<Self> {
        let own = SocketAddr::new(any(at.ip()).ip(), port);
        let listener = server.inside(|| UdpSocket::bind(own).with_context(|| format!("listening at {own}")))?;
        Self::datagrams(client, listener, at, PATIENCE)
    }

    fn datagrams(client: &Place, listener: UdpSocket, at: SocketAddr, patience: Duration) -> Result<Self> {
        let socket = client.inside(|| Ok(UdpSocket::bind(any(at.ip()))?))?;
        socket.connect(at)?;
        listener.set_read_timeout(Some(Duration::from_millis(100)))?;
        socket.set_read_timeout(Some(patience))?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let server = thread::spawn(move || {
            let mut buffer = [0; 64];
            let mut first = None;
            while !over.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = listener.recv_from(&mut buffer) {
                    let first = first.get_or_insert(peer);
                    ensure!(*first == peer, "{first} has become {peer}");
                    listener.send_to(&buffer[..length], peer)?;
                }
            }
            Ok(())
        });
        Ok(Self::ask(is_over, server, move |question| {
            socket.send(&question)?;
            // Each waits for its own answer: what is lost is counted, not made up for.
            let mut buffer = [0; 64];
            while let Ok(length) = socket.recv(&mut buffer) {
                if buffer[..length] == question {
                    return Ok(true);
                }
            }
            Ok(false)
        }))
    }

    /// Starts one over a TCP connection.
    ///
    /// # Errors
    /// Where there is no connection.
    pub fn stream(client: &Place, server: &Place, address: IpAddr) -> Result<Self> {
        let listener = server.inside(|| Ok(TcpListener::bind(any(address))?))?;
        let port = listener.local_addr()?.port();
        let stream = client.inside(|| Ok(TcpStream::connect_timeout(&(address, port).into(), PATIENCE)?))?;
        let (accepted, _) = listener.accept()?;
        for stream in [&stream, &accepted] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
        }
        // Until the client is done.
        let server = thread::spawn(move || {
            std::io::copy(&mut &accepted, &mut &accepted).context("answering")?;
            Ok(())
        });
        Ok(Self::ask(Arc::default(), server, move |question| {
            let mut answer = [0; 8];
            (&stream).write_all(&question).context("asking")?;
            (&stream).read_exact(&mut answer).context("waiting for an answer")?;
            Ok(answer == question)
        }))
    }

    /// Has a client ask.
    fn ask(
        is_over: Arc<AtomicBool>,
        server: JoinHandle<Result<()>>,
        mut is_answered: impl FnMut([u8; 8]) -> Result<bool> + Send + 'static,
    ) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (stop.clone(), answered.clone());
        let client = thread::spawn(move || {
            let (mut sent, mut received) = (0_u64, 0_u64);
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                sent += 1;
                if is_answered(sent.to_ne_bytes())? {
                    received += 1;
                    counter.store(received, Ordering::Relaxed);
                }
                // The pace of the flow, not a wait for anything.
                next += Duration::from_millis(1);
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok((sent, received))
        });
        Self { stop, is_over, answered, client, server }
    }

    /// Waits until so many more were answered.
    ///
    /// # Errors
    /// Where that takes too long.
    pub fn goes_on(&self, more: u64) -> Result<()> {
        let goal = self.answered.load(Ordering::Relaxed) + more;
        until_so("the steady flow goes on", || Ok(self.answered.load(Ordering::Relaxed) >= goal))
    }

    /// Ends it; gives how many questions were sent, and how many answered.
    ///
    /// # Errors
    /// Where a socket failed.
    pub fn stop(self) -> Result<(u64, u64)> {
        // The client first: the server still answers its last.
        self.stop.store(true, Ordering::Relaxed);
        let counts = self.client.join().expect("no panic")?;
        self.is_over.store(true, Ordering::Relaxed);
        self.server.join().expect("no panic")?;
        Ok(counts)
    }
}

//! Connections, and the servers that take them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{Shutdown, shutdown};
use sluice_tests::lab::Place;

/// Where everybody listens.
pub const PORT: u16 = 8080;

/// What is sent there and back in a call: so often, so many bytes. A piece fits into the buffers on its way, so that its sender need
/// not read while it writes.
const PIECES: usize = 6;
const PIECE: usize = 16_384;

/// How long what is expected to come may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A server, which tells callers who it is and at which address it sees them, and sends back what they send. Ends when dropped; who
/// is connected by then may go on.
pub struct Server {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Has somebody of this name listen, over both families.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn start(place: &Place, name: &str) -> Result<Self> {
        let listen = || Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?);
        let listener = Arc::new(place.inside(listen).with_context(|| format!("listening in {}", place.name))?);
        let (taken, name) = (listener.clone(), name.to_owned());
        let thread = thread::spawn(move || {
            while let Ok((caller, _)) = taken.accept() {
                let name = name.clone();
                // Callers notice what goes wrong.
                thread::spawn(move || serve(&caller, &name));
            }
        });
        Ok(Self { listener, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the waiting for callers.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(caller: &TcpStream, name: &str) -> io::Result<u64> {
    caller.set_nodelay(true)?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let (mut reader, mut writer) = (caller, caller);
    writeln!(writer, "{name} {}", caller.peer_addr()?.ip().to_canonical())?;
    io::copy(&mut reader, &mut writer)
}

/// What a server says.
#[derive(Clone)]
pub struct Heard {
    /// Who it is.
    pub name: String,
    /// At which address it sees its caller.
    pub seen: IpAddr,
}

/// A caller's end of a connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
    /// What the server said first.
    pub heard: Heard,
}

impl Connection {
    /// Calls somebody. Whether there is a connection is known after `patience`.
    ///
    /// # Errors
    /// Where there is none, or the server does not say who it is.
    pub fn open(from: &Place, to: SocketAddr, patience: Duration) -> Result<Self> {
        let connect = || Ok(TcpStream::connect_timeout(&to, patience)?);
        let stream = from.inside(connect).with_context(|| format!("a connection from {} to {to}", from.name))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let (mut reader, mut said) = (BufReader::new(stream), String::new());
        reader.read_line(&mut said).with_context(|| format!("hearing what {to} says to {}", from.name))?;
        let heard = said
            .trim()
            .split_once(' ')
            .and_then(|(name, seen)| Some(Heard { name: name.into(), seen: seen.parse().ok()? }));
        let heard = heard.with_context(|| format!("{to} says {said:?} to {}", from.name))?;
        Ok(Self { reader, heard })
    }

    /// Sends a server something, and hears the same.
    ///
    /// # Errors
    /// Where anything else comes of it.
    pub fn talk(&mut self) -> Result<()> {
        // No two segments are alike.
        let sent: Vec<u8> = (0..PIECE).map(|at| (at * 31 / 7) as u8).collect();
        let mut received = vec![0; PIECE];
        for _ in 0..PIECES {
            self.reader.get_mut().write_all(&sent)?;
            self.reader.read_exact(&mut received)?;
            ensure!(sent == received, "it garbles what it carries");
        }
        Ok(())
    }
}

/// Calls somebody, talks, and hangs up; gives what the server has said.
///
/// # Errors
/// Where anything of it fails.
pub fn call(from: &Place, to: SocketAddr, patience: Duration) -> Result<Heard> {
    let mut connection = Connection::open(from, to, patience)?;
    connection.talk().with_context(|| format!("talking over TCP from {} to {to}", from.name))?;
    Ok(connection.heard)
}

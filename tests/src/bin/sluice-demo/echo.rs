//! Calls, and the servers that take them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv6Addr, TcpListener, TcpStream};
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

/// A server, which tells callers at which address it sees them, and sends back what they send. Ends when dropped.
pub struct Server {
    listener: Arc<TcpListener>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Has somebody listen, over both families.
    ///
    /// # Errors
    /// Where the port is taken.
    pub fn start(place: &Place) -> Result<Self> {
        let listen = || Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT))?);
        let listener = Arc::new(place.inside(listen).with_context(|| format!("listening in {}", place.name))?);
        let taken = listener.clone();
        let thread = thread::spawn(move || {
            while let Ok((caller, _)) = taken.accept() {
                // Callers notice what goes wrong.
                thread::spawn(move || serve(&caller));
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

fn serve(caller: &TcpStream) -> io::Result<u64> {
    caller.set_nodelay(true)?;
    caller.set_read_timeout(Some(PATIENCE))?;
    caller.set_write_timeout(Some(PATIENCE))?;
    let (mut reader, mut writer) = (caller, caller);
    writeln!(writer, "{}", caller.peer_addr()?.ip().to_canonical())?;
    io::copy(&mut reader, &mut writer)
}

/// Calls somebody's server; gives the address that it saw. Whether there is a connection is known after `patience`.
///
/// # Errors
/// Where anything of it fails.
pub fn call(from: &Place, to: IpAddr, patience: Duration) -> Result<IpAddr> {
    let connect = || Ok(TcpStream::connect_timeout(&(to, PORT).into(), patience)?);
    let stream = from.inside(connect).with_context(|| format!("a connection from {} to {to}", from.name))?;
    let talk = || -> Result<IpAddr> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(&stream);
        let mut seen = String::new();
        reader.read_line(&mut seen)?;
        // No two segments are alike.
        let sent: Vec<u8> = (0..PIECE).map(|at| (at * 31 / 7) as u8).collect();
        let mut received = vec![0; PIECE];
        for _ in 0..PIECES {
            (&stream).write_all(&sent)?;
            reader.read_exact(&mut received)?;
            ensure!(sent == received, "it garbles what it carries");
        }
        seen.trim().parse().with_context(|| format!("{seen:?} is no address"))
    };
    talk().with_context(|| format!("talking over TCP from {} to {to}", from.name))
}

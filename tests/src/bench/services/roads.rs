//! Short connections, made on several roads in turns: each is one byte there and one back.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::ClockId;

use super::cluster::{PORT, WORKERS};
use crate::bench::report::median;
use crate::lab::{Place, until};

/// How long connections are made on a road before it is the next one's turn, and the turns of each.
const TURN: Duration = Duration::from_millis(20);
const TURNS: usize = 201;
/// How long the first connection may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// A way from a client to a server.
pub struct Road<'a> {
    name: String,
    client: &'a Place,
    server: &'a Server,
    /// Where a worker connects to, by its number and a random one.
    to: Box<dyn Fn(usize, usize) -> SocketAddr + Send + Sync + 'a>,
    /// Connections a second, for each turn,
    rates: Vec<f64>,
    /// and a second of processor time, which others who want it take no part of.
    costs: Vec<f64>,
    /// Microseconds that `connect` has taken.
    latencies: Vec<f64>,
}

impl<'a> Road<'a> {
    /// One to a server's own address.
    pub fn to(name: &str, client: &'a Place, server: &'a Server, address: Ipv4Addr) -> Self {
        let to = move |worker, _| SocketAddr::new(address.into(), server.first + worker as u16);
        Self::by(name, client, server, to)
    }

    /// One that leads to other addresses with every connection.
    pub fn by(
        name: &str,
        client: &'a Place,
        server: &'a Server,
        to: impl Fn(usize, usize) -> SocketAddr + Send + Sync + 'a,
    ) -> Self {
        let (rates, costs, latencies) = Default::default();
        Self { name: name.into(), client, server, to: Box::new(to), rates, costs, latencies }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it leads somewhere, for every worker.
    ///
    /// # Errors
    /// Where it never does.
    pub fn opens(&self) -> Result<()> {
        (0..WORKERS).try_for_each(|worker| {
            until(&format!("{} leads somewhere", self.name), || {
                let to = (self.to)(worker, usize::MAX);
                self.client
                    .inside(|| Ok(TcpStream::connect_timeout(&to, PATIENCE)?))
                    .with_context(|| to.to_string())?;
                self.server.listeners[worker].accept().context("accepting")?;
                Ok(())
            })
        })
    }

    /// Its median rate.
    pub fn rate(&self) -> f64 {
        median(&mut self.rates.clone())
    }

    /// The median of what its turns were to those of another.
    pub fn ratio(&self, other: &Self) -> f64 {
        of_turns(&self.rates, &other.rates)
    }

    /// Its median rate for a second of processor time, and the ratio of that to another's.
    pub fn by_processor(&self, other: &Self) -> (f64, f64) {
        (median(&mut self.costs.clone()), of_turns(&self.costs, &other.costs))
    }

    /// How long `connect` has taken, of so much of all connections at most.
    pub fn latency(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
    }

    /// Makes connections for one turn: both ends of each in one thread, so that nothing is waited for but the kernel.
    fn turn(&self) -> Result<Turn> {
        let start = Barrier::new(WORKERS);
        let work = |worker: usize| {
            self.client.inside(|| {
                let listener = &self.server.listeners[worker];
                let mut latencies = Vec::with_capacity(1 << 12);
                start.wait();
                let (started, busy) = (Instant::now(), processor_time()?);
                while started.elapsed() < TURN {
                    latencies.push(connection(listener, (self.to)(worker, fastrand::usize(..)))?);
                }
                let (took, busy) = (started.elapsed(), processor_time()? - busy);
                Ok(Turn { rate: latencies.len() as f64 / took.as_secs_f64(), busy, latencies })
            })
        };
        let worked = thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS).map(|worker| scope.spawn(move || work(worker))).collect();
            workers.into_iter().map(|worker| worker.join().expect("no panic")).collect::<Result<Vec<_>>>()
        })
        .with_context(|| format!("connecting by {}", self.name))?;
        Ok(Turn {
            rate: worked.iter().map(|turn| turn.rate).sum(),
            busy: worked.iter().map(|turn| turn.busy).sum(),
            latencies: worked.into_iter().flat_map(|turn| turn.latencies).collect(),
        })
    }
}

/// What came of a turn.
struct Turn {
    rate: f64,
    busy: Duration,
    latencies: Vec<f64>,
}

/// Processor time of this thread, with what the kernel does for it.
fn processor_time() -> Result<Duration> {
    Ok(nix::time::clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("reading a clock")?.into())
}

/// The median of the ratios of turns that followed each other.
fn of_turns(own: &[f64], other: &[f64]) -> f64 {
    median(&mut own.iter().zip(other).map(|(own, other)| own / other).collect::<Vec<_>>())
}

/// Makes connections on all roads, in turns.
///
/// # Errors
/// Where one does not lead where it should.
pub fn travel(roads: &mut [Road<'_>]) -> Result<()> {
    for road in roads.iter() {
        // What is needed once is not measured.
        road.turn()?;
    }
    for turn in 0..TURNS {
        // No road follows upon the same one always.
        let count = roads.len();
        for at in 0..count {
            let at = if turn % 2 == 0 { at } else { count - 1 - at };
            let Turn { rate, busy, mut latencies } = roads[at].turn()?;
            roads[at].rates.push(rate);
            roads[at].costs.push(latencies.len() as f64 / busy.as_secs_f64());
            roads[at].latencies.append(&mut latencies);
        }
    }
    Ok(())
}

/// A connection; gives the microseconds of `connect`. The server closes it first, so that the client's port is free.
fn connection(listener: &TcpListener, to: SocketAddr) -> Result<f64> {
    let before = Instant::now();
    let mut client = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
    let latency = before.elapsed();
    let (mut server, _) = listener.accept().context("accepting")?;
    let mut byte = [0];
    client.write_all(b"?")?;
    server.read_exact(&mut byte)?;
    server.write_all(b"!")?;
    drop(server);
    client.read_exact(&mut byte)?;
    Ok(latency.as_secs_f64() * 1e6)
}

/// Somebody who listens, at a port for each worker.
pub struct Server {
    listeners: Vec<TcpListener>,
    first: u16,
}

impl Server {
    /// Has somebody listen where services lead to.
    ///
    /// # Errors
    /// Where a port cannot be had.
    pub fn start(place: &Place) -> Result<Self> {
        Self::start_at(place, PORT)
    }

    /// Has somebody listen where no service leads to. To a port that is reached both ways, many connections wait for a second
    /// attempt: presumably the server has the same ports of the other way in TIME_WAIT, with later sequence numbers.
    ///
    /// # Errors
    /// As [`start`](Server::start).
    pub fn start_apart(place: &Place) -> Result<Self> {
        Self::start_at(place, PORT + WORKERS as u16)
    }

    fn start_at(place: &Place, first: u16) -> Result<Self> {
        let listen = |worker| {
            let at = (Ipv4Addr::UNSPECIFIED, first + worker as u16);
            place.inside(|| Ok(TcpListener::bind(at)?)).with_context(|| format!("listening in {}", place.name))
        };
        Ok(Self { listeners: (0..WORKERS).map(listen).collect::<Result<_>>()?, first })
    }
}

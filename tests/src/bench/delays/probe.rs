//! A question each millisecond, by which the first and the last packets that pass are known to about that.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sluice_netlink::within;

use crate::lab::until;

/// From one question to the next.
const TICK: Duration = Duration::from_millis(1);
/// A flow has stopped when it has been silent for so long, and so many questions have gone without an answer.
const SILENCE: Duration = Duration::from_millis(200);
const UNANSWERED: usize = 100;
/// How long a server waits before it looks whether it is still needed.
const REST: Duration = Duration::from_millis(100);

/// Something goes on until this is dropped.
#[derive(Default)]
struct Goes(Arc<AtomicBool>);

impl Goes {
    /// Whether it is over, for whoever goes on.
    fn is_over(&self) -> impl Fn() -> bool + Send + use<> {
        let over = Arc::clone(&self.0);
        move || over.load(Ordering::Relaxed)
    }
}

impl Drop for Goes {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A socket in a network namespace, at an address.
fn socket(namespace: &File, address: IpAddr) -> Result<UdpSocket> {
    let made = within(namespace, || UdpSocket::bind((address, 0))).context("entering a pod's network")?;
    made.with_context(|| format!("a socket at {address}"))
}

/// Sends back what it gets, until it is dropped.
pub struct Echo {
    /// Where.
    pub address: SocketAddr,
    _goes: Goes,
}

impl Echo {
    /// Starts one in the network of a pod that has this address.
    ///
    /// # Errors
    /// Where it has no socket.
    pub fn start(namespace: &File, address: IpAddr) -> Result<Self> {
        let socket = socket(namespace, address)?;
        socket.set_read_timeout(Some(REST)).context("setting a server's patience")?;
        let (address, goes) = (socket.local_addr().context("asking for a server's port")?, Goes::default());
        let is_over = goes.is_over();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while !is_over() {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    // What is lost is the client's to see.
                    let _ = socket.send_to(&buffer[..length], peer);
                }
            }
        });
        Ok(Self { address, _goes: goes })
    }
}

/// A flow of numbered questions from a pod, until it is dropped.
pub struct Probe {
    to: SocketAddr,
    log: Arc<Mutex<Log>>,
    _goes: Goes,
}

/// When each question was sent, and whether it has been answered.
#[derive(Debug, Default)]
struct Log(Vec<(Instant, bool)>);

impl Probe {
    /// Starts to ask from a pod's network.
    ///
    /// # Errors
    /// Where there is no socket, or no way.
    pub fn start(namespace: &File, to: SocketAddr) -> Result<Self> {
        let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = socket(namespace, any)?;
        socket.connect(to).with_context(|| format!("finding the way to {to}"))?;
        socket.set_nonblocking(true).context("not waiting for answers")?;
        let (log, goes) = (Arc::<Mutex<Log>>::default(), Goes::default());
        let (written, is_over) = (Arc::clone(&log), goes.is_over());
        thread::spawn(move || {
            let mut next = Instant::now();
            while !is_over() {
                lock(&written).step(&socket);
                // The pace of the flow; what was missed is not made up for.
                next = (next + TICK).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Ok(Self { to, log, _goes: goes })
    }

    /// Waits until a question is answered; gives when the first such one was sent, of those since an instant.
    ///
    /// # Errors
    /// Where none is.
    pub fn passes(&self, since: Instant) -> Result<Instant> {
        until("packets pass", || {
            let log = lock(&self.log);
            log.first_answered(since).with_context(|| format!("none of {} questions to {}", log.0.len(), self.to))
        })
    }

    /// How many questions were sent since an instant, and before another.
    pub fn asked(&self, since: Instant, before: Instant) -> usize {
        let log = lock(&self.log);
        log.since(since).len() - log.since(before).len()
    }

    /// Waits until no question is answered any more; gives when the first such one was sent, of those since an instant.
    ///
    /// # Errors
    /// Where they go on being answered.
    pub fn stops(&self, since: Instant) -> Result<Instant> {
        until("packets are dropped", || {
            let log = lock(&self.log);
            log.stopped(since, Instant::now()).with_context(|| format!("{} answers", self.to))
        })
    }
}

impl Log {
    /// Takes notice of what was answered, and asks once more.
    fn step(&mut self, socket: &UdpSocket) {
        let mut number = [0; 8];
        loop {
            match socket.recv(&mut number) {
                Ok(_) => {
                    let index = usize::try_from(u64::from_ne_bytes(number)).unwrap_or(usize::MAX);
                    if let Some((_, is_answered)) = self.0.get_mut(index) {
                        *is_answered = true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An error that came in for an earlier question: there is no answer to that.
                Err(_) => {}
            }
        }
        let number = self.0.len() as u64;
        self.0.push((Instant::now(), false));
        // What cannot be sent is not answered.
        let _ = socket.send(&number.to_ne_bytes());
    }

    /// Those that were sent since an instant.
    fn since(&self, since: Instant) -> &[(Instant, bool)] {
        &self.0[self.0.partition_point(|(sent, _)| *sent < since)..]
    }

    fn first_answered(&self, since: Instant) -> Option<Instant> {
        self.since(since).iter().find(|(_, is_answered)| *is_answered).map(|(sent, _)| *sent)
    }

    fn stopped(&self, since: Instant, now: Instant) -> Option<Instant> {
        let asked = self.since(since);
        let last = asked.iter().rposition(|(_, is_answered)| *is_answered);
        let silent = &asked[last.map_or(0, |last| last + 1)..];
        let (first, _) = silent.first()?;
        let has_stopped = silent.len() >= UNANSWERED && now.saturating_duration_since(*first) >= SILENCE;
        has_stopped.then_some(*first)
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().expect("nobody panics with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Questions, a millisecond apart, of which some are answered.
    fn log(answered: impl Fn(u64) -> bool) -> (Instant, Log) {
        let begun = Instant::now();
        let sent = |number: u64| (begun + Duration::from_millis(number), answered(number));
        (begun, Log((0..1_000).map(sent).collect()))
    }

    #[test]
    fn the_first_question_that_passes_counts_and_none_before_it_is_asked_about() {
        let (begun, log) = log(|number| number == 3 || number >= 40);
        let at = |number| begun + Duration::from_millis(number);
        assert_eq!(log.first_answered(at(0)), Some(at(3)));
        assert_eq!(log.first_answered(at(4)), Some(at(40)));
        assert_eq!(log.first_answered(at(1_000)), None);
    }

    #[test]
    fn a_flow_has_stopped_when_it_has_been_silent_for_long_enough() {
        let (begun, log) = log(|number| number < 700 && number != 500);
        let at = |number| begun + Duration::from_millis(number);
        assert_eq!(log.stopped(at(0), at(899)), None, "it may be late");
        assert_eq!(log.stopped(at(0), at(900)), Some(at(700)), "what was lost once is no end");
        assert_eq!(log.stopped(at(950), at(5_000)), None, "too few were asked");
    }
}

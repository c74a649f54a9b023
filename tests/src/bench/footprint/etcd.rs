//! etcd, into which objects are put as the API server keeps them: behind its back, as fast as the disk takes them.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::lab::Place;

/// Where it listens, in its place.
pub const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2379));
/// Objects that are put at once: at most 128, and 1.5 MiB.
const BATCH: usize = 64;
/// Who put them, at the same time.
const WRITERS: usize = 4;
/// Objects between two words of how far it has come.
const PROGRESS: usize = BATCH * 500;

/// A client of it, by HTTP and JSON.
pub struct Etcd {
    place: Place,
}

impl Etcd {
    /// The one of this place.
    pub fn at(place: Place) -> Self {
        Self { place }
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// Where it does not.
    pub fn answers(&self) -> Result<()> {
        self.ask("maintenance/status", "{}").map(|_| ())
    }

    /// Has it forget all that was before now: nobody can watch from there any more.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn compact(&self) -> Result<()> {
        let status = self.ask("maintenance/status", "{}")?;
        // A number too large for some is a text.
        let revision = status["header"]["revision"].as_str().with_context(|| format!("etcd's status is {status}"))?;
        self.ask("kv/compaction", &format!("{{\"revision\":\"{revision}\"}}")).context("compacting etcd").map(|_| ())
    }

    /// Puts an object.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn put(&self, key: &str, object: &str) -> Result<()> {
        self.ask("kv/put", &pair(key, object)).with_context(|| format!("putting {key}")).map(|_| ())
    }

    /// Deletes one.
    ///
    /// # Errors
    /// Where that is refused.
    pub fn delete(&self, key: &str) -> Result<()> {
        let body = format!("{{\"key\":\"{}\"}}", STANDARD.encode(key));
        self.ask("kv/deleterange", &body).with_context(|| format!("deleting {key}")).map(|_| ())
    }

    /// Puts so many objects; `write` writes one by its number, and gives its key.
    ///
    /// # Errors
    /// Where one is refused.
    pub fn fill(&self, what: &str, count: usize, write: impl Fn(usize, &mut String) -> String + Sync) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            let mut object = String::new();
            loop {
                let first = next.fetch_add(BATCH, Ordering::Relaxed);
                if first >= count {
                    return Ok(());
                }
                let puts = (first..count.min(first + BATCH)).map(|number| {
                    object.clear();
                    let key = write(number, &mut object);
                    format!("{{\"requestPut\":{}}}", pair(&key, &object))
                });
                let body = format!("{{\"success\":[{}]}}", puts.collect::<Vec<_>>().join(","));
                self.ask("kv/txn", &body).with_context(|| format!("putting {what} from number {first} on"))?;
                if first.is_multiple_of(PROGRESS) {
                    anstream::println!("etcd: {what} {first}/{count}");
                }
            }
        };
        thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS).map(|_| scope.spawn(work)).collect();
            writers.into_iter().try_for_each(|writer| writer.join().expect("nobody panics"))
        })
    }

    fn ask(&self, what: &str, body: &str) -> Result<Value> {
        let mut stream = self.place.inside(|| Ok(TcpStream::connect(ADDRESS)?)).context("reaching etcd")?;
        // It closes the connection behind its answer.
        let head = format!(
            "POST /v3/{what} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).context("asking etcd")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).context("hearing what etcd says")?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        ensure!(head.split(' ').nth(1) == Some("200"), "etcd says {answer}");
        serde_json::from_str(body).with_context(|| format!("understanding etcd: {body}"))
    }
}

/// A key and its value, as its gateway reads them.
fn pair(key: &str, value: &str) -> String {
    let mut text = format!("{{\"key\":\"{}\",\"value\":\"", STANDARD.encode(key));
    STANDARD.encode_string(value, &mut text);
    text.push_str("\"}");
    text
}

//! The local API.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io, thread};

use sluice_api::{Call, ErrorKind, Failure, Outcome, Request, Response, VERSION};

/// Longest request, bytes.
const LONGEST: u64 = 1 << 20;
/// Most clients at once; others wait until they are accepted. Each takes a descriptor, of which the agent needs some itself.
const CLIENTS: usize = 256;
/// How long a client may say nothing, or take no answer.
const IDLE: Duration = Duration::from_secs(60);
/// Rest before the next attempt to accept a client where descriptors or memory are short, of whose return nobody tells.
const SHORT: Duration = Duration::from_millis(100);

/// Answers calls.
pub type Answer = dyn Fn(Call) -> Outcome + Send + Sync;

/// Listens on a socket in place of one that a dead agent has left, each connection on a thread of its own.
///
/// # Errors
/// Where the socket cannot be made.
pub fn listen(socket: &Path, answer: Arc<Answer>) -> io::Result<()> {
    // The caller holds the agent's lock: nobody else listens here.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    thread::Builder::new().name("api".into()).spawn(move || {
        let places = Places::new(CLIENTS);
        loop {
            let place = places.take();
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "no client of the local API can be accepted");
                    thread::sleep(SHORT);
                    continue;
                }
            };
            let answer = answer.clone();
            let served = thread::Builder::new().name("api-client".into()).spawn(move || {
                serve(&stream, &*answer, IDLE);
                drop(place);
            });
            if let Err(error) = served {
                tracing::warn!(%error, "a client of the local API is turned away");
            }
        }
    })?;
    Ok(())
}

/// Places for so many at once.
#[derive(Clone)]
struct Places(Arc<(Mutex<usize>, Condvar)>);

/// A place that is taken, until it is dropped.
struct Place(Places);

impl Places {
    fn new(number: usize) -> Self {
        Self(Arc::new((Mutex::new(number), Condvar::new())))
    }

    /// Waits for a place.
    fn take(&self) -> Place {
        let (free, freed) = &*self.0;
        let free = free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Place(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (free, freed) = &*self.0.0;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        freed.notify_one();
    }
}

/// Serves a connection until it ends, makes no sense or is idle for too long.
fn serve(stream: &UnixStream, answer: &Answer, idle: Duration) {
    if stream.set_read_timeout(Some(idle)).is_err() || stream.set_write_timeout(Some(idle)).is_err() {
        return;
    }
    let mut writer = stream;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        match (&mut reader).take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let (outcome, go_on) = match parse(&line) {
            Ok(call) => (answer(call), true),
            Err(failure) => (Outcome::Error(failure), false),
        };
        let Ok(mut text) = serde_json::to_vec(&Response { version: VERSION, outcome }) else { return };
        text.push(b'\n');
        if writer.write_all(&text).is_err() || !go_on {
            return;
        }
    }
}

fn parse(line: &[u8]) -> Result<Call, Failure> {
    let invalid = |message: String| Failure { kind: ErrorKind::Invalid, message };
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| invalid(format!("the request is not JSON: {error}")))?;
    if let Some(version) = value.get("version").and_then(serde_json::Value::as_u64)
        && version != u64::from(VERSION)
    {
        let message = format!("this agent speaks version {VERSION} of the local API, not {version}; update the client");
        return Err(Failure { kind: ErrorKind::Version, message });
    }
    let request: Request =
        serde_json::from_value(value).map_err(|error| invalid(format!("the request makes no sense: {error}")))?;
    Ok(request.request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_api::{Answer as Given, Client, ClientError};

    fn ask(text: &str) -> String {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("agent.sock");
        listen(&socket, Arc::new(|_| Outcome::Ok(Given::Done))).expect("listens");
        let mut stream = UnixStream::connect(&socket).expect("connects");
        stream.write_all(text.as_bytes()).expect("writes");
        stream.shutdown(std::net::Shutdown::Write).expect("shuts down");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("reads");
        answer
    }

    #[test]
    fn nonsense_is_answered_and_ends_the_connection() {
        assert!(ask("{\n{}\n").contains(r#""kind":"invalid""#));
        assert_eq!(ask("{\n{\n").lines().count(), 1);
        assert!(ask("{\"version\":9,\"request\":\"new\"}\n").contains(r#""kind":"version""#));
        let call = "{\"version\":1,\"request\":{\"status\":{}}}\n";
        assert_eq!(ask(&call.repeat(3)).lines().count(), 3);
    }

    #[test]
    fn who_says_nothing_is_left_and_makes_room() {
        let (client, server) = UnixStream::pair().expect("a pair");
        // It returns: nobody has to say a word, or to go.
        serve(&server, &|_| Outcome::Ok(Given::Done), Duration::from_millis(1));
        drop(client);
        let places = Places::new(1);
        let first = places.take();
        let waiting = {
            let places = places.clone();
            thread::spawn(move || drop(places.take()))
        };
        assert_eq!(*places.0.0.lock().expect("locks"), 0);
        drop(first);
        waiting.join().expect("gets the place");
    }

    #[test]
    fn a_socket_of_the_dead_is_replaced_and_only_root_may_use_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("agent.sock");
        drop(UnixListener::bind(&socket).expect("binds"));
        let refused = Client::connect(&socket, Duration::from_secs(1));
        assert!(matches!(refused, Err(ClientError::Absent { .. })));
        listen(&socket, Arc::new(|_| Outcome::Ok(Given::Done))).expect("listens");
        let mode = fs::metadata(&socket).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut client = Client::connect(&socket, Duration::from_secs(5)).expect("connects");
        assert_eq!(client.call(Call::Status {}).expect("answers"), Given::Done);
    }
}

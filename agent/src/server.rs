//! The local API.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::{fs, io, thread};

use sluice_api::{Call, ErrorKind, Failure, Outcome, Request, Response, VERSION};

/// Longest request, bytes.
const LONGEST: u64 = 1 << 20;

/// Answers calls.
pub type Answer = dyn Fn(Call) -> Outcome + Send + Sync;

/// Listens on a socket in place of one that a dead agent has left, each connection on a thread of its own.
///
/// # Errors
/// Where the socket cannot be made.
pub fn listen(socket: &Path, answer: std::sync::Arc<Answer>) -> io::Result<()> {
    // The caller holds the agent's lock: nobody else listens here.
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    thread::Builder::new().name("api".into()).spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            let served = thread::Builder::new().name("api-client".into()).spawn(move || serve(stream, &*answer));
            if let Err(error) = served {
                tracing::warn!(%error, "a client of the local API is turned away");
            }
        }
    })?;
    Ok(())
}

/// Serves a connection until it ends or makes no sense.
fn serve(stream: UnixStream, answer: &Answer) {
    let Ok(mut writer) = stream.try_clone() else { return };
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
    use std::sync::Arc;
    use std::time::Duration;

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

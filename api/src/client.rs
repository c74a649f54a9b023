//! A blocking client.

use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{self as net, AddressFamily, SockFlag, SockType, UnixAddr};

use crate::last_error;
use crate::message::{Answer, Call, Failure, Outcome, Request, Response, VERSION};

/// A connection to the agent.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
}

/// A request could not be made or was refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers at {}: {source}; {}", socket.display(),
        last_error.as_deref().unwrap_or("is sluice-agent running on this node?")
    )]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// Why it failed.
        source: io::Error,
        /// What the last agent there has ended with, where it has said so.
        last_error: Option<String>,
    },
    /// The connection broke, or the agent took too long.
    #[error("asking the agent at {}: {source}", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The answer makes no sense.
    #[error("the agent at {} answered something else: {what}; plugin and agent may be of different versions", socket.display())]
    Unintelligible {
        /// The socket.
        socket: PathBuf,
        /// What was wrong.
        what: String,
    },
    /// The agent said no.
    #[error("the agent refused: {}", .0.message)]
    Refused(Failure),
}

impl Client {
    /// Connects to the agent, which may take up to `timeout`, and so may each request then. Where one fails, the connection
    /// is of no further use: a late answer to it would be taken for that to the next.
    ///
    /// # Errors
    /// [`ClientError::Absent`] where nobody listens.
    pub fn connect(socket: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let connected = || -> io::Result<UnixStream> {
            let address = UnixAddr::new(socket)?;
            let unconnected = net::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            let stream = UnixStream::from(unconnected);
            // Before it is connected: that waits, too, where the agent is stopped and others wait already.
            stream.set_write_timeout(Some(timeout))?;
            stream.set_read_timeout(Some(timeout))?;
            net::connect(stream.as_raw_fd(), &address)?;
            Ok(stream)
        };
        let stream = connected().map_err(|source| ClientError::Absent {
            socket: socket.to_owned(),
            source,
            last_error: socket.parent().and_then(last_error::read),
        })?;
        Ok(Self { socket: socket.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Where the connection fails or the agent refuses.
    pub fn call(&mut self, request: Call) -> Result<Answer, ClientError> {
        self.send(request)?;
        self.answer()
    }

    /// Asks. The [`answer`](Self::answer) can be had later: answers come in the order of requests.
    ///
    /// # Errors
    /// Where the connection fails.
    pub fn send(&mut self, request: Call) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(&Request { version: VERSION, request })
            .map_err(|error| self.unintelligible(error.to_string()))?;
        line.push(b'\n');
        let sent = self.stream.get_mut().write_all(&line);
        sent.map_err(|source| self.broken(source))
    }

    /// Waits for the answer to the oldest request that has none yet.
    ///
    /// # Errors
    /// Where the connection fails or the agent refuses.
    pub fn answer(&mut self) -> Result<Answer, ClientError> {
        let mut answer = String::new();
        let read = self.stream.read_line(&mut answer);
        if read.map_err(|source| self.broken(source))? == 0 {
            return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let response: Response =
            serde_json::from_str(&answer).map_err(|error| self.unintelligible(error.to_string()))?;
        match response.outcome {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Error(failure) => Err(ClientError::Refused(failure)),
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), source }
    }

    fn unintelligible(&self, what: String) -> ClientError {
        ClientError::Unintelligible { socket: self.socket.clone(), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_agent_that_takes_no_connections_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("binds");
        net::listen(&listener, net::Backlog::new(0).expect("a backlog")).expect("listens");
        let timeout = Duration::from_millis(50);
        let first = Client::connect(&socket, timeout).expect("waits to be accepted");
        let error = Client::connect(&socket, timeout).expect_err("nobody accepts");
        assert!(
            matches!(&error, ClientError::Absent { source, .. } if source.kind() == io::ErrorKind::WouldBlock),
            "{error}"
        );
        drop(first);
        assert!(matches!(Client::connect(&directory.path().join("none"), timeout), Err(ClientError::Absent { .. })));
    }

    #[test]
    fn where_nobody_answers_the_last_one_has_said_why() {
        let directory = tempfile::tempdir().expect("a directory");
        let said = || {
            let error =
                Client::connect(&directory.path().join("sock"), Duration::from_secs(1)).expect_err("nobody listens");
            error.to_string()
        };
        assert!(said().ends_with("; is sluice-agent running on this node?"), "{}", said());
        last_error::note(directory.path(), "sluice-agent has ended: no room").expect("writes");
        assert!(said().ends_with("; sluice-agent has ended: no room"), "{}", said());
    }
}

//! Flows that live on while policies change.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sluice_tests::lab::exchange::Server;
use sluice_tests::lab::until;

use super::stage::{Line, Stage, Trial, denies};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Flows from some to some others, one for each pair, protocol and family.
pub struct Flows {
    /// What is expected of them while they are denied.
    lines: [Line; 1],
    open: Vec<(Pipe, Pipe)>,
    asked: u64,
}

/// An end of a flow.
enum Pipe {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

impl Pipe {
    fn say(&self, what: u64) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => (&mut &*stream).write_all(&what.to_ne_bytes()),
            Self::Udp(socket) => socket.send(&what.to_ne_bytes()).map(drop),
        }
    }

    fn hear(&self) -> std::io::Result<u64> {
        let mut word = [0; 8];
        match self {
            Self::Tcp(stream) => (&mut &*stream).read_exact(&mut word)?,
            Self::Udp(socket) => drop(socket.recv(&mut word)?),
        }
        Ok(u64::from_ne_bytes(word))
    }

    /// Hears this, whatever comes before it: earlier words that had to wait.
    fn hear_out(&self, what: u64) -> std::io::Result<()> {
        while self.hear()? != what {}
        Ok(())
    }

    fn wait_at_most(&self, patience: Duration) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(patience)),
            Self::Udp(socket) => socket.set_read_timeout(Some(patience)),
        }
    }

    /// Whether anything has come.
    fn has_heard(&self) -> std::io::Result<bool> {
        self.block(false)?;
        let heard = match self {
            Self::Tcp(stream) => stream.peek(&mut [0]).is_ok(),
            Self::Udp(socket) => socket.peek(&mut [0]).is_ok(),
        };
        self.block(true)?;
        Ok(heard)
    }

    fn block(&self, block: bool) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(!block),
            Self::Udp(socket) => socket.set_nonblocking(!block),
        }
    }
}

fn open(trial: &Trial<'_>) -> Result<(Pipe, Pipe)> {
    let (from, to) = (trial.from, trial.to);
    let there = SocketAddr::new(to.address, trial.traffic.port);
    let (client, server) = match Server::start(to, trial.traffic)? {
        Server::Tcp(listener) => {
            let client = from.place.inside(|| Ok(TcpStream::connect_timeout(&there, PATIENCE)?))?;
            listener.set_nonblocking(false)?;
            let (server, _) = listener.accept()?;
            client.set_nodelay(true)?;
            (Pipe::Tcp(client), Pipe::Tcp(server))
        }
        Server::Udp(server) => {
            let client = from.place.inside(|| Ok(UdpSocket::bind((from.address, 0))?))?;
            client.connect(there)?;
            client.send(b"it is me")?;
            server.set_nonblocking(false)?;
            server.set_read_timeout(Some(PATIENCE))?;
            let (_, peer) = server.recv_from(&mut [0; 8])?;
            // Others have the port, too: each hears its own peer.
            server.connect(peer)?;
            (Pipe::Udp(client), Pipe::Udp(server))
        }
        Server::Kernel => bail!("echoes are no flow"),
    };
    for pipe in [&client, &server] {
        pipe.wait_at_most(PATIENCE)?;
    }
    Ok((client, server))
}

impl Flows {
    /// Opens them.
    pub fn open(stage: &Stage, from: &str, to: &str, traffic: &str) -> Result<Self> {
        let lines = [denies(from, to, traffic)];
        let trials = stage.trials(&lines)?;
        let open = trials.iter().map(|trial| open(trial).with_context(|| trial.text())).collect::<Result<_>>()?;
        let mut flows = Self { lines, open, asked: 0 };
        flows.go_on(stage)?;
        Ok(flows)
    }

    /// Others have the addresses now.
    pub fn between(&mut self, from: &str, to: &str) {
        let [line] = &mut self.lines;
        line.rename(from, to);
    }

    /// Each of them goes on, with all that was held up before.
    pub fn go_on(&mut self, stage: &Stage) -> Result<()> {
        self.asked += 1;
        for ((client, server), trial) in self.open.iter().zip(stage.trials(&self.lines)?) {
            client.say(self.asked).with_context(|| trial.text())?;
            server.hear_out(self.asked).with_context(|| format!("asking on {}", trial.text()))?;
            server.say(self.asked).with_context(|| trial.text())?;
            client.hear_out(self.asked).with_context(|| format!("answering on {}", trial.text()))?;
        }
        Ok(())
    }

    /// Each of them is denied, for the reason that `sluicectl` gives.
    pub fn are_cut(&mut self, stage: &Stage) -> Result<()> {
        self.asked += 1;
        let trials = stage.trials(&self.lines)?;
        let denials = stage.denials_of(&trials)?;
        let before = stage.denials()?;
        for ((client, _), trial) in self.open.iter().zip(&trials) {
            client.say(self.asked).with_context(|| trial.text())?;
        }
        until("live flows are denied", || stage.are_told(&denials, &before, &stage.denials()?))?;
        for ((_, server), trial) in self.open.iter().zip(&trials) {
            ensure!(!server.has_heard()?, "it goes on: {}", trial.text());
        }
        Ok(())
    }
}

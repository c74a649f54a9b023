//! A machine, from its start to its end.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::binaries::TIERS;
use crate::run::say;
use crate::score::Score;

/// One CPU, whose time is the number of its instructions: no test waits in vain for what the emulator has not got to, however
/// busy this machine is, and what only waits is skipped. (With more, each emulated by a thread, kernels die of "int3": one CPU
/// still runs the breakpoint that another has put into its code, and has taken away again; seen with QEMU 7.2 and Linux 7.2.)
const CPU: [&str; 4] = ["-smp", "1", "-icount", "shift=1,sleep=off"];
/// How long a machine may live: several times what it takes on two slow cores.
const LIMIT: Duration = Duration::from_secs(40 * 60);
/// What the kernel is told: to speak to the serial port, and to end with the first thing that is wrong with itself.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=4 oops=panic panic=-1";

/// Runs a machine, shows what it says, keeps that in a log too, and counts. A tier that has not run is one failure.
///
/// # Errors
/// Where the emulator cannot be started, or the log not be written.
pub fn run(kernel: &Path, image: &Path, log: &Path) -> Result<Score> {
    let mut log = File::create(log).with_context(|| format!("writing {}", log.display()))?;
    // However this program ends, the emulator ends with it.
    let mut child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg", "-m", "3072"])
        .args(CPU)
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none"])
        .args(["-serial", "stdio", "-append", COMMAND_LINE])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting qemu-system-x86_64")?;
    let output = child.stdout.take().context("its output")?;
    let machine = Pid::from_raw(child.id().try_into().context("its number")?);
    let (done, ended) = mpsc::channel::<()>();
    // The channel is closed before the child is waited for: its number is still its own.
    let guard = thread::spawn(move || {
        if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            say(&format!("The machine is ended: it has had {} minutes", LIMIT.as_secs() / 60));
            let _ = kill(machine, Signal::SIGKILL);
        }
    });
    let score = follow(BufReader::new(output), &mut log);
    drop(done);
    guard.join().ok();
    // It has been read to its end, or is of no use any more.
    child.kill().ok();
    child.wait().context("waiting for the emulator")?;
    score
}

/// Reads what a machine says until it ends.
fn follow(output: impl BufRead, log: &mut File) -> Result<Score> {
    let (mut score, mut is_up, mut run) = (Score::default(), false, 0);
    for line in output.split(b'\n') {
        let line = line.context("reading the machine's output")?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        writeln!(log, "{line}").context("writing the log")?;
        // What the firmware says comes before, with its own ideas of a terminal.
        is_up |= line == "machine: up";
        if is_up {
            println!("{line}");
        }
        score.add(Score::of_line(line));
        run += usize::from(line.starts_with("machine: ") && line.ends_with(" has run"));
    }
    score.failed += TIERS.len().saturating_sub(run);
    Ok(score)
}

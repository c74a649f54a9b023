//! The plugin in the runtime's directory: whether it is there, and of this agent's version.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::conflist::PLUGIN;

/// How long a plugin may take to say of which version it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a plugin says when it is asked of which version it is.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Version(String),
    SomethingElse,
    NothingInTime,
}

/// What is wrong with the plugin in a directory, and what to do.
pub fn problem(directory: &Path) -> Option<String> {
    problem_within(PATIENCE, directory)
}

fn problem_within(patience: Duration, directory: &Path) -> Option<String> {
    const ADVICE: &str =
        "put the one in its place that comes with this agent: move it over the other, pods need not stop for it";
    let path = directory.join(PLUGIN);
    let what = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "is not there: new pods have no network".into(),
        Err(error) => format!("cannot be looked at: {error}"),
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => {
            "is no program that can be run: new pods have no network".into()
        }
        Ok(_) => difference(&said(&path, patience), patience)?,
    };
    Some(format!("the plugin {} {what}; {ADVICE}", path.display()))
}

fn said(path: &Path, patience: Duration) -> Said {
    let end = Instant::now() + patience;
    let mut program = Command::new(path);
    program.arg("--version").env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // With all that it may start itself, so that this can be ended too.
    let Ok(mut plugin) = program.process_group(0).spawn() else { return Said::SomethingElse };
    let line = first_line(&mut plugin, end);
    end_all(&mut plugin);
    match line {
        Ok(line) => line
            .strip_prefix(PLUGIN)
            .and_then(|line| line.strip_prefix(' '))
            .map_or(Said::SomethingElse, |version| Said::Version(version.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Said::NothingInTime,
        Err(_) => Said::SomethingElse,
    }
}

/// Ends a program, and what it has started.
fn end_all(program: &mut Child) {
    let group = i32::try_from(program.id()).map(Pid::from_raw);
    // It may have ended by itself.
    let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    let _ = program.wait();
}

/// The first line that a program says, without its end.
fn first_line(program: &mut Child, end: Instant) -> io::Result<String> {
    /// Longer than a version is.
    const LONGEST: usize = 256;
    let mut output = program.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = Vec::new();
    while line.len() < LONGEST {
        let left = PollTimeout::try_from(end.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], left) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut letter = [0];
        if output.read(&mut letter)? == 0 || letter == *b"\n" {
            break;
        }
        line.extend(letter);
    }
    String::from_utf8(line).map_err(io::Error::other)
}

fn difference(said: &Said, patience: Duration) -> Option<String> {
    let own = env!("CARGO_PKG_VERSION");
    match said {
        Said::Version(version) if version == own => None,
        Said::Version(version) => Some(format!("is of version {version}, and this agent of {own}")),
        Said::SomethingElse => Some(format!(
            "does not say of which version it is: it is older than this agent ({own}), or another program"
        )),
        Said::NothingInTime => Some(format!(
            "has not said within {patience:?} of which version it is: it is another program, which does not end"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;
    use std::thread;

    use nix::libc::O_NONBLOCK;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_plugin_must_be_there_and_of_this_version() {
        let directory = tempfile::tempdir().expect("a directory");
        let put = |text: &str, mode| {
            let path = directory.path().join(PLUGIN);
            fs::write(&path, text).expect("writes");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets its mode");
        };
        let told = || problem(directory.path()).unwrap_or_default();
        assert!(told().contains("is not there"), "{}", told());
        put("", 0o644);
        assert!(told().contains("can be run"), "{}", told());
        put("#!/bin/sh\necho sluice 0.0.1\n", 0o755);
        assert!(told().contains("is of version 0.0.1, and this agent of"), "{}", told());
        put("#!/bin/sh\nexit 1\n", 0o755);
        assert!(told().contains("older than this agent"), "{}", told());
        put("#!/bin/sh\nexec cat /dev/zero\n", 0o755);
        assert!(told().contains("or another program"), "{}", told());
        put(concat!("#!/bin/sh\necho sluice ", env!("CARGO_PKG_VERSION"), "\n"), 0o755);
        assert_eq!(told(), "");
    }

    #[test]
    fn one_that_does_not_end_is_told_of_and_ended_with_all_that_it_has_started() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, left) = (directory.path().join(PLUGIN), directory.path().join("left"));
        mkfifo(&left, Mode::S_IRWXU).expect("makes");
        let mut open = fs::OpenOptions::new();
        let mut left_open = open.read(true).custom_flags(O_NONBLOCK).open(&left).expect("opens");
        fs::write(&path, format!("#!/bin/sh\nsleep 1000 > {}\n", left.display())).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("sets its mode");
        let told = problem_within(Duration::from_secs(1), directory.path()).unwrap_or_default();
        assert!(told.contains("has not said within 1s"), "{told}");
        let start = Instant::now();
        // Where somebody could still write there, it would block.
        while let Err(error) = left_open.read(&mut [0]) {
            assert!(start.elapsed() < Duration::from_secs(60), "what it has started goes on: {error}");
            thread::yield_now();
        }
    }
}

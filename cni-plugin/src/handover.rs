//! One agent that gives way to another: for some seconds a node has none, and is not broken.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sluice_api::{LOCK, MISSED};

/// For how long an agent may be away. The kubelet takes a runtime for dead that has told of no status for 30 s
/// (`baseRuntimeSyncThreshold`, Kubernetes 1.37).
const LONGEST: Duration = Duration::from_secs(10);

/// How long the next agent is waited for. Where none was since the node's start, for nobody: until the runtime has told its status,
/// the kubelet starts no pod, that of the agent neither (`syncLoop`, Kubernetes 1.37). And once for each time that one is away.
pub struct Handover<'a> {
    run_dir: &'a Path,
}

impl<'a> Handover<'a> {
    /// At the node with this run directory.
    pub fn at(run_dir: &'a Path) -> Self {
        Self { run_dir }
    }

    /// What is left of the time, which begins with the first that misses the agent.
    pub fn left(&self) -> Duration {
        if !self.run_dir.join(LOCK).exists() {
            return Duration::ZERO;
        }
        let away = self.missed_since().map(|since| SystemTime::now().duration_since(since));
        // Where nothing can be written, or a clock was set back, there is no time to go by.
        away.map_or(Duration::ZERO, |away| away.map_or(Duration::ZERO, |away| LONGEST.saturating_sub(away)))
    }

    /// There is an agent: the next one that is missed is waited for anew, unless this cannot be noted.
    pub fn is_over(&self) {
        let _ = fs::remove_file(self.mark());
    }

    fn missed_since(&self) -> io::Result<SystemTime> {
        let mark = self.mark();
        match File::create_new(&mark) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::metadata(mark)?.modified(),
        }
    }

    fn mark(&self) -> PathBuf {
        self.run_dir.join(MISSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_with_an_agent() -> tempfile::TempDir {
        let run_dir = tempfile::tempdir().expect("a directory");
        fs::write(run_dir.path().join(LOCK), "").expect("writes");
        run_dir
    }

    fn missed(run_dir: &Path, since: SystemTime) {
        let mark = File::create(run_dir.join(MISSED)).expect("makes it");
        mark.set_modified(since).expect("sets its time");
    }

    #[test]
    fn nobody_is_waited_for_who_was_never_there() {
        let run_dir = tempfile::tempdir().expect("a directory");
        assert_eq!(Handover::at(run_dir.path()).left(), Duration::ZERO);
        assert_eq!(fs::read_dir(run_dir.path()).expect("lists").count(), 0);
        assert_eq!(Handover::at(Path::new("/nowhere")).left(), Duration::ZERO);
    }

    #[test]
    fn an_agent_is_waited_for_once_for_each_time_that_it_is_away() {
        let run_dir = node_with_an_agent();
        let handover = Handover::at(run_dir.path());
        assert!((Duration::from_millis(1)..=LONGEST).contains(&handover.left()));
        missed(run_dir.path(), SystemTime::now() - LONGEST);
        assert_eq!(handover.left(), Duration::ZERO);
        handover.is_over();
        assert!(!handover.left().is_zero());
    }

    #[test]
    fn a_clock_that_was_set_back_makes_nobody_wait() {
        let run_dir = node_with_an_agent();
        missed(run_dir.path(), SystemTime::now() + Duration::from_secs(3600));
        assert_eq!(Handover::at(run_dir.path()).left(), Duration::ZERO);
    }
}

//! Our CNI configuration while the agent runs: others may remove or overwrite it, or put theirs before it.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::problems::Problems;
use crate::conflist;

/// So long it is told of that somebody has had his hands on ours: who does so may do it again.
const TOLD: Duration = Duration::from_secs(600);

/// What has become of it.
#[derive(Debug, Default)]
pub struct Configuration {
    /// What was written last; `None`: nothing yet, or it is to be written anew.
    written: Option<String>,
    /// What somebody has done to it, and when.
    meddled: Option<(&'static str, Instant)>,
    problems: Problems,
}

impl Configuration {
    /// Writes it, unless it is there already; `true` where it was not.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn write(&mut self, directory: &Path, content: String) -> io::Result<bool> {
        self.is_another(directory, Instant::now());
        let is_new = conflist::write(directory, &content)?;
        self.written = Some(content);
        Ok(is_new)
    }

    /// Takes notice of what is there now, with what is wrong with others': whether ours is to be written anew.
    pub fn look(&mut self, directory: &Path, mut problems: Vec<String>, now: Instant) -> bool {
        let is_another = self.is_another(directory, now);
        self.meddled = self.meddled.filter(|(_, when)| now.saturating_duration_since(*when) < TOLD);
        problems.extend(self.meddled.map(|(what, _)| {
            format!(
                "somebody has {what} {}, and it was written anew: while it was not there, new pods had no network, or another \
                 plugin's; find out who it was (another plugin's agent, a configuration management) and stop it",
                conflist::path(directory).display()
            )
        }));
        self.problems.set(problems);
        is_another
    }

    /// Whether what is there is not what was written.
    fn is_another(&mut self, directory: &Path, now: Instant) -> bool {
        let Some(written) = &self.written else { return false };
        let what = match fs::read_to_string(conflist::path(directory)) {
            Ok(present) if present == *written => return false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => "removed",
            _ => "overwritten",
        };
        self.meddled = Some((what, now));
        self.written = None;
        true
    }

    /// What is wrong.
    pub fn problems(&self) -> &[String] {
        self.problems.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_touches_it_is_told_of_for_a_while() {
        let directory = tempfile::tempdir().expect("a directory");
        let (directory, now) = (directory.path(), Instant::now());
        let mut configuration = Configuration::default();
        fs::write(conflist::path(directory), "an earlier agent's").expect("writes");
        assert!(configuration.write(directory, "ours".into()).expect("writes"));
        assert!(configuration.write(directory, "ours, of another MTU".into()).expect("writes"));
        assert!(!configuration.look(directory, vec!["another's".into()], now));
        assert_eq!(configuration.problems(), ["another's"]);
        fs::remove_file(conflist::path(directory)).expect("removes");
        assert!(configuration.look(directory, Vec::new(), now));
        assert!(!configuration.look(directory, Vec::new(), now), "it is about to be written");
        assert!(configuration.problems()[0].starts_with("somebody has removed "), "{:?}", configuration.problems());
        assert!(configuration.write(directory, "ours".into()).expect("writes"));
        fs::write(conflist::path(directory), "theirs").expect("writes");
        assert!(configuration.write(directory, "ours".into()).expect("writes"));
        assert!(!configuration.look(directory, Vec::new(), now));
        assert!(configuration.problems()[0].starts_with("somebody has overwritten "), "{:?}", configuration.problems());
        configuration.look(directory, Vec::new(), now + TOLD + Duration::from_secs(1));
        assert_eq!(configuration.problems(), [""; 0]);
    }
}

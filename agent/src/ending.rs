//! How the agent ends, or what runs before it: noted on the node for `sluicectl` and the plugin, which then find nobody to ask.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::jiff::{Timestamp, Unit};
use sluice_api::last_error;

use crate::{prepare, refusal};

/// Notes what a program has ended with, or that it is well again. Where that cannot be, its log has it all the same.
pub fn note(run_dir: &Path, program: &str, result: &Result<()>) {
    let noted = match result {
        Ok(()) => last_error::forget(run_dir).context("forgetting the last error"),
        Err(error) => write(run_dir, &text(program, error, Timestamp::now())),
    };
    if let Err(error) = noted {
        tracing::debug!("sluicectl does not tell of it: {error:#}");
    }
}

/// Writes it unless an agent runs, which answers for itself.
fn write(run_dir: &Path, text: &str) -> Result<()> {
    let _lock = prepare::lock(run_dir)?;
    last_error::note(run_dir, text).with_context(|| format!("writing to {}", run_dir.display()))
}

fn text(program: &str, error: &anyhow::Error, now: Timestamp) -> String {
    let now = now.round(Unit::Second).unwrap_or(now);
    format!("{program} {} has ended at {now}: {}", env!("CARGO_PKG_VERSION"), refusal::explained(error))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn noted(run_dir: &Path) -> Option<String> {
        std::fs::read_to_string(run_dir.join(sluice_api::LAST_ERROR)).ok()
    }

    #[test]
    fn it_says_who_has_ended_when_and_why() {
        let now = "2026-01-02T03:04:05.6Z".parse().expect("a time");
        let text = text("sluice-agent install", &anyhow!("the disk is full").context("writing"), now);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text,
            format!("sluice-agent install {version} has ended at 2026-01-02T03:04:06Z: writing: the disk is full")
        );
    }

    #[test]
    fn an_error_stays_until_all_is_well_and_is_none_while_an_agent_runs() {
        let directory = tempfile::tempdir().expect("a directory");
        let run_dir = directory.path();
        let failed = || Err(anyhow!("no type information"));
        let running = prepare::lock(run_dir).expect("nobody has it");
        note(run_dir, "sluice-agent", &failed());
        assert_eq!(noted(run_dir), None);
        drop(running);
        note(run_dir, "sluice-agent", &failed());
        assert!(noted(run_dir).is_some_and(|text| text.ends_with(": no type information\n")));
        note(run_dir, "sluice-agent", &Ok(()));
        assert_eq!(noted(run_dir), None);
    }
}

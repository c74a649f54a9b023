//! How the agent ends, or what runs before it: noted on the node for `sluicectl` and the plugin, which then find nobody to ask.

use std::panic::{self, PanicHookInfo};
use std::path::Path;
use std::{process, thread};

use anyhow::{Context, Error, Result, anyhow};
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

/// Has a program end as soon as any of its threads or tasks panics: the others would go on by what they knew then, and say to all who
/// ask that they are well. What is in force stays without them, until the program is started again.
pub fn with_any_panic(run_dir: &Path, program: &'static str) {
    let run_dir = run_dir.to_owned();
    panic::set_hook(Box::new(move |panic| {
        let error = fault(panic);
        // Whether or not an agent runs: this may be the one, and has the lock.
        let noted = last_error::note(&run_dir, &text(program, &error, Timestamp::now()));
        if tracing::dispatcher::has_been_set() {
            tracing::error!("{error}");
        } else {
            eprintln!("{program}: {error}");
        }
        if let Err(error) = noted {
            tracing::debug!(%error, "sluicectl does not tell of it");
        }
        process::exit(1)
    }));
}

fn fault(panic: &PanicHookInfo<'_>) -> Error {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = panic.location().map_or_else(|| "a place unknown".into(), ToString::to_string);
    let what = panic.payload_as_str().unwrap_or("no reason was given");
    anyhow!("its thread {thread} panicked at {place}: {what}; this is a fault of its own: please report it")
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
    use std::env;
    use std::process::{Command, Stdio};

    use tokio::runtime::Builder;
    use tokio::task::spawn_blocking;

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

    /// Whoever panics, in a process of its own.
    const WHO: &str = "SLUICE_TEST_PANICS_IN";
    const RUN_DIR: &str = "SLUICE_TEST_RUN_DIR";

    #[test]
    fn a_panic_of_whomever_is_noted_and_ends_the_program() {
        if let (Ok(who), Some(run_dir)) = (env::var(WHO), env::var_os(RUN_DIR)) {
            return panic_in(&who, Path::new(&run_dir));
        }
        for who in ["thread", "task", "page"] {
            let directory = tempfile::tempdir().expect("a directory");
            let mut program = Command::new(env::current_exe().expect("this program"));
            program.args([
                "--exact",
                "ending::tests::a_panic_of_whomever_is_noted_and_ends_the_program",
                "--nocapture",
            ]);
            program.env(WHO, who).env(RUN_DIR, directory.path()).stdin(Stdio::null());
            let output = program.output().expect("is run");
            let noted = noted(directory.path()).unwrap_or_default();
            for part in
                ["sluice-agent ", " has ended at ", "panicked at agent/src/ending.rs:", ": nothing is left of it; "]
            {
                assert!(noted.contains(part), "{who}: {noted}");
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                said.contains("sluice-agent: its thread") && said.contains("nothing is left of it"),
                "{who}: {said}"
            );
            assert_eq!(output.status.code(), Some(1), "{who}");
        }
    }

    /// Has somebody panic in the agent that has the lock.
    fn panic_in(who: &str, run_dir: &Path) {
        let _lock = prepare::lock(run_dir).expect("nobody has it");
        with_any_panic(run_dir, "sluice-agent");
        let panics = || panic!("nothing is left of it");
        let runtime = Builder::new_current_thread().build().expect("builds");
        let is_over = runtime.block_on(async {
            match who {
                "thread" => thread::spawn(panics).join().is_err(),
                "task" => tokio::spawn(async move { panics() }).await.is_err(),
                _ => spawn_blocking(panics).await.is_err(),
            }
        });
        assert!(!is_over, "it has ended alone");
    }
}

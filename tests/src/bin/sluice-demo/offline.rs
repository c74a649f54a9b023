//! What `sluicectl policy` answers for the manifests, without a cluster.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_policy::question::{Answered, Expected};
use sluice_tests::lab::binary;

use crate::echo::PORT;
use crate::party::{Party, Role};

/// Asks what is to become of calls; the answers are in their order.
///
/// # Errors
/// Where one has no answer.
pub fn answers(manifests: &Path, calls: &[(&Party<'_>, IpAddr)]) -> Result<Vec<Answered>> {
    let mut child = Command::new(binary("sluicectl"))
        .args(["policy", "matrix", "-o", "json", "--probes", "-"])
        .arg(manifests)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting sluicectl")?;
    let mut probes = String::new();
    for (from, to) in calls {
        let from = match from.role {
            Role::Pod => from.full_name(),
            Role::Node | Role::World => from.address_like(*to).context("nobody calls so")?.to_string(),
        };
        probes += &format!("{}\n", json!({ "from": from, "to": to, "port": PORT }));
    }
    // It reads all before it answers.
    child.stdin.take().context("no way to ask")?.write_all(probes.as_bytes()).context("asking sluicectl")?;
    let output = child.wait_with_output().context("waiting for sluicectl")?;
    ensure!(output.status.success(), "sluicectl policy matrix ends with {}", output.status);
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let answers: Vec<Answered> =
        lines.map(serde_json::from_slice).collect::<Result<_, _>>().context("reading the answers of sluicectl")?;
    ensure!(answers.len() == calls.len(), "{} calls, but {} answers of sluicectl", calls.len(), answers.len());
    Ok(answers)
}

/// Why a call is to be denied, if it is: what the end says that is asked first.
pub fn denied_by(answer: &Answered) -> Option<&str> {
    let denying = [&answer.egress, &answer.ingress].into_iter().find(|side| side.verdict == Expected::Deny);
    denying.map(|side| &*side.reason)
}

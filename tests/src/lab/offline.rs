//! What `sluicectl policy` answers for a lab's manifests, whatever its agents do.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_policy::question::Answered;

use super::{Lab, binary};

impl Lab {
    /// Asks probes, as lines of `sluicectl policy matrix --probes` have them; the answers are in their order.
    ///
    /// # Errors
    /// Where one has no answer, or another than it expects.
    pub fn ask_offline(&self, probes: &[Value]) -> Result<Vec<Answered>> {
        let mut child = Command::new(binary("sluicectl"))
            .args(["policy", "matrix", "-o", "json", "--probes", "-"])
            .arg(self.manifests())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting sluicectl")?;
        let lines: String = probes.iter().map(|probe| format!("{probe}\n")).collect();
        // It reads all before it answers.
        child.stdin.take().context("no way to ask")?.write_all(lines.as_bytes()).context("asking sluicectl")?;
        let output = child.wait_with_output().context("waiting for sluicectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "sluicectl policy matrix ends with {}: {said}", output.status);
        let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let answers: Vec<Answered> =
            lines.map(serde_json::from_slice).collect::<Result<_, _>>().context("reading the answers of sluicectl")?;
        ensure!(answers.len() == probes.len(), "{} probes, but {} answers", probes.len(), answers.len());
        Ok(answers)
    }
}

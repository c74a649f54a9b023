//! Who reads what `sluicectl` says may stop, as `head` does.

use std::fs;
use std::process::{Command, ExitStatus};

use anyhow::Result;

/// Two pods that nobody keeps apart.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: default}
status: {podIPs: [{ip: 10.1.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: b, namespace: default}
spec: {containers: [{name: main, ports: [{containerPort: 80}]}]}
status: {podIPs: [{ip: 10.1.0.2}]}
"#;

/// What becomes of a question whose answer, and whatever is wrong with it, nobody reads.
fn unread(arguments: &[&str]) -> Result<ExitStatus> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicectl"));
    Ok(command.args(arguments).stdout(writer.try_clone()?).stderr(writer).status()?)
}

#[test]
fn an_answer_that_nobody_reads_is_no_error() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("pods.yaml"), PODS)?;
    let there = directory.path().display().to_string();
    for output in ["table", "json"] {
        let asked = |question: &[&str]| unread(&[&["--output", output, "policy"], question].concat());
        assert!(asked(&["matrix", &there, "--port", "80/TCP"])?.success());
        let ends = ["--from", "default/a", "--to", "default/b", "--port", "80/TCP"];
        assert!(asked(&[&["explain", &there][..], &ends].concat())?.success());
        assert_eq!(asked(&["lint", "/nowhere"])?.code(), Some(2), "an error is one, whoever reads of it");
    }
    Ok(())
}

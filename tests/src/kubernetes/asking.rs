//! A pod that asks again and again, each time by a new connection.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::Namespace;
use crate::lab::until;

/// It goes on until it is stopped.
pub struct Asking<'a> {
    namespace: &'a Namespace<'a>,
    pod: String,
}

impl<'a> Asking<'a> {
    /// Has a pod ask, each time with that patience (options of curl).
    ///
    /// # Errors
    /// Where no command runs there.
    pub fn start(namespace: &'a Namespace<'a>, pod: &str, patience: &str, url: &str) -> Result<Self> {
        let ask = format!("curl -sSfg {patience} {url} >>/tmp/answers 2>>/tmp/failures; echo >>/tmp/answers");
        let script = format!("while [ ! -e /tmp/stop ]; do {ask}; done; touch /tmp/stopped");
        namespace.exec(pod, &["sh", "-c", &format!("setsid sh -c '{script}' </dev/null >/dev/null 2>&1 &")])?;
        Ok(Self { namespace, pod: pod.into() })
    }

    /// Ends it; gives who has answered, and how often.
    ///
    /// # Errors
    /// Where one question was not answered.
    pub fn stop(self) -> Result<BTreeMap<String, usize>> {
        let run = |command: &[&str]| self.namespace.exec(&self.pod, command);
        run(&["touch", "/tmp/stop"])?;
        until("the client stops", || run(&["ls", "/tmp/stopped"]))?;
        let failures = run(&["cat", "/tmp/failures"])?;
        ensure!(failures.is_empty(), "{failures}");
        let mut answers = BTreeMap::new();
        for answer in run(&["cat", "/tmp/answers"])?.lines() {
            *answers.entry(answer.to_owned()).or_default() += 1;
        }
        Ok(answers)
    }
}

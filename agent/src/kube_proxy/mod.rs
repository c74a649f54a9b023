//! What kube-proxy leaves on a node: rules that translate packets for Services before Sluice sees them. Finding it, and
//! removing it.

mod chains;
mod ipvs;
mod legacy;
mod sockopt;
mod tables;

use std::fmt::Display;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

/// Until it is looked for again: a kube-proxy that starts tells nobody.
const AGAIN: Duration = Duration::from_secs(60);

/// What was found of it, and what could not be looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// What there is.
    pub things: Vec<String>,
    /// Where there may be more, and why that is not known.
    pub unknown: Vec<String>,
}

impl Found {
    /// What is wrong with that, and what to do.
    pub fn problem(&self) -> Option<String> {
        (!self.things.is_empty()).then(|| {
            format!(
                "kube-proxy's rules are on this node ({}), and translate packets for Services before Sluice sees them: \
                 stop kube-proxy here, then run `sluice-agent cleanup-kube-proxy`",
                self.things.join("; ")
            )
        })
    }
}

/// Where something may be, and what is done there.
type Part<T> = (&'static str, fn(&mut T) -> Result<()>);

/// Looks for all that kube-proxy may have left in this network namespace.
pub fn find() -> Found {
    let mut found = Found::default();
    let looks: [Part<Found>; 3] =
        [("nf_tables", tables::find), ("iptables-legacy", legacy::find), ("IPVS", ipvs::find)];
    for (where_, look) in looks {
        if let Err(error) = look(&mut found) {
            found.unknown.push(format!("{where_}: {error:#}"));
        }
    }
    found
}

/// Looks again and again, and tells what is wrong whenever that has changed, until nobody listens any more.
pub fn watch(tell: impl Fn(Vec<String>) -> bool) {
    let mut last = Found::default();
    loop {
        let found = find();
        for what in found.unknown.iter().filter(|what| !last.unknown.contains(what)) {
            tracing::info!("whether kube-proxy has left anything here is not known in full: {what}");
        }
        if found.things != last.things && !tell(found.problem().into_iter().collect()) {
            return;
        }
        last = found;
        thread::sleep(AGAIN);
    }
}

/// What was removed, which is said at once, and what was not.
#[derive(Debug, Default)]
struct Report {
    removed: usize,
    left: Vec<String>,
}

impl Report {
    fn removed(&mut self, what: impl Display) {
        println!("removed {what}");
        self.removed += 1;
    }

    fn left(&mut self, what: impl Display) {
        self.left.push(what.to_string());
    }
}

/// Removes what kube-proxy has left in this network namespace, and says what. Others' rules, the kubelet's among them, and
/// connections that are tracked stay.
///
/// # Errors
/// Where something is left, with what that is and why.
pub fn clean_up() -> Result<()> {
    let mut report = Report::default();
    let steps: [Part<Report>; 3] =
        [("nf_tables", tables::remove), ("iptables-legacy", legacy::remove), ("IPVS", ipvs::remove)];
    for (where_, step) in steps {
        if let Err(error) = step(&mut report) {
            report.left(format!("{where_}: {error:#}"));
        }
    }
    if !report.left.is_empty() {
        bail!("not everything of kube-proxy could be removed:\n  {}", report.left.join("\n  "));
    }
    if report.removed == 0 {
        println!("nothing of kube-proxy is on this node");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_is_a_problem() {
        let unknown = vec!["iptables-legacy: not known".into()];
        assert_eq!(Found { things: Vec::new(), unknown }.problem(), None);
        let things = vec!["table ip kube-proxy".into(), "interface kube-ipvs0".into()];
        let problem = Found { things, unknown: Vec::new() }.problem().expect("a problem");
        assert!(
            problem.contains("(table ip kube-proxy; interface kube-ipvs0)") && problem.contains("cleanup-kube-proxy")
        );
    }
}

//! What the node has beside the kernel: directories, the plugin, and what is others'.

use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::{Finding, Verdict};
use crate::config::Config;
use crate::leftovers::Onlooker;
use crate::{plugin, rivals};

/// Whether the agent can write where it must. What is the plugin's, the node may have and a container not see.
pub fn directories(config: &Config) -> Vec<Finding> {
    let directories =
        [("bpf_dir", &config.bpf_dir), ("run_dir", &config.run_dir), ("cni_conf_dir", &config.cni_conf_dir)];
    directories.map(|(key, path)| directory(key, path)).into()
}

fn directory(key: &'static str, path: &Path) -> Finding {
    // One that is not there is made, where the next above it can be written to.
    let Some(there) = path.ancestors().find(|path| path.exists()) else {
        return Finding::new(key, Verdict::Failure, format!("nothing of {} is there", path.display()));
    };
    match access(there, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Finding::ok(key, path.display().to_string()),
        Err(errno) => {
            let why = if errno == Errno::EROFS { "mount it so that it can be" } else { "look at its mode and owner" };
            let what = format!("{} cannot be written to ({errno}): {why}, or set {key} to another", there.display());
            Finding::new(key, Verdict::Failure, what)
        }
    }
}

/// What others have on the node, the plugin that the runtime calls among it.
pub fn others(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(directory) = &config.cni_bin_dir {
        let problems = plugin::problem(directory).into_iter().collect();
        findings.extend(Finding::each("CNI plugin", Verdict::Failure, problems, "is there, of this agent's version"));
    }
    let rivals = rivals::problems(&config.cni_conf_dir);
    findings.extend(Finding::each("CNI configurations", Verdict::Failure, rivals, "nobody's comes before ours"));
    let onlooker = Onlooker::of(config);
    let sight = onlooker.look();
    let problems = onlooker.problems(&sight);
    const CHECK: &str = "others' leftovers";
    if problems.errors.is_empty() && problems.warnings.is_empty() && sight.unknown().is_empty() {
        findings.push(Finding::ok(CHECK, "nothing of kube-proxy or another plugin"));
    }
    let unknown = sight.unknown().iter().map(|what| format!("not known in full: {what}"));
    let warnings = problems.warnings.into_iter().chain(unknown);
    findings.extend(problems.errors.into_iter().map(|what| Finding::new(CHECK, Verdict::Failure, what)));
    findings.extend(warnings.map(|what| Finding::new(CHECK, Verdict::Warning, what)));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_made_where_it_can_be() {
        let there = tempfile::tempdir().expect("a directory");
        assert_eq!(directory("run_dir", &there.path().join("a/b")).verdict, Verdict::Ok);
        // The kernel's own.
        let finding = directory("run_dir", Path::new("/proc/fs/none"));
        assert!(finding.verdict == Verdict::Failure || finding.found.starts_with("/proc"), "{finding:?}");
    }
}

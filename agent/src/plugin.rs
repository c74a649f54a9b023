//! The plugin in the runtime's directory: whether it is there, and of this agent's version.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io};

use crate::conflist::PLUGIN;

/// What is wrong with the plugin in a directory, and what to do.
pub fn problem(directory: &Path) -> Option<String> {
    const ADVICE: &str =
        "put the one in its place that comes with this agent: move it over the other, pods need not stop for it";
    let path = directory.join(PLUGIN);
    let what = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "is not there: new pods have no network".into(),
        Err(error) => format!("cannot be looked at: {error}"),
        Ok(found) if !found.is_file() || found.permissions().mode() & 0o111 == 0 => {
            "is no program that can be run: new pods have no network".into()
        }
        Ok(_) => difference(version(&path).as_deref())?,
    };
    Some(format!("the plugin {} {what}; {ADVICE}", path.display()))
}

/// The version that a plugin says it is of; `None`: it does not.
fn version(path: &Path) -> Option<String> {
    let output =
        Command::new(path).arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    text.trim().strip_prefix(PLUGIN)?.strip_prefix(' ').map(str::to_owned)
}

fn difference(version: Option<&str>) -> Option<String> {
    let own = env!("CARGO_PKG_VERSION");
    match version {
        Some(version) if version == own => None,
        Some(version) => Some(format!("is of version {version}, and this agent of {own}")),
        None => Some(format!(
            "does not say of which version it is: it is older than this agent ({own}), or another program"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_must_be_there_and_of_this_version() {
        let directory = tempfile::tempdir().expect("a directory");
        let put = |text: &str, mode| {
            let path = directory.path().join(PLUGIN);
            fs::write(&path, text).expect("writes");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("sets its mode");
        };
        let told = || problem(directory.path()).unwrap_or_default();
        assert!(told().contains("is not there"), "{}", told());
        put("", 0o644);
        assert!(told().contains("can be run"), "{}", told());
        put("#!/bin/sh\necho sluice 0.0.1\n", 0o755);
        assert!(told().contains("is of version 0.0.1, and this agent of"), "{}", told());
        put("#!/bin/sh\nexit 1\n", 0o755);
        assert!(told().contains("older than this agent"), "{}", told());
        put(concat!("#!/bin/sh\necho sluice ", env!("CARGO_PKG_VERSION"), "\n"), 0o755);
        assert_eq!(told(), "");
    }
}

//! Go, with which the programs of a cluster, Helm and crictl are built.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::run::{output, say, target};
use crate::setup;

/// The first that fetches by itself the one that a module asks for. Before, it is fetched here.
const FETCHES: u32 = 21;
/// The one that is fetched: at least as new as all modules here ask for.
const NEWEST: &str = "1.26.8";

/// Where Go is.
pub struct Go {
    /// None: where every command is looked for.
    bin: Option<PathBuf>,
}

impl Go {
    /// The machine's, or the one that is asked for here: that comes as a module, which any Go can fetch, that of Debian 12 too.
    ///
    /// # Errors
    /// Where there is none and none can be installed, with what would be built with it.
    pub fn ready(what: &str) -> Result<Self> {
        let version = || output(Command::new("go").arg("version")).as_deref().and_then(minor);
        let has = version();
        if has.is_some_and(|minor| minor >= FETCHES) {
            return Ok(Self { bin: None });
        }
        if has.is_none() {
            setup::install(&["golang-go"])?;
            let hint = || format!("{what} is built with Go, which is missing: install it (1.{FETCHES} or later)");
            version().with_context(hint)?;
        }
        let bin = fetch().with_context(|| format!("fetching Go {NEWEST}, with which {what} is built"))?;
        Ok(Self { bin: Some(bin) })
    }

    /// Its command.
    pub fn command(&self) -> Command {
        let program = self.bin.as_ref().map_or_else(|| "go".into(), |bin| bin.join("go"));
        let mut command = Command::new(program);
        self.lend(&mut command);
        command
    }

    /// Has a script find it.
    pub fn lend(&self, script: &mut Command) {
        if let Some(bin) = &self.bin {
            let path = env::var_os("PATH").unwrap_or_default();
            let places = [bin.clone()].into_iter().chain(env::split_paths(&path));
            // What cannot be in it was not in it.
            script.env("PATH", env::join_paths(places).unwrap_or(path));
        }
    }
}

/// Fetches it, unless it is there; gives the directory of its programs.
fn fetch() -> Result<PathBuf> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Fetched {
        dir: PathBuf,
    }

    let directory = target().join("go");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    // Not of any module: whatever go.mod is above asks for another.
    fs::write(directory.join("go.mod"), "module tools\n").context("writing go.mod")?;
    let os_arch = format!("linux-{}", architecture()?);
    say(&format!("Fetching Go {NEWEST}, unless it is there"));
    let module = format!("golang.org/toolchain@v0.0.1-go{NEWEST}.{os_arch}");
    let mut go = Command::new("go");
    let fetched = go.args(["mod", "download", "-json", &module]).current_dir(&directory).env("GOFLAGS", "").output();
    let fetched = fetched.context("starting go")?;
    ensure!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let Fetched { dir } = serde_json::from_slice(&fetched.stdout).context("understanding `go mod download`")?;
    let bin = dir.join("bin");
    // Modules have no programs, but for Go that knows of this module.
    for programs in [&bin, &dir.join("pkg/tool").join(os_arch.replace('-', "_"))] {
        make_executable(programs).with_context(|| format!("making programs of {}", programs.display()))?;
    }
    Ok(bin)
}

fn make_executable(directory: &Path) -> Result<()> {
    for file in fs::read_dir(directory)? {
        fs::set_permissions(file?.path(), fs::Permissions::from_mode(0o555))?;
    }
    Ok(())
}

fn architecture() -> Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => anyhow::bail!("not known for {other}: install Go 1.{FETCHES} or later"),
    }
}

/// The second number of what `go version` prints.
fn minor(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("go1.")?;
    rest.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::root;

    #[test]
    fn versions_of_go_are_read() {
        assert_eq!(minor("go version go1.26.8 linux/amd64\n"), Some(26));
        assert_eq!(minor("go version go1.19 linux/amd64\n"), Some(19));
        assert_eq!(minor("go version devel +abc linux/amd64\n"), None);
    }

    fn numbers(version: &str) -> Vec<u32> {
        version.split('.').map(|it| it.parse().expect("a number")).collect()
    }

    #[test]
    fn the_one_that_is_fetched_is_new_enough_for_all_modules() {
        let modules = fs::read_dir(root().join("tests/kubernetes")).expect("lists");
        let asked: Vec<String> = modules
            .filter_map(|entry| fs::read_to_string(entry.expect("lists").path().join("go.mod")).ok())
            .flat_map(|text| {
                text.lines().filter_map(|it| it.strip_prefix("go ").map(str::to_owned)).collect::<Vec<_>>()
            })
            .collect();
        assert!(asked.len() > 3, "{asked:?}");
        for version in asked {
            assert!(numbers(NEWEST) >= numbers(&version), "{version}");
        }
    }
}

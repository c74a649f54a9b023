//! CNI configurations of others: the container runtime takes the first of its directory, by name, and what stands before ours
//! is taken in its place.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use std::{fs, io, thread};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::Value;

use crate::conflist;

/// How the names of configurations end (libcni, `ConfFiles`; containerd, CRI-O and podman ask it for these).
const ENDINGS: [&str; 3] = [".conf", ".conflist", ".json"];
/// Until the directory is looked at again though nothing was told of it: it may be another by now.
const AGAIN: Duration = Duration::from_secs(60);
/// Rest between two looks, however much happens: somebody may remove ours as often as it is written.
const REST: Duration = Duration::from_secs(1);
/// What may make another of what the directory has.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// What is wrong with the configurations in a directory, and what to do. One that cannot be listed has none.
pub fn problems(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let before = names.iter().filter(|name| comes_before(name));
    before
        .filter_map(|name| {
            let path = directory.join(name);
            match fs::read_to_string(&path) {
                // Gone since, or none of the runtime's business.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => None,
                read => problem(&path, read.map_err(|error| error.to_string())),
            }
        })
        .collect()
}

/// Whether a file of this name is taken before ours.
fn comes_before(name: &str) -> bool {
    name < conflist::NAME && name.rfind('.').is_some_and(|at| ENDINGS.contains(&&name[at..]))
}

/// What is wrong with a file that comes before ours.
fn problem(path: &Path, text: Result<String, String>) -> Option<String> {
    let (path, ours) = (path.display(), conflist::NAME);
    match text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string())) {
        Ok(list) if leads_to_ours(&list) => None,
        Ok(list) => Some(format!(
            "the container runtime takes {path}{} before {ours}: new pods are not Sluice's; take that plugin off the cluster, and \
             remove the file; pods that it has made keep what they have until they are made anew",
            described(&list)
        )),
        Err(error) => Some(format!(
            "{path} comes before {ours}, and is no CNI configuration ({error}): the container runtime may take none at all, and \
             new pods have no network; remove the file"
        )),
    }
}

/// What a configuration says that it is.
fn described(list: &Value) -> String {
    let plugins = std::iter::once(list).chain(list["plugins"].as_array().into_iter().flatten());
    let plugin = plugins.filter_map(|plugin| plugin["type"].as_str()).next();
    let parts = [("network", list["name"].as_str()), ("plugin", plugin)];
    let parts: Vec<String> = parts.iter().filter_map(|(what, name)| Some(format!("{what} {}", (*name)?))).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

/// Whether a configuration calls our plugin, or one that hands on to our configuration (Multus).
fn leads_to_ours(value: &Value) -> bool {
    match value {
        Value::String(text) => text == conflist::PLUGIN || text.ends_with(conflist::NAME),
        Value::Array(values) => values.iter().any(leads_to_ours),
        Value::Object(fields) => fields.values().any(leads_to_ours),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Tells what is wrong in a directory, at once and whenever something happens there, until nobody listens any more.
pub fn watch(directory: &Path, tell: impl Fn(Vec<String>) -> bool) {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .inspect_err(|error| tracing::warn!(%error, "{} is looked at every minute only", directory.display()));
    // The agent is about to write there; what cannot be made is told of then.
    let _ = fs::create_dir_all(directory);
    let inotify = inotify.as_ref().ok();
    // It may be missing, or another than before; where it is the same, this changes nothing.
    let follow = || inotify.and_then(|inotify| inotify.add_watch(directory, EVENTS).ok());
    loop {
        let followed = follow();
        while inotify.is_some_and(|inotify| inotify.read_events().is_ok()) {}
        if !tell(problems(directory)) {
            return;
        }
        thread::sleep(REST);
        // One that has been made anew meanwhile is looked at first.
        if follow() == followed {
            wait(inotify);
        }
    }
}

/// Waits until something happens, or it is time to look again.
fn wait(inotify: Option<&Inotify>) {
    let Some(inotify) = inotify else { return thread::sleep(AGAIN) };
    let timeout = PollTimeout::try_from(AGAIN).unwrap_or(PollTimeout::MAX);
    // Interrupted, it looks sooner.
    let _ = poll(&mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)], timeout);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(files: &[(&str, &str)]) -> Vec<String> {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            fs::write(directory.path().join(name), text).expect("writes");
        }
        problems(directory.path())
    }

    #[test]
    fn whoever_comes_first_is_told_with_what_to_do() {
        let flannel = r#"{"name": "cbr0", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}"#;
        let [problem] = &told(&[("05-flannel.conflist", flannel)])[..] else { panic!("it is not told of") };
        for part in ["/05-flannel.conflist (network cbr0, plugin flannel) before 10-sluice.conflist", "remove the file"]
        {
            assert!(problem.contains(part), "{problem}");
        }
        assert_eq!(told(&[("10-calico.conflist", "{}"), ("10-a.conf", "{}"), ("1.json", "{}")]).len(), 3);
        let [broken] = &told(&[("00-broken.conf", "{")])[..] else { panic!("it is not told of") };
        assert!(broken.contains("no CNI configuration (EOF"), "{broken}");
    }

    #[test]
    fn what_the_runtime_does_not_take_before_ours_is_nobodys_problem() {
        let files = [
            ("10-sluice.conflist", "{}"),
            ("10-tuning.conflist", "{}"),
            ("99-loopback.conf", "{}"),
            ("05-cilium.conflist.cilium_bak", "{}"),
            ("00-multus.kubeconfig", ""),
            ("README", ""),
        ];
        assert_eq!(told(&files), [""; 0]);
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("00-multus.d.conf")).expect("makes");
        assert_eq!(problems(directory.path()), [""; 0]);
        assert_eq!(problems(&directory.path().join("missing")), [""; 0]);
    }

    #[test]
    fn who_hands_on_to_ours_may_come_first() {
        let thick = r#"{"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/10-sluice.conflist"}"#;
        let thin = r#"{"type": "multus", "delegates": [{"name": "sluice", "plugins": [{"type": "sluice"}]}]}"#;
        let own = r#"{"name": "own", "plugins": [{"type": "sluice"}, {"type": "tuning"}]}"#;
        assert_eq!(told(&[("00-a.conf", thick), ("00-b.conf", thin), ("00-c.conflist", own)]), [""; 0]);
    }
}

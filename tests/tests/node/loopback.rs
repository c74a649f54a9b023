//! The plugin by its other name, as containerd calls it: without an agent, and without any key of ours.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::Result;
use serde_json::{Value, json};
use sluice_tests::lab::traffic::ping;
use sluice_tests::lab::{Call, Place, binary};

/// A host with a directory of plugins, and a container whose loopback device is down.
struct Bare {
    host: Place,
    container: Place,
    plugins: tempfile::TempDir,
}

impl Bare {
    fn make(name: &str) -> Result<Self> {
        let name = format!("t{}-{name}", process::id());
        let bare = Self {
            host: Place::make(&format!("{name}-host"))?,
            container: Place::make(&name)?,
            plugins: tempfile::tempdir()?,
        };
        bare.container.ip("link set lo down")?;
        symlink(binary("sluice"), bare.plugin())?;
        Ok(bare)
    }

    fn plugin(&self) -> PathBuf {
        self.plugins.path().join("loopback")
    }

    /// The configuration that containerd makes, of this version.
    fn call(&self, verb: &str, version: &str) -> Call {
        let config = json!({ "cniVersion": version, "name": "cni-loopback", "type": "loopback" });
        self.call_of(&self.plugin(), verb, config)
    }

    fn call_of(&self, program: &Path, verb: &str, config: Value) -> Call {
        Call::of(program, &self.host, self.plugins.path(), config)
            .with("CNI_COMMAND", verb)
            .with("CNI_CONTAINERID", "x")
            .with("CNI_NETNS", &self.container.path().display().to_string())
            .with("CNI_IFNAME", "lo")
    }

    fn is_up(&self) -> bool {
        is_up(&self.container)
    }
}

/// Whether both loopback addresses answer.
fn is_up(place: &Place) -> bool {
    let [v4, v6] = ["127.0.0.1", "::1"].map(|text| ping(place, text.parse().unwrap()).is_ok());
    assert_eq!(v4, v6);
    v4
}

#[test]
fn lo_is_up_from_add_to_del() -> Result<()> {
    let bare = Bare::make("lo-up")?;
    assert!(!bare.is_up());
    for version in ["0.3.1", "1.1.0"] {
        let result = bare.call("ADD", version).run()?;
        assert!(bare.is_up());
        let sandbox = bare.container.path();
        let mut ips =
            [json!({ "address": "127.0.0.1/8", "interface": 0 }), json!({ "address": "::1/128", "interface": 0 })];
        if version == "0.3.1" {
            ips[0]["version"] = "4".into();
            ips[1]["version"] = "6".into();
        }
        let interface = json!({ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": sandbox });
        assert_eq!(result, json!({ "cniVersion": version, "interfaces": [interface], "ips": ips, "dns": {} }));
        // Another ADD finds its work done.
        assert_eq!(bare.call("ADD", version).run()?, result);
        for _ in 0..2 {
            assert_eq!(bare.call("DEL", version).run()?, Value::Null);
            assert!(!bare.is_up());
        }
    }
    Ok(())
}

#[test]
fn check_sees_whether_lo_is_up() -> Result<()> {
    let bare = Bare::make("lo-check")?;
    bare.call("ADD", "1.1.0").run()?;
    bare.call("CHECK", "1.1.0").run()?;
    bare.container.ip("link set lo down")?;
    let (code, message) = bare.call("CHECK", "1.1.0").fails()?;
    assert!(code == 103 && message.contains("lo is down"), "{code} {message}");
    // It came with 0.4.0.
    assert_eq!(bare.call("CHECK", "0.3.1").fails()?.0, 1);
    Ok(())
}

#[test]
fn del_never_keeps_a_runtime_from_going_on() -> Result<()> {
    let bare = Bare::make("lo-del")?;
    bare.call("ADD", "1.1.0").run()?;
    let file = bare.plugins.path().join("unmounted");
    fs::write(&file, "")?;
    for gone in ["", "/run/netns/no-such", &file.display().to_string(), "/proc/self/ns/net"] {
        bare.call("DEL", "1.1.0").with("CNI_NETNS", gone).run()?;
    }
    assert!(is_up(&bare.host) && bare.is_up());
    for (gone, code) in [("", 4), ("/run/netns/no-such", 3), ("/proc/self/ns/net", 4)] {
        for verb in ["ADD", "CHECK"] {
            assert_eq!(bare.call(verb, "1.1.0").with("CNI_NETNS", gone).fails()?.0, code, "{verb} {gone:?}");
        }
    }
    Ok(())
}

#[test]
fn it_needs_a_version_and_the_name_or_the_type() -> Result<()> {
    let bare = Bare::make("lo-name")?;
    // By the name of the program alone.
    bare.call_of(&bare.plugin(), "ADD", json!({ "cniVersion": "1.0.0" })).run()?;
    assert!(bare.is_up());
    bare.call_of(&bare.plugin(), "DEL", json!({ "cniVersion": "1.0.0" })).run()?;
    // By the type alone, behind another plugin in a chain, which has named the interface.
    let previous = json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "eth0" }], "ips": [], "other": 1 });
    let config = json!({ "cniVersion": "1.0.0", "type": "loopback", "prevResult": previous });
    assert_eq!(bare.call_of(&binary("sluice"), "ADD", config).with("CNI_IFNAME", "eth0").run()?, previous);
    assert!(bare.is_up());
    // By neither it is ours, which has a name.
    assert_eq!(bare.call_of(&binary("sluice"), "ADD", json!({ "cniVersion": "1.0.0" })).fails()?.0, 7);
    assert_eq!(bare.call("ADD", "0.2.0").fails()?.0, 1);
    Ok(())
}

#[test]
fn verbs_that_concern_no_container_succeed() -> Result<()> {
    let bare = Bare::make("lo-none")?;
    for verb in ["GC", "STATUS"] {
        assert_eq!(bare.call(verb, "1.1.0").run()?, Value::Null);
        assert_eq!(bare.call(verb, "1.0.0").fails()?.0, 1);
    }
    let answer = bare.call_of(&bare.plugin(), "VERSION", json!({ "cniVersion": "1.1.0" })).run()?;
    assert_eq!(answer["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    assert!(!bare.is_up());
    Ok(())
}

//! What the kernel must be and have, and let this process do.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use sluice_netlink::{Netlink, NetlinkError, Veth, Vxlan, apart};

use super::{Finding, Verdict};
use crate::config::{Config, Routing};
use crate::kernel::{Feature, KernelError, groups, missing};
use crate::refusal::{self, Confinement};

/// The oldest kernel that the programs are for.
const OLDEST: (u32, u32) = (5, 10);

/// What the agent cannot do without.
pub fn essentials(confinement: &Confinement) -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    vec![version(release.trim()), types(Path::new("/sys/kernel/btf/vmlinux").exists()), capabilities(confinement)]
}

fn version(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let version = numbers.next().zip(numbers.next());
    match version {
        Some((Ok(major), Ok(minor))) if (major, minor) < OLDEST => Finding::new(
            CHECK,
            Verdict::Failure,
            format!("Linux {release} is too old: use {}.{} or later", OLDEST.0, OLDEST.1),
        ),
        Some((Ok(_), Ok(_))) => Finding::ok(CHECK, format!("Linux {release}")),
        _ => Finding::new(CHECK, Verdict::Warning, format!("{release:?} is no version of Linux that is known")),
    }
}

fn types(are_there: bool) -> Finding {
    const CHECK: &str = "type information";
    if are_there {
        return Finding::ok(CHECK, "/sys/kernel/btf/vmlinux");
    }
    Finding::new(CHECK, Verdict::Failure, KernelError::NoBtf.to_string())
}

fn capabilities(confinement: &Confinement) -> Finding {
    const CHECK: &str = "capabilities";
    let verdict = match (&confinement.missing[..], &confinement.lacks()[..]) {
        ([], []) => return Finding::ok(CHECK, "all that the agent needs"),
        ([], _) => Verdict::Warning,
        _ => Verdict::Failure,
    };
    Finding::new(CHECK, verdict, confinement.lacks().join("; "))
}

/// What parts of the agent's work need.
pub fn features(config: &Config, confinement: &Confinement) -> Vec<Finding> {
    let mut findings =
        Finding::each("security modules", Verdict::Warning, confinement.confines(), "none confines this process");
    findings.push(programs());
    if config.socket_lb {
        findings.push(match config.cgroup.clone().map_or_else(groups, Ok) {
            Ok(group) => Finding::ok("control groups", group.display().to_string()),
            Err(error) => Finding::new("control groups", Verdict::Warning, error.to_string()),
        });
    }
    let overlay = (config.routing != Routing::Native).then_some(config.vxlan.port);
    match apart(|| devices(overlay)) {
        Ok(made) => findings.extend(made),
        Err(error) => findings.push(Finding::new(
            "network devices",
            Verdict::Warning,
            format!("not tried: no network namespace could be made: {}", refusal::explained(&error.into())),
        )),
    }
    findings
}

/// Whether the kernel takes programs and tables of the kinds that there are.
fn programs() -> Finding {
    const CHECK: &str = "eBPF";
    match missing() {
        Ok(features) if features.is_empty() => Finding::ok(CHECK, "every kind of program and table"),
        Ok(features) => {
            let list: Vec<String> = features.iter().map(Feature::to_string).collect();
            let verdict = if features.iter().all(|feature| feature.can_do_without()) {
                Verdict::Warning
            } else {
                Verdict::Failure
            };
            Finding::new(
                CHECK,
                verdict,
                format!("this kernel lacks {}: use one that is built with them", list.join(", ")),
            )
        }
        Err(error) => Finding::new(CHECK, Verdict::Failure, refusal::explained(&error.into())),
    }
}

/// Whether devices of the kinds that pods and the overlay need can be made, by making them where nobody sees them.
fn devices(overlay: Option<u16>) -> Vec<Finding> {
    let pair = || {
        let namespace = fs::File::open("/proc/thread-self/ns/net").map_err(|source| NetlinkError {
            action: "opening",
            object: "a network namespace".into(),
            source,
        })?;
        Netlink::open()?.create_veth(&Veth {
            host: "sluice0",
            host_mac: [2, 0, 0, 0, 0, 1],
            peer: "sluice1",
            peer_mac: [2, 0, 0, 0, 0, 2],
            namespace: namespace.as_fd(),
            mtu: 1500,
        })
    };
    let vxlan = |port| Netlink::open()?.create_vxlan(&Vxlan { name: "sluice2", port, mtu: 1400 });
    let mut findings = vec![device("veth", pair(), "CONFIG_VETH, the module veth")];
    findings.extend(
        overlay.map(|port| device("VXLAN", vxlan(port), "CONFIG_VXLAN, the module vxlan, or set routing to native")),
    );
    findings
}

fn device(check: &'static str, made: Result<(), NetlinkError>, needs: &str) -> Finding {
    match made {
        Ok(()) => Finding::ok(check, "can be made"),
        Err(error) => Finding::new(check, Verdict::Failure, format!("{error}: it takes {needs}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_are_too_old_are_told_from_others() {
        for (release, verdict) in [
            ("5.10.0-28-amd64", Verdict::Ok),
            ("6.18.4", Verdict::Ok),
            ("10.0-rc1", Verdict::Ok),
            ("5.9.16", Verdict::Failure),
            ("4.18.0-553.el8_10.x86_64", Verdict::Failure),
            ("", Verdict::Warning),
        ] {
            assert_eq!(version(release).verdict, verdict, "{release}");
        }
        assert_eq!(version("4.19.0").found, "Linux 4.19.0 is too old: use 5.10 or later");
        assert!(types(false).found.contains("CONFIG_DEBUG_INFO_BTF"));
    }

    #[test]
    fn without_what_it_needs_always_an_agent_does_not_start() {
        let (mut lacking, mut partly) = (Confinement::default(), Confinement::default());
        lacking.missing.push("CAP_NET_ADMIN");
        partly.wanting.push("CAP_SYS_RESOURCE");
        assert_eq!(capabilities(&lacking).verdict, Verdict::Failure);
        assert_eq!(capabilities(&partly).verdict, Verdict::Warning);
        assert_eq!(capabilities(&Confinement::default()).verdict, Verdict::Ok);
    }
}

//! Why the kernel refuses what the agent asks of it: what this process lacks, and who confines it.

use std::error::Error;
use std::fs;
use std::io;

use aya::util::KernelVersion;
use nix::errno::Errno;

/// Capabilities (include/uapi/linux/capability.h), by which the agent does its work, and whether it can do without.
const CAPABILITIES: [(u32, &str, Need); 5] = [
    (NET_ADMIN, "CAP_NET_ADMIN", Need::Always),
    (39, "CAP_BPF", Need::UnlessAdmin),
    (38, "CAP_PERFMON", Need::UnlessAdmin),
    (SYS_ADMIN, "CAP_SYS_ADMIN", Need::ForParts),
    (24, "CAP_SYS_RESOURCE", Need::BeforeGroups),
];
const DAC_OVERRIDE: u32 = 1;
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;

/// When the agent needs a capability.
#[derive(Clone, Copy)]
enum Need {
    Always,
    /// Where it has not CAP_SYS_ADMIN, which stands for it.
    UnlessAdmin,
    /// To lock memory, before Linux 5.11, which counts that of tables to control groups.
    BeforeGroups,
    /// To mount, to look into pods.
    ForParts,
}

/// What decides what this process may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Capabilities without which it cannot work.
    pub missing: Vec<&'static str>,
    /// Capabilities without which parts of its work fail.
    pub wanting: Vec<&'static str>,
    /// Whether files of other users have modes for it, too (it has no CAP_DAC_OVERRIDE).
    is_kept_off: bool,
    /// Whether it has a user namespace of its own, where capabilities count for little.
    is_nested: bool,
    /// As what SELinux knows it, where that is enforcing.
    selinux: Option<String>,
    /// The profile of AppArmor that is enforced on it.
    apparmor: Option<String>,
    /// How far the kernel is locked down.
    lockdown: Option<String>,
    /// Whether a filter decides on its system calls.
    has_filter: bool,
}

impl Confinement {
    /// That of this process. What the kernel does not tell is not there.
    pub fn own() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let counts_locked = KernelVersion::current().is_ok_and(|version| version < KernelVersion::new(5, 11, 0));
        Self::of(
            counts_locked,
            &read("/proc/self/status"),
            &read("/proc/self/uid_map"),
            &read("/sys/fs/selinux/enforce"),
            &read("/proc/self/attr/current"),
            &read("/sys/kernel/security/lockdown"),
        )
    }

    fn of(counts_locked: bool, status: &str, uids: &str, selinux: &str, label: &str, lockdown: &str) -> Self {
        let field = |name| status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
        let effective = field("CapEff").and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(u64::MAX);
        let has = |number: u32| effective >> number & 1 == 1;
        let is_needed = |need| match need {
            Need::UnlessAdmin => !has(SYS_ADMIN),
            Need::BeforeGroups => counts_locked,
            Need::Always | Need::ForParts => true,
        };
        let lacks = |number, need| !has(number) && is_needed(need);
        let (mut missing, mut wanting) = (Vec::new(), Vec::new());
        for (_, name, need) in CAPABILITIES.into_iter().filter(|(number, _, need)| lacks(*number, *need)) {
            match need {
                Need::Always | Need::UnlessAdmin => missing.push(name),
                Need::BeforeGroups | Need::ForParts => wanting.push(name),
            }
        }
        let label = label.trim_matches(['\0', '\n', ' ']);
        // user:role:type:level; AppArmor's are words.
        let kind = label.split(':').nth(2);
        // In a container it is often hidden whether it is.
        let is_enforcing = selinux.trim() == "1" || (selinux.is_empty() && kind.is_some());
        // Types that are confined by nothing.
        let is_free = kind.is_none_or(|kind| kind == "spc_t" || kind.starts_with("unconfined"));
        Self {
            missing,
            wanting,
            is_kept_off: !has(DAC_OVERRIDE),
            // All users that there are: the first namespace.
            is_nested: uids.split_whitespace().nth(2).is_some_and(|count| count != "4294967295"),
            selinux: (is_enforcing && !is_free).then(|| label.to_owned()),
            apparmor: (!is_enforcing).then(|| label.strip_suffix(" (enforce)")).flatten().map(str::to_owned),
            lockdown: lockdown
                .split_whitespace()
                .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
                .filter(|level| *level != "none")
                .map(str::to_owned),
            has_filter: field("Seccomp") == Some("2"),
        }
    }

    /// What there is of it that may have the kernel refuse something so, and what to do, one sentence each.
    fn reasons(&self, errno: Errno) -> Vec<String> {
        let rest = match errno {
            Errno::EPERM => self.filter(),
            Errno::EACCES => self.files(),
            _ => None,
        };
        self.lacks().into_iter().chain(self.confines()).chain(rest).collect()
    }

    /// What this process lacks.
    pub fn lacks(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let lacking = [&*self.missing, &*self.wanting].concat();
        if !lacking.is_empty() {
            reasons.push(format!(
                "this process lacks {}: give it them (in a pod, securityContext.capabilities.add, or privileged; in a service, \
                 CapabilityBoundingSet)",
                lacking.join(", ")
            ));
        }
        if self.is_nested {
            reasons.push(
                "this process has a user namespace of its own: run it in the host's (in a pod, hostUsers: true)".into(),
            );
        }
        reasons
    }

    /// Which security module confines it.
    pub fn confines(&self) -> Vec<String> {
        let selinux = self.selinux.as_ref().map(|label| {
            format!(
                "SELinux is enforcing, and knows this process as {label}: `ausearch -m AVC -ts recent` on the node says what it has \
                 denied; have it run as a type that may (in a pod, securityContext.seLinuxOptions.type: spc_t), or let this type"
            )
        });
        let apparmor = self.apparmor.as_ref().map(|profile| {
            format!(
                "AppArmor confines this process by the profile {profile}: `dmesg | grep DENIED` on the node says what it has denied; \
                 have it run without (in a pod, securityContext.appArmorProfile.type: Unconfined), or with a profile that lets it"
            )
        });
        let lockdown = self.lockdown.as_ref().map(|level| {
            format!(
                "the kernel is locked down ({level}), which may keep programs from being loaded: boot it without \
                 (lockdown= on its command line)"
            )
        });
        [selinux, apparmor, lockdown].into_iter().flatten().collect()
    }

    /// Who decides on its system calls. That there is a filter, as in every pod, is nothing to be told of until one is refused.
    fn filter(&self) -> Option<String> {
        self.has_filter.then(|| {
            "a filter (seccomp) decides on this process's system calls: it must let bpf, mount, setns and unshare pass (in a pod, \
             securityContext.seccompProfile.type: Unconfined; in a service, SystemCallFilter)"
                .to_owned()
        })
    }

    /// What closes files to it.
    fn files(&self) -> Option<String> {
        self.is_kept_off.then(|| {
            "where that is a file or a directory of another user than root, this process may not change it: give it to root, or give \
             CAP_DAC_OVERRIDE to this process"
                .to_owned()
        })
    }
}

/// Why the kernel may have refused, where that is what an error is about; what to do.
pub fn explain(error: &anyhow::Error) -> Option<String> {
    let told = match error.chain().find_map(errno)? {
        errno @ (Errno::EPERM | Errno::EACCES) => match &Confinement::own().reasons(errno)[..] {
            [] => return None,
            reasons => reasons.join("; "),
        },
        Errno::EROFS => {
            "that file system is read-only: have it be mounted so that it can be written to (in a pod, without \
                         readOnly), or name another directory in the settings"
                .into()
        }
        _ => return None,
    };
    Some(told)
}

/// An error with why the kernel may have refused.
pub fn explained(error: &anyhow::Error) -> String {
    match explain(error) {
        Some(why) => format!("{error:#}; {why}"),
        None => format!("{error:#}"),
    }
}

fn errno(cause: &(dyn Error + 'static)) -> Option<Errno> {
    let io = || cause.downcast_ref::<io::Error>()?.raw_os_error().map(Errno::from_raw);
    cause.downcast_ref::<Errno>().copied().or_else(io)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    const ALL: &str = "Name:\tsluice-agent\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n";
    const HOST: &str = "         0          0 4294967295\n";

    #[test]
    fn who_may_do_all_has_no_reason_to_be_refused() {
        for (selinux, label, lockdown) in [
            ("", "unconfined\n", "[none] integrity confidentiality\n"),
            ("1", "system_u:system_r:unconfined_service_t:s0\0", ""),
            ("1", "system_u:system_r:spc_t:s0\0", ""),
            ("0", "system_u:system_r:container_t:s0:c1,c2\0", ""),
            ("", "cri-containerd.apparmor.d (complain)\n", ""),
        ] {
            let free = Confinement::of(false, ALL, HOST, selinux, label, lockdown);
            assert_eq!([free.reasons(Errno::EPERM), free.reasons(Errno::EACCES)].concat(), [""; 0], "{label}");
        }
        let unknown = Confinement::of(false, "", "", "", "", "");
        assert_eq!(unknown.reasons(Errno::EPERM), [""; 0], "what is not told is not there");
    }

    #[test]
    fn missing_capabilities_are_named_and_one_stands_for_others() {
        let of = |effective: u64| Confinement::of(true, &format!("CapEff:\t{effective:016x}\n"), HOST, "", "", "");
        let without = |numbers: &[u32]| of(numbers.iter().fold(u64::MAX, |all, number| all & !(1 << number)));
        assert_eq!(without(&[38, 39]).missing, [""; 0], "CAP_SYS_ADMIN stands for them");
        assert_eq!(without(&[21, 38, 39]).missing, ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(without(&[21]).wanting, ["CAP_SYS_ADMIN"]);
        assert_eq!(without(&[21]).missing, [""; 0]);
        let [reason] = &without(&[12, 24]).lacks()[..] else { panic!("it is one reason") };
        assert!(reason.contains("lacks CAP_NET_ADMIN, CAP_SYS_RESOURCE"), "{reason}");
        let nested = Confinement::of(false, ALL, "0 100000 65536\n", "", "", "");
        assert!(nested.reasons(Errno::EPERM).concat().contains("hostUsers: true"));
    }

    #[test]
    fn those_who_confine_are_named() {
        let told =
            |selinux, label, lockdown| Confinement::of(false, ALL, HOST, selinux, label, lockdown).confines().concat();
        let selinux = told("1", "system_u:system_r:container_t:s0:c1,c2\0", "");
        assert!(selinux.contains("as system_u:system_r:container_t:s0:c1,c2:"), "{selinux}");
        assert!(told("", "unconfined_u:unconfined_r:container_t:s0\0", "").contains("SELinux"), "hidden from it");
        let apparmor = told("", "cri-containerd.apparmor.d (enforce)\n", "");
        assert!(apparmor.contains("by the profile cri-containerd.apparmor.d:"), "{apparmor}");
        assert!(told("", "", "none integrity [confidentiality]\n").contains("(confidentiality)"));
    }

    #[test]
    fn rights_of_the_shipped_pod_are_enough_and_told_of_only_where_one_is_refused() {
        // CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF.
        let shipped = Confinement::of(false, "CapEff:\t000000c000201000\nSeccomp:\t2\n", HOST, "", "", "");
        assert_eq!([shipped.lacks(), shipped.confines()].concat(), [""; 0]);
        let [filter] = &shipped.reasons(Errno::EPERM)[..] else { panic!("it is one reason") };
        assert!(filter.contains("seccomp"), "{filter}");
        let [files] = &shipped.reasons(Errno::EACCES)[..] else { panic!("it is one reason") };
        assert!(files.contains("CAP_DAC_OVERRIDE"), "{files}");
    }

    #[test]
    fn only_what_is_refused_is_explained() {
        let error = |errno: Errno| anyhow::Error::from(io::Error::from(errno)).context("writing to /x");
        assert!(explained(&error(Errno::EROFS)).contains("without readOnly"));
        assert_eq!(explain(&error(Errno::ENOENT)), None);
        let nested = Err::<(), _>(Errno::EROFS).context("mounting").expect_err("an error");
        assert!(explain(&nested).is_some());
    }
}

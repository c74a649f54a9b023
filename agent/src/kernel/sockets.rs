//! Programs that translate where sockets are told whom to talk to: for all processes below a control group.

use std::fs::File;
use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr, CgroupSockAddrAttachType as Attach};

use super::error::{Doing, KernelError};
use super::layout::Pins;
use super::programs::{Programs, supersede, unlink};
use crate::mounts;

/// The programs, and where they are attached.
const PROGRAMS: [(&str, Attach); 8] = [
    ("connect4", Attach::Connect4),
    ("connect6", Attach::Connect6),
    ("sendmsg4", Attach::UDPSendMsg4),
    ("sendmsg6", Attach::UDPSendMsg6),
    ("recvmsg4", Attach::UDPRecvMsg4),
    ("recvmsg6", Attach::UDPRecvMsg6),
    ("getpeername4", Attach::GetPeerName4),
    ("getpeername6", Attach::GetPeerName6),
];

/// Where control groups of version 2 are.
///
/// # Errors
/// Where they are nowhere.
pub fn root() -> Result<std::path::PathBuf, KernelError> {
    let root = mounts::groups().doing(|| "looking for control groups".into())?;
    root.ok_or("none are mounted; mount them (mount -t cgroup2 none /sys/fs/cgroup), or switch socket_lb off")
        .doing(|| "finding the control groups of version 2".into())
}

/// Attaches this generation's programs to a control group, in place of those of another and without a call between: for a
/// moment both translate, and what the one has translated is neither a service nor a backend to the other. When this returns,
/// only these do.
///
/// # Errors
/// Where the kernel refuses.
pub fn attach(programs: &Programs, pins: &Pins, group: &Path) -> Result<(), KernelError> {
    let directory = File::open(group).doing(|| format!("opening the control group {}", group.display()))?;
    for (name, attach) in PROGRAMS {
        let action = || format!("attaching {name} to the control group {}", group.display());
        let mut program = CgroupSockAddr::from_pin(programs.pin(name), attach).doing(action)?;
        // Links are beside those of others whatever is asked for.
        let id = program.attach(&directory, CgroupAttachMode::Single).doing(action)?;
        let link: FdLink = program.take_link(id).doing(action)?.try_into().doing(action)?;
        let (fresh, path) = (pins.links().join(format!("{name}:new")), pins.links().join(name));
        unlink(&fresh)?;
        link.pin(&fresh).doing(|| format!("pinning {}", fresh.display()))?;
        supersede(&fresh, &path)?;
    }
    Ok(())
}

/// Takes the programs off, those that translate before those that tell sockets of it.
///
/// # Errors
/// Where a pin cannot be removed.
pub fn detach(pins: &Pins) -> Result<(), KernelError> {
    PROGRAMS.iter().try_for_each(|(name, _)| unlink(&pins.links().join(name)))
}

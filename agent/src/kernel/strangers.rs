//! Programs of others: which the kernel has, and which of them see the packets of uplinks before ours.

use std::collections::BTreeMap;
use std::path::Path;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use sluice_abi::Hook;
use sluice_netlink::Netlink;

use super::error::{Doing, KernelError};
use super::layout::Pins;
use super::programs::{attached, has_tcx};
use super::xdp;
use crate::causes;

/// All programs that the kernel has, by their numbers, with their names.
#[derive(Debug)]
pub struct Strangers(BTreeMap<u32, String>);

/// A program that sees packets before ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The uplink.
    pub device: String,
    /// Where it sees them.
    pub way: Way,
    /// Its name.
    pub program: String,
}

/// Where a program sees packets of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the driver, or right behind it.
    Xdp,
    /// When they come in.
    Ingress,
    /// When they leave.
    Egress,
}

impl Strangers {
    /// Those that there are.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn loaded() -> Result<Self, KernelError> {
        let mut names = BTreeMap::new();
        for program in loaded_programs() {
            match program {
                Ok(program) => drop(names.insert(program.id(), name(&program))),
                // Gone since it was listed.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error).doing(|| "listing the programs in the kernel".into()),
            }
        }
        Ok(Self(names))
    }

    /// Their names.
    pub fn names(self) -> Vec<String> {
        self.0.into_values().collect()
    }

    /// Those that see packets of uplinks before ours. Filters of clsact, by which programs are attached before Linux 6.6, are not
    /// looked at.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn ahead(&self, bpf_dir: &Path) -> Result<Vec<Ahead>, KernelError> {
        let links = Pins::below(bpf_dir).links();
        let mut found = Vec::new();
        for device in attached(&links, Hook::FromNet) {
            let link = Netlink::open().and_then(|mut netlink| netlink.link(&device));
            // Gone since it was attached to.
            let Some(link) = link.doing(|| format!("looking at {device}"))? else { continue };
            let name = |id: u32| self.0.get(&id).cloned().unwrap_or_else(|| id.to_string());
            let xdp = link.xdp_program.map(name).filter(|name| name != xdp::PROGRAM);
            found.extend(xdp.map(|program| Ahead { device: device.clone(), way: Way::Xdp, program }));
            if !has_tcx() {
                continue;
            }
            for (hook, side, way) in
                [(Hook::FromNet, TcAttachType::Ingress, Way::Ingress), (Hook::ToNet, TcAttachType::Egress, Way::Egress)]
            {
                let (_, programs) = SchedClassifier::query_tcx(&device, side)
                    .doing(|| format!("asking which programs see what passes {device}"))?;
                found.extend(ahead(programs.iter().map(self::name), hook.name()).into_iter().map(|program| Ahead {
                    device: device.clone(),
                    way,
                    program,
                }));
            }
        }
        Ok(found)
    }
}

/// Those in front of ours; none, where ours is not among them.
fn ahead(programs: impl IntoIterator<Item = String>, ours: &str) -> Vec<String> {
    let mut programs: Vec<String> = programs.into_iter().collect();
    let own = programs.iter().position(|name| name == ours);
    programs.truncate(own.unwrap_or(0));
    programs
}

fn name(program: &ProgramInfo) -> String {
    program.name_as_str().filter(|name| !name.is_empty()).map_or_else(|| program.id().to_string(), str::to_owned)
}

fn is_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    causes::chain(error).any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_in_front_of_ours_are_ahead() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ahead(names(&["theirs", "from_net", "others"]), "from_net"), ["theirs"]);
        assert_eq!(ahead(names(&["from_net", "others"]), "from_net"), [""; 0]);
        assert_eq!(ahead(names(&["theirs"]), "from_net"), [""; 0], "ours is about to come");
    }
}

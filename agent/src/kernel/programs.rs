//! Generations of programs: loaded as a whole, and put in place of one another without a packet between.

use std::fs;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, ProgramArray};
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact, qdisc_detach_program};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Btf, EbpfLoader};
use sluice_abi::{Hook, maps};

use super::error::{Doing, KernelError};
use super::layout::{Expected, Pins};
use super::object;

/// Priority of our filters where they are attached by clsact.
const PRIORITY: u16 = 0x51;

/// The programs that are in force.
pub struct Programs {
    pins: Pins,
    generation: String,
}

fn attach_type(hook: Hook) -> TcAttachType {
    match hook {
        Hook::FromPod | Hook::FromNet | Hook::FromOverlay => TcAttachType::Ingress,
        Hook::ToPod | Hook::ToNet => TcAttachType::Egress,
    }
}

/// TCX is there from Linux 6.6 on.
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

impl Programs {
    /// Loads the programs of this build, unless they are there already.
    ///
    /// # Errors
    /// Where the kernel refuses them.
    pub fn load(pins: &Pins, generation: String, expected: &[Expected]) -> Result<Self, KernelError> {
        let this = Self { pins: pins.clone(), generation };
        let directory = pins.generation(&this.generation);
        if directory.exists() {
            return Ok(this);
        }
        let fresh = pins.generation(&format!("{}-new", this.generation));
        // What a start that was killed has left.
        remove(&fresh)?;
        fs::create_dir_all(&fresh).doing(|| format!("making {}", fresh.display()))?;

        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err(KernelError::NoBtf);
        }
        let btf = Btf::from_sys_fs().doing(|| "reading the kernel's type information".into())?;
        let paths: Vec<_> = expected.iter().map(|map| (map.name, pins.map(map.name), map.entries)).collect();
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf));
        for (name, path, entries) in &paths {
            loader.map_max_entries(name, *entries).map_pin_path(name, path);
        }
        let mut ebpf = loader.load(object::bytes()?).doing(|| "loading the kernel programs' tables".into())?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut SchedClassifier =
                program.try_into().doing(|| format!("taking {name} for a program of traffic control"))?;
            program.load().doing(|| format!("loading the kernel program {name} (the verifier's words follow)"))?;
            let path = fresh.join(name);
            program.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        }
        let array = ebpf.take_map(maps::SLOW_PATHS).ok_or_else(|| KernelError::Failed {
            action: "filling the array of slow paths".into(),
            source: "the object has none".into(),
        })?;
        let mut array = ProgramArray::try_from(array).doing(|| "filling the array of slow paths".into())?;
        for hook in Hook::ALL {
            for (family, digit) in ["4", "6"].into_iter().enumerate() {
                let name = format!("slow_{}_{digit}", hook.name());
                let program = open(&fresh.join(&name))?;
                let fd = program.fd().doing(|| format!("taking {name} into the array of slow paths"))?;
                let index = hook as u32 * 2 + family as u32;
                array.set(index, fd, 0).doing(|| format!("taking {name} into the array of slow paths"))?;
            }
        }
        // It lives as long as its programs: emptied when the last descriptor or pin goes, however many programs use it.
        let path = fresh.join(maps::SLOW_PATHS);
        array.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        fs::rename(&fresh, &directory).doing(|| format!("renaming {}", fresh.display()))?;
        Ok(this)
    }

    /// A program of this generation.
    ///
    /// # Errors
    /// Where its pin is gone.
    pub fn open(&self, name: &str) -> Result<SchedClassifier, KernelError> {
        open(&self.pins.generation(&self.generation).join(name))
    }

    /// Removes all other generations. Call it once no link runs them any more.
    ///
    /// # Errors
    /// Where they cannot be removed.
    pub fn retire_others(&self) -> Result<(), KernelError> {
        let directory = self.pins.programs();
        let listing = fs::read_dir(&directory).doing(|| format!("listing {}", directory.display()))?;
        for entry in listing.flatten() {
            if entry.file_name().to_str() != Some(&self.generation) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Has a hook's program see the packets of a device, in place of one of another generation.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(&self, hook: Hook, device: &str) -> Result<(), KernelError> {
        let action = || format!("attaching {} to {device}", hook.name());
        let mut program = self.open(hook.name())?;
        if !has_tcx() {
            return attach_by_clsact(&mut program, hook, device);
        }
        let path = self.link(hook, device);
        if path.exists() {
            match replace(&mut program, &path) {
                Ok(()) => return Ok(()),
                // Of a device that had the same name and is gone.
                Err(error) => {
                    tracing::debug!(%error, link = %path.display(), "link is dead, attaching anew");
                    fs::remove_file(&path).doing(|| format!("unpinning {}", path.display()))?;
                }
            }
        }
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(device, attach_type(hook), options).doing(action)?;
        let link: FdLink = program.take_link(id).doing(action)?.try_into().doing(action)?;
        link.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        Ok(())
    }

    /// Takes a hook's program off a device, which may be gone.
    ///
    /// # Errors
    /// Where the pin cannot be removed.
    pub fn detach(&self, hook: Hook, device: &str) -> Result<(), KernelError> {
        if !has_tcx() {
            // Gone with the device, or never there.
            let _ = qdisc_detach_program(device, attach_type(hook), hook.name());
            return Ok(());
        }
        let path = self.link(hook, device);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("unpinning {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The devices that a hook's program is attached to, as far as links tell.
    pub fn attached(&self, hook: Hook) -> Vec<String> {
        let prefix = format!("{}-", hook.name());
        let Ok(listing) = fs::read_dir(self.pins.links()) else { return Vec::new() };
        let names = listing.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_prefix(&prefix).map(decode)).collect()
    }

    fn link(&self, hook: Hook, device: &str) -> PathBuf {
        self.pins.links().join(format!("{}-{}", hook.name(), encode(device)))
    }
}

/// A device's name as part of a pin's: the BPF file system reserves dots (kernel/bpf/inode.c, all kernels up to 6.18).
fn encode(device: &str) -> String {
    device.replace('%', "%25").replace('.', "%2e")
}

fn decode(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

fn open(path: &Path) -> Result<SchedClassifier, KernelError> {
    SchedClassifier::from_pin(path).doing(|| format!("opening the pinned program {}", path.display()))
}

/// Swaps the program of a pinned link, atomically.
fn replace(program: &mut SchedClassifier, path: &Path) -> Result<(), KernelError> {
    let action = || format!("replacing the program of the link {}", path.display());
    let link: FdLink = PinnedLink::from_pin(path).doing(action)?.into();
    let link: SchedClassifierLink = link.try_into().doing(action)?;
    let id = program.attach_to_link(link).doing(action)?;
    // Dropping our descriptor leaves the pin, and the link with it.
    let _link: FdLink = program.take_link(id).doing(action)?.try_into().doing(action)?;
    Ok(())
}

/// Before 6.6. Between removing the old filter and adding the new one packets go by unseen; see README, "Limits".
fn attach_by_clsact(program: &mut SchedClassifier, hook: Hook, device: &str) -> Result<(), KernelError> {
    let action = || format!("attaching {} to {device}", hook.name());
    // There already, as a rule; where not for another reason, attaching fails and says so.
    let _ = qdisc_add_clsact(device);
    let _ = qdisc_detach_program(device, attach_type(hook), hook.name());
    let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, ..NlOptions::default() });
    let id = program.attach_with_options(device, attach_type(hook), options).doing(action)?;
    // Dropped, it would be detached.
    std::mem::forget(program.take_link(id).doing(action)?);
    Ok(())
}

fn remove(directory: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Opens a pinned map.
///
/// # Errors
/// Where it is not there.
pub fn map(pins: &Pins, name: &str) -> Result<aya::maps::Map, KernelError> {
    let path = pins.map(name);
    let action = || format!("opening the pinned map {}", path.display());
    let data = MapData::from_pin(&path).doing(action)?;
    aya::maps::Map::from_map_data(data).doing(action)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn devices_with_dots_have_pins() {
        for name in ["eth0", "eth0.100", "a%2e.b"] {
            assert!(!encode(name).contains('.'));
            assert_eq!(decode(&encode(name)), name);
        }
    }
}

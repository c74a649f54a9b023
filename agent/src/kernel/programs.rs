//! Generations of programs: loaded as a whole, and put in place of one another without a packet between.

use std::path::{Path, PathBuf};
use std::{fs, io};

use aya::maps::MapData;
use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program,
};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Btf, EbpfLoader};
use sluice_abi::{Hook, maps};

use super::error::{Doing, KernelError};
use super::layout::{Expected, Fit, Pins};
use super::links::Held;
use super::{layout, loading, object, services};

/// Priority and handle of our filters: what they are known by, and replaced under.
const PRIORITY: u16 = 0x51;
const HANDLE: TcHandle = TcHandle::new(0, 1);

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

/// Whether programs are attached by TCX links (Linux 6.6), which nobody else can take away and which leave room for the
/// queueing disciplines of others, or else as filters of clsact.
pub fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

impl Programs {
    /// Loads the programs of this build, unless they are there already, with the tables that they and others will share.
    ///
    /// An agent that is killed at any instant leaves programs and tables from which the next one can go on: tables that are
    /// to replace others are made aside, and take their places once the verifier has taken the programs; and programs that
    /// use other tables than those in place are not taken for the ones that are wanted, however they are named.
    ///
    /// # Errors
    /// Where the kernel refuses them; what was there before stays in force.
    pub fn load(pins: &Pins, generation: String, expected: &[Expected]) -> Result<Self, KernelError> {
        let this = Self { pins: pins.clone(), generation };
        let directory = pins.generation(&this.generation);
        let (mut made, mut copied) = (Vec::new(), Vec::new());
        for map in expected {
            match layout::examine(pins, map)? {
                Fit::Fits => continue,
                Fit::Missing => {}
                Fit::Resize => copied.extend(map.is_copied().then_some(map.name)),
            }
            made.push(map.name);
        }
        if directory.exists() && made.is_empty() {
            return Ok(this);
        }
        let fresh = pins.generation(&format!("{}-new", this.generation));
        // What a start that was killed has left.
        remove(&fresh)?;
        remove(&pins.fresh_maps())?;
        for directory in [&fresh, &pins.fresh_maps()] {
            fs::create_dir_all(directory).doing(|| format!("making {}", directory.display()))?;
        }

        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err(KernelError::NoBtf);
        }
        let btf = Btf::from_sys_fs().doing(|| "reading the kernel's type information".into())?;
        let path = |name| if made.contains(&name) { pins.fresh_map(name) } else { pins.map(name) };
        let paths: Vec<_> = expected.iter().map(|map| (map.name, path(map.name), map.entries)).collect();
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf));
        for (name, path, entries) in &paths {
            loader.map_max_entries(name, *entries).map_pin_path(name, path);
        }
        let mut ebpf = loader.load(object::bytes()?).doing(|| "loading the kernel programs' tables".into())?;
        let slow_paths = loading::load(&mut ebpf)?;
        for (name, program) in ebpf.programs_mut() {
            let path = fresh.join(name);
            program.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        }
        for name in copied {
            services::copy(name, &pins.map(name), &pins.fresh_map(name))?;
        }
        let path = fresh.join(maps::SLOW_PATHS);
        slow_paths.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        if directory.exists() {
            // Its programs may run until they are replaced, and need what is pinned beside them.
            let old = pins.generation(&format!("{}-old", this.generation));
            remove(&old)?;
            rename(&directory, &old)?;
        }
        for name in made {
            rename(&pins.fresh_map(name), &pins.map(name))?;
        }
        remove(&pins.fresh_maps())?;
        rename(&fresh, &directory)?;
        Ok(this)
    }

    /// A program of this generation.
    ///
    /// # Errors
    /// Where its pin is gone.
    pub fn open(&self, name: &str) -> Result<SchedClassifier, KernelError> {
        open(&self.pin(name))
    }

    /// Where a program of this generation is pinned.
    pub fn pin(&self, name: &str) -> PathBuf {
        self.pins.generation(&self.generation).join(name)
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

    /// Has a hook's program see the packets of a device, in place of one of another generation and without a packet
    /// between.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(&self, hook: Hook, device: &str) -> Result<(), KernelError> {
        let mut program = self.open(hook.name())?;
        let path = self.link(hook, device);
        if has_tcx() {
            if path.exists() {
                match replace(&mut program, &path) {
                    Ok(()) => return Ok(()),
                    // Of a device that had the same name and is gone.
                    Err(error) => tracing::debug!(%error, link = %path.display(), "link is dead, attaching anew"),
                }
            }
            unpin(&path)?;
            let action = || format!("attaching {} to {device}", hook.name());
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let id = program.attach_with_options(device, attach_type(hook), options).doing(action)?;
            let link: FdLink = program.take_link(id).doing(action)?.try_into().doing(action)?;
            link.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        } else {
            filter(&mut program, hook, device)?;
            // Filters cannot be pinned: the program's pin tells the next agent where it has been attached.
            unpin(&path)?;
            program.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        }
        Ok(())
    }

    /// Takes a hook's program off a device, which may be gone.
    ///
    /// # Errors
    /// Where the pin cannot be removed.
    pub fn detach(&self, hook: Hook, device: &str) -> Result<(), KernelError> {
        let path = self.link(hook, device);
        if !has_tcx() {
            // Gone with the device, or never there.
            let _ = qdisc_detach_program(device, attach_type(hook), hook.name());
            return unpin(&path);
        }
        unlink(&path)
    }

    /// The devices that a hook's program has been attached to.
    pub fn attached(&self, hook: Hook) -> Vec<String> {
        attached(&self.pins.links(), hook)
    }

    /// The devices that a program of this name, of whatever kind, has been attached to.
    pub fn devices_of(&self, program: &str) -> Vec<String> {
        devices_of(&self.pins.links(), program)
    }

    /// Where the link between a program and a device is pinned.
    pub fn pin_of_link(&self, program: &str, device: &str) -> PathBuf {
        self.pins.links().join(format!("{program}-{}", encode(device)))
    }

    fn link(&self, hook: Hook, device: &str) -> PathBuf {
        self.pin_of_link(hook.name(), device)
    }
}

/// The devices that pins say a hook's program has been attached to.
pub fn attached(links: &Path, hook: Hook) -> Vec<String> {
    devices_of(links, hook.name())
}

fn devices_of(links: &Path, program: &str) -> Vec<String> {
    let prefix = format!("{program}-");
    let Ok(listing) = fs::read_dir(links) else { return Vec::new() };
    let names = listing.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix(&prefix).map(decode)).collect()
}

/// Takes all filters off the devices that they have been attached to, as far as those are still there. (Links go with
/// their pins.)
pub fn detach_all(links: &Path) {
    if has_tcx() {
        return;
    }
    for hook in Hook::ALL {
        for device in attached(links, hook) {
            let _ = qdisc_detach_program(&device, attach_type(hook), hook.name());
        }
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

/// Attaches a program as a filter of the device's clsact, atomically in place of another of ours.
fn filter(program: &mut SchedClassifier, hook: Hook, device: &str) -> Result<(), KernelError> {
    let action = || format!("attaching {} to {device} as a filter", hook.name());
    let side = attach_type(hook);
    // There already, where we or others have filters; where not for another reason, attaching fails and says so.
    let _ = qdisc_add_clsact(device);
    let options = NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() };
    let id = match program.attach_with_options(device, side, TcAttachOptions::Netlink(options)) {
        Ok(id) => id,
        // There is one under this handle: most likely ours.
        Err(_) => {
            let ours = SchedClassifierLink::attached(device, side, PRIORITY, HANDLE, None).doing(action)?;
            program.attach_to_link(ours).doing(action)?
        }
    };
    // Dropped, it would be detached.
    std::mem::forget(program.take_link(id).doing(action)?);
    Ok(())
}

/// Ends a pinned link, if it is there: when this returns, its program is off.
///
/// # Errors
/// Where the kernel refuses, or the pin cannot be removed.
pub fn unlink(path: &Path) -> Result<(), KernelError> {
    end(Held::of(path), path)?;
    unpin(path)
}

/// Puts a link that is pinned elsewhere in place of the one that is pinned here, if one is, and ends that.
///
/// # Errors
/// Where the kernel refuses, or the pin cannot be renamed.
pub fn supersede(fresh: &Path, path: &Path) -> Result<(), KernelError> {
    let before = Held::of(path);
    rename(fresh, path)?;
    end(before, path)
}

fn end(link: io::Result<Option<Held>>, path: &Path) -> Result<(), KernelError> {
    link.and_then(|link| link.map_or(Ok(()), Held::end)).doing(|| format!("ending the link {}", path.display()))
}

/// Removes a pin, if it is there.
///
/// # Errors
/// Where that fails.
pub fn unpin(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(|| format!("unpinning {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Renames a pin or a directory of pins.
///
/// # Errors
/// Where that fails.
pub fn rename(from: &Path, to: &Path) -> Result<(), KernelError> {
    fs::rename(from, to).doing(|| format!("renaming {} to {}", from.display(), to.display()))
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

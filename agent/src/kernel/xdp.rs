//! The program that turns packets round before the stack sees them, on the uplinks.

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use aya_obj::programs::XdpAttachType;

use super::error::{Doing, KernelError};
use super::programs::{Programs, unpin};

/// The program, and what the names of its links begin with.
const PROGRAM: &str = "xdp_lb";

/// Where packets may be turned round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Express {
    /// Nowhere.
    Off,
    /// In the driver, or else right behind it.
    Best,
    /// In the driver only.
    Driver,
    /// Right behind it: any device can do that.
    Generic,
}

/// Attaches this generation's program to a device, in place of another's and without a packet between.
///
/// # Errors
/// Where the kernel or the driver refuses.
pub fn attach(programs: &Programs, device: &str, express: Express) -> Result<(), KernelError> {
    let path = programs.pin_of_link(PROGRAM, device);
    let action = || format!("attaching {PROGRAM} to {device}");
    let modes: &[XdpMode] = match express {
        Express::Off => return unpin(&path),
        Express::Best => &[XdpMode::Driver, XdpMode::Skb],
        Express::Driver => &[XdpMode::Driver],
        Express::Generic => &[XdpMode::Skb],
    };
    let mut program = Xdp::from_pin(programs.pin(PROGRAM), XdpAttachType::Interface).doing(action)?;
    if path.exists() {
        match replace(&mut program, &path) {
            Ok(()) => return Ok(()),
            // Of a device that had the same name and is gone.
            Err(error) => tracing::debug!(%error, link = %path.display(), "link is dead, attaching anew"),
        }
        unpin(&path)?;
    }
    let mut refused = None;
    for mode in modes {
        match program.attach(device, *mode) {
            Ok(id) => {
                if let Some(refused) = refused {
                    tracing::info!(device, %refused, "the driver takes no XDP programs: it runs right behind it");
                }
                let link: FdLink = program.take_link(id).doing(action)?.try_into().doing(action)?;
                link.pin(&path).doing(|| format!("pinning {}", path.display()))?;
                return Ok(());
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or(ProgramError::NotAttached)).doing(action)
}

/// Takes it off all devices but these.
///
/// # Errors
/// Where a pin cannot be removed.
pub fn retain(programs: &Programs, devices: &[&str]) -> Result<(), KernelError> {
    let others = programs.devices_of(PROGRAM).into_iter().filter(|name| !devices.contains(&name.as_str()));
    others.into_iter().try_for_each(|name| unpin(&programs.pin_of_link(PROGRAM, &name)))
}

fn replace(program: &mut Xdp, path: &std::path::Path) -> Result<(), KernelError> {
    let action = || format!("replacing the program of the link {}", path.display());
    let link: FdLink = PinnedLink::from_pin(path).doing(action)?.into();
    let link: XdpLink = link.try_into().doing(action)?;
    let id = program.attach_to_link(link).doing(action)?;
    // Dropping our descriptor leaves the pin, and the link with it.
    let _link: FdLink = program.take_link(id).doing(action)?.try_into().doing(action)?;
    Ok(())
}

//! The program that turns packets round before the stack sees them, on the uplinks.

use std::collections::BTreeMap;
use std::path::Path;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, Xdp};
use aya_obj::programs::XdpAttachType;
use sluice_netlink::Netlink;

use super::error::{Doing, KernelError};
use super::programs::{Programs, unlink};

/// The program, and what the names of its links begin with.
pub const PROGRAM: &str = "xdp_lb";

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

impl Express {
    /// The best first.
    const fn modes(self) -> &'static [XdpMode] {
        match self {
            Self::Off => &[],
            Self::Best => &[XdpMode::Driver, XdpMode::Skb],
            Self::Driver => &[XdpMode::Driver],
            Self::Generic => &[XdpMode::Skb],
        }
    }
}

/// What this agent has attached to which devices.
#[derive(Debug, Default)]
pub struct Attached(BTreeMap<String, Express>);

impl Attached {
    /// Attaches this generation's program to a device, in place of another's and without a packet between where that runs in
    /// the same mode.
    ///
    /// # Errors
    /// Where the kernel or the driver refuses.
    pub fn attach(&mut self, programs: &Programs, device: &str, express: Express) -> Result<(), KernelError> {
        let path = programs.pin_of_link(PROGRAM, device);
        let before = self.0.remove(device);
        let modes = express.modes();
        let Some(best) = modes.first() else { return unlink(&path) };
        let action = || format!("attaching {PROGRAM} to {device}");
        let mut program = Xdp::from_pin(programs.pin(PROGRAM), XdpAttachType::Interface).doing(action)?;
        // A link's program can be replaced, its mode cannot. This agent's own has the best that there is.
        let is_right = path.exists() && (before == Some(express) || runs_in(*best, device)?);
        if !(is_right && is_replaced(&mut program, &path)) {
            unlink(&path)?;
            let link = match attach_in(modes, &mut program, device) {
                Ok(link) => link,
                // Whoever has the place may have a right to it, and the stack's way leads there too.
                Err(error) if express == Express::Best && is_taken(device) => {
                    if before != Some(Express::Off) {
                        tracing::warn!(device, %error, "another XDP program is there: {PROGRAM} is not, and packets for backends on other nodes go the stack's way");
                    }
                    self.0.insert(device.to_owned(), Express::Off);
                    return Ok(());
                }
                Err(error) if is_taken(device) => {
                    return Err(error).doing(|| {
                        format!(
                            "{}, where another XDP program is: take it off (ip link set dev {device} xdp off), or set xdp to off",
                            action()
                        )
                    });
                }
                Err(error) => return Err(error).doing(action),
            };
            let link: FdLink = link.try_into().doing(action)?;
            link.pin(&path).doing(|| format!("pinning {}", path.display()))?;
        }
        self.0.insert(device.to_owned(), express);
        Ok(())
    }

    /// Takes it off all devices but these.
    ///
    /// # Errors
    /// Where a pin cannot be removed.
    pub fn retain(&mut self, programs: &Programs, devices: &[&str]) -> Result<(), KernelError> {
        let is_meant = |name: &str| devices.contains(&name);
        self.0.retain(|name, _| is_meant(name));
        let others = programs.devices_of(PROGRAM).into_iter().filter(|name| !is_meant(name));
        others.into_iter().try_for_each(|name| unlink(&programs.pin_of_link(PROGRAM, &name)))
    }
}

/// Whether a device has a program, whosever.
fn is_taken(device: &str) -> bool {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(device));
    link.is_ok_and(|link| link.is_some_and(|link| link.xdp.is_some()))
}

/// Whether a device's program runs in this mode.
fn runs_in(mode: XdpMode, device: &str) -> Result<bool, KernelError> {
    let link = Netlink::open().and_then(|mut netlink| netlink.link(device));
    let runs = link.doing(|| format!("asking in which mode {PROGRAM} runs on {device}"))?.and_then(|link| link.xdp);
    Ok(match mode {
        XdpMode::Driver => runs == Some(sluice_netlink::Xdp::Driver),
        XdpMode::Skb => runs == Some(sluice_netlink::Xdp::Generic),
        XdpMode::Default | XdpMode::Hardware => false,
    })
}

/// Attaches a program in the first of these modes that the device has.
fn attach_in(modes: &[XdpMode], program: &mut Xdp, device: &str) -> Result<XdpLink, ProgramError> {
    let mut refused = None;
    for mode in modes {
        match program.attach(device, *mode) {
            Ok(id) => {
                if let Some(refused) = refused {
                    tracing::info!(device, %refused, "the driver takes no XDP programs: it runs right behind it");
                }
                return program.take_link(id);
            }
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or(ProgramError::NotAttached))
}

/// Puts a program in the place of a link's; `false` where that is of a device that had the same name and is gone.
fn is_replaced(program: &mut Xdp, path: &Path) -> bool {
    let replaced = replace(program, path);
    if let Err(error) = &replaced {
        tracing::debug!(%error, link = %path.display(), "link is dead, attaching anew");
    }
    replaced.is_ok()
}

fn replace(program: &mut Xdp, path: &Path) -> Result<(), KernelError> {
    let action = || format!("replacing the program of the link {}", path.display());
    let link: FdLink = PinnedLink::from_pin(path).doing(action)?.into();
    let link: XdpLink = link.try_into().doing(action)?;
    let id = program.attach_to_link(link).doing(action)?;
    // Dropping our descriptor leaves the pin, and the link with it.
    let _link: FdLink = program.take_link(id).doing(action)?.try_into().doing(action)?;
    Ok(())
}

//! The VXLAN device.

use sluice_netlink::{Link, Netlink, NetlinkError, Vxlan, VxlanState};

use super::sysctl;

/// Its name.
pub const NAME: &str = "sluice_vxlan";

/// Makes sure of the device, of this port and MTU; gives its index. One that works in another way is made anew. A new one
/// is down: it must carry nothing before its program is attached.
///
/// # Errors
/// Where the kernel refuses.
pub fn ensure(port: u16, mtu: u32) -> Result<u32, NetlinkError> {
    let mut netlink = Netlink::open()?;
    let wanted = VxlanState { port, is_external: true, learns: false };
    let present = netlink.link(NAME)?;
    if present.as_ref().is_some_and(|link| link.vxlan != Some(wanted)) {
        tracing::info!(port, "making the overlay's device anew: it had other settings");
        netlink.delete_link(NAME)?;
    }
    let link = match present.filter(|link| link.vxlan == Some(wanted)) {
        Some(link) => link,
        None => {
            netlink.create_vxlan(&Vxlan { name: NAME, port, mtu })?;
            find(&mut netlink)?
        }
    };
    if link.mtu != mtu {
        netlink.set_mtu(link.index, mtu)?;
    }
    Ok(link.index)
}

/// Switches the device on, unless it is.
///
/// # Errors
/// Where the kernel refuses.
pub fn switch_on() -> Result<(), NetlinkError> {
    let mut netlink = Netlink::open()?;
    let link = find(&mut netlink)?;
    if !link.is_up {
        // No addresses of its own, and nobody's advertisements: a wish, for IPv6 may be compiled out.
        for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0")] {
            let _ = std::fs::write(sysctl::path(&format!("ipv6/conf/{NAME}/{key}")), value);
        }
        netlink.set_up(link.index, true)?;
    }
    Ok(())
}

fn find(netlink: &mut Netlink) -> Result<Link, NetlinkError> {
    let vanished = || NetlinkError {
        action: "finding network device",
        object: NAME.into(),
        source: std::io::ErrorKind::NotFound.into(),
    };
    netlink.link(NAME)?.ok_or_else(vanished)
}

/// Removes the device; `false` where there is none.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove() -> Result<bool, NetlinkError> {
    Netlink::open()?.delete_link(NAME)
}

//! The VXLAN device.

use sluice_netlink::{Netlink, NetlinkError, Vxlan};

/// Its name.
pub const NAME: &str = "sluice_vxlan";

/// Makes sure of the device; gives its index.
///
/// # Errors
/// Where the kernel refuses.
pub fn ensure(port: u16, mtu: u32) -> Result<u32, NetlinkError> {
    let mut netlink = Netlink::open()?;
    if netlink.link(NAME)?.is_none() {
        netlink.create_vxlan(&Vxlan { name: NAME, port, mtu })?;
    }
    let vanished = || NetlinkError {
        action: "finding network device",
        object: NAME.into(),
        source: std::io::ErrorKind::NotFound.into(),
    };
    let link = netlink.link(NAME)?.ok_or_else(vanished)?;
    if link.mtu != mtu {
        netlink.set_mtu(link.index, mtu)?;
    }
    if !link.is_up {
        // No addresses of its own, and nobody's advertisements: a wish, for IPv6 may be compiled out.
        for (key, value) in [("addr_gen_mode", "1"), ("accept_ra", "0")] {
            let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{NAME}/{key}"), value);
        }
        netlink.set_up(link.index, true)?;
    }
    Ok(link.index)
}

/// Removes the device; `false` where there is none.
///
/// # Errors
/// Where the kernel refuses.
pub fn remove() -> Result<bool, NetlinkError> {
    Netlink::open()?.delete_link(NAME)
}

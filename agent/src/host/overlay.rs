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

/// What is wrong where others' devices have the overlay's port: the kernel gives it to one kind of them only
/// (`vxlan_find_sock` and `vxlan_vni_in_use`, drivers/net/vxlan/vxlan_core.c, up to Linux 6.18).
pub fn clash(links: &[Link], port: u16) -> Option<String> {
    let has_it = |link: &&Link| link.name != NAME && link.vxlan.is_some_and(|vxlan| vxlan.port == port);
    let others: Vec<&str> = links.iter().filter(has_it).map(|link| &*link.name).collect();
    let first = others.first()?;
    Some(format!(
        "UDP port {port}, which is the overlay's (vxlan.port), is also that of {}: the kernel gives it to one of them; take off \
         the plugin that made it, and the device (ip link delete {first}), or set vxlan.port to another on all nodes",
        others.join(", ")
    ))
}

/// What is to be said where the device cannot be made or switched on: who may have its port.
pub fn hint(port: u16) -> String {
    let links = Netlink::open().and_then(|mut netlink| netlink.links()).unwrap_or_default();
    clash(&links, port).unwrap_or_else(|| {
        format!(
            "making the overlay's device {NAME} with UDP port {port} (vxlan.port); where that is in use, `ss -lunp` says by \
             whom; where the kernel has no VXLAN (CONFIG_VXLAN), load the module vxlan, or set routing to native"
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_the_same_port_is_in_the_way() {
        let link = |name: &str, port| Link {
            name: name.into(),
            vxlan: Some(VxlanState { port, ..VxlanState::default() }),
            ..Link::default()
        };
        let links = [Link::default(), link(NAME, 8472), link("vxlan.calico", 4789), link("flannel.1", 8472)];
        let clash = clash(&links, 8472).expect("a clash");
        assert!(clash.contains("that of flannel.1:") && clash.contains("ip link delete flannel.1"), "{clash}");
        assert_eq!(super::clash(&links[..3], 8472), None);
    }
}

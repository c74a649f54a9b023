//! The veth pair, and the routes and neighbours at both its ends.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use sluice_netlink::{Netlink, NetlinkError, Rank, Route, RouteKind, Veth, within};

use crate::error::{CniError, Code};

/// Link-layer address of every host side (ARCHITECTURE.md, "An endpoint's life").
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x53, 0x4c, 0x55, 0x43, 0x45];

/// Index of the loopback device of every namespace (include/net/net_namespace.h).
pub const LOOPBACK: u32 = 1;

/// Protocol number of the routes that the plugin makes: `boot`, as by hand.
const PROTOCOL: u8 = 3;

/// The tables of interfaces that came when another had the routes, and the metrics of their routes in the main table: these,
/// and the interface's index. The metrics are behind what IPv6 routes have by themselves.
const TABLES: u32 = 10_000;
const METRICS: u32 = 1024;

/// How often, and how long after one another, it is asked whether packets pass, on kernels that do not answer at once.
const ATTEMPTS: usize = 10_000;
const PAUSE: Duration = Duration::from_micros(200);

/// The gateway of pods, which nobody has: its link-layer address is a permanent neighbour.
pub fn gateway(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::new(169, 254, 1, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// All addresses of the family of one.
pub fn everywhere(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn route(to: IpNet, kind: RouteKind) -> Route {
    Route { to, kind, source: None, mtu: None, protocol: PROTOCOL }
}

/// A container's route to the gateway of an address.
fn to_gateway(index: u32, address: IpAddr) -> Route {
    route(IpNet::from(gateway(address)), RouteKind::Device(index))
}

/// A container's route by its gateway.
fn by_gateway(index: u32, to: IpNet) -> Route {
    route(to, RouteKind::Gateway(index, gateway(to.addr())))
}

/// The MTU of a container's side that is to be larger than the container's packets; `None`: it need not be.
///
/// Before Linux 5.12 `bpf_redirect_peer` silently drops what is larger than the device's MTU (`skb_do_redirect`,
/// net/core/filter.c), such as what comes from outside to pods that leave room for the overlay's header. There the device
/// takes what any of the host's takes, and the routes keep the container's own packets to its MTU.
fn room(netlink: &mut Netlink, mtu: u32) -> Result<Option<u32>, CniError> {
    /// Largest that veth takes.
    const MOST: u32 = 65_535;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if !drops_large(&release) {
        return Ok(None);
    }
    let largest = netlink.links()?.iter().filter(|link| !link.is_loopback).map(|link| link.mtu).max();
    Ok(largest.map(|largest| largest.min(MOST)).filter(|largest| *largest > mtu))
}

/// Whether a kernel of this release is older than 5.12.
fn drops_large(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) < (Some(5), Some(12))
}

/// A pair to be wired.
#[derive(Clone, Debug)]
pub struct Pair<'a> {
    /// Name of the host side.
    pub host: &'a str,
    /// Name of the container's side.
    pub container: &'a str,
    /// Link-layer address of the container's side.
    pub mac: [u8; 6],
    /// The container's addresses.
    pub addresses: &'a [IpAddr],
    /// What the container reaches by way of its gateways, of families that it has an address of.
    pub routes: &'a [IpNet],
    /// Largest packet of both, bytes.
    pub mtu: u32,
}

/// Opens a container's namespace.
///
/// # Errors
/// [`Code::UnknownContainer`] where there is none, [`Code::InvalidEnvironment`] where that is no namespace of a container.
pub fn open_namespace(path: &Path) -> Result<File, CniError> {
    // Nobody writes to a pipe that is given in place of a namespace: not waited for.
    let file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path).map_err(|error| {
        let message = format!("opening the network namespace {} (CNI_NETNS): {error}", path.display());
        CniError::new(Code::UnknownContainer, message)
    })?;
    let identify = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (given, own) = file
        .metadata()
        .and_then(|given| Ok((identify(given), identify(fs::metadata("/proc/self/ns/net")?))))
        .map_err(|error| CniError::io(&format!("looking at the network namespace {}", path.display()), error))?;
    let refused = |what: &str| {
        let message =
            format!("CNI_NETNS {} is {what}; it must be the network namespace of a container", path.display());
        Err(CniError::new(Code::InvalidEnvironment, message))
    };
    // All namespaces are files of one file system. One of another kind is refused when it is to be entered.
    match (given.0 == own.0, given == own) {
        (false, _) => refused("no namespace"),
        // Both ends would be the host's, and the host's default route the pod's.
        (true, true) => refused("the host's own"),
        (true, false) => Ok(file),
    }
}

/// Runs something in a container's namespace.
///
/// # Errors
/// Those of the work, [`Code::InvalidEnvironment`] where that is no network namespace, [`Code::Kernel`] where it cannot be entered.
pub fn inside<T: Send>(
    namespace: &File,
    path: &Path,
    work: impl FnOnce() -> Result<T, CniError> + Send,
) -> Result<T, CniError> {
    within(namespace, work).map_err(|error| {
        let what = format!("entering the network namespace {} (CNI_NETNS): {error}", path.display());
        match error.kind() {
            ErrorKind::InvalidInput => CniError::new(Code::InvalidEnvironment, format!("{what}; is it one?")),
            _ => CniError::new(Code::Kernel, what),
        }
    })?
}

/// Writes a setting of the network stack of this thread's namespace. Where IPv6 is compiled out there is none.
fn set(path: &str, value: &str) -> Result<(), CniError> {
    let path = format!("/proc/sys/net/{path}");
    if !Path::new(&path).exists() {
        return Ok(());
    }
    fs::write(&path, value).map_err(|error| CniError::io(&format!("writing {value} to {path}"), error))
}

impl Pair<'_> {
    fn has_ipv6(&self) -> bool {
        self.addresses.iter().any(IpAddr::is_ipv6)
    }

    /// Makes the pair, both sides down: nothing passes yet.
    ///
    /// # Errors
    /// Where the kernel refuses. What was made by then is left for [`unwire`].
    pub fn wire<'b>(&'b self, namespace: &'b File, path: &'b Path) -> Result<Wired<'b>, CniError> {
        // Before the pair: a wrong namespace is to leave nothing behind.
        let mut container = inside(namespace, path, || Ok(Netlink::open()?))?;
        container.set_up(LOOPBACK, true)?;
        let mut host = Netlink::open()?;
        let room = room(&mut host, self.mtu)?;
        host.create_veth(&Veth {
            host: self.host,
            host_mac: GATEWAY_MAC,
            peer: self.container,
            peer_mac: self.mac,
            namespace: std::os::fd::AsFd::as_fd(namespace),
            mtu: self.mtu,
        })?;
        Ok(Wired { pair: self, host, container, namespace, path, room })
    }

    /// Looks whether everything is as it was made.
    ///
    /// # Errors
    /// [`Code::Damaged`], saying what is not.
    pub fn check(&self, namespace: &File, path: &Path) -> Result<(), CniError> {
        let damaged =
            |what: String| CniError::new(Code::Damaged, format!("{what}; delete the pod and let it come again"));
        let mut netlink = Netlink::open()?;
        let host = netlink.link(self.host)?.ok_or_else(|| damaged(format!("the host side {} is gone", self.host)))?;
        if !host.is_up || host.mac != Some(GATEWAY_MAC) {
            return Err(damaged(format!("the host side {} is down or has another link-layer address", self.host)));
        }
        let routes = netlink.routes()?;
        for address in self.addresses {
            let wanted = IpNet::from(*address);
            if !routes.iter().any(|route| route.to == wanted && route.kind == RouteKind::Device(host.index)) {
                return Err(damaged(format!("the host has no route to {address} by {}", self.host)));
            }
            if !netlink.has_neighbour(host.index, *address, self.mac)? {
                return Err(damaged(format!("the host no longer knows the link-layer address of {address}")));
            }
        }
        inside(namespace, path, || {
            let mut netlink = Netlink::open()?;
            let name = self.container;
            let link = netlink.link(name)?.ok_or_else(|| damaged(format!("the container has no {name}")))?;
            if !link.is_up || link.mac != Some(self.mac) {
                return Err(damaged(format!("the container's {name} is down or has another link-layer address")));
            }
            let addresses = netlink.addresses()?;
            for address in self.addresses {
                if !addresses.contains(&(link.index, IpNet::from(*address))) {
                    return Err(damaged(format!("the container's {name} has lost its address {address}")));
                }
            }
            for to in self.routes {
                if !netlink.has_route(&by_gateway(link.index, *to))? {
                    return Err(damaged(format!(
                        "the container has no route to {to} by way of {}",
                        gateway(to.addr())
                    )));
                }
            }
            Ok(())
        })
    }
}

/// A pair that was made, both sides down.
pub struct Wired<'a> {
    pair: &'a Pair<'a>,
    host: Netlink,
    container: Netlink,
    namespace: &'a File,
    path: &'a Path,
    /// The MTU of the container's side, where that is not the pair's.
    room: Option<u32>,
}

impl Wired<'_> {
    /// Sets the container's side up.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_up_container(&mut self) -> Result<(), CniError> {
        let Self { pair, container, room, .. } = self;
        let (name, room) = (pair.container, *room);
        let mtu = room.map(|_| pair.mtu);
        let link = container
            .link(name)?
            .ok_or_else(|| CniError::new(Code::Kernel, format!("{name} vanished while it was being set up")))?;
        if pair.has_ipv6() {
            inside(self.namespace, self.path, || {
                let conf = format!("ipv6/conf/{name}");
                set(&format!("{conf}/disable_ipv6"), "0")?;
                set(&format!("{conf}/accept_dad"), "0")?;
                set(&format!("{conf}/accept_ra"), "0")?;
                set(&format!("{conf}/addr_gen_mode"), "1")
            })?;
        }
        let index = link.index;
        let done = container.together(|container| {
            for address in pair.addresses {
                container.add_address(index, IpNet::from(*address))?;
            }
            if let Some(room) = room {
                container.set_mtu(index, room)?;
            }
            container.set_up(index, true)?;
            for address in pair.addresses {
                container.set_neighbour(index, gateway(*address), GATEWAY_MAC)?;
                container.add_route(&to_gateway(index, *address), Rank::First)?;
            }
            for to in pair.routes {
                container.add_route(&Route { mtu, ..by_gateway(index, *to) }, Rank::First)?;
            }
            Ok(())
        });
        match done {
            Err(error) if error.is_present() => self.stand_behind(index),
            done => Ok(done?),
        }
    }

    /// Sets up routes behind those that another interface has: they are for packets from the addresses of this one, and for
    /// all once the other is gone.
    fn stand_behind(&mut self, index: u32) -> Result<(), CniError> {
        let Pair { addresses, routes, .. } = self.pair;
        let (behind, table) = (Rank::Behind(METRICS + index), TABLES + index);
        let mtu = self.room.map(|_| self.pair.mtu);
        Ok(self.container.together(|container| {
            for address in *addresses {
                container.add_route(&to_gateway(index, *address), behind)?;
                container.add_rule(*address, table)?;
            }
            for to in *routes {
                let route = Route { mtu, ..by_gateway(index, *to) };
                container.add_route(&route, behind)?;
                container.add_route(&route, Rank::Table(table))?;
            }
            Ok(())
        })?)
    }

    /// Opens the host side: from here on packets pass.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(mut self) -> Result<(), CniError> {
        let pair = self.pair;
        // Nobody but the pod is at the other end: no addresses of its own, no advertisements believed.
        set(&format!("ipv6/conf/{}/addr_gen_mode", pair.host), "1")?;
        set(&format!("ipv6/conf/{}/accept_ra", pair.host), "0")?;
        if pair.has_ipv6() {
            set(&format!("ipv6/conf/{}/disable_ipv6", pair.host), "0")?;
        }
        let index = nix::net::if_::if_nametoindex(pair.host).map_err(|error| {
            CniError::new(Code::Kernel, format!("finding {}, which was just made: {error}", pair.host))
        })?;
        let done = self.host.together(|host| {
            host.set_up(index, true)?;
            for address in pair.addresses {
                host.add_route(&route(IpNet::from(*address), RouteKind::Device(index)), Rank::First)?;
                host.set_neighbour(index, *address, pair.mac)?;
            }
            Ok(())
        });
        done.map_err(|error| {
            if error.is_present() {
                let message =
                    format!("{error}: somebody else has this address; `ip route` on the host says by which device");
                CniError::new(Code::AddressUnavailable, message)
            } else {
                error.into()
            }
        })?;
        self.wait_until_running()
    }

    /// Waits until the container's side takes packets: it was up before the host's, and the kernel may be late to notice. So it
    /// may be with routes to its own IPv6 addresses, which it makes at leisure (net/ipv6/addrconf.c, `addrconf_dad_work`).
    fn wait_until_running(&mut self) -> Result<(), CniError> {
        for _ in 0..ATTEMPTS {
            if self.is_running()? {
                return Ok(());
            }
            thread::sleep(PAUSE);
        }
        let name = self.pair.container;
        Err(CniError::new(Code::Kernel, format!("{name} still takes no packets, although both of its ends are up")))
    }

    fn is_running(&mut self) -> Result<bool, NetlinkError> {
        if !self.container.link(self.pair.container)?.is_some_and(|link| link.is_running) {
            return Ok(false);
        }
        for address in self.pair.addresses {
            if !self.container.hop(*address)?.is_some_and(|hop| hop.is_local) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Has a pair pass nothing any more, ahead of [`unwire`], which says what is wrong where this fails: a pair may vanish
/// at any time, as it does with its container's namespace.
pub fn close(host: &str) {
    let close = || {
        let mut netlink = Netlink::open()?;
        netlink.link(host)?.map_or(Ok(()), |link| netlink.set_up(link.index, false))
    };
    let _: Result<(), NetlinkError> = close();
}

/// Removes a pair, with all that hangs on it; one that is gone is no error.
///
/// # Errors
/// Where the kernel refuses.
pub fn unwire(host: &str) -> Result<(), NetlinkError> {
    Netlink::open()?.delete_link(host)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::drops_large;

    #[test]
    fn old_kernels_are_told_from_new_ones() {
        assert!(drops_large("5.10.0-32-cloud-amd64\n") && drops_large("5.4.1") && drops_large("5.11"));
        assert!(!drops_large("5.12.0-rc1\n") && !drops_large("6.1.0-50-amd64\n") && !drops_large("10.0"));
    }
}

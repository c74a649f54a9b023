//! Network devices.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};

use crate::{Netlink, NetlinkError};

/// A network device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its link-layer address; `None` where that is not one of Ethernet.
    pub mac: Option<[u8; 6]>,
    /// Largest packet, bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub is_up: bool,
    /// Whether it is on and takes packets. What the kernel does when the other end has come up it does some time later, and
    /// drops packets until then; from Linux 6.8 on, whoever asks for one device has it done (net/core/rtnetlink.c,
    /// `rtnl_getlink`).
    pub is_running: bool,
    /// Whether it is the loopback device.
    pub is_loopback: bool,
    /// What it is: `veth`, `vxlan`, `bridge`; `None` for hardware.
    pub kind: Option<String>,
    /// Of a VXLAN device: how it works.
    pub vxlan: Option<VxlanState>,
    /// Where an XDP program sees its packets; `None`: nowhere.
    pub xdp: Option<Xdp>,
    /// The number of that program.
    pub xdp_program: Option<u32>,
}

/// Where an XDP program sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xdp {
    /// In the driver.
    Driver,
    /// Right behind it.
    Generic,
    /// In the hardware, or in several places.
    Elsewhere,
}

impl Xdp {
    fn of(infos: &[LinkXdp]) -> Option<Self> {
        infos.iter().find_map(|info| match info {
            LinkXdp::Attached(XdpAttached::None) => None,
            LinkXdp::Attached(XdpAttached::Driver) => Some(Self::Driver),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(Self::Generic),
            LinkXdp::Attached(_) => Some(Self::Elsewhere),
            _ => None,
        })
    }
}

/// How a VXLAN device works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VxlanState {
    /// UDP port.
    pub port: u16,
    /// Whether remotes and network are given with each packet.
    pub is_external: bool,
    /// Whether it learns who is where from what it receives.
    pub learns: bool,
}

impl VxlanState {
    fn of(infos: &[InfoVxlan]) -> Self {
        let mut state = Self::default();
        for info in infos {
            match info {
                InfoVxlan::Port(port) => state.port = *port,
                InfoVxlan::CollectMetadata(external) => state.is_external = *external,
                InfoVxlan::Learning(learns) => state.learns = *learns,
                _ => {}
            }
        }
        state
    }
}

/// A veth pair to be made.
#[derive(Clone, Debug)]
pub struct Veth<'a> {
    /// Name of the side in the socket's namespace.
    pub host: &'a str,
    /// Link-layer address of that side.
    pub host_mac: [u8; 6],
    /// Name of the other side.
    pub peer: &'a str,
    /// Link-layer address of the other side.
    pub peer_mac: [u8; 6],
    /// The namespace of the other side.
    pub namespace: BorrowedFd<'a>,
    /// MTU of both, bytes.
    pub mtu: u32,
}

/// A VXLAN device to be made, whose remotes and network are given with each packet.
#[derive(Clone, Debug)]
pub struct Vxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// UDP port, of this and the other side.
    pub port: u16,
    /// Largest inner packet, bytes.
    pub mtu: u32,
}

impl Link {
    fn of(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            is_up: message.header.flags.contains(LinkFlags::Up),
            is_running: message.header.flags.contains(LinkFlags::Running),
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            kind: None,
            vxlan: None,
            xdp: None,
            xdp_program: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(address) => link.mac = address.try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Xdp(infos) => {
                    link.xdp = Xdp::of(&infos);
                    link.xdp_program = infos.iter().find_map(|info| match info {
                        LinkXdp::ProgId(id) => Some(*id),
                        _ => None,
                    });
                }
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                            LinkInfo::Data(InfoData::Vxlan(infos)) => link.vxlan = Some(VxlanState::of(&infos)),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

impl Netlink {
    /// All devices.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let answers = self.dump("listing network devices:", RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(Link::of(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// A device by its name, or `None`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = message(0, vec![LinkAttribute::IfName(name.to_owned())]);
        match self.get("finding network device", name, RouteNetlinkMessage::GetLink(request)) {
            Ok(Some(RouteNetlinkMessage::NewLink(message))) => Ok(Some(Link::of(message))),
            Ok(_) => Ok(None),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a veth pair, both sides down.
    ///
    /// # Errors
    /// Where the kernel refuses, for example because a name is taken.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> Result<(), NetlinkError> {
        let peer = message(
            0,
            vec![
                LinkAttribute::IfName(veth.peer.to_owned()),
                LinkAttribute::Address(veth.peer_mac.to_vec()),
                LinkAttribute::Mtu(veth.mtu),
                LinkAttribute::NetNsFd(veth.namespace.as_raw_fd()),
            ],
        );
        let host = message(
            0,
            vec![
                LinkAttribute::IfName(veth.host.to_owned()),
                LinkAttribute::Address(veth.host_mac.to_vec()),
                LinkAttribute::Mtu(veth.mtu),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Veth),
                    LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
                ]),
            ],
        );
        let object = format!("{} with {} at its other end", veth.host, veth.peer);
        self.request("creating veth pair", object, RouteNetlinkMessage::NewLink(host), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Makes a VXLAN device, down, that neither learns nor asks for neighbours.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn create_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(), NetlinkError> {
        let mut device = message(
            0,
            vec![
                LinkAttribute::IfName(vxlan.name.to_owned()),
                LinkAttribute::Mtu(vxlan.mtu),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Vxlan),
                    LinkInfo::Data(InfoData::Vxlan(vec![
                        InfoVxlan::CollectMetadata(true),
                        InfoVxlan::Learning(false),
                        InfoVxlan::Port(vxlan.port),
                        // Encapsulated packets have checksums of their own.
                        InfoVxlan::UDPZeroCsumTX(true),
                        InfoVxlan::UDPZeroCsumRX(true),
                    ])),
                ]),
            ],
        );
        device.header.flags = LinkFlags::Noarp;
        device.header.change_mask = LinkFlags::Noarp;
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.request("creating VXLAN device", vxlan.name, RouteNetlinkMessage::NewLink(device), flags)
    }

    /// Switches a device on or off.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_up(&mut self, index: u32, up: bool) -> Result<(), NetlinkError> {
        let mut device = message(index, Vec::new());
        device.header.change_mask = LinkFlags::Up;
        if up {
            device.header.flags = LinkFlags::Up;
        }
        let action = if up { "switching on network device" } else { "switching off network device" };
        self.request(action, index, RouteNetlinkMessage::SetLink(device), 0)
    }

    /// Sets a device's MTU, bytes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<(), NetlinkError> {
        let device = message(index, vec![LinkAttribute::Mtu(mtu)]);
        self.request("setting the MTU of network device", index, RouteNetlinkMessage::SetLink(device), 0)
    }

    /// Removes a device by its name; `false` where there is none.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn delete_link(&mut self, name: &str) -> Result<bool, NetlinkError> {
        let device = message(0, vec![LinkAttribute::IfName(name.to_owned())]);
        match self.request("removing network device", name, RouteNetlinkMessage::DelLink(device), 0) {
            Ok(()) => Ok(true),
            Err(error) if error.is_absent() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

//! What rules say of protocols and ports.

use std::sync::Arc;

use sluice_abi::Protocol;

/// A protocol that has ports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The protocol of a name in the API; without one it is TCP.
    pub fn named(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// Its number in packets.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::TCP,
            Self::Udp => Protocol::UDP,
            Self::Sctp => Protocol::SCTP,
        }
    }

    /// Its name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// What a rule is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Traffic {
    /// Any protocol, those without ports among them.
    Any,
    /// Any of these; of none, nothing at all.
    Listed(Box<[Ports]>),
}

/// Some ports of some protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Ports {
    /// By number, both ends included.
    Range(Transport, u16, u16),
    /// A container port of the receiving pod, by its name; of one protocol, or of whichever it has.
    Named(Option<Transport>, Arc<str>),
}

impl Ports {
    /// All ports of a protocol, 0 among them.
    pub const fn all(transport: Transport) -> Self {
        Self::Range(transport, 0, u16::MAX)
    }
}

/// A container port that has a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamedPort {
    /// Its name.
    pub name: Arc<str>,
    /// Its protocol.
    pub transport: Transport,
    /// Its number.
    pub port: u16,
}

impl Ports {
    /// Tells which ports these are on a pod with such named ports: all of that name, where several containers have one.
    pub(crate) fn resolve(&self, named: &[NamedPort], mut each: impl FnMut(Transport, u16, u16)) {
        match self {
            Self::Range(transport, first, last) => each(*transport, *first, *last),
            Self::Named(transport, name) => {
                for port in named {
                    if port.name == *name && transport.is_none_or(|transport| transport == port.transport) {
                        each(port.transport, port.port, port.port);
                    }
                }
            }
        }
    }
}

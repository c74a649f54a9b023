//! What is sent.

use std::fmt;
use std::str::FromStr;

use sluice_abi::Protocol;
use sluice_datapath::Family;

use crate::traffic::Transport;

/// A port of a protocol, such as `80/TCP`; without a protocol it is TCP. `ICMP` has no port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Traffic {
    /// `None`: ICMP.
    pub transport: Option<Transport>,
    /// 0 for ICMP.
    pub port: u16,
}

impl Traffic {
    /// Puts it together from what stands in a probe.
    ///
    /// # Errors
    /// Where there is no such protocol, or it needs a port.
    pub fn new(protocol: Option<&str>, port: Option<u16>) -> Result<Self, String> {
        if protocol == Some("ICMP") {
            return Ok(Self { transport: None, port: 0 });
        }
        let transport = Transport::named(protocol)
            .ok_or_else(|| format!("{:?} is not TCP, UDP, SCTP or ICMP", protocol.unwrap_or_default()))?;
        let port = port.ok_or_else(|| format!("{} needs a port", transport.name()))?;
        Ok(Self { transport: Some(transport), port })
    }

    /// The name of its protocol.
    pub fn protocol_name(self) -> &'static str {
        self.transport.map_or("ICMP", Transport::name)
    }

    /// The number of its protocol in packets of a family.
    pub fn protocol(self, family: Family) -> Protocol {
        match (self.transport, family) {
            (Some(transport), _) => transport.protocol(),
            (None, Family::V4) => Protocol::ICMP,
            (None, Family::V6) => Protocol::ICMPV6,
        }
    }
}

impl FromStr for Traffic {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "ICMP" {
            return Self::new(Some(text), None);
        }
        let (port, protocol) = text.split_once('/').map_or((text, None), |(port, protocol)| (port, Some(protocol)));
        let port = port.parse().map_err(|_| format!("{port:?} is no port; write such as 80/TCP, or ICMP"))?;
        Self::new(protocol, Some(port))
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Some(transport) => write!(f, "{}/{}", self.port, transport.name()),
            None => f.write_str("ICMP"),
        }
    }
}

//! Packets from descriptions, right in every checksum.

use std::net::{Ipv4Addr, Ipv6Addr};

use sluice_abi::Mac;

const ETHERNET: usize = 14;

/// A network header.
#[derive(Clone, Debug)]
pub enum Ip {
    /// IPv4.
    V4 {
        /// Source.
        source: Ipv4Addr,
        /// Destination.
        destination: Ipv4Addr,
        /// Options, a multiple of four bytes.
        options: Vec<u8>,
        /// Offset in units of 8 bytes, and whether more follows.
        fragment: (u16, bool),
    },
    /// IPv6.
    V6 {
        /// Source.
        source: Ipv6Addr,
        /// Destination.
        destination: Ipv6Addr,
        /// Extension headers: type and all bytes but the first, which names the next.
        extensions: Vec<(u8, Vec<u8>)>,
    },
}

impl Ip {
    /// A plain IPv4 header.
    pub fn v4(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self::V4 { source, destination, options: Vec::new(), fragment: (0, false) }
    }

    /// A plain IPv6 header.
    pub fn v6(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self::V6 { source, destination, extensions: Vec::new() }
    }
}

/// A transport header.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TCP with these flags.
    Tcp(u16, u16, u8),
    /// UDP.
    Udp(u16, u16),
    /// UDP that carries these bytes.
    UdpWith(u16, u16, Vec<u8>),
    /// UDP without a checksum.
    UdpUnchecked(u16, u16),
    /// SCTP with a first chunk of this type.
    Sctp(u16, u16, u8),
    /// An ICMP echo request, or a reply, with this identifier.
    Echo(bool, u16),
    /// An ICMP message of any kind: type, code, everything behind the checksum.
    Icmp(u8, u8, Vec<u8>),
    /// Any protocol.
    Other(u8, Vec<u8>),
}

/// What a packet is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Link-layer source.
    pub mac: [u8; 6],
    /// Network header.
    pub ip: Ip,
    /// Transport header.
    pub transport: Transport,
    /// Bytes behind it.
    pub payload: usize,
}

impl Recipe {
    /// The packet, from the Ethernet header on.
    pub fn build(&self) -> Vec<u8> {
        let v6 = matches!(self.ip, Ip::V6 { .. });
        let mut data = Vec::new();
        data.extend(Mac::GATEWAY);
        data.extend(self.mac);
        data.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        let (protocol, mut body) = self.transport(v6);
        body.extend((0..self.payload).map(|n| n as u8));
        match &self.ip {
            Ip::V4 { source, destination, options, fragment } => {
                let header = 20 + options.len();
                data.push(0x40 | (header / 4) as u8);
                data.push(0);
                data.extend(((header + body.len()) as u16).to_be_bytes());
                data.extend([0x12, 0x34]);
                data.extend((fragment.0 | if fragment.1 { 0x2000 } else { 0 }).to_be_bytes());
                data.extend([64, protocol, 0, 0]);
                data.extend(source.octets());
                data.extend(destination.octets());
                data.extend(options);
            }
            Ip::V6 { source, destination, extensions } => {
                let extra: usize = extensions.iter().map(|(_, bytes)| bytes.len() + 1).sum();
                data.extend([0x60, 0, 0, 0]);
                data.extend(((extra + body.len()) as u16).to_be_bytes());
                data.push(extensions.first().map_or(protocol, |(kind, _)| *kind));
                data.push(64);
                data.extend(source.octets());
                data.extend(destination.octets());
                for (at, (_, bytes)) in extensions.iter().enumerate() {
                    data.push(extensions.get(at + 1).map_or(protocol, |(kind, _)| *kind));
                    data.extend(bytes);
                }
            }
        }
        let transport = data.len();
        data.extend(body);
        if matches!(self.ip, Ip::V4 { .. }) {
            let end = transport;
            let sum = !fold(sum(&data[ETHERNET..end]));
            data[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
        }
        if !matches!(self.transport, Transport::UdpUnchecked(..)) {
            fill(&mut data, transport, protocol);
        }
        data
    }

    fn transport(&self, v6: bool) -> (u8, Vec<u8>) {
        let ports = |source: u16, destination: u16| [source.to_be_bytes(), destination.to_be_bytes()].concat();
        match &self.transport {
            Transport::Tcp(source, destination, flags) => {
                let rest = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, *flags, 0x20, 0, 0, 0, 0, 0];
                (6, [ports(*source, *destination), rest.to_vec()].concat())
            }
            Transport::Udp(source, destination) | Transport::UdpUnchecked(source, destination) => {
                let length = (8 + self.payload) as u16;
                (17, [ports(*source, *destination), length.to_be_bytes().to_vec(), vec![0, 0]].concat())
            }
            Transport::UdpWith(source, destination, bytes) => {
                let length = (8 + bytes.len() + self.payload) as u16;
                (17, [ports(*source, *destination), length.to_be_bytes().to_vec(), vec![0, 0], bytes.clone()].concat())
            }
            Transport::Sctp(source, destination, chunk) => {
                (132, [ports(*source, *destination), vec![0, 0, 0, 1, 0, 0, 0, 0, *chunk, 0, 0, 4]].concat())
            }
            Transport::Echo(request, id) => {
                let kind = match (v6, request) {
                    (false, true) => 8,
                    (false, false) => 0,
                    (true, true) => 128,
                    (true, false) => 129,
                };
                let [high, low] = id.to_be_bytes();
                (if v6 { 58 } else { 1 }, vec![kind, 0, 0, 0, high, low, 0, 1])
            }
            Transport::Icmp(kind, code, rest) => {
                (if v6 { 58 } else { 1 }, [vec![*kind, *code, 0, 0], rest.clone()].concat())
            }
            Transport::Other(protocol, bytes) => (*protocol, bytes.clone()),
        }
    }
}

/// The plain answer to a plain packet without options: ends exchanged, an echo request answered, of TCP with `flags`.
pub fn reversed(packet: &[u8], flags: u8) -> Vec<u8> {
    let mut data = packet.to_vec();
    let (addresses, transport, protocol) = layout(&data);
    let length = (transport - addresses) / 2;
    let (left, right) = data[addresses..transport].split_at_mut(length);
    left.swap_with_slice(right);
    match (protocol, data[transport]) {
        (6, _) => data[transport + 13] = flags,
        (1, 8) => data[transport] = 0,
        (1, 0) => data[transport] = 8,
        (58, 128) => data[transport] = 129,
        (58, 129) => data[transport] = 128,
        _ => {}
    }
    if matches!(protocol, 6 | 17 | 132) {
        let (left, right) = data[transport..transport + 4].split_at_mut(2);
        left.swap_with_slice(right);
    }
    if protocol != 17 {
        fill(&mut data, transport, protocol);
    }
    data
}

/// Whether all checksums of a whole packet without options are right.
pub fn checksums_hold(packet: &[u8]) -> bool {
    let (_, transport, protocol) = layout(packet);
    let header = packet[12] == 0x86 || fold(sum(&packet[ETHERNET..transport])) == 0xffff;
    let unchecked = protocol == 17 && packet[transport + 6..transport + 8] == [0, 0];
    let body = match protocol {
        6 | 17 | 1 | 58 => unchecked || fold(pseudo(packet, transport, protocol) + sum(&packet[transport..])) == 0xffff,
        _ => true,
    };
    header && body
}

/// Where the addresses and the transport header are, and the protocol, of a packet without options.
fn layout(data: &[u8]) -> (usize, usize, u8) {
    if data[12] == 0x86 {
        (ETHERNET + 8, ETHERNET + 40, data[ETHERNET + 6])
    } else {
        (ETHERNET + 12, ETHERNET + 20, data[ETHERNET + 9])
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The pseudo header's part of a transport checksum (RFC 793, RFC 8200 section 8.1).
fn pseudo(data: &[u8], transport: usize, protocol: u8) -> u64 {
    if protocol == 1 {
        return 0;
    }
    let v6 = data[12] == 0x86;
    let addresses = if v6 { ETHERNET + 8..ETHERNET + 40 } else { ETHERNET + 12..ETHERNET + 20 };
    sum(&data[addresses]) + u64::from(protocol) + (data.len() - transport) as u64
}

/// The checksum of SCTP (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    !crc
}

/// Fills in the transport checksum.
fn fill(data: &mut [u8], transport: usize, protocol: u8) {
    if protocol == 132 && data.len() >= transport + 12 {
        data[transport + 8..transport + 12].fill(0);
        let sum = crc32c(&data[transport..]);
        data[transport + 8..transport + 12].copy_from_slice(&sum.to_le_bytes());
        return;
    }
    let at = transport
        + match protocol {
            6 => 16,
            17 => 6,
            1 | 58 => 2,
            _ => return,
        };
    if data.len() < at + 2 {
        return;
    }
    data[at..at + 2].fill(0);
    let total = !fold(pseudo(data, transport, protocol) + sum(&data[transport..]));
    let total = if protocol == 17 && total == 0 { 0xffff } else { total };
    data[at..at + 2].copy_from_slice(&total.to_be_bytes());
}

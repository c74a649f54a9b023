//! Addresses as they stand in objects.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

/// An address. IPv4 may be written as part of IPv6, and with leading zeros: the API server once took that, and has such
/// objects still.
pub fn address(text: &str) -> Option<IpAddr> {
    let parsed: IpAddr = text.parse().ok().or_else(|| with_zeros(text))?;
    Some(parsed.to_canonical())
}

/// A CIDR, with its host bits cleared; blanks around it do not matter.
pub fn net(text: &str) -> Option<IpNet> {
    let (base, length) = text.trim().split_once('/')?;
    let base: IpAddr = base.parse().ok().or_else(|| with_zeros(base))?;
    Some(IpNet::new(base, length.parse().ok()?).ok()?.trunc())
}

fn with_zeros(text: &str) -> Option<IpAddr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        *octet = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Why nobody can be asked at an address, wherever it is; `None`: they can.
pub fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("is no address of anybody"),
        _ if address.is_loopback() => Some("is a loopback address"),
        _ if address.is_multicast() => Some("is a multicast address"),
        _ => None,
    }
}

/// Whether an address means something on one link only.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kubernetes_reads_them() {
        for (text, meant) in [
            ("10.0.0.1", Some("10.0.0.1")),
            ("010.000.00.01", Some("10.0.0.1")),
            ("::ffff:10.0.0.1", Some("10.0.0.1")),
            ("fd00::1", Some("fd00::1")),
            ("10.0.0", None),
            ("10.0.0.1.2", None),
            ("10.0.0.256", None),
            ("+1.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(address(text), meant.map(|meant| meant.parse().unwrap()), "{text:?}");
        }
        for (text, meant) in [
            (" 10.0.0.0/8\t", Some("10.0.0.0/8")),
            ("10.1.2.3/08", Some("10.0.0.0/8")),
            ("fd00::1/64", Some("fd00::/64")),
            ("10.0.0.0", None),
            ("10.0.0.0/33", None),
        ] {
            assert_eq!(net(text), meant.map(|meant| meant.parse().unwrap()), "{text:?}");
        }
    }
}

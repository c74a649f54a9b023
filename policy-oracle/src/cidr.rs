//! Which addresses a CIDR has.

use std::net::IpAddr;

/// Whether an address lies within a CIDR, as `10.0.0.0/8` or `fd00::/8`.
///
/// # Panics
/// Where the text is no CIDR.
#[must_use]
pub fn contains(cidr: &str, address: IpAddr) -> bool {
    let (network, length) = parse(cidr).unwrap_or_else(|| panic!("{cidr:?} is no CIDR"));
    network.is_ipv4() == address.is_ipv4() && bits(network)[..length] == bits(address)[..length]
}

fn parse(cidr: &str) -> Option<(IpAddr, usize)> {
    let (network, length) = cidr.split_once('/')?;
    let network: IpAddr = network.parse().ok()?;
    let length = length.parse().ok().filter(|length| *length <= bits(network).len())?;
    Some((network, length))
}

/// The bits of an address, the first of them first.
fn bits(address: IpAddr) -> Vec<bool> {
    let bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.iter().flat_map(|byte| (0..8).map(move |place| byte & (0x80 >> place) != 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cidr_has_the_addresses_that_begin_as_it_does() {
        for (cidr, inside, outside) in [
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "ffff::1", "0.0.0.0"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.0.4/30", "10.1.0.7", "10.1.0.8"),
            ("10.1.0.4/32", "10.1.0.4", "10.1.0.5"),
            ("fd00:1::/33", "fd00:1:7fff::", "fd00:1:8000::"),
            ("fd00::1/128", "fd00::1", "fd00::"),
        ] {
            assert!(contains(cidr, inside.parse().unwrap()), "{cidr} has {inside}");
            assert!(!contains(cidr, outside.parse().unwrap()), "{cidr} has not {outside}");
        }
    }

    #[test]
    fn what_is_no_cidr_is_not_taken_for_one() {
        for text in ["10.0.0.0", "10.0.0/8", "10.0.0.0/33", "::/129", "/8", "10.0.0.0/"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

//! Names and link-layer addresses that follow from a container's id.

use sha2::{Digest, Sha256};

/// Name of the host side of a veth pair: `sl` and 12 hexadecimal digits, 14 letters of the 15 that the kernel allows.
pub fn host_interface(container_id: &str, interface: &str) -> String {
    let digits: String = digest(container_id, interface)[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sl{digits}")
}

/// Link-layer address of the container's side: locally administered, unicast.
pub fn container_mac(container_id: &str, interface: &str) -> [u8; 6] {
    let digest = digest(container_id, interface);
    [digest[6] & 0xfc | 0x02, digest[7], digest[8], digest[9], digest[10], digest[11]]
}

fn digest(container_id: &str, interface: &str) -> [u8; 32] {
    Sha256::new().chain_update(container_id).chain_update([0]).chain_update(interface).finalize().into()
}

/// As people write it.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(host_interface("a", "eth0").len(), 14);
        assert_ne!(host_interface("a", "beth0"), host_interface("ab", "eth0"));
        assert_eq!(container_mac("a", "eth0")[0] & 3, 2);
    }
}

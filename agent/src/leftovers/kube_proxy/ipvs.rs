//! Where kube-proxy balances by IPVS: a device with all the Services' addresses, and virtual services.

use std::fs;

use anyhow::Result;
use sluice_netlink::Netlink;

use super::Report;

/// The device.
pub const DEVICE: &str = "kube-ipvs0";

/// Removes the device, without whose addresses virtual services get no packets.
pub fn remove(report: &mut Report) -> Result<()> {
    if !Netlink::open()?.delete_link(DEVICE)? {
        return Ok(());
    }
    report.removed(format!("interface {DEVICE}"));
    let services = virtual_services(&fs::read_to_string("/proc/net/ip_vs").unwrap_or_default());
    if services > 0 {
        report.left(format!(
            "{services} virtual services of IPVS: who made which is not known; if nobody else did, run `ipvsadm --clear`"
        ));
    }
    Ok(())
}

/// How many the kernel lists.
fn virtual_services(listing: &str) -> usize {
    let kinds = ["TCP ", "UDP ", "SCTP ", "FWM "];
    listing.lines().filter(|line| kinds.iter().any(|kind| line.starts_with(kind))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtual_services_are_told_from_their_backends() {
        let listing = "IP Virtual Server version 1.2.1 (size=4096)\n\
                       Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
                       TCP  0A600001:01BB rr\n  -> C0000201:192B      Masq    1      0          0\n\
                       UDP  0A60000A:0035 rr\n";
        assert_eq!(virtual_services(listing), 2);
        assert_eq!(virtual_services(""), 0);
    }
}

//! Programs of whomever that see the packets of uplinks before ours.

use super::Sight;
use crate::kernel::{Ahead, Way};

/// What each may do, and what to do about it.
pub fn problems(sight: &Sight) -> Vec<String> {
    sight.ahead.iter().map(problem).collect()
}

fn problem(Ahead { device, way, program }: &Ahead) -> String {
    let (what, remedy) = match way {
        Way::Xdp => ("comes in", format!("ip link set dev {device} xdp off")),
        Way::Ingress => ("comes in", format!("bpftool net detach tcx_ingress dev {device}")),
        Way::Egress => ("leaves", format!("bpftool net detach tcx_egress dev {device}")),
    };
    format!(
        "the eBPF program {program} sees what {what} by {device} before Sluice, and may drop it or send it elsewhere \
         (`bpftool net show dev {device}`); where it belongs to nobody any more, take it off (`{remedy}`)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_of_with_where_it_is_and_how_it_is_taken_off() {
        for (way, part) in [
            (Way::Xdp, "comes in by eth0 before Sluice"),
            (Way::Xdp, "ip link set dev eth0 xdp off"),
            (Way::Egress, "what leaves by eth0"),
            (Way::Ingress, "tcx_ingress"),
        ] {
            let ahead = Ahead { device: "eth0".into(), way, program: "theirs".into() };
            let told = problems(&Sight { ahead: vec![ahead], ..Sight::default() }).concat();
            assert!(told.contains("program theirs sees") && told.contains(part), "{told}");
        }
    }
}

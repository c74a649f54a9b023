//! A node in a network namespace of the calling thread: two pods, an uplink, two other nodes, and the world.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// The addresses of the scene.
pub mod addresses {
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// IPv4 and IPv6 of one and the same.
    pub type Pair = (Ipv4Addr, Ipv6Addr);

    const fn pair(v4: [u8; 4], v6: [u16; 8]) -> Pair {
        (
            Ipv4Addr::new(v4[0], v4[1], v4[2], v4[3]),
            Ipv6Addr::new(v6[0], v6[1], v6[2], v6[3], v6[4], v6[5], v6[6], v6[7]),
        )
    }

    /// The first pod.
    pub const POD_A: Pair = pair([10, 1, 0, 2], [0xfd00, 0x10, 1, 0, 0, 0, 0, 2]);
    /// The second pod.
    pub const POD_B: Pair = pair([10, 1, 0, 3], [0xfd00, 0x10, 1, 0, 0, 0, 0, 3]);
    /// An address of the node's pool that no pod has.
    pub const NOBODY: Pair = pair([10, 1, 0, 9], [0xfd00, 0x10, 1, 0, 0, 0, 0, 9]);
    /// The node.
    pub const NODE: Pair = pair([192, 0, 2, 1], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
    /// The node's router.
    pub const ROUTER: Pair = pair([192, 0, 2, 254], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe]);
    /// A node whose pods are reached natively.
    pub const NATIVE_NODE: Pair = pair([192, 0, 2, 2], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]);
    /// A pod of it.
    pub const NATIVE_POD: Pair = pair([10, 2, 0, 7], [0xfd00, 0x10, 2, 0, 0, 0, 0, 7]);
    /// A node whose pods are reached through the overlay.
    pub const OVERLAY_NODE: Pair = pair([192, 0, 2, 3], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 3]);
    /// A pod of it.
    pub const OVERLAY_POD: Pair = pair([10, 3, 0, 7], [0xfd00, 0x10, 3, 0, 0, 0, 0, 7]);
    /// Somebody outside.
    pub const OUTSIDE: Pair = pair([198, 51, 100, 7], [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7]);
    /// Somebody outside who is exempt from masquerading.
    pub const EXEMPT: Pair = pair([203, 0, 113, 7], [0x2001, 0xdb8, 0xeeee, 0, 0, 0, 0, 7]);
    /// A multicast group.
    pub const GROUP: Pair = pair([224, 0, 0, 251], [0xff02, 0, 0, 0, 0, 0, 0, 0xfb]);
}

/// The uplink's link-layer address.
pub const UPLINK: [u8; 6] = [0x02, 0, 0, 0, 0x02, 0x01];

/// Interface indexes.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Host side of the first pod.
    pub pod_a: u32,
    /// Host side of the second pod.
    pub pod_b: u32,
    /// The uplink.
    pub uplink: u32,
    /// The VXLAN device.
    pub overlay: u32,
    /// The other end of the uplink.
    pub far: u32,
}

impl Scene {
    /// The devices of a scene that is only thought of.
    pub const IMAGINED: Self = Self { pod_a: 1, pod_b: 2, uplink: 3, overlay: 4, far: 5 };

    /// Moves the calling thread into a namespace of its own and builds the devices there; they go with the thread.
    ///
    /// # Errors
    /// Where the kernel refuses, for example because the caller is not root.
    pub fn set() -> Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (are you root?)")?;
        // A subnet's lowest address is a broadcast address too on older kernels, 5.10 among them: here it always is.
        let commands = "\
            link set lo up
            link add sla type veth peer name pa
            link add slb type veth peer name pb
            link add eth0 address 02:00:00:00:02:01 type veth peer name far
            link add sluice_vxlan type vxlan external dstport 8472
            link set sla up
            link set pa up
            link set slb up
            link set pb up
            link set far up
            link set eth0 up
            link set sluice_vxlan up
            addr add 192.0.2.1/24 dev eth0
            addr add 2001:db8::1/64 dev eth0 nodad
            neigh add 192.0.2.254 lladdr 02:00:00:00:02:fe dev eth0 nud permanent
            neigh add 192.0.2.2 lladdr 02:00:00:00:02:02 dev eth0 nud permanent
            neigh add 192.0.2.3 lladdr 02:00:00:00:02:03 dev eth0 nud permanent
            neigh add 2001:db8::fe lladdr 02:00:00:00:02:fe dev eth0 nud permanent
            neigh add 2001:db8::2 lladdr 02:00:00:00:02:02 dev eth0 nud permanent
            neigh add 2001:db8::3 lladdr 02:00:00:00:02:03 dev eth0 nud permanent
            route replace broadcast 192.0.2.0 dev eth0 table local
            route add default via 192.0.2.254
            route add default via 2001:db8::fe
            route add 10.2.0.0/24 via 192.0.2.2
            route add fd00:10:2::/64 via 2001:db8::2";
        for line in commands.lines() {
            let status = Command::new("ip").args(line.split_whitespace()).status().context("running ip")?;
            ensure!(status.success(), "ip {} failed", line.trim());
        }
        for path in ["net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/{path}"), "1").with_context(|| format!("switching on {path}"))?;
        }
        let index = |name: &str| nix::net::if_::if_nametoindex(name).with_context(|| format!("finding {name}"));
        Ok(Self {
            pod_a: index("sla")?,
            pod_b: index("slb")?,
            uplink: index("eth0")?,
            overlay: index("sluice_vxlan")?,
            far: index("far")?,
        })
    }

    /// Adds devices that stand for the host sides of so many more pods; gives their indexes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn more_pods(&self, count: usize) -> Result<Vec<u32>> {
        let device = |number| {
            let name = format!("sl{number}");
            let status = Command::new("ip").args(["link", "add", &name, "type", "veth"]).status();
            ensure!(status.context("running ip")?.success(), "adding {name} failed");
            nix::net::if_::if_nametoindex(name.as_str()).with_context(|| format!("finding {name}"))
        };
        (0..count).map(device).collect()
    }
}

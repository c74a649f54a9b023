//! The parts of the slow path.

/// A part of the slow path. Each is a program of its own for each family, so that the verifier follows it once, whatever
/// led to it; what one leaves for the next lies on the desk.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Whether a packet may come in here at all, and which flow it is of.
    Admit = 0,
    /// Which flow an ICMP error is about, by the packet that it quotes; [`Find`](Self::Find) follows.
    Relate = 1,
    /// Whether its flow is known.
    Find = 2,
    /// Which backend it goes to, where it is for a service; [`Judge`](Self::Judge) or [`Refuse`](Self::Refuse) follows.
    Balance = 3,
    /// Where its flow goes, and what policies say of it.
    Judge = 4,
    /// Writes what was judged, and does what the flow says.
    Carry = 5,
    /// Makes of it what tells its sender that nobody serves.
    Refuse = 6,
}

impl Stage {
    /// Names of the programs, in the order of `slow_paths`: each stage for IPv4, then for IPv6.
    pub const PROGRAMS: [&str; 14] = [
        "admit_4",
        "admit_6",
        "relate_4",
        "relate_6",
        "find_4",
        "find_6",
        "balance_4",
        "balance_6",
        "judge_4",
        "judge_6",
        "carry_4",
        "carry_6",
        "refuse_4",
        "refuse_6",
    ];

    /// Where a stage's program for a family stands in `slow_paths`.
    #[inline(always)]
    pub const fn index(self, is_ipv6: bool) -> u32 {
        self as u32 * 2 + is_ipv6 as u32
    }
}

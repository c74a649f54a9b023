//! The maps as the datapath's tables: `unsafe`, because all access to map memory is here, and calls of helpers that look
//! things up.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST, bpf_fib_lookup};
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_ns};
use aya_ebpf::maps::lpm_trie::Key;
use sluice_abi::{
    AddressEntry, Affinity, AffinityKey, Backend, BackendId, Config, Denial, DenialKey, Endpoint, Flow, FlowKey,
    Fragment, FragmentKey, Frontend, FrontendBit, FrontendKey, Hook, IpAddress, Ipv4, Ipv6, Mac, Node, Position,
    RangePath, Reason, RevisionSlot, Rule, RuleKey, ServiceId, SetId, Slot, SocketKey, SocketPeer, Uplink,
};
use sluice_datapath::express::{Link, Neighbours};
use sluice_datapath::policy::PolicyTables;
use sluice_datapath::service::{BalancerTables, ServiceTables};
use sluice_datapath::{Desk, FamilyTables, Insert, Route, Table, Tables};

use crate::maps;
use crate::skb::opaque;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const FIB_SUCCESS: i64 = 0;
const FIB_NO_NEIGHBOUR: i64 = 7;
/// The route is found; only this packet is too large for its device (bpf_skb_fib_lookup in net/core/filter.c).
const FIB_FRAGMENTATION_NEEDED: i64 = 8;

/// Jiffies, low 32 bits. The verifier makes a single load of it.
#[inline(always)]
pub fn jiffies() -> u32 {
    // SAFETY: takes nothing, reads a counter.
    unsafe { bpf_jiffies64() as u32 }
}

pub struct Kernel {
    context: *mut core::ffi::c_void,
}

impl Kernel {
    #[inline(always)]
    pub fn new(context: &impl EbpfContext) -> Self {
        Self { context: context.as_ptr() }
    }

    /// For who has no packet, and asks of no routes.
    #[inline(always)]
    pub const fn without_packet() -> Self {
        Self { context: core::ptr::null_mut() }
    }

    /// Asks the FIB. `parameters` holds family, interface and addresses.
    #[inline(always)]
    fn fib(&self, parameters: &mut bpf_fib_lookup) -> bool {
        // SAFETY: the parameters are as large as is said.
        let result = unsafe { bpf_fib_lookup(self.context, parameters, size_of::<bpf_fib_lookup>() as i32, 0) };
        result == FIB_SUCCESS || result == FIB_NO_NEIGHBOUR || result == FIB_FRAGMENTATION_NEEDED
    }
}

#[inline(always)]
fn flags(how: Insert) -> u64 {
    match how {
        Insert::New => BPF_NOEXIST.into(),
        Insert::Any => BPF_ANY.into(),
    }
}

macro_rules! family {
    (
        $address:ty,
        flows: $openings:ident $flows:ident $fragments:ident $desk:ident,
        services: $addresses:ident $frontends:ident $backends:ident $source_ranges:ident $sockets:ident,
        $route:item
    ) => {
        impl ServiceTables<$address> for Kernel {
            #[inline(always)]
            fn address(&self, address: $address) -> AddressEntry {
                maps::$addresses.get(&Key::new(<$address>::BITS, address)).copied().unwrap_or(AddressEntry::UNKNOWN)
            }

            #[inline(always)]
            fn frontend(&self, key: &FrontendKey<$address>) -> Option<Frontend> {
                // SAFETY: copied at once.
                unsafe { maps::$frontends.get(key).copied() }
            }

            #[inline(always)]
            fn backend(&self, BackendId(id): BackendId) -> Option<Backend<$address>> {
                maps::$backends.get(id).copied()
            }

            #[inline(always)]
            fn is_in_source_ranges(&self, service: ServiceId, address: $address) -> bool {
                let path = RangePath { service, address };
                maps::$source_ranges.get(&Key::new(u32::BITS + <$address>::BITS, path)).is_some()
            }

            #[inline(always)]
            fn peer(&self, key: &SocketKey<$address>) -> Option<SocketPeer<$address>> {
                // SAFETY: copied at once.
                unsafe { maps::$sockets.get(key).copied() }
            }

            #[inline(always)]
            fn remember_peer(&self, key: &SocketKey<$address>, peer: &SocketPeer<$address>) {
                // A table that evicts has room; where memory is short, the process learns the backend's own address.
                let _ = maps::$sockets.insert(key, peer, BPF_ANY.into());
            }
        }

        impl FamilyTables<$address> for Kernel {
            #[inline(always)]
            fn flow<R>(
                &self,
                table: Table,
                key: &FlowKey<$address>,
                use_it: impl FnOnce(&mut Flow<$address>) -> R,
            ) -> Option<R> {
                let entry = match table {
                    Table::Openings => maps::$openings.get_ptr_mut(key),
                    Table::Flows => maps::$flows.get_ptr_mut(key),
                }?;
                // SAFETY: map memory, live until the program ends. Other CPUs may write the same entry at the same
                // time: fields are words or smaller, each is read whole.
                Some(use_it(unsafe { &mut *entry }))
            }

            #[inline(always)]
            fn insert(&self, table: Table, key: &FlowKey<$address>, flow: &Flow<$address>, how: Insert) -> bool {
                match table {
                    Table::Openings => maps::$openings.insert(key, flow, flags(how)).is_ok(),
                    Table::Flows => maps::$flows.insert(key, flow, flags(how)).is_ok(),
                }
            }

            #[inline(always)]
            fn remove(&self, table: Table, key: &FlowKey<$address>) {
                // One that is gone already is as good.
                let _ = match table {
                    Table::Openings => maps::$openings.remove(key),
                    Table::Flows => maps::$flows.remove(key),
                };
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$address>) -> Option<Fragment> {
                // SAFETY: copied at once.
                unsafe { maps::$fragments.get(key).copied() }
            }

            #[inline(always)]
            fn remember_fragment(&self, key: &FragmentKey<$address>, fragment: &Fragment) {
                // A table that evicts has room; where memory is short, later fragments are dropped and counted.
                let _ = maps::$fragments.insert(key, fragment, BPF_ANY.into());
            }

            #[inline(always)]
            fn desk<R>(&self, use_it: impl FnOnce(&mut Desk<$address>) -> R) -> Option<R> {
                let entry = maps::$desk.get_ptr_mut(0)?;
                // SAFETY: this CPU's own memory, and programs do not interrupt one another at these hooks.
                Some(use_it(unsafe { &mut *entry }))
            }

            #[inline(always)]
            $route
        }
    };
}

family!(
    Ipv4,
    flows: OPENINGS4 FLOWS4 FRAGMENTS4 DESK4,
    services: ADDRESSES4 FRONTENDS4 BACKENDS4 SOURCE_RANGES4 SOCKETS4,
    fn route(&self, interface: u32, source: Ipv4, destination: Ipv4) -> Route<Ipv4> {
        // SAFETY: plain data, for which zero is a value.
        let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        parameters.family = AF_INET;
        parameters.ifindex = interface;
        parameters.__bindgen_anon_3.ipv4_src = source.0;
        parameters.__bindgen_anon_4.ipv4_dst = destination.0;
        // A next hop of the other family (RFC 8950) is left to the stack.
        if !self.fib(&mut parameters) || parameters.family != AF_INET {
            return Route::Stack;
        }
        // SAFETY: the family says which member is valid.
        Route::Via { interface: parameters.ifindex, next_hop: Ipv4(unsafe { parameters.__bindgen_anon_4.ipv4_dst }) }
    }
);

family!(
    Ipv6,
    flows: OPENINGS6 FLOWS6 FRAGMENTS6 DESK6,
    services: ADDRESSES6 FRONTENDS6 BACKENDS6 SOURCE_RANGES6 SOCKETS6,
    fn route(&self, interface: u32, source: Ipv6, destination: Ipv6) -> Route<Ipv6> {
        // SAFETY: plain data, for which zero is a value.
        let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        parameters.family = AF_INET6;
        parameters.ifindex = interface;
        parameters.__bindgen_anon_3.ipv6_src = source.0;
        parameters.__bindgen_anon_4.ipv6_dst = destination.0;
        if !self.fib(&mut parameters) {
            return Route::Stack;
        }
        // SAFETY: the family says which member is valid.
        Route::Via { interface: parameters.ifindex, next_hop: Ipv6(unsafe { parameters.__bindgen_anon_4.ipv6_dst }) }
    }
);

macro_rules! neighbours {
    ($address:ty, $family:expr, $put:expr) => {
        impl Neighbours<$address> for Kernel {
            #[inline(always)]
            fn link(&self, interface: u32, next_hop: $address, length: u32) -> Option<Link> {
                // SAFETY: plain data, for which zero is a value.
                let mut parameters: bpf_fib_lookup = unsafe { core::mem::zeroed() };
                parameters.family = $family;
                parameters.ifindex = interface;
                parameters.__bindgen_anon_1.tot_len = length as u16;
                $put(&mut parameters, next_hop);
                let size = size_of::<bpf_fib_lookup>() as i32;
                // SAFETY: the parameters are as large as is said.
                let result = unsafe { bpf_fib_lookup(self.context, &mut parameters, size, 0) };
                if result != FIB_SUCCESS {
                    return None;
                }
                let (to, from) = (Mac::new(parameters.dmac), Mac::new(parameters.smac));
                Some(Link { interface: parameters.ifindex, to, from })
            }
        }
    };
}

neighbours!(Ipv4, AF_INET, |parameters: &mut bpf_fib_lookup, next_hop: Ipv4| {
    parameters.__bindgen_anon_4.ipv4_dst = next_hop.0;
});
neighbours!(Ipv6, AF_INET6, |parameters: &mut bpf_fib_lookup, next_hop: Ipv6| {
    parameters.__bindgen_anon_4.ipv6_dst = next_hop.0;
});

impl PolicyTables for Kernel {
    #[inline(always)]
    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        maps::RULES.get(&Key::new(key.length, key.path())).copied()
    }
}

impl BalancerTables for Kernel {
    #[inline(always)]
    fn may_be_frontend(&self, bit: FrontendBit) -> bool {
        let (word, mask) = bit.place();
        maps::FRONTEND_BITS.get(word).is_some_and(|bits| bits & mask != 0)
    }

    #[inline(always)]
    fn position(&self, SetId(set): SetId) -> Position {
        maps::SETS.get(set).copied().unwrap_or(Position::REJECT)
    }

    #[inline(always)]
    fn member(&self, Position(position): Position) -> u32 {
        maps::MEMBERS.get(position).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn maglev(&self, set: SetId, index: u32) -> Option<BackendId> {
        // The compiler knows that it is within the table, and leaves the check out that the verifier wants.
        // SAFETY: copied at once.
        unsafe { maps::MAGLEV.get(set)?.get(opaque(index as usize)).copied() }
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: copied at once.
        unsafe { maps::AFFINITIES.get(key).copied() }
    }

    #[inline(always)]
    fn stay(&self, key: &AffinityKey, with: &Affinity) {
        // A table that evicts has room; where memory is short, the client is given another backend the next time.
        let _ = maps::AFFINITIES.insert(key, with, BPF_ANY.into());
    }

    #[inline(always)]
    fn seconds(&self) -> u32 {
        // SAFETY: takes nothing.
        unsafe { (bpf_ktime_get_ns() / 1_000_000_000) as u32 }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: takes nothing.
        unsafe { bpf_get_prandom_u32() }
    }
}

impl Tables for Kernel {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        maps::CONFIG.get(0)
    }

    #[inline(always)]
    fn endpoint(&self, slot: Slot) -> Option<&Endpoint> {
        maps::ENDPOINTS.get(slot.0)
    }

    #[inline(always)]
    fn node(&self, slot: Slot) -> Option<&Node> {
        maps::NODES.get(slot.0)
    }

    #[inline(always)]
    fn revision(&self, slot: RevisionSlot) -> u32 {
        // A slot beyond the array is nobody's, and never holds.
        maps::REVISIONS.get(slot.0).copied().unwrap_or(u32::MAX)
    }

    #[inline(always)]
    fn uplink(&self, interface: u32) -> Option<&Uplink> {
        // SAFETY: written by the agent only, as a whole.
        unsafe { maps::UPLINKS.get(interface) }
    }

    #[inline(always)]
    fn count(&self, hook: Hook, reason: Reason) {
        if let Some(counter) = maps::COUNTERS.get_ptr_mut(reason.index(hook)) {
            // SAFETY: this CPU's own counter.
            unsafe { *counter += 1 };
        }
    }

    #[inline(always)]
    fn denied(&self, key: &DenialKey) {
        let last_seen = jiffies();
        match maps::DENIALS.get_ptr_mut(key) {
            // SAFETY: map memory, live until the program ends; as with flows, CPUs may write it at the same time.
            Some(entry) => unsafe {
                (*entry).packets += 1;
                (*entry).last_seen = last_seen;
            },
            None => {
                // A table that evicts has room; where memory is short, the drop itself is counted all the same.
                let _ = maps::DENIALS.insert(key, Denial { packets: 1, last_seen, pad: 0 }, BPF_NOEXIST.into());
            }
        }
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        jiffies()
    }
}

//! The maps. Sizes that depend on the node are set by the agent at load time.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use sluice_abi::{
    AddressEntry, COUNTERS as COUNTER_COUNT, Config, Denial, DenialKey, Endpoint, Flow, FlowKey, Fragment, FragmentKey,
    Ipv4, Ipv6, MAX_ENDPOINTS, MAX_NODES, MAX_REVISIONS, Node, Rule, RulePath, Uplink,
};
use sluice_datapath::Desk;

const FLOW_COUNT: usize = 65_536;
const FRAGMENT_COUNT: usize = 8_192;
const ADDRESS_COUNT: usize = 262_144;
const RULE_COUNT: usize = 262_144;
const DENIAL_COUNT: usize = 8_192;
const UPLINK_COUNT: usize = 64;
/// `BPF_F_NO_PREALLOC`: the kernel demands it of tries.
const NO_PREALLOC: usize = 1;

#[btf_map(name = "openings4")]
pub static OPENINGS4: LruHashMap<FlowKey<Ipv4>, Flow<Ipv4>, FLOW_COUNT> = LruHashMap::new();
#[btf_map(name = "openings6")]
pub static OPENINGS6: LruHashMap<FlowKey<Ipv6>, Flow<Ipv6>, FLOW_COUNT> = LruHashMap::new();
#[btf_map(name = "flows4")]
pub static FLOWS4: HashMap<FlowKey<Ipv4>, Flow<Ipv4>, FLOW_COUNT> = HashMap::new();
#[btf_map(name = "flows6")]
pub static FLOWS6: HashMap<FlowKey<Ipv6>, Flow<Ipv6>, FLOW_COUNT> = HashMap::new();
#[btf_map(name = "fragments4")]
pub static FRAGMENTS4: LruHashMap<FragmentKey<Ipv4>, Fragment, FRAGMENT_COUNT> = LruHashMap::new();
#[btf_map(name = "fragments6")]
pub static FRAGMENTS6: LruHashMap<FragmentKey<Ipv6>, Fragment, FRAGMENT_COUNT> = LruHashMap::new();
#[btf_map(name = "addresses4")]
pub static ADDRESSES4: LpmTrie<Ipv4, AddressEntry, ADDRESS_COUNT, NO_PREALLOC> = LpmTrie::new();
#[btf_map(name = "addresses6")]
pub static ADDRESSES6: LpmTrie<Ipv6, AddressEntry, ADDRESS_COUNT, NO_PREALLOC> = LpmTrie::new();
#[btf_map(name = "rules")]
pub static RULES: LpmTrie<RulePath, Rule, RULE_COUNT, NO_PREALLOC> = LpmTrie::new();
#[btf_map(name = "denials")]
pub static DENIALS: LruHashMap<DenialKey, Denial, DENIAL_COUNT> = LruHashMap::new();
#[btf_map(name = "endpoints")]
pub static ENDPOINTS: Array<Endpoint, { MAX_ENDPOINTS as usize }> = Array::new();
#[btf_map(name = "nodes")]
pub static NODES: Array<Node, { MAX_NODES as usize }> = Array::new();
#[btf_map(name = "revisions")]
pub static REVISIONS: Array<u32, { MAX_REVISIONS as usize }> = Array::new();
#[btf_map(name = "uplinks")]
pub static UPLINKS: HashMap<u32, Uplink, UPLINK_COUNT> = HashMap::new();
#[btf_map(name = "config")]
pub static CONFIG: Array<Config, 1> = Array::new();
#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<u64, { COUNTER_COUNT as usize }> = PerCpuArray::new();
#[btf_map(name = "desk4")]
pub static DESK4: PerCpuArray<Desk<Ipv4>, 1> = PerCpuArray::new();
#[btf_map(name = "desk6")]
pub static DESK6: PerCpuArray<Desk<Ipv6>, 1> = PerCpuArray::new();
#[btf_map(name = "slow_paths")]
pub static SLOW_PATHS: ProgramArray<16> = ProgramArray::new();

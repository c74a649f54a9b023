//! The maps. Sizes that depend on the node are set by the agent at load time.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::macros::btf_map;
use sluice_abi::{
    AddressEntry, Affinity, AffinityKey, Backend, BackendId, COUNTERS as COUNTER_COUNT, Config, Denial, DenialKey,
    Endpoint, FRONTEND_BITS as BIT_COUNT, Flow, FlowKey, Fragment, FragmentKey, Frontend, FrontendKey, Ipv4, Ipv6,
    MAGLEV_SIZE, MAX_ENDPOINTS, MAX_NODES, MAX_REVISIONS, Node, Position, RangePath, Rule, RulePath, SetId, SocketKey,
    SocketPeer, Uplink,
};
use sluice_datapath::Desk;

const FLOW_COUNT: usize = 65_536;
const FRAGMENT_COUNT: usize = 8_192;
const ADDRESS_COUNT: usize = 262_144;
const RULE_COUNT: usize = 262_144;
const DENIAL_COUNT: usize = 8_192;
const UPLINK_COUNT: usize = 1_024;
const BACKEND_COUNT: usize = 65_536;
const SET_COUNT: usize = BACKEND_COUNT / 2;
const MEMBER_COUNT: usize = BACKEND_COUNT * 4;
const FRONTEND_COUNT: usize = 1 << 20;
const MAGLEV_COUNT: usize = 16_384;
const AFFINITY_COUNT: usize = 32_768;
const RANGE_COUNT: usize = 1 << 20;
const SOCKET_COUNT: usize = 32_768;
/// `BPF_F_NO_PREALLOC`: the kernel demands it of tries.
const NO_PREALLOC: usize = 1;
/// `BPF_F_MMAPABLE`: the agent writes words of it as the programs read them, whole.
const MAPPED: usize = 1 << 10;

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
#[btf_map(name = "frontends4")]
pub static FRONTENDS4: HashMap<FrontendKey<Ipv4>, Frontend, FRONTEND_COUNT, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "frontends6")]
pub static FRONTENDS6: HashMap<FrontendKey<Ipv6>, Frontend, FRONTEND_COUNT, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "frontend_bits")]
pub static FRONTEND_BITS: Array<u64, { BIT_COUNT as usize / 64 }, MAPPED> = Array::new();
#[btf_map(name = "sets")]
pub static SETS: Array<Position, SET_COUNT, MAPPED> = Array::new();
#[btf_map(name = "members")]
pub static MEMBERS: Array<u32, MEMBER_COUNT, MAPPED> = Array::new();
#[btf_map(name = "backends4")]
pub static BACKENDS4: Array<Backend<Ipv4>, BACKEND_COUNT, MAPPED> = Array::new();
#[btf_map(name = "backends6")]
pub static BACKENDS6: Array<Backend<Ipv6>, BACKEND_COUNT, MAPPED> = Array::new();
#[btf_map(name = "maglev")]
pub static MAGLEV: HashMap<SetId, [BackendId; MAGLEV_SIZE], MAGLEV_COUNT, NO_PREALLOC> = HashMap::new();
#[btf_map(name = "affinities")]
pub static AFFINITIES: LruHashMap<AffinityKey, Affinity, AFFINITY_COUNT> = LruHashMap::new();
#[btf_map(name = "source_ranges4")]
pub static SOURCE_RANGES4: LpmTrie<RangePath<Ipv4>, u32, RANGE_COUNT, NO_PREALLOC> = LpmTrie::new();
#[btf_map(name = "source_ranges6")]
pub static SOURCE_RANGES6: LpmTrie<RangePath<Ipv6>, u32, RANGE_COUNT, NO_PREALLOC> = LpmTrie::new();
#[btf_map(name = "sockets4")]
pub static SOCKETS4: LruHashMap<SocketKey<Ipv4>, SocketPeer<Ipv4>, SOCKET_COUNT> = LruHashMap::new();
#[btf_map(name = "sockets6")]
pub static SOCKETS6: LruHashMap<SocketKey<Ipv6>, SocketPeer<Ipv6>, SOCKET_COUNT> = LruHashMap::new();
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

//! The compiled programs, run by `BPF_PROG_TEST_RUN` on maps of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray, ProgramArray};
use aya::programs::{CgroupAttachMode, Program, SchedClassifier, TcAttachType, TestRun, TestRunOptions, Xdp, tc};
use aya::util::KernelVersion;
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use sluice_abi::{
    AddressEntry, COUNTERS, Config, Denial, DenialKey, Endpoint, Flow, FlowKey, Ipv4, Ipv6, Node, Rule, RuleKey,
    RulePath, Uplink, maps,
};
use sluice_agent::kernel::loading;
use sluice_datapath::express::Express;

use super::native::Bytes;

/// Size of `struct __sk_buff`, and where its fields are (include/uapi/linux/bpf.h).
const CONTEXT: usize = 192;
const MARK: usize = 8;
const INTERFACE: usize = 40;
const GSO_SEGMENTS: usize = 164;
const GSO_SIZE: usize = 176;

/// What programs return (include/uapi/linux/pkt_cls.h).
const UNSPEC: u32 = u32::MAX;
const SHOT: u32 = 2;
const REDIRECT: u32 = 7;

/// The programs, loaded.
pub struct Kernel {
    ebpf: Ebpf,
    /// Lives as long as the programs that call into it.
    _slow_paths: ProgramArray<MapData>,
}

/// What a program did with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Returned {
    /// Let it go on.
    Pass,
    /// Dropped it.
    Drop,
    /// Sent it elsewhere.
    Redirect,
}

/// Where the compiled programs are: `SLUICE_BPF_OBJECT`, or where `cargo xtask build` leaves them.
pub fn object() -> PathBuf {
    env::var_os("SLUICE_BPF_OBJECT")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/sluice.o")), PathBuf::from)
}

impl Kernel {
    /// Loads the programs with small tables.
    ///
    /// # Errors
    /// Where the object is missing or the kernel refuses it.
    pub fn load() -> Result<Self> {
        let path = object();
        let bytes =
            fs::read(&path).with_context(|| format!("reading {}; `cargo xtask build` makes it", path.display()))?;
        let btf = Btf::from_sys_fs().context("reading the kernel's BTF")?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf));
        for name in [maps::OPENINGS4, maps::OPENINGS6, maps::FLOWS4, maps::FLOWS6, maps::FRAGMENTS4, maps::FRAGMENTS6] {
            loader.map_max_entries(name, 16_384);
        }
        let mut ebpf = loader.load(&bytes).context("loading the kernel programs")?;
        let slow_paths = loading::load(&mut ebpf)?;
        Ok(Self { ebpf, _slow_paths: slow_paths })
    }

    /// Attaches a program to a device, for what comes in there.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(&mut self, name: &str, device: &str) -> Result<()> {
        if KernelVersion::current()? < KernelVersion::new(6, 6, 0) {
            tc::qdisc_add_clsact(device).with_context(|| format!("adding clsact to {device}"))?;
        }
        program(&mut self.ebpf, name)?
            .attach(device, TcAttachType::Ingress)
            .with_context(|| format!("attaching {name} to {device}"))?;
        Ok(())
    }

    /// Attaches the programs for sockets to a control group: test runs do not know them.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach_to_group(&mut self, group: &Path) -> Result<()> {
        let directory = File::open(group).with_context(|| format!("opening {}", group.display()))?;
        for (name, program) in self.ebpf.programs_mut() {
            if let Program::CgroupSockAddr(program) = program {
                program
                    .attach(&directory, CgroupAttachMode::Single)
                    .with_context(|| format!("attaching {name} to {}", group.display()))?;
            }
        }
        Ok(())
    }

    /// A map, to be written.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn map_mut(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("no map {name}"))
    }

    /// Writes an element of an array.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set<V: Pod>(&mut self, name: &str, index: u32, value: V) -> Result<()> {
        let mut array: Array<&mut MapData, V> = Array::try_from(self.ebpf.map_mut(name).context("no such map")?)?;
        array.set(index, value, 0).with_context(|| format!("writing {name}[{index}]"))
    }

    /// Sets the node's settings.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_config(&mut self, config: Config) -> Result<()> {
        self.set(maps::CONFIG, 0, config)
    }

    /// Sets the endpoint of a slot.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_endpoint(&mut self, slot: u32, endpoint: Endpoint) -> Result<()> {
        self.set(maps::ENDPOINTS, slot, endpoint)
    }

    /// Sets the node of a slot.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_node(&mut self, slot: u32, node: Node) -> Result<()> {
        self.set(maps::NODES, slot, node)
    }

    /// Adds an uplink.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_uplink(&mut self, interface: u32, uplink: Uplink) -> Result<()> {
        let mut map: HashMap<&mut MapData, u32, Uplink> =
            HashMap::try_from(self.ebpf.map_mut(maps::UPLINKS).context("no such map")?)?;
        Ok(map.insert(interface, uplink, 0)?)
    }

    /// Says who has the addresses of a prefix; `None` removes what was said.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_address<A: Pod>(
        &mut self,
        name: &str,
        length: u32,
        address: A,
        entry: Option<AddressEntry>,
    ) -> Result<()> {
        self.set_prefix(name, &Key::new(length, address), entry)
    }

    /// Writes a rule; `None` removes it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_rule(&mut self, key: RuleKey, rule: Option<Rule>) -> Result<()> {
        self.set_prefix::<RulePath, Rule>(maps::RULES, &Key::new(key.length, key.path()), rule)
    }

    fn set_prefix<K: Pod, V: Pod>(&mut self, name: &str, key: &Key<K>, value: Option<V>) -> Result<()> {
        let mut trie: LpmTrie<&mut MapData, K, V> = LpmTrie::try_from(self.ebpf.map_mut(name).context("no such map")?)?;
        match value {
            Some(value) => trie.insert(key, value, 0),
            None => trie.remove(key),
        }
        .with_context(|| format!("writing {name}"))
    }

    /// What policies have denied, and how often.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn denials(&self) -> Result<Vec<(DenialKey, Denial)>> {
        self.entries(maps::DENIALS)
    }

    /// All entries of a hash.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn entries<K: Pod, V: Pod>(&self, name: &str) -> Result<Vec<(K, V)>> {
        let map: HashMap<&MapData, K, V> = HashMap::try_from(self.ebpf.map(name).context("no such map")?)?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }

    /// Changes all entries of a flow table.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn change<K: Pod, V: Pod>(&mut self, name: &str, mut change: impl FnMut(&mut V)) -> Result<()> {
        let mut map: HashMap<&mut MapData, K, V> = HashMap::try_from(self.ebpf.map_mut(name).context("no such map")?)?;
        let entries: Vec<(K, V)> = map.iter().collect::<Result<_, _>>()?;
        for (key, mut value) in entries {
            change(&mut value);
            map.insert(key, value, 0)?;
        }
        Ok(())
    }

    /// Removes the entries of a table that are not to be kept.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn retain<K: Pod, V: Pod>(&mut self, name: &str, keep: impl Fn(&V) -> bool) -> Result<()> {
        let mut map: HashMap<&mut MapData, K, V> = HashMap::try_from(self.ebpf.map_mut(name).context("no such map")?)?;
        let entries: Vec<(K, V)> = map.iter().collect::<Result<_, _>>()?;
        for (key, _) in entries.iter().filter(|(_, value)| !keep(value)) {
            map.remove(key)?;
        }
        Ok(())
    }

    /// Entries of a table of IPv4 flows.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn flows4(&self, name: &str) -> Result<Vec<(FlowKey<Ipv4>, Flow<Ipv4>)>> {
        self.entries(name)
    }

    /// Entries of a table of IPv6 flows.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn flows6(&self, name: &str) -> Result<Vec<(FlowKey<Ipv6>, Flow<Ipv6>)>> {
        self.entries(name)
    }

    /// A counter, summed over CPUs.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn counter(&self, index: u32) -> Result<u64> {
        let counters: PerCpuArray<&MapData, u64> =
            PerCpuArray::try_from(self.ebpf.map(maps::COUNTERS).context("no such map")?)?;
        Ok(counters.get(&index, 0)?.iter().sum())
    }

    /// All counters.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn counters(&self) -> Result<Vec<u64>> {
        (0..COUNTERS).map(|index| self.counter(index)).collect()
    }

    /// Runs a packet through a program.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn run(&mut self, name: &str, packet: &mut Bytes) -> Result<Returned> {
        match self.test_run(name, packet, 1)?.0 {
            UNSPEC => Ok(Returned::Pass),
            SHOT => Ok(Returned::Drop),
            REDIRECT => Ok(Returned::Redirect),
            other => anyhow::bail!("{name} returned {other}"),
        }
    }

    /// Runs a packet through a program, `repeat` times; gives ns for each.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn time(&mut self, name: &str, packet: &Bytes, repeat: u32) -> Result<u64> {
        Ok(self.test_run(name, &mut packet.clone(), repeat)?.1)
    }

    fn test_run(&mut self, name: &str, packet: &mut Bytes, repeat: u32) -> Result<(u32, u64)> {
        let mut context = [0; CONTEXT];
        let mut set = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        set(MARK, packet.mark);
        set(INTERFACE, packet.interface);
        if packet.segment != 0 {
            set(GSO_SIZE, packet.segment);
            set(GSO_SEGMENTS, 2);
        }
        let mut answer = [0; CONTEXT];
        let mut data = vec![0; packet.data.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&packet.data);
        options.data_out = Some(&mut data);
        options.ctx_in = Some(&context);
        options.ctx_out = Some(&mut answer);
        options.repeat = repeat;
        let result = program(&mut self.ebpf, name)?
            .test_run(options)
            .with_context(|| format!("running {name} on {} bytes", packet.data.len()))?;
        data.truncate(result.data_size_out as usize);
        packet.data = data;
        packet.mark = u32::from_ne_bytes([answer[MARK], answer[MARK + 1], answer[MARK + 2], answer[MARK + 3]]);
        Ok((result.return_value, result.duration.as_nanos() as u64))
    }

    /// Runs a frame past the stack, as the uplink's driver does. `None`: before Linux 5.14 test runs cannot say which interface
    /// that is ("bpf: Support input xdp_md context in BPF_PROG_TEST_RUN").
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn run_express(&mut self, packet: &mut Bytes) -> Result<Option<Express>> {
        /// `enum xdp_action`.
        const PASS: u32 = 2;
        const TX: u32 = 3;
        if KernelVersion::current().context("asking for the kernel's version")? < KernelVersion::new(5, 14, 0) {
            return Ok(None);
        }
        match self.test_express(packet, 1)?.0 {
            PASS => Ok(Some(Express::Pass)),
            TX => Ok(Some(Express::Back)),
            other => anyhow::bail!("xdp_lb returned {other}"),
        }
    }

    /// Runs a frame past the stack, `repeat` times; gives ns for each.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn time_express(&mut self, packet: &Bytes, repeat: u32) -> Result<u64> {
        Ok(self.test_express(&mut packet.clone(), repeat)?.1)
    }

    fn test_express(&mut self, packet: &mut Bytes, repeat: u32) -> Result<(u32, u64)> {
        /// Size of `struct xdp_md`, and where its fields are.
        const CONTEXT: usize = 24;
        const END: usize = 4;
        const INTERFACE: usize = 12;
        let mut context = [0; CONTEXT];
        let mut set = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        set(END, packet.data.len() as u32);
        set(INTERFACE, packet.interface);
        let mut data = vec![0; packet.data.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&packet.data);
        options.data_out = Some(&mut data);
        options.ctx_in = Some(&context);
        options.repeat = repeat;
        let program: &mut Xdp = self.ebpf.program_mut("xdp_lb").context("no program xdp_lb")?.try_into()?;
        let result = program.test_run(options).context("running xdp_lb")?;
        data.truncate(result.data_size_out as usize);
        packet.data = data;
        Ok((result.return_value, result.duration.as_nanos() as u64))
    }

    /// The programs' clock, jiffies.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn now(&mut self) -> Result<u32> {
        let mut options = TestRunOptions::new();
        let data = [0; 64];
        options.data_in = Some(&data);
        Ok(program(&mut self.ebpf, "clock")?.test_run(options)?.return_value)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}

//! Tables, chains and rules of nf_tables, those of iptables among them
//! (include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h).

use std::fmt;
use std::io;

use netlink_packet_core::{
    DecodeError, NLA_HEADER_SIZE, NLM_F_ACK, NetlinkDeserializable, NetlinkHeader, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use crate::NetlinkError;
use crate::channel::Channel;

/// Of nfnetlink: the beginning and the end of changes that are made together, and the number of nf_tables.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;

/// What is asked for, and about what.
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;

/// Attributes, by what they are of.
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VERDICT: u16 = 2;
const VERDICT_CHAIN: u16 = 2;

/// Most changes that are made together: what a socket takes at once.
const MOST: usize = 500;

/// A family of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NftFamily {
    /// `ip`.
    V4,
    /// `ip6`.
    V6,
}

impl NftFamily {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6` (include/uapi/linux/netfilter.h).
    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

impl fmt::Display for NftFamily {
    /// As `nft` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        })
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NftChain {
    /// The table that it is in.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for NftChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.name)
    }
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftRule {
    /// The chain that it is in.
    pub chain: NftChain,
    /// What the kernel knows it by.
    pub handle: u64,
    /// The chains that it may go on with, of the same table.
    pub targets: Vec<String>,
}

/// What is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NftRemoval {
    /// A table with all that is in it.
    Table(String),
    /// A rule, by its handle.
    Rule(NftChain, u64),
    /// All rules of a chain.
    Rules(NftChain),
    /// A chain that has no rules, and that none goes on with.
    Chain(NftChain),
}

impl fmt::Display for NftRemoval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(name) => write!(f, "table {name}"),
            Self::Rule(chain, handle) => write!(f, "rule {handle} of chain {chain}"),
            Self::Rules(chain) => write!(f, "the rules of chain {chain}"),
            Self::Chain(chain) => write!(f, "chain {chain}"),
        }
    }
}

/// A socket for the tables of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Nftables(Channel);

impl Nftables {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel refuses; [`NetlinkError::is_unsupported`] where it has no such tables.
    pub fn open() -> Result<Self, NetlinkError> {
        Channel::open(NETLINK_NETFILTER).map(Self)
    }

    /// The names of all tables of a family.
    ///
    /// # Errors
    /// Where the kernel refuses; [`NetlinkError::is_unsupported`] where it has no such tables.
    pub fn tables(&mut self, family: NftFamily) -> Result<Vec<String>, NetlinkError> {
        let tables = self.dump("listing tables", family, GET_TABLE)?;
        Ok(tables.iter().filter_map(|table| table.text(TABLE_NAME)).collect())
    }

    /// All chains of a family.
    ///
    /// # Errors
    /// As [`tables`](Self::tables).
    pub fn chains(&mut self, family: NftFamily) -> Result<Vec<NftChain>, NetlinkError> {
        let chains = self.dump("listing chains", family, GET_CHAIN)?;
        let chain = |chain: &Message| Some(NftChain { table: chain.text(CHAIN_TABLE)?, name: chain.text(CHAIN_NAME)? });
        Ok(chains.iter().filter_map(chain).collect())
    }

    /// All rules of a family.
    ///
    /// # Errors
    /// As [`tables`](Self::tables).
    pub fn rules(&mut self, family: NftFamily) -> Result<Vec<NftRule>, NetlinkError> {
        let rules = self.dump("listing rules", family, GET_RULE)?;
        let rule = |rule: &Message| {
            let chain = NftChain { table: rule.text(RULE_TABLE)?, name: rule.text(RULE_CHAIN)? };
            let handle = u64::from_be_bytes(find(&rule.attributes, RULE_HANDLE)?.try_into().ok()?);
            Some(NftRule { chain, handle, targets: targets(&rule.attributes) })
        };
        Ok(rules.iter().filter_map(rule).collect())
    }

    fn dump(&mut self, action: &'static str, family: NftFamily, kind: u16) -> Result<Vec<Message>, NetlinkError> {
        self.0.dump(action, format!("of {family}"), Message::of(family, kind, Vec::new())).map_err(|mut error| {
            // There is nothing in the request that could be wrong: nobody is there to answer it.
            if error.source.raw_os_error() == Some(Errno::EINVAL as i32) {
                error.source = io::Error::new(io::ErrorKind::Unsupported, "this kernel has no nf_tables");
            }
            error
        })
    }

    /// Removes things of a family, in this order. Many of them are removed in several steps, each in full or not at all.
    ///
    /// # Errors
    /// Where the kernel refuses, with the first that it refuses.
    pub fn remove(&mut self, family: NftFamily, removals: &[NftRemoval]) -> Result<(), NetlinkError> {
        removals.chunks(MOST).try_for_each(|step| self.remove_together(family, step))
    }

    fn remove_together(&mut self, family: NftFamily, removals: &[NftRemoval]) -> Result<(), NetlinkError> {
        let Some((last, others)) = removals.split_last() else { return Ok(()) };
        let channel = &mut self.0;
        let mut packets = channel.packet(Message::batch(BATCH_BEGIN), 0);
        let first = channel.sequence().wrapping_add(1);
        for removal in others {
            packets.extend(channel.packet(Message::remove(family, removal), 0));
        }
        // Only of what fails there is an answer, and of the last.
        packets.extend(channel.packet(Message::remove(family, last), NLM_F_ACK));
        packets.extend(channel.packet(Message::batch(BATCH_END), 0));
        let mut failed = last;
        channel
            .send(&packets)
            .and_then(|()| {
                channel.receive::<Message>(|header, payload| {
                    let NetlinkPayload::Error(error) = payload else { return Ok(false) };
                    let at = header.sequence_number.wrapping_sub(first) as usize;
                    match removals.get(at) {
                        Some(removal) if error.code.is_some() => {
                            failed = removal;
                            Err(error.to_io())
                        }
                        Some(_) => Ok(true),
                        // The beginning: all of it is refused.
                        None if header.sequence_number == first.wrapping_sub(1) && error.code.is_some() => {
                            Err(error.to_io())
                        }
                        None => Ok(false),
                    }
                })
            })
            .map_err(|source| NetlinkError { action: "removing", object: format!("{family} {failed}"), source })
    }
}

/// A message of nfnetlink.
#[derive(Clone, Debug)]
struct Message {
    kind: u16,
    family: u8,
    resource: u16,
    attributes: Vec<u8>,
}

/// Bytes before the attributes: `struct nfgenmsg`.
const HEADER: usize = 4;

impl Message {
    fn of(family: NftFamily, kind: u16, attributes: Vec<u8>) -> Self {
        Self { kind: SUBSYSTEM << 8 | kind, family: family.number(), resource: 0, attributes }
    }

    fn batch(kind: u16) -> Self {
        Self { kind, family: 0, resource: SUBSYSTEM, attributes: Vec::new() }
    }

    fn remove(family: NftFamily, removal: &NftRemoval) -> Self {
        let (kind, attributes) = match removal {
            NftRemoval::Table(name) => (DELETE_TABLE, vec![text(TABLE_NAME, name)]),
            NftRemoval::Rule(chain, handle) => (
                DELETE_RULE,
                vec![
                    text(RULE_TABLE, &chain.table),
                    text(RULE_CHAIN, &chain.name),
                    attribute(RULE_HANDLE, &handle.to_be_bytes()),
                ],
            ),
            NftRemoval::Rules(chain) => {
                (DELETE_RULE, vec![text(RULE_TABLE, &chain.table), text(RULE_CHAIN, &chain.name)])
            }
            NftRemoval::Chain(chain) => {
                (DELETE_CHAIN, vec![text(CHAIN_TABLE, &chain.table), text(CHAIN_NAME, &chain.name)])
            }
        };
        Self::of(family, kind, attributes.concat())
    }

    fn text(&self, kind: u16) -> Option<String> {
        let bytes = find(&self.attributes, kind)?;
        Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
    }
}

/// An attribute, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = NLA_HEADER_SIZE + value.len();
    let mut bytes = [(length as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn text(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

/// The values of attributes, with their kinds.
fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        (kind, &attribute.into_inner()[NLA_HEADER_SIZE..length])
    })
}

/// The value of the first attribute of a kind.
fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    each(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The chains that a rule may go on with: jumps are values that an expression gives.
fn targets(rule: &[u8]) -> Vec<String> {
    let expressions = find(rule, RULE_EXPRESSIONS).unwrap_or_default();
    let target = |expression| {
        find(expression, EXPRESSION_NAME).filter(|name| *name == b"immediate\0")?;
        let path = [EXPRESSION_DATA, IMMEDIATE_DATA, DATA_VERDICT, VERDICT_CHAIN];
        let chain = path.into_iter().try_fold(expression, find)?;
        Some(String::from_utf8_lossy(chain).trim_end_matches('\0').to_owned())
    };
    each(expressions).filter_map(|(_, expression)| target(expression)).collect()
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let [high, low] = self.resource.to_be_bytes();
        buffer[..HEADER].copy_from_slice(&[self.family, 0, high, low]);
        buffer[HEADER..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (&[family, _, high, low], attributes) =
            payload.split_first_chunk().ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        let resource = u16::from_be_bytes([high, low]);
        Ok(Self { kind: header.message_type, family, resource, attributes: attributes.to_vec() })
    }
}

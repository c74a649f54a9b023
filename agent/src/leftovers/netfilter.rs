//! Tables and chains of netfilter: those of nf_tables, iptables that is made of them among it, and those of iptables as it was
//! before.

use std::fmt;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, Result};
use sluice_netlink::{NetlinkError, NftChain as Chain, NftFamily, Nftables};

use super::sockopt::{self, Family};

/// What there is in one place.
#[derive(Debug)]
pub struct Chains {
    /// Where.
    pub place: Place,
    /// The tables, where they are others' than iptables'.
    pub tables: Vec<String>,
    /// All chains.
    pub chains: Vec<Chain>,
}

/// Where chains are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In nf_tables.
    Nft(NftFamily),
    /// In iptables' own tables.
    Legacy(&'static Legacy),
}

impl Place {
    /// The family, as `nft` writes it, or what stands for one.
    pub fn family(self) -> String {
        match self {
            Self::Nft(family) => family.to_string(),
            Self::Legacy(legacy) => legacy.name.into(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft(family) => write!(f, "{family}, iptables"),
            Self::Legacy(legacy) => f.write_str(legacy.name),
        }
    }
}

/// The tables of iptables as it was before nf_tables, of one family.
#[derive(Debug, PartialEq, Eq)]
pub struct Legacy {
    family: Family,
    /// What it is called.
    pub name: &'static str,
    /// Where the kernel names its tables.
    names: &'static str,
}

/// Those of both families.
pub static LEGACY: [Legacy; 2] = [
    Legacy { family: Family::V4, name: "iptables-legacy", names: "/proc/net/ip_tables_names" },
    Legacy { family: Family::V6, name: "ip6tables-legacy", names: "/proc/net/ip6_tables_names" },
];

impl Legacy {
    /// The chains of those tables that there are already.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn chains(&self) -> Result<Vec<Chain>> {
        let names = match fs::read_to_string(self.names) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.with_context(|| format!("reading {}", self.names))?,
        };
        let mut found = Vec::new();
        for table in names.lines() {
            let names = sockopt::chains(self.family, table)
                .with_context(|| format!("reading table {table} of {}", self.name))?;
            found.extend(names.into_iter().map(|name| Chain { table: table.to_owned(), name }));
        }
        Ok(found)
    }
}

/// The tables of nf_tables, where the kernel has any.
///
/// # Errors
/// Where it has, and does not tell.
pub fn open() -> Result<Option<Nftables>, NetlinkError> {
    let opened = Nftables::open().and_then(|mut tables| tables.tables(NftFamily::V4).map(|_| tables));
    match opened {
        Err(error) if error.is_unsupported() => Ok(None),
        opened => opened.map(Some),
    }
}

/// Adds what is in nf_tables.
///
/// # Errors
/// As [`open`].
pub fn nf_tables(found: &mut Vec<Chains>) -> Result<()> {
    let Some(mut tables) = open()? else { return Ok(()) };
    for family in NftFamily::ALL {
        let (tables, chains) = (tables.tables(family)?, tables.chains(family)?);
        found.push(Chains { place: Place::Nft(family), tables, chains });
    }
    Ok(())
}

/// Adds what is in iptables' own tables.
///
/// # Errors
/// As [`Legacy::chains`].
pub fn legacy(found: &mut Vec<Chains>) -> Result<()> {
    for legacy in &LEGACY {
        found.push(Chains { place: Place::Legacy(legacy), tables: Vec::new(), chains: legacy.chains()? });
    }
    Ok(())
}

//! Where addresses come from: this plugin's own pools, or another plugin.

mod delegate;
mod pool;
mod store;

use std::net::IpAddr;

use crate::arguments::{Arguments, Verb};
use crate::config::{Attachment, NetworkConfig};
use crate::error::{CniError, Code};
use pool::Pool;
pub use store::Settling;
use store::{Owner, Store};

/// Where addresses come from.
pub enum Ipam<'a> {
    /// Own pools.
    Own(&'a NetworkConfig),
    /// The plugin of this name, called with the configuration as it came.
    Delegated(&'a str, &'a [u8]),
}

impl<'a> Ipam<'a> {
    /// What the configuration says.
    ///
    /// # Errors
    /// [`Code::InvalidConfiguration`] where it says nothing.
    pub fn of(config: &'a NetworkConfig, input: &'a [u8]) -> Result<Self, CniError> {
        let Some(ipam) = &config.ipam else {
            return Err(CniError::new(Code::InvalidConfiguration, "the network configuration has no ipam section"));
        };
        Ok(match ipam.kind.as_str() {
            "sluice" => Self::Own(config),
            other => Self::Delegated(other, input),
        })
    }

    /// Takes an address of each pool for a container. They are for good once the disk has them.
    ///
    /// # Errors
    /// Where none is free, or one that is asked for is not. What was taken by then is left for
    /// [`give_back`](Self::give_back).
    pub fn take(&self, arguments: &Arguments) -> Result<(Vec<IpAddr>, Option<Settling>), CniError> {
        let config = match self {
            Self::Own(config) => config,
            Self::Delegated(plugin, input) => return Ok((delegate::add(plugin, input, arguments)?, None)),
        };
        let pools = pools(config)?;
        let mut requested = config.requested(arguments.extra("IP"))?;
        if let Some(stray) = requested.iter().find(|address| !pools.iter().any(|pool| pool.has(**address))) {
            let message = format!("the requested address {stray} is of none of this node's pools");
            return Err(CniError::new(Code::AddressUnavailable, message));
        }
        let mut store = Store::open(&config.state_dir)?;
        let owner = Owner::new(&config.name, &arguments.container_id, &arguments.interface);
        let mut taken = Vec::new();
        for pool in &pools {
            let wanted = requested.iter().position(|address| pool.has(*address)).map(|at| requested.swap_remove(at));
            taken.push(match wanted {
                Some(address) => store.take(address, &owner)?,
                None => store.take_next(pool, &owner)?,
            });
        }
        Ok((taken, Some(store.settle())))
    }

    /// Gives back all that a container has; nothing is no error.
    ///
    /// # Errors
    /// Where the disk or the other plugin refuses.
    pub fn give_back(&self, arguments: &Arguments) -> Result<(), CniError> {
        match self {
            Self::Own(config) => {
                let owner = Owner::new(&config.name, &arguments.container_id, &arguments.interface);
                Store::open(&config.state_dir)?.give_back_all(|found| *found == owner)
            }
            Self::Delegated(plugin, input) => delegate::call(plugin, input, arguments, Verb::Del).map(drop),
        }
    }

    /// Whether a container still has its addresses.
    ///
    /// # Errors
    /// [`Code::Damaged`] where it has not.
    pub fn check(&self, arguments: &Arguments, addresses: &[IpAddr]) -> Result<(), CniError> {
        let config = match self {
            Self::Own(config) => config,
            Self::Delegated(plugin, input) => {
                return delegate::call(plugin, input, arguments, Verb::Check).map(drop);
            }
        };
        let owner = Owner::new(&config.name, &arguments.container_id, &arguments.interface);
        let store = Store::open(&config.state_dir)?;
        for address in addresses {
            if store.owner(*address)?.as_ref() != Some(&owner) {
                let message =
                    format!("{address} is no longer recorded as this container's; delete it and add it again");
                return Err(CniError::new(Code::Damaged, message));
            }
        }
        Ok(())
    }

    /// Gives back what belongs to containers that are gone: all but the valid.
    ///
    /// # Errors
    /// Where the disk or the other plugin refuses.
    pub fn collect(&self, arguments: &Arguments, valid: &[Attachment]) -> Result<(), CniError> {
        match self {
            Self::Own(config) => Store::open(&config.state_dir)?.give_back_all(|owner| {
                owner.network == config.name
                    && !valid
                        .iter()
                        .any(|stays| stays.container_id == owner.container_id && stays.interface == owner.interface)
            }),
            Self::Delegated(plugin, input) => delegate::call(plugin, input, arguments, Verb::Gc).map(drop),
        }
    }

    /// Whether addresses can be given at all.
    ///
    /// # Errors
    /// Where the configuration is wrong, the disk refuses, or the other plugin says no.
    pub fn ready(&self, arguments: &Arguments) -> Result<(), CniError> {
        match self {
            Self::Own(config) => {
                pools(config)?;
                Store::open(&config.state_dir).map(drop)
            }
            Self::Delegated(plugin, input) => delegate::call(plugin, input, arguments, Verb::Status).map(drop),
        }
    }
}

fn pools(config: &NetworkConfig) -> Result<Vec<Pool>, CniError> {
    let ranges = config.ipam.as_ref().map_or(&[][..], |ipam| &ipam.ranges);
    if ranges.is_empty() {
        let message = "the ipam section has no ranges; the agent writes them once the node has a pod CIDR";
        return Err(CniError::new(Code::InvalidConfiguration, message));
    }
    ranges.iter().map(|ranges| Pool::of(ranges)).collect()
}

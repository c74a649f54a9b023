//! Where addresses come from: this plugin's own pools, or another plugin.

mod delegate;
mod pool;
mod store;

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use sluice_api::EndpointRecord;

use crate::arguments::{Arguments, Verb};
use crate::config::{Attachment, NetworkConfig};
use crate::error::{CniError, Code, all};
use crate::wire::everywhere;
use pool::Pool;
use store::{Owner, Settling, Store};

/// What a container is given.
pub struct Given {
    /// Its addresses, at most one of a family.
    pub addresses: Vec<IpAddr>,
    /// What it reaches by way of its gateways.
    pub routes: Vec<IpNet>,
    /// Name service.
    pub dns: Option<Value>,
    /// What is to be waited for before the addresses are for good.
    pub settling: Option<Settling>,
}

/// Where addresses come from: own pools, or another plugin, which is called with the configuration as it came.
pub struct Ipam<'a> {
    config: &'a NetworkConfig,
    input: &'a [u8],
}

impl<'a> Ipam<'a> {
    /// What the configuration says, and its text.
    pub fn of(config: &'a NetworkConfig, input: &'a [u8]) -> Self {
        Self { config, input }
    }

    /// The other plugin, where the configuration names one.
    fn delegate(&self) -> Option<&'a str> {
        self.config.ipam.as_ref().map(|ipam| ipam.kind.as_str()).filter(|kind| *kind != "sluice")
    }

    /// What has to be remembered for [`give_back`](Self::give_back): the section that names another plugin.
    pub fn source(&self) -> Option<Value> {
        self.delegate().and_then(|_| delegate::section(self.input))
    }

    /// Takes an address of each pool for a container.
    ///
    /// # Errors
    /// Where none is free, or one that is asked for is not. What was taken by then is left for
    /// [`give_back`](Self::give_back).
    pub fn take(&self, arguments: &Arguments) -> Result<Given, CniError> {
        if let Some(plugin) = self.delegate() {
            return delegate::add(plugin, self.input, arguments);
        }
        let config = self.config;
        let pools = pools(config)?;
        let wanted = assigned(&pools, config.requested(arguments.extra("IP"))?)?;
        let mut store = Store::open(&config.state_dir)?;
        let owner = Owner::new(&config.name, &arguments.container_id, &arguments.interface);
        let mut taken = Vec::new();
        for (pool, wanted) in pools.iter().zip(wanted) {
            taken.push(match wanted {
                Some(address) => store.take(address, &owner)?,
                None => store.take_next(pool, &owner)?,
            });
        }
        let routes = taken.iter().map(|address| everywhere(*address)).collect();
        Ok(Given { addresses: taken, routes, dns: None, settling: Some(store.settle()?) })
    }

    /// Gives back all that a container has; nothing is no error. The configuration may have changed since it was added: where
    /// there is a record of that, it tells by its [`source`](Self::source) who gave the addresses.
    ///
    /// # Errors
    /// Where the disk or the other plugin refuses.
    pub fn give_back(&self, arguments: &Arguments, record: Option<&EndpointRecord>) -> Result<(), CniError> {
        let owner = Owner::new(&self.config.name, &arguments.container_id, &arguments.interface);
        let own = Store::existing(&self.config.state_dir)
            .and_then(|store| store.map_or(Ok(()), |store| store.give_back_all(|found| *found == owner)));
        let others = match record {
            Some(record) => self.give_back_recorded(record, arguments),
            None => self
                .delegate()
                .map_or(Ok(()), |plugin| delegate::call(plugin, self.input, arguments, Verb::Del).map(drop)),
        };
        all([own, others])
    }

    /// Has another plugin take back what it gave to the container of a record.
    ///
    /// # Errors
    /// That of the plugin.
    pub fn give_back_recorded(&self, record: &EndpointRecord, arguments: &Arguments) -> Result<(), CniError> {
        let Some(section) = &record.ipam else { return Ok(()) };
        let plugin = section["type"].as_str().unwrap_or_default();
        let arguments = Arguments {
            container_id: record.container_id.clone(),
            interface: record.interface.clone(),
            ..arguments.clone()
        };
        delegate::call(plugin, &delegate::with_section(self.input, section), &arguments, Verb::Del).map(drop)
    }

    /// Whether a container still has its addresses.
    ///
    /// # Errors
    /// [`Code::Damaged`] where it has not.
    pub fn check(&self, arguments: &Arguments, addresses: &[IpAddr]) -> Result<(), CniError> {
        if let Some(plugin) = self.delegate() {
            return delegate::call(plugin, self.input, arguments, Verb::Check).map(drop);
        }
        let owner = Owner::new(&self.config.name, &arguments.container_id, &arguments.interface);
        let store = Store::open(&self.config.state_dir)?;
        for address in addresses {
            if store.owner(*address)?.as_ref() != Some(&owner) {
                let message =
                    format!("{address} is no longer recorded as this container's; delete it and add it again");
                return Err(CniError::new(Code::Damaged, message));
            }
        }
        Ok(())
    }

    /// Gives back what belongs to containers that are gone: to all but the valid.
    ///
    /// # Errors
    /// Where the disk or the other plugin refuses.
    pub fn collect(&self, arguments: &Arguments, valid: &[Attachment]) -> Result<(), CniError> {
        let is_gone = |owner: &Owner| {
            owner.network == self.config.name
                && !valid
                    .iter()
                    .any(|stays| stays.container_id == owner.container_id && stays.interface == owner.interface)
        };
        let own = Store::existing(&self.config.state_dir)
            .and_then(|store| store.map_or(Ok(()), |store| store.give_back_all(is_gone)));
        let others =
            self.delegate().map_or(Ok(()), |plugin| delegate::call(plugin, self.input, arguments, Verb::Gc).map(drop));
        all([own, others])
    }

    /// Whether addresses can be given at all.
    ///
    /// # Errors
    /// Where the configuration is wrong, the disk refuses, or the other plugin says no.
    pub fn ready(&self, arguments: &Arguments) -> Result<(), CniError> {
        match self.delegate() {
            Some(plugin) => delegate::call(plugin, self.input, arguments, Verb::Status).map(drop),
            None => {
                pools(self.config)?;
                Store::open(&self.config.state_dir).map(drop)
            }
        }
    }
}

fn pools(config: &NetworkConfig) -> Result<Vec<Pool>, CniError> {
    let invalid = |message: &str| Err(CniError::new(Code::InvalidConfiguration, message));
    let Some(ipam) = &config.ipam else { return invalid("the network configuration has no ipam section") };
    let ranges = ipam.ranges()?;
    if ranges.is_empty() {
        return invalid("the ipam section has no ranges; the agent writes them once the node has a pod CIDR");
    }
    let pools = ranges.iter().map(|ranges| Pool::of(ranges)).collect::<Result<Vec<_>, _>>()?;
    if [true, false].iter().any(|v4| pools.iter().filter(|pool| pool.is_ipv4() == *v4).count() > 1) {
        return invalid(
            "ipam has two sets of ranges of one family, of which a pod has one address; make one set of them",
        );
    }
    Ok(pools)
}

/// Which requested address is to be of which pool: one of each at most.
fn assigned(pools: &[Pool], mut requested: Vec<IpAddr>) -> Result<Vec<Option<IpAddr>>, CniError> {
    let wanted = pools
        .iter()
        .map(|pool| requested.iter().position(|address| pool.has(*address)).map(|at| requested.remove(at)))
        .collect();
    let Some(stray) = requested.first() else { return Ok(wanted) };
    let what = match pools.iter().find(|pool| pool.has(*stray)) {
        Some(pool) => format!("the second of {pool}; a pod has one of each family"),
        None => "of none of this node's pools".to_owned(),
    };
    Err(CniError::new(Code::AddressUnavailable, format!("the requested address {stray} is {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ranges: &str) -> NetworkConfig {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"n","ipam":{{"type":"sluice","ranges":{ranges}}}}}"#);
        NetworkConfig::parse(text.as_bytes()).expect("a configuration").0
    }

    const DUAL: &str = r#"[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]"#;

    #[test]
    fn each_requested_address_has_a_pool_of_its_own() {
        let pools = pools(&config(DUAL)).expect("pools");
        let of = |texts: &[&str]| {
            assigned(&pools, texts.iter().map(|text| text.parse().expect("an address")).collect()).map(|wanted| {
                wanted.iter().map(|address| address.map(|address| address.to_string())).collect::<Vec<_>>()
            })
        };
        assert_eq!(of(&[]).expect("none"), [None, None]);
        assert_eq!(of(&["fd00::7"]).expect("one"), [None, Some("fd00::7".into())]);
        for (excess, word) in [("10.0.0.9", "second"), ("10.1.0.9", "none of this node's pools")] {
            let error = of(&["10.0.0.8", excess]).expect_err("too many");
            assert!(error.code == Code::AddressUnavailable as u32 && error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn a_family_has_one_set_of_ranges() {
        assert_eq!(pools(&config(DUAL)).expect("pools").len(), 2);
        let twice = config(r#"[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.0.1.0/24"}]]"#);
        assert_eq!(pools(&twice).expect_err("refused").code, Code::InvalidConfiguration as u32);
    }
}

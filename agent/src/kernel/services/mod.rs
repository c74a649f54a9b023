//! Services, in the programs' tables: one writer, who keeps of each of their ports what he has written.

mod bits;
mod change;
mod cluster_ips;
mod copy;
mod gone;
mod ids;
mod mapped;
mod maps;
mod members;
mod spans;
mod stock;
mod tables;
mod takeover;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use aya::maps::MapData;
use ipnet::IpNet;
use sluice_abi::{Ipv4, Ipv6, MAX_REVISIONS, RevisionSlot};
use sluice_service::{PortName, ServicePort};

use super::error::{Doing, KernelError};
use super::{Fill, Kernel};

pub use copy::copy;
pub use maps::Maps;
pub use tables::{Room, Tables};
pub use writer::{Owed, Writer};

impl Kernel {
    /// Makes the tables those of these ports of services, whatever they hold. `own` are this node's addresses; where
    /// `spreads`, clients from outside are spread by Maglev tables.
    ///
    /// # Errors
    /// Where the kernel refuses; then it is not known what the tables hold, and this is to be called again.
    pub fn take_over_services(
        &mut self,
        own: BTreeSet<IpAddr>,
        spreads: bool,
        ports: impl IntoIterator<Item = (PortName, Arc<ServicePort>)>,
    ) -> Result<(), KernelError> {
        self.services = None;
        let open = |name| {
            let path = self.pins.map(name);
            MapData::from_pin(&path).doing(|| format!("opening the pinned map {}", path.display()))
        };
        let tables = Maps::open(open, &self.expedite)?;
        let mut writer = Writer::open(tables, self.room, own, spreads)?;
        writer.take_over(ports)?;
        self.revise(&mut writer)?;
        self.services = Some(writer);
        Ok(())
    }

    /// Makes ports of services what they are to be, each named once; `None`: gone.
    ///
    /// # Errors
    /// As [`take_over_services`](Self::take_over_services), which is to be called before, and after an error again.
    pub fn apply_services(
        &mut self,
        changes: impl IntoIterator<Item = (PortName, Option<Arc<ServicePort>>)>,
    ) -> Result<(), KernelError> {
        let mut writer = self
            .services
            .take()
            .ok_or("it is not known what they hold; take them over first")
            .doing(|| "writing the tables of services".into())?;
        writer.apply(changes)?;
        self.revise(&mut writer)?;
        self.services = Some(writer);
        Ok(())
    }

    /// Makes these this node's own addresses, as far as services are concerned.
    pub fn set_services_own(&mut self, own: BTreeSet<IpAddr>) {
        if let Some(writer) = &mut self.services {
            writer.set_own(own);
        }
    }

    /// Ports of services that do not fit into the tables.
    pub fn service_problems(&self) -> Vec<(PortName, String)> {
        let problems = self.services.iter().flat_map(Writer::problems);
        problems.map(|(name, text)| (name.clone(), text)).collect()
    }

    /// How many ports of services do not fit, and make do with what there is of them, or reject.
    pub fn refused_services(&self) -> usize {
        self.services.as_ref().map_or(0, Writer::refused)
    }

    /// Whether backends of UDP may be gone since the last call.
    pub fn take_ended_backends(&mut self) -> bool {
        self.services.as_mut().is_some_and(Writer::take_ended)
    }

    /// How full the tables of services are.
    pub(super) fn service_fills(&self) -> impl Iterator<Item = Fill> {
        self.services.iter().flat_map(Writer::fills)
    }

    /// Has the flows judged again that a change of services concerns.
    fn revise(&mut self, writer: &mut Writer<Maps>) -> Result<(), KernelError> {
        let slots: BTreeSet<u32> = match writer.owed() {
            // The first is never revised.
            Owed::All => (1..MAX_REVISIONS).collect(),
            Owed::Of(addresses) => {
                let of_node = |address: &IpAddr| {
                    let own = writer.own().iter().filter(|own| own.is_ipv4() == address.is_ipv4());
                    own.copied().collect::<Vec<_>>()
                };
                let all = addresses
                    .iter()
                    .flat_map(|address| if address.is_unspecified() { of_node(address) } else { vec![*address] });
                let slots = all.flat_map(|address| [Some(of_address(address)), self.of_endpoint(address)]);
                slots.flatten().map(|slot| slot.0).collect()
            }
        };
        slots.into_iter().try_for_each(|slot| self.bump(RevisionSlot(slot)))?;
        writer.paid();
        Ok(())
    }

    fn of_endpoint(&self, address: IpAddr) -> Option<RevisionSlot> {
        self.written.get(&IpNet::from(address))?.endpoint().map(RevisionSlot::of_endpoint)
    }
}

fn of_address(address: IpAddr) -> RevisionSlot {
    match address {
        IpAddr::V4(address) => RevisionSlot::of_address(Ipv4::from(address)),
        IpAddr::V6(address) => RevisionSlot::of_address(Ipv6::from(address)),
    }
}

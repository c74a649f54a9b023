//! Making the node what the objects and the host say that it should be.

use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sluice_abi::{Config as KernelConfig, Features, Timeouts, Uplink};
use sluice_topology::{Local, Mode, plan};

use super::{Model, Ready};
use crate::conflist;
use crate::host::{self, Device, Given};
use crate::kernel::{UplinkDevice, jiffies};
use crate::source::Objects;

/// Seconds that flows may be idle, in the order of `TimeoutClass`.
const TIMEOUTS: [u32; 5] = [60, 21_600, 30, 120, 30];
/// Bytes that the overlay adds: outer Ethernet aside, IP, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD4: u32 = 20 + 8 + 8 + 14;
const OVERHEAD6: u32 = 40 + 8 + 8 + 14;

/// How far the node is what it should be.
enum Done {
    InFull,
    /// The problems say what is missing; the node can do without.
    InPart,
}

impl Model {
    /// Makes the node what the objects and the host say that it should be.
    /// What stands in the way is tried again later: a full disk tells nobody that it has room again.
    pub(super) fn apply(&mut self) {
        match self.try_apply() {
            Ok(done) => {
                self.waiting_for = None;
                match done {
                    Done::InFull => self.pace.succeeded(),
                    Done::InPart => self.pace.failed(Instant::now()),
                }
            }
            Err(error) => {
                self.pace.failed(Instant::now());
                let text = format!("{error:#}");
                if self.waiting_for.as_ref() != Some(&text) {
                    tracing::warn!("waiting for: {text}");
                }
                self.waiting_for = Some(text);
            }
        }
    }

    fn try_apply(&mut self) -> Result<Done> {
        let view = host::view()?;
        if view.given != self.view.given {
            self.kernel.bump_routes()?;
        }
        self.view = view;
        let Some(objects) = &self.objects else { bail!("the first listing of all objects") };
        let devices = &self.view.given.devices;
        let local = self.local(objects, &self.view.given)?;
        let uplinks =
            host::find_uplinks(devices, &self.config.uplinks, &local.addresses).map_err(anyhow::Error::msg)?;
        let names: Vec<String> = uplinks.iter().map(|device| device.name.clone()).collect();
        for change in host::sysctl::apply(&names).map_err(anyhow::Error::msg)? {
            tracing::info!("set {change}");
        }
        let mode = Mode::from(self.config.routing);
        let wire = uplinks.iter().map(|device| device.mtu).min().unwrap_or(1500);
        let overhead = if local.addresses.iter().any(IpAddr::is_ipv4) { OVERHEAD4 } else { OVERHEAD6 };
        let inner = wire.saturating_sub(overhead);
        let overlay = match mode {
            Mode::Native => None,
            Mode::Vxlan | Mode::Auto => Some(host::ensure_overlay(self.config.vxlan.port, inner)?),
        };
        let mtu = match (self.config.mtu, mode) {
            (0, Mode::Vxlan) => inner,
            (0, Mode::Native | Mode::Auto) => wire,
            (mtu, _) => mtu,
        };
        self.kernel.set_config(&self.kernel_config(&local, overlay, inner))?;
        self.kernel.set_uplinks(&uplinks.iter().map(uplink).collect::<Vec<_>>())?;
        self.kernel.set_overlay(overlay.map(|_| host::OVERLAY))?;

        let near = |address| {
            host::directly_connected(address).unwrap_or_else(|error| {
                tracing::warn!(%error, "taken for not connected");
                false
            })
        };
        let plan = plan(&local, &objects.nodes, objects.pods.values(), mode, near, &mut self.slots);
        let mut changed = self.kernel.set_nodes(&plan.nodes)?;
        changed |= self.kernel.set_addresses(&plan.addresses)?;
        let tunnel = overlay.map(|index| host::Overlay { index, vni: self.config.vxlan.vni, mtu: inner });
        let routes = host::apply_routes(&plan.routes, &local.addresses, tunnel)?;
        changed |= routes.changed;
        if changed {
            self.kernel.bump_routes()?;
        }
        self.view.made = host::view()?.made;

        let problems: Vec<String> =
            objects.problems.iter().chain(&plan.problems).chain(&routes.problems).cloned().collect();
        for problem in &problems {
            if !self.ready.problems.contains(problem) {
                tracing::warn!("{problem}");
            }
        }
        let content = conflist::content(&self.config, &local.pod_cidrs, mtu);
        if conflist::write(&self.config.cni_conf_dir, &content)
            .with_context(|| format!("writing the CNI configuration into {}", self.config.cni_conf_dir.display()))?
        {
            tracing::info!(uplinks = names.join(","), mtu, "ready; the CNI configuration is written");
        }
        self.ready = Ready { local: Some(local), uplinks: names, mtu, view: plan.view, problems };
        Ok(if routes.is_incomplete { Done::InPart } else { Done::InFull })
    }

    /// What is known of this node.
    fn local(&self, objects: &Objects, host: &Given) -> Result<Local> {
        let name = &self.config.node_name;
        let object = objects.nodes.get(name);
        let choose = |own: &[IpAddr]| {
            if own.is_empty() { object.map_or_else(Vec::new, |node| node.addresses.clone()) } else { own.to_vec() }
        };
        let addresses = choose(&self.config.addresses);
        let pod_cidrs = if self.config.pod_cidrs.is_empty() {
            object.map_or_else(Vec::new, |node| node.pod_cidrs.clone())
        } else {
            self.config.pod_cidrs.clone()
        };
        if addresses.is_empty() {
            bail!("the Node {name} with its addresses (status.addresses); is node_name right?");
        }
        if pod_cidrs.is_empty() && self.config.ipam.is_none() {
            bail!("a pod CIDR of the Node {name} (spec.podCIDRs), or pod_cidrs in the settings");
        }
        for net in &pod_cidrs {
            if let Some(address) = addresses.iter().find(|address| net.contains(*address)) {
                bail!("another pod CIDR for the Node {name}: {net} contains the node's own address {address}");
            }
        }
        Ok(Local {
            name: name.clone(),
            addresses,
            pod_cidrs,
            host_addresses: host.addresses.clone(),
            exempt: self.config.masquerade.exempt.clone(),
        })
    }

    fn kernel_config(&self, local: &Local, overlay: Option<u32>, inner: u32) -> KernelConfig {
        let masquerade = &self.config.masquerade;
        let bit = |on: bool, feature: Features| if on { feature.0 } else { 0 };
        let mut config = KernelConfig {
            features: Features(
                bit(masquerade.ipv4, Features::MASQUERADE4) | bit(masquerade.ipv6, Features::MASQUERADE6),
            ),
            overlay: overlay.unwrap_or(0),
            overlay_mtu: inner,
            vni: self.config.vxlan.vni,
            port_first: masquerade.port_first,
            port_last: masquerade.port_last,
            timeouts: Timeouts::new(TIMEOUTS.map(jiffies)),
            ..KernelConfig::default()
        };
        for address in &local.addresses {
            match address {
                IpAddr::V4(address) => config.ipv4 = (*address).into(),
                IpAddr::V6(address) => config.ipv6 = (*address).into(),
            }
        }
        config
    }
}

fn uplink(device: &Device) -> UplinkDevice {
    let mut uplink = Uplink { mtu: device.mtu, ..Uplink::default() };
    for address in &device.addresses {
        match address.net.addr() {
            IpAddr::V4(address) if uplink.ipv4 == Default::default() => uplink.ipv4 = address.into(),
            IpAddr::V6(address) if uplink.ipv6 == Default::default() && !address.is_unicast_link_local() => {
                uplink.ipv6 = address.into();
            }
            _ => {}
        }
    }
    UplinkDevice { interface: device.index, name: device.name.clone(), uplink }
}

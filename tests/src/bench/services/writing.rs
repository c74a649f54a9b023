//! What it takes to have many services written: the agent's index and its writer, in this process and without its threads,
//! into maps of the kernel's.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;
use sluice_agent::kernel::services::{Room, Writer};
use sluice_service::{Event, Index, View};

use super::cluster::{service, slice};
use crate::bench::report::{Row, Target, median};
use crate::service_maps::Tables;

/// Services, and endpoints that all of them have together.
pub const SERVICES: usize = 44_000;
pub const ENDPOINTS: usize = 250_000;
/// Endpoints of a slice, at most.
const SLICE: usize = 100;
/// Endpoints of the largest service.
const LARGEST: usize = 5_000;
/// Changes of a slice.
const EDITS: usize = 101;
/// How often all is written from nothing.
const TIMES: usize = 3;

const ROOM: Room = Room { backends: 1 << 19, sets: 1 << 18, members: 1 << 21, frontends: 1 << 20, maglev: 16_384 };

/// The addresses of a service's endpoints: the first has thousands, the others five or six each.
pub fn endpoints(number: usize) -> Vec<Ipv4Addr> {
    let (others, rest) = (SERVICES - 1, ENDPOINTS - LARGEST);
    let (first, end) = match number {
        0 => (0, LARGEST),
        _ => (LARGEST + rest * (number - 1) / others, LARGEST + rest * number / others),
    };
    (first..end).map(|at| Ipv4Addr::from_bits(0x0a80_0000 + at as u32)).collect()
}

/// The slices of a service.
pub fn slices(number: usize) -> impl Iterator<Item = Value> {
    let addresses = endpoints(number);
    let pieces: Vec<Vec<Ipv4Addr>> = addresses.chunks(SLICE).map(<[Ipv4Addr]>::to_vec).collect();
    pieces.into_iter().enumerate().map(move |(at, piece)| numbered(slice(number, &piece), at))
}

/// The slice of this number among those of its service.
fn numbered(mut slice: Value, at: usize) -> Value {
    if at > 0 {
        let name = format!("{}-{at}", slice["metadata"]["name"].as_str().unwrap_or_default());
        slice["metadata"]["name"] = name.clone().into();
        slice["metadata"]["uid"] = name.into();
    }
    slice
}

/// Measures all services from nothing, and a slice that changes.
///
/// # Errors
/// Where the kernel refuses.
pub fn run() -> Result<Vec<Row>> {
    let events = (0..SERVICES).flat_map(|number| {
        let service = event::<Service>(service(number));
        std::iter::once(service).chain(slices(number).map(event::<EndpointSlice>))
    });
    let events: Vec<Event> = events.collect::<Result<_>>()?;
    let (mut compiled, mut written) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..TIMES {
        drop(last.take());
        let tables = Tables::new(ROOM)?;
        let mut writer = Writer::open(tables.maps()?, ROOM, BTreeSet::new(), false)?;
        let mut index = Index::new(View { node: "n1".into(), standalone: false });
        let events = events.clone();
        let started = Instant::now();
        index.apply_all(events);
        compiled.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        writer.take_over(index.ports().map(|(name, port)| (name.clone(), port.clone())))?;
        written.push(started.elapsed().as_secs_f64() * 1e3);
        writer.paid();
        ensure!(index.ports().count() == SERVICES, "there are {} ports of services", index.ports().count());
        ensure!(writer.problems().next().is_none(), "not all of it fits");
        last = Some((tables, writer, index));
    }
    let (_tables, mut writer, mut index) = last.context("nothing was written")?;
    let mut edit = |number: usize| {
        let addresses = endpoints(number);
        let piece = &addresses[..addresses.len().min(SLICE)];
        let mut times = Vec::new();
        for turn in 0..EDITS {
            // One endpoint less, and back.
            let piece = if turn % 2 == 0 { &piece[1..] } else { piece };
            let event = event::<EndpointSlice>(slice(number, piece))?;
            let started = Instant::now();
            let delta = index.apply(event);
            ensure!(delta.ports.len() == 1, "a slice's change concerns {} ports", delta.ports.len());
            writer.apply(delta.ports)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            writer.paid();
        }
        times.sort_by(f64::total_cmp);
        Ok((median(&mut times), times[times.len() - 1]))
    };
    let (usual, usual_worst) = edit(1)?;
    let (large, large_worst) = edit(0)?;
    let (compiled, written) = (median(&mut compiled), median(&mut written));
    let ms = |id, value, target| Row::new(id, value, "ms", target);
    Ok(vec![
        ms("program_44k_services", compiled + written, Target::AtMost(5000.0)),
        ms("program_44k_services.index", compiled, Target::None),
        ms("program_44k_services.tables", written, Target::None),
        ms("program_one_slice", large, Target::AtMost(5.0)),
        ms("program_one_slice.worst", large_worst, Target::None),
        ms("program_one_slice.of_5_endpoints", usual, Target::None),
        ms("program_one_slice.of_5_endpoints.worst", usual_worst, Target::None),
    ])
}

fn event<T: serde::de::DeserializeOwned>(object: Value) -> Result<Event>
where
    for<'a> Event: From<&'a T>,
{
    let object: T = serde_json::from_value(object).context("reading an object")?;
    Ok(Event::from(&object))
}

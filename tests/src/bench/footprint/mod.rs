//! What a large cluster takes of an agent: memory, processor time, and what it has sent to it.

mod churn;
mod cluster;
mod control_plane;
mod etcd;
mod objects;
mod served;
mod server;
mod stage;
mod template;

use std::sync::Arc;

use anyhow::Result;

use super::report::{Row, Target};
use cluster::List;
pub use served::run as run_served;
use server::Server;
use stage::{MIB, PEAK, Stage, Started, as_long_as};

/// Measures an agent that starts, one whose cluster changes, and one that must list all of it again, in front of a server that
/// costs next to nothing.
///
/// # Errors
/// Where the agent does not get ready, or does not know what the cluster has.
pub fn run() -> Result<Vec<Row>> {
    let mut stage = Stage::set("footprint")?;
    let server = Server::start(&stage.lab.nodes[0], Arc::clone(&stage.cluster))?;
    let whole = start(&mut stage, &server, &[])?;
    let mut rows = stage.rows(&whole);
    for (list, sent) in server.take_sent() {
        let each = sent.listed as f64 / sent.objects.max(1) as f64;
        let id = |what: &str| format!("listed.{}{what}", list.name());
        rows.push(stage.row(&id(""), sent.listed as f64 / MIB, "MiB", Target::None));
        rows.push(stage.row(&id(".each"), each, "bytes", Target::None));
    }
    rows.extend(stage.change(&server, || Ok(server.take_sent().values().map(|sent| sent.watched).sum()))?);
    rows.push(list_again(&stage, &server)?);

    // What each kind takes is what is missing without it.
    for (list, others, id) in [
        (List::Pods, &[][..], "pod"),
        (List::Nodes, &[], "node"),
        (List::Services, &[List::Slices], "service"),
        (List::Policies, &[], "policy"),
    ] {
        let less = start(&mut stage, &server, &[&[list], others].concat())?;
        let each = (whole.memory - less.memory) * MIB / (stage.cluster.count(list) - 1) as f64;
        rows.push(stage.row(&format!("memory.of_a_{id}"), each, "bytes", Target::None));
    }
    Ok(rows)
}

/// Starts the agent from nothing, in a cluster that has only the first of each of these.
fn start(stage: &mut Stage, server: &Server, cut: &[List]) -> Result<Started> {
    server.cut(cut);
    let started = stage.start(&server.kubeconfig, || Ok(server.lists_on()))?;
    List::ALL.into_iter().try_for_each(|list| server.is_watched(list))?;
    stage.knows(if cut.contains(&List::Pods) { 1 } else { stage.cluster.size.living() })?;
    Ok(started)
}

/// Has the agent list everything again, as one whose watches have expired: what it has at most meanwhile.
fn list_again(stage: &Stage, server: &Server) -> Result<Row> {
    let agent = stage.agent()?;
    agent.forget_peak()?;
    for list in List::ALL {
        server.expire(list)?;
    }
    let is_watched = || List::ALL.into_iter().try_for_each(|list| server.is_watched(list));
    as_long_as(|| Ok(server.lists_on()), is_watched)?;
    stage.knows(stage.cluster.size.living())?;
    Ok(stage.row("memory.relisting_peak", agent.memory("VmHWM")?, "MiB", PEAK))
}

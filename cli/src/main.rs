//! `sluicectl`: looks into the agent of a node, and answers what policies say.

mod policy;
mod print;
mod services;
mod table;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use sluice_api::{Answer, Call, Client, DenialStatus, FlowStatus, PodRef, RUN_DIR, SOCKET};

use crate::table::Table;

/// Looks into the agent of a node, and answers what policies say
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The agent's socket
    #[arg(long, global = true, default_value_os_t = PathBuf::from(RUN_DIR).join(SOCKET))]
    socket: PathBuf,
    /// For people or for machines
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Aligned columns
    Table,
    /// JSON
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// The agent's own state; exits with 1 where it is not ready, with 2 where none answers, and says what the last one has ended with
    Status,
    /// The endpoints of this node
    Endpoints,
    /// The nodes of the cluster
    Nodes,
    /// The flow table
    Flows {
        /// Greatest number of flows
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Services and host ports: where clients reach them, and who serves them
    Services {
        /// Only those of this namespace
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// What was counted: drops by program and reason
    Counters,
    /// What policies have denied, or would have in audit mode: by whom, to whom, and why
    Denials {
        /// Greatest number of denials
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// What policies say of a cluster, and why
    #[command(subcommand)]
    Policy(policy::Question),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            print::warn(format_args!("sluicectl: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let call = match &arguments.command {
        Command::Status => Call::Status {},
        Command::Endpoints => Call::Endpoints {},
        Command::Nodes => Call::Nodes {},
        Command::Flows { limit } => Call::Flows { limit: *limit },
        Command::Services { .. } => Call::Services {},
        Command::Counters => Call::Counters {},
        Command::Denials { limit } => Call::Denials { limit: *limit },
        Command::Policy(question) => return policy::run(question, &arguments.socket, arguments.output),
    };
    let answered = ask(&arguments.socket, call);
    if let (Err(error), Command::Status, Output::Json) = (&answered, &arguments.command, arguments.output) {
        print::lines([format!("{:#}", unanswered(error))])?;
    }
    let mut answer = answered?;
    if let (Answer::Services(ports), Command::Services { namespace: Some(namespace) }) =
        (&mut answer, &arguments.command)
    {
        ports.retain(|port| port.namespace == *namespace);
    }
    let ready = !matches!(&answer, Answer::Status(status) if !status.ready);
    match arguments.output {
        Output::Table => table(&answer).print()?,
        Output::Json => print::lines([format!("{:#}", json(&answer)?)])?,
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(socket: &Path, call: Call) -> anyhow::Result<Answer> {
    let answer = Client::connect(socket, Duration::from_secs(30)).and_then(|mut client| client.call(call));
    // It says what is behind it.
    answer.map_err(|error| anyhow::Error::msg(error.to_string()))
}

/// What a machine is told of an agent that says nothing, as it is told of one that is not ready.
fn unanswered(error: &anyhow::Error) -> serde_json::Value {
    serde_json::json!({ "ready": false, "waiting_for": "an agent that answers", "problems": [format!("{error:#}")] })
}

fn json(answer: &Answer) -> serde_json::Result<serde_json::Value> {
    match answer {
        Answer::Done => Ok(serde_json::Value::Null),
        Answer::Status(status) => serde_json::to_value(status),
        Answer::Endpoints(endpoints) => serde_json::to_value(endpoints),
        Answer::Nodes(nodes) => serde_json::to_value(nodes),
        Answer::Flows(flows) => serde_json::to_value(flows),
        Answer::Counters(counters) => serde_json::to_value(counters),
        Answer::Denials(denials) => serde_json::to_value(denials),
        Answer::Services(ports) => serde_json::to_value(ports),
        Answer::Explained(explained) => serde_json::to_value(explained),
    }
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() { "-".into() } else { items.iter().map(T::to_string).collect::<Vec<_>>().join(",") }
}

fn table(answer: &Answer) -> Table {
    match answer {
        // Explanations are no tables: see `policy`.
        Answer::Done | Answer::Explained(_) => Table::new(&[]),
        Answer::Status(status) => {
            let mut table = Table::new(&["KEY", "VALUE"]);
            let waiting = status.waiting_for.clone().unwrap_or_default();
            let ready = if status.ready { "yes".into() } else { format!("no; waits for: {waiting}") };
            let rows = [
                ("node", status.node.clone()),
                ("ready", ready),
                ("agent", status.agent_version.clone()),
                ("addresses", list(&status.addresses)),
                ("pod CIDRs", list(&status.pod_cidrs)),
                ("uplinks", list(&status.uplinks)),
                ("MTU", status.mtu.to_string()),
                ("endpoints", status.endpoints.to_string()),
                ("objects", objects(status.objects)),
                ("policies", policies(status.policy)),
                ("rules", room(status.policy.rules, status.policy.rules_limit)),
                ("prefixes", room(status.policy.prefixes, status.policy.prefixes_limit)),
                ("pods without room", status.policy.closed.to_string()),
                ("pods in audit mode", status.policy.audited.to_string()),
            ];
            for (key, value) in rows {
                table.row([key.into(), value]);
            }
            for problem in &status.problems {
                table.row(["problem", problem]);
            }
            for note in &status.notes {
                table.row(["note", note]);
            }
            table
        }
        Answer::Endpoints(endpoints) => {
            let mut table = Table::new(&["SLOT", "POD", "ADDRESSES", "INTERFACE", "MAC", "REVISION", "CONTAINER"]);
            for endpoint in endpoints {
                let record = &endpoint.record;
                let pod = record.pod.as_ref().map_or("-".into(), |pod| format!("{}/{}", pod.namespace, pod.name));
                table.row([
                    endpoint.slot.to_string(),
                    pod,
                    list(&record.addresses),
                    record.host_interface.clone(),
                    record.mac.clone(),
                    endpoint.revision.to_string(),
                    record.container_id.chars().take(13).collect(),
                ]);
            }
            table
        }
        Answer::Nodes(nodes) => {
            let mut table = Table::new(&["NODE", "ADDRESSES", "POD CIDRS", "ROUTING"]);
            for node in nodes {
                table.row([node.name.clone(), list(&node.addresses), list(&node.pod_cidrs), node.routing.clone()]);
            }
            table
        }
        Answer::Flows(flows) => {
            let mut table = Table::new(&[
                "PROTO",
                "SOURCE",
                "DESTINATION",
                "AS",
                "FROM",
                "TO",
                "STATE",
                "SENT",
                "RECEIVED",
                "IDLE",
                "BY",
            ]);
            for flow in flows {
                table.row(flow_row(flow));
            }
            table
        }
        Answer::Denials(list) => denials(list),
        Answer::Services(ports) => services::table(ports),
        Answer::Counters(counters) => {
            let mut table = Table::new(&["PROGRAM", "REASON", "KIND", "PACKETS"]);
            for counter in counters {
                let kind = if counter.drop { "drop" } else { "event" };
                table.row([counter.hook.clone(), counter.reason.clone(), kind.into(), counter.packets.to_string()]);
            }
            table
        }
    }
}

fn denials(denials: &[DenialStatus]) -> Table {
    let mut table = Table::new(&["POD", "DIRECTION", "VERDICT", "PEER", "PORT", "PACKETS", "IDLE", "REASON"]);
    let name = |pod: &PodRef| format!("{}/{}", pod.namespace, pod.name);
    for denial in denials {
        let protocol = protocol(denial.protocol);
        table.row([
            denial.pod.as_ref().map_or("-".into(), name),
            denial.direction.clone(),
            denial.verdict.clone(),
            denial.peer_pod.as_ref().map_or_else(|| denial.peer.to_string(), name),
            if denial.port == 0 { protocol } else { format!("{}/{protocol}", denial.port) },
            denial.packets.to_string(),
            format!("{} s", denial.idle_seconds),
            denial.reason.clone(),
        ]);
    }
    table
}

fn end(address: IpAddr, port: u16) -> String {
    match address {
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

fn flow_row(flow: &FlowStatus) -> [String; 11] {
    // Of who asks a service, the backend matters; of others that are translated, the address that they have elsewhere.
    let translated = flow.translated_destination.or(flow.translated_source);
    [
        protocol(flow.protocol),
        end(flow.source, flow.source_port),
        end(flow.destination, flow.destination_port),
        translated.map_or("-".into(), |(address, port)| end(address, port)),
        flow.scope.clone(),
        flow.deliver.clone(),
        if flow.established { "established" } else { "opening" }.into(),
        format!("{} / {} B", flow.sent.0, flow.sent.1),
        format!("{} / {} B", flow.received.0, flow.received.1),
        format!("{} s", flow.idle_seconds),
        policies_of(flow),
    ]
}

/// The policies that let a flow pass, or would not.
fn policies_of(flow: &FlowStatus) -> String {
    let reasons: Vec<&str> =
        [&flow.egress, &flow.ingress].into_iter().flatten().map(|side| side.reason.as_str()).collect();
    match (reasons.is_empty(), flow.verdict.as_str()) {
        (true, _) => "-".into(),
        (false, "allowed") => reasons.join("; "),
        (false, verdict) => format!("{verdict}: {}", reasons.join("; ")),
    }
}

fn objects(counts: sluice_api::ObjectCounts) -> String {
    let sluice_api::ObjectCounts { nodes, pods, namespaces, policies, service_ports } = counts;
    format!("{nodes} nodes, {pods} pods, {namespaces} namespaces, {policies} policies, {service_ports} service ports")
}

fn policies(status: sluice_api::PolicyStatus) -> String {
    let sluice_api::PolicyStatus { policies, rule_sets, identities, .. } = status;
    format!("{policies} for this node's pods: {rule_sets} rule sets, {identities} identities")
}

fn room(taken: usize, limit: usize) -> String {
    format!("{taken} of {limit}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_go_together() {
        Arguments::command().debug_assert();
        let matrix = ["sluicectl", "policy", "matrix", "-o", "json", "--port", "80/TCP", "--port", "ICMP", "manifests"];
        assert!(Arguments::try_parse_from(matrix).is_ok());
        let explain =
            ["sluicectl", "policy", "explain", "--from", "a/x", "--to", "b/y", "--port", "80/TCP", "manifests"];
        assert!(Arguments::try_parse_from(explain).is_ok());
        assert!(Arguments::try_parse_from(&explain[..explain.len() - 1]).is_ok(), "of the agent");
        assert!(Arguments::try_parse_from(["sluicectl", "policy", "lint", "manifests"]).is_ok());
    }
}

//! From what was measured to the text that Prometheus reads.

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use sluice_abi::{PolicyDirection, PolicyMode};

use super::Measures;
use crate::kernel::{Count, Fill};

/// The format, OpenMetrics 1.0, which Prometheus reads since 2.5.
pub const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = [(&'static str, &'static str); 1];

/// The text.
///
/// # Errors
/// None, as strings take all that is written.
pub fn render(
    measures: &Measures,
    counts: &[Count],
    denied: &[(PolicyDirection, PolicyMode, u64)],
    fills: &[Fill],
) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sluice");
    of_agent(measures, &mut registry);
    of_policies(measures, &mut registry);
    of_services(measures, &mut registry);
    of_tables(fills, &mut registry);
    of_packets(counts, denied, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn of_agent(measures: &Measures, registry: &mut Registry) {
    let info = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("node", measures.node.clone())];
    registry.register("agent", "The agent", Info::new(info));
    gauge(registry, "ready", "Whether the agent can serve ADD: 1, or 0", usize::from(measures.waiting_for.is_none()));
    let problems = [("error", measures.errors), ("warning", measures.warnings)];
    let help = "Objects or settings that are not used as they stand (error), or are but can hardly be meant so (warning); \
                sluicectl status names them";
    gauges(registry, "problems", help, problems.map(|(severity, number)| ([("severity", severity)], number)));
    gauge(
        registry,
        "endpoints",
        "Interfaces of pods of this node that are under control of the programs",
        measures.endpoints,
    );
}

fn of_policies(measures: &Measures, registry: &mut Registry) {
    let numbers = [
        ("policies", "Policies that select a pod of this node", measures.policies),
        ("policy_rule_sets", "Different sets of policies that pods of this node have, compiled", measures.rule_sets),
        ("policy_identities", "Sets of addresses that the policies in force tell apart", measures.identities),
        ("policy_pods_selected", "Pods of this node that policies select", measures.selected),
        (
            "policy_pods_closed",
            "Pods of this node that are denied everything, because the tables have no room for their policies",
            measures.closed,
        ),
        (
            "policy_pods_audited",
            "Pods of this node whose policies are only tried: what they deny is told of, and let through",
            measures.audited,
        ),
    ];
    for (name, help, number) in numbers {
        gauge(registry, name, help, number);
    }
    let family = Family::<[(&str, &str); 1], Counter>::default();
    for (outcome, times) in ["published", "failed"].into_iter().zip(measures.published) {
        family.get_or_create(&[("outcome", outcome)]).inc_by(times);
    }
    let help = "Attempts to have the object of a new pod say its addresses before its kubelet does";
    registry.register("pod_addresses", help, family);
    let help =
        "Time from the arrival of a change of objects until the kernel's tables have it; of changes that concern them";
    registry.register_with_unit("policy_apply_duration", help, Unit::Seconds, measures.changes.0.clone());
}

fn of_services(measures: &Measures, registry: &mut Registry) {
    let numbers = [
        ("service_ports", "Ports of Services, one for each family, and host ports", measures.service_ports),
        (
            "service_ports_refused",
            "Ports of Services that the tables have no room for: they make do with some of their backends, or reject clients",
            measures.service_ports_refused,
        ),
        ("service_health_checks", "Services with a healthCheckNodePort", measures.health_checks),
        (
            "service_health_checks_unserved",
            "Services whose healthCheckNodePort is not answered at, because somebody else listens there",
            measures.health_checks_unserved,
        ),
    ];
    for (name, help, number) in numbers {
        gauge(registry, name, help, number);
    }
}

fn of_tables(fills: &[Fill], registry: &mut Registry) {
    let numbers = |number: fn(&Fill) -> usize| fills.iter().map(move |fill| ([("table", fill.table)], number(fill)));
    let help = "Entries in a table of the programs. Of a flow, there are two, and what was found at the last round through \
                them counts, every few seconds. The table of denials forgets the oldest: to be full is no fault of it";
    gauges(registry, "table_entries", help, numbers(|fill| fill.entries));
    gauges(registry, "table_capacity", "Entries that a table is to have at most", numbers(|fill| fill.capacity));
}

fn of_packets(counts: &[Count], denied: &[(PolicyDirection, PolicyMode, u64)], registry: &mut Registry) {
    let help = [
        "Packets that programs have dropped, since the tables were made. Those with the reason policy are all that policies \
         have denied",
        "What else programs have counted, since the tables were made: flows opened, judged again, or answered without room \
         among the established (not_established)",
    ];
    for (is_drop, name, help) in [(true, "drops", help[0]), (false, "events", help[1])] {
        let family = Family::<[(&str, &str); 2], Counter>::default();
        for Count { hook, reason, packets } in counts.iter().filter(|count| count.reason.is_drop() == is_drop) {
            family.get_or_create(&[("hook", hook.name()), ("reason", reason.name())]).inc_by(*packets);
        }
        registry.register(name, help, family);
    }
    let family = Family::<[(&str, &str); 2], Counter>::default();
    for (direction, mode, packets) in denied {
        let verdict = match mode {
            PolicyMode::Enforce => "denied",
            PolicyMode::Audit => "audited",
        };
        family.get_or_create(&[("direction", direction.name()), ("verdict", verdict)]).inc_by(*packets);
    }
    let help = "Packets that policies have denied, or would have (audited: the first of each flow, and of each time that it was \
                judged again), by the direction as the pod sees it, since the agent started. At least so many: what the table of \
                denials has forgotten between two scrapes is missing here, but not in sluice_drops_total";
    registry.register("policy_denials", help, family);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: usize) {
    let gauge = Gauge::<i64>::default();
    gauge.set(value as i64);
    registry.register(name, help, gauge);
}

fn gauges(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, usize)>) {
    let family = Family::<Labels, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value as i64);
    }
    registry.register(name, help, family);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_abi::{Hook, Reason};

    use super::*;
    use crate::metrics::tests::measures;

    fn text(measures: &Measures) -> String {
        let counts = [
            Count { hook: Hook::FromPod, reason: Reason::Policy, packets: 11 },
            Count { hook: Hook::FromNet, reason: Reason::Opened, packets: 12 },
        ];
        let denied =
            [(PolicyDirection::Ingress, PolicyMode::Enforce, 13), (PolicyDirection::Egress, PolicyMode::Audit, 14)];
        render(measures, &counts, &denied, &[Fill { table: "rules", entries: 15, capacity: 16 }]).expect("renders")
    }

    #[test]
    fn every_number_has_a_name_of_its_own() {
        let text = text(&Measures { node: "n\"1".into(), ..measures(None) });
        for line in [
            "sluice_agent_info{version=\"0.1.0\",node=\"n\\\"1\"} 1",
            "sluice_ready 1",
            "sluice_endpoints 3",
            "sluice_policy_pods_selected 2",
            "sluice_policy_pods_closed 1",
            "sluice_policy_pods_audited 0",
            "sluice_policies 7",
            "sluice_policy_rule_sets 4",
            "sluice_policy_identities 9",
            "sluice_service_ports 17",
            "sluice_service_ports_refused 18",
            "sluice_service_health_checks 19",
            "sluice_service_health_checks_unserved 20",
            "sluice_pod_addresses_total{outcome=\"published\"} 21",
            "sluice_pod_addresses_total{outcome=\"failed\"} 22",
            "sluice_problems{severity=\"error\"} 5",
            "sluice_problems{severity=\"warning\"} 6",
            "sluice_drops_total{hook=\"from_pod\",reason=\"policy\"} 11",
            "sluice_events_total{hook=\"from_net\",reason=\"opened\"} 12",
            "sluice_policy_denials_total{direction=\"ingress\",verdict=\"denied\"} 13",
            "sluice_policy_denials_total{direction=\"egress\",verdict=\"audited\"} 14",
            "sluice_table_entries{table=\"rules\"} 15",
            "sluice_table_capacity{table=\"rules\"} 16",
            "# TYPE sluice_drops counter",
            "# TYPE sluice_table_entries gauge",
            "# UNIT sluice_policy_apply_duration_seconds seconds",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let (samples, helps) = (text.lines().filter(|line| !line.starts_with('#')), text.matches("# HELP ").count());
        let mut names: Vec<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
        assert!(names.iter().all(|name| name.starts_with("sluice_")), "{names:?}");
        names.retain(|name| !name.ends_with("_bucket") && !name.ends_with("_sum"));
        names.dedup();
        assert_eq!(names.len(), helps, "{text}");
    }

    #[test]
    fn who_waits_is_not_ready() {
        let text = text(&measures(Some("the Node n1")));
        assert!(text.contains("\nsluice_ready 0\n"), "{text}");
    }

    #[test]
    fn what_changes_take_is_told_in_seconds() {
        let measures = measures(None);
        for milliseconds in [1, 1_500] {
            measures.changes.took(Duration::from_millis(milliseconds));
        }
        let text = text(&measures);
        for line in [
            "sluice_policy_apply_duration_seconds_count 2",
            "sluice_policy_apply_duration_seconds_sum 1.501",
            "sluice_policy_apply_duration_seconds_bucket{le=\"0.001\"} 1",
            "sluice_policy_apply_duration_seconds_bucket{le=\"+Inf\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
        }
    }
}

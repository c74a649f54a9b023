//! What operators can watch: metrics for Prometheus, and whether the agent lives and is ready, over HTTP.

mod text;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hyper::StatusCode;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::http::{self, Matter, Page};
use crate::kernel::{Fill, KernelError, Reading};

/// How long the model may take to tell what it knows. It may be writing large tables.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the model tells of itself.
#[derive(Clone, Debug)]
pub struct Measures {
    /// The name of the node.
    pub node: String,
    /// What it waits for; `None`: it can serve ADD.
    pub waiting_for: Option<String>,
    /// Endpoints in force.
    pub endpoints: usize,
    /// Pods of this node that policies select,
    pub selected: usize,
    /// those that are denied everything for lack of room,
    pub closed: usize,
    /// and those whose policies are only tried.
    pub audited: usize,
    /// Policies that select a pod of this node,
    pub policies: usize,
    /// and what they come to: rule sets
    pub rule_sets: usize,
    /// and identities.
    pub identities: usize,
    /// Ports of Services, one for each family, and host ports,
    pub service_ports: usize,
    /// and those of them that the tables have no room for.
    pub service_ports_refused: usize,
    /// Services with a health check for load balancers,
    pub health_checks: usize,
    /// and those of them that are not answered for.
    pub health_checks_unserved: usize,
    /// How often addresses of pods were said on their objects, and could not be.
    pub published: [u64; 2],
    /// How full its tables are.
    pub fills: Vec<Fill>,
    /// What is wrong: objects that are not enforced as they stand, and whatever else does not work;
    pub errors: usize,
    /// objects that are, but are perhaps not meant so.
    pub warnings: usize,
    /// How long changes take.
    pub changes: Changes,
}

/// How long it takes from the arrival of a change of objects until the kernel's tables have it, seconds.
#[derive(Clone, Debug)]
pub struct Changes(Histogram);

impl Default for Changes {
    fn default() -> Self {
        // A quarter of a millisecond to half a minute.
        Self(Histogram::new(exponential_buckets(0.000_25, 2.0, 18)))
    }
}

impl Changes {
    /// One took so long.
    pub fn took(&self, time: Duration) {
        self.0.observe(time.as_secs_f64());
    }
}

/// The flow tables, as they were found last.
pub type Flows = Arc<Mutex<Vec<Fill>>>;

/// Where all of that is gathered.
pub struct Gathering {
    /// Asks the model, and waits for its answer for a time.
    pub ask: Box<dyn Fn(Duration) -> Option<Measures> + Send + Sync>,
    /// Reads what the programs count.
    pub read: Box<dyn Fn() -> Result<Reading, KernelError> + Send + Sync>,
    /// How full the flow tables are.
    pub flows: Flows,
}

/// Serves an address, for as long as there is an agent. Where it is taken, it is tried again: nobody is to be without
/// network for that.
///
/// # Errors
/// Where there can be no thread for it.
pub fn listen(address: SocketAddr, gathering: Gathering) -> Result<()> {
    let matter = Matter { name: "metrics", key: "metrics_address" };
    http::listen(matter, address, Arc::new(move |path: &str| gathering.answer(path)))
}

impl Gathering {
    fn answer(&self, path: &str) -> Page {
        let wait = || {
            (self.ask)(PATIENCE).ok_or_else(|| {
                let text = format!("the agent has been busy for {} s, or is ending", PATIENCE.as_secs());
                Page::plain(StatusCode::SERVICE_UNAVAILABLE, text)
            })
        };
        match path {
            "/metrics" => wait().and_then(|measures| self.metrics(&measures)).unwrap_or_else(|page| page),
            "/healthz" => wait().map_or_else(|page| page, |_| Page::plain(StatusCode::OK, "ok".into())),
            "/readyz" => wait().map_or_else(|page| page, |measures| readiness(&measures)),
            _ => Page::plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz".into()),
        }
    }

    fn metrics(&self, measures: &Measures) -> Result<Page, Page> {
        let failed = |error: &dyn ToString| Page::plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
        let Reading { counts, denied, denials } = (self.read)().map_err(|error| failed(&error))?;
        let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let fills: Vec<Fill> = measures.fills.iter().copied().chain([denials]).chain(flows).collect();
        let text = text::render(measures, &counts, &denied, &fills).map_err(|error| failed(&error))?;
        Ok(Page { status: StatusCode::OK, kind: text::KIND, headers: Vec::new(), text })
    }
}

fn readiness(measures: &Measures) -> Page {
    match &measures.waiting_for {
        None => Page::plain(StatusCode::OK, "ready".into()),
        Some(what) => Page::plain(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers, each another.
    pub fn measures(waiting_for: Option<&str>) -> Measures {
        Measures {
            node: "n1".into(),
            waiting_for: waiting_for.map(str::to_owned),
            endpoints: 3,
            selected: 2,
            closed: 1,
            audited: 0,
            policies: 7,
            rule_sets: 4,
            identities: 9,
            service_ports: 17,
            service_ports_refused: 18,
            health_checks: 19,
            health_checks_unserved: 20,
            published: [21, 22],
            fills: vec![Fill { table: "rules", entries: 15, capacity: 16 }],
            errors: 5,
            warnings: 6,
            changes: Changes::default(),
        }
    }

    /// What there is to read of a model that tells this, or nothing.
    fn gathering(told: Option<Measures>) -> Gathering {
        let denials = Fill { table: "denials", entries: 1, capacity: 2 };
        let flows = vec![Fill { table: "flows4", entries: 3, capacity: 4 }];
        Gathering {
            ask: Box::new(move |_| told.clone()),
            read: Box::new(move || Ok(Reading { counts: Vec::new(), denied: Vec::new(), denials })),
            flows: Arc::new(Mutex::new(flows)),
        }
    }

    #[test]
    fn who_answers_lives_and_is_ready_once_it_waits_for_nothing() {
        let codes = |told: Option<Measures>| {
            let gathering = gathering(told);
            ["/healthz", "/readyz", "/metrics", "/"].map(|path| gathering.answer(path).status.as_u16())
        };
        assert_eq!(codes(Some(measures(None))), [200, 200, 200, 404]);
        assert_eq!(codes(Some(measures(Some("the Node n1")))), [200, 503, 200, 404]);
        assert_eq!(codes(None), [503, 503, 503, 404]);
        let page = gathering(Some(measures(Some("the Node n1")))).answer("/readyz");
        assert_eq!(page.text, "waiting for: the Node n1\n");
    }

    #[test]
    fn tables_are_told_of_whoever_knows_them() {
        let page = gathering(Some(measures(None))).answer("/metrics");
        assert_eq!(page.kind, text::KIND);
        for fill in ["{table=\"rules\"} 15", "{table=\"denials\"} 1", "{table=\"flows4\"} 3"] {
            assert!(page.text.contains(&format!("sluice_table_entries{fill}\n")), "{fill} is not in\n{}", page.text);
        }
    }
}

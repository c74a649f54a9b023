//! Whether this node takes traffic for Services.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use hyper::StatusCode;
use hyper::header::{HeaderValue, X_CONTENT_TYPE_OPTIONS};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::http::{self, Matter, Page};

/// How long changes may wait until they are in the tables: kube-proxy has twice its `iptables.syncPeriod`, which is 30 s.
const LATE: Duration = Duration::from_secs(60);

/// When nothing has been written yet, as Go's zero time is written.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// How this node is, for those who know and those who ask.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Clone, Copy, Debug)]
struct State {
    /// Since when there are changes that are not in the tables.
    pending: Option<Instant>,
    /// When the tables last were what they should be.
    applied: Option<Timestamp>,
    /// Whether the node stays.
    is_eligible: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { pending: None, applied: None, is_eligible: true })))
    }
}

impl Health {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes have come that are not in the tables yet.
    pub fn pending(&self) {
        self.state().pending.get_or_insert_with(Instant::now);
    }

    /// The tables are what they should be.
    pub fn applied(&self) {
        let mut state = self.state();
        state.pending = None;
        state.applied = Some(Timestamp::now());
    }

    /// Whether the node stays, rather than being about to be deleted.
    pub fn set_eligible(&self, is_eligible: bool) {
        self.state().is_eligible = is_eligible;
    }

    /// One whose changes have waited for too long.
    #[cfg(test)]
    pub fn sick() -> Self {
        let state =
            State { pending: Instant::now().checked_sub(LATE), applied: Some(Timestamp::now()), is_eligible: true };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Whether the tables are what they should be, or are about to become so.
    pub fn is_healthy(&self) -> bool {
        self.state().is_healthy(Instant::now())
    }
}

impl State {
    /// One that has just started is healthy.
    fn is_healthy(self, now: Instant) -> bool {
        self.applied.is_none() || self.pending.is_none_or(|since| now.saturating_duration_since(since) < LATE)
    }

    /// What is answered at a path.
    fn answer(self, path: &str, now: Instant, time: Timestamp) -> Page {
        let is_healthy = self.is_healthy(now);
        let (is_well, eligible) = match path {
            "/healthz" => (is_healthy && self.is_eligible, Some(self.is_eligible)),
            // Whether the node stays is no reason to start anything again.
            "/livez" => (is_healthy, None),
            _ => return Page::plain(StatusCode::NOT_FOUND, "there are /healthz and /livez".into()),
        };
        let applied = self.applied.map_or(NEVER.into(), |time| time.to_string());
        let mut body = json!({
            // Of one that is well, this is always recent: for so kube-proxies used to write their tables.
            "lastUpdated": if is_well { time.to_string() } else { applied.clone() },
            "currentTime": time.to_string(),
            "healthy": is_healthy,
        });
        if let Some(eligible) = eligible {
            body["nodeEligible"] = eligible.into();
        }
        if self.applied.is_some() {
            // One writer for both.
            let family = json!({ "lastUpdated": applied, "healthy": is_healthy });
            body["status"] = json!({ "IPv4": family, "IPv6": family });
        }
        page(is_well, body.to_string())
    }
}

/// What machines are told.
pub fn page(is_well: bool, text: String) -> Page {
    Page {
        status: if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE },
        kind: "application/json",
        headers: vec![(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))],
        text,
    }
}

/// Tells of this node at an address, `/healthz` and `/livez`.
///
/// # Errors
/// Where there can be no thread for it.
pub fn serve(address: SocketAddr, health: Health) -> Result<()> {
    let matter = Matter { name: "healthz", key: "healthz_address" };
    let answer = move |path: &str| health.state().answer(path, Instant::now(), Timestamp::now());
    http::listen(matter, address, Arc::new(answer))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::Value;

    use super::*;
    use crate::http::bind;
    use crate::http::tests::until;

    const NOON: &str = "2026-03-01T12:00:00.5Z";
    const LATER: &str = "2026-03-01T12:02:00Z";

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The status and the body of the answer to somebody who asks at a path some time after changes have come.
    fn told(state: State, path: &str, waited: Duration) -> (u16, Value) {
        let start = Instant::now();
        let state = State { pending: state.pending.map(|_| start), ..state };
        let page = state.answer(path, start + waited, time(LATER));
        (page.status.as_u16(), serde_json::from_str(&page.text).expect("JSON"))
    }

    fn applied() -> State {
        State { pending: None, applied: Some(time(NOON)), is_eligible: true }
    }

    #[test]
    fn who_is_well_has_been_updated_just_now() {
        let family = json!({ "healthy": true, "lastUpdated": NOON });
        let mut expected = json!({
            "lastUpdated": LATER, "currentTime": LATER, "nodeEligible": true, "healthy": true,
            "status": { "IPv4": family, "IPv6": family },
        });
        assert_eq!(told(applied(), "/healthz", Duration::ZERO), (200, expected.clone()));
        expected.as_object_mut().expect("an object").remove("nodeEligible");
        assert_eq!(told(applied(), "/livez", Duration::ZERO), (200, expected));
    }

    #[test]
    fn changes_that_wait_for_too_long_are_a_disease() {
        let pending = State { pending: Some(Instant::now()), ..applied() };
        for path in ["/healthz", "/livez"] {
            assert_eq!(told(pending, path, LATE - Duration::from_millis(1)).0, 200);
            let (status, body) = told(pending, path, LATE);
            assert_eq!((status, &body["healthy"], &body["lastUpdated"]), (503, &json!(false), &json!(NOON)));
            assert_eq!(body["status"]["IPv6"], json!({ "healthy": false, "lastUpdated": NOON }));
        }
        // At the start the first ones may take their time.
        let starting = State { applied: None, ..pending };
        let (status, body) = told(starting, "/healthz", LATE * 2);
        assert_eq!((status, body.get("status")), (200, None));
    }

    #[test]
    fn a_node_that_leaves_lives_on_without_traffic() {
        let leaving = State { is_eligible: false, ..applied() };
        let (status, body) = told(leaving, "/healthz", Duration::ZERO);
        assert_eq!((status, &body["nodeEligible"], &body["healthy"]), (503, &json!(false), &json!(true)));
        assert_eq!(body["lastUpdated"], NOON);
        assert_eq!(told(leaving, "/livez", Duration::ZERO).0, 200);
        let starting = State { applied: None, ..leaving };
        assert_eq!(told(starting, "/healthz", Duration::ZERO).1["lastUpdated"], NEVER);
    }

    #[test]
    fn changes_wait_since_the_first_of_them() {
        let health = Health::default();
        health.applied();
        health.pending();
        let since = health.state().pending;
        health.pending();
        assert_eq!(health.state().pending, since);
        health.applied();
        assert_eq!(health.state().pending, None);
    }

    #[test]
    fn it_is_served() {
        // A port that was free just now.
        let free = bind((Ipv4Addr::UNSPECIFIED, 0).into()).and_then(|listener| listener.local_addr()).expect("is free");
        let health = Health::default();
        serve(free, health.clone()).expect("starts");
        let says = |address: &str, path: &str, parts: [&str; 3]| {
            let address = format!("{address}:{}", free.port()).parse().expect("an address");
            let is_so = |answer: &str| answer.starts_with(parts[0]) && parts.iter().all(|part| answer.contains(part));
            until(address, path, |answer| answer.as_ref().is_ok_and(|answer| is_so(answer)));
        };
        let headers = ["Content-Type: application/json\r\n", "X-Content-Type-Options: nosniff\r\n"];
        let well = ["HTTP/1.1 200 OK\r\n", headers[0], headers[1]];
        says("127.0.0.1", "/healthz", well);
        health.set_eligible(false);
        says("[::1]", "/healthz", ["HTTP/1.1 503 ", headers[0], headers[1]]);
        says("[::1]", "/livez", well);
        says("127.0.0.1", "/", ["HTTP/1.1 404 ", "/healthz", "/livez"]);
    }
}

//! Against a small server of the API.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{self as channel, Receiver, Sender};
use std::thread;

use serde_json::Value;
use sluice_policy::ObjectName;

use super::*;

/// How long anything may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// A server that lists what it is given, and tells of changes when it is told to.
#[derive(Clone)]
struct Server(Arc<State>);

struct State {
    address: SocketAddr,
    /// By path: a list's items or an object; null: what nobody may see. Of paths that are not there, it has nothing.
    given: Mutex<BTreeMap<String, Value>>,
    /// Watches that are open, by path: where more is to be said.
    watches: Mutex<BTreeMap<String, TcpStream>>,
    /// By path, how it was last asked for.
    asked_for: Mutex<BTreeMap<String, String>>,
    /// Told of each watch, each patch, and each object that is asked for.
    happened: Mutex<Sender<(String, Value)>>,
}

impl Server {
    /// Starts one. Of what happens at it, it tells: a path, and what was sent there.
    fn start() -> (Self, Receiver<(String, Value)>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has an address");
        let (happens, happened) = channel::channel();
        let state = State {
            address,
            given: Mutex::default(),
            watches: Mutex::default(),
            asked_for: Mutex::default(),
            happened: Mutex::new(happens),
        };
        let server = Self(Arc::new(state));
        for path in [NODES, PODS, "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies"] {
            server.give(path, json!([]));
        }
        let serving = server.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        (server, happened)
    }

    fn give(&self, path: &str, what: Value) {
        self.0.given.lock().expect("locks").insert(path.into(), what);
    }

    /// Says something to the watch of a path, which is open.
    fn say(&self, path: &str, what: &str, object: &Value) {
        let watches = self.0.watches.lock().expect("locks");
        let mut watch = watches.get(path).expect("somebody watches");
        writeln!(watch, "{}", json!({ "type": what, "object": object })).expect("writes");
    }

    /// Breaks the watch of a path off, and forgets where it was: who watches must list anew.
    fn expire(&self, path: &str) {
        self.say(path, "ERROR", &json!({ "kind": "Status", "code": 410, "status": "Failure", "message": "expired" }));
    }

    fn serve(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().expect("clones");
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = Vec::new();
            while let Some(Ok(line)) =
                (&mut reader).lines().next().filter(|line| line.as_ref().is_ok_and(|it| !it.is_empty()))
            {
                head.push(line);
            }
            let Some(target) = head.first().and_then(|line| line.split(' ').nth(1)) else { return };
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let length =
                head.iter().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).expect("reads");
            let happened = |what| self.0.happened.lock().expect("locks").send((path.to_owned(), what));
            self.0.asked_for.lock().expect("locks").insert(path.into(), query.into());
            if query.contains("watch=") {
                let _ = write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
                self.0.watches.lock().expect("locks").insert(path.into(), writer);
                let _ = happened(Value::Null);
                return;
            }
            let given = self.0.given.lock().expect("locks").get(path).cloned();
            let (code, text) = match given {
                Some(Value::Array(items)) => {
                    let list = json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items });
                    (200, list.to_string())
                }
                Some(Value::Null) => (403, forbidden().to_string()),
                Some(object) => {
                    let _ = happened(Value::Null);
                    (200, object.to_string())
                }
                None if head[0].starts_with("PATCH") => {
                    let _ = happened(serde_json::from_slice(&body).expect("is JSON"));
                    (200, body_of_policy())
                }
                None => (404, "404 page not found\n".to_owned()),
            };
            let _ = write!(
                writer,
                "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
        }
    }

    /// Follows this server. What is told of, and who asks.
    fn follow(&self) -> (Receiver<Vec<Change>>, Asker) {
        self.follow_all(false)
    }

    /// The same, with Services or without.
    fn follow_all(&self, services: bool) -> (Receiver<Vec<Change>>, Asker) {
        let (said, heard) = channel::channel();
        let (asks, asked) = mpsc::unbounded();
        let address = self.0.address;
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
            runtime.block_on(async {
                let uri = format!("http://{address}").parse().expect("a URI");
                let client = Client::try_from(kube::Config::new(uri)).expect("a client");
                let tell = &mut |changes| said.send(changes).is_ok();
                follow(&client, asked, services, Duration::from_millis(1), tell).await;
            });
        });
        (heard, Asker(asks))
    }
}

fn forbidden() -> Value {
    json!({ "kind": "Status", "code": 403, "status": "Failure", "reason": "Forbidden", "message": "the account may not" })
}

fn body_of_policy() -> String {
    json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": { "name": "all" } }).to_string()
}

/// What is told of next, as words; empty lists are passed over.
fn next(heard: &Receiver<Vec<Change>>) -> Vec<String> {
    loop {
        let changes = heard.recv_timeout(PATIENCE).expect("it goes on");
        if !changes.is_empty() {
            return changes.iter().map(word).collect();
        }
    }
}

/// The same, of all that there is at first.
fn first(heard: &Receiver<Vec<Change>>) -> Vec<String> {
    let mut words = next(heard);
    while !words.contains(&"listed".into()) {
        words.extend(next(heard));
    }
    words.retain(|word| word != "listed");
    words
}

fn word(change: &Change) -> String {
    match change {
        Change::Is(Object::Pod(pod)) => format!("Pod {} {} is", pod.pod.name, pod.pod.uid),
        Change::Is(object) => format!("{} is", object.name()),
        Change::Gone(name, uid) if uid.is_empty() => format!("{name} gone"),
        Change::Gone(name, uid) => format!("{name} {uid} gone"),
        Change::Wrong(error) => format!("{} wrong", error.object),
        Change::Problems(problems) => format!("problems: {}", problems.join(", ")),
        Change::Listed => "listed".into(),
    }
}

fn wait_for(happened: &Receiver<(String, Value)>, path: &str) -> Value {
    loop {
        let (at, what) = happened.recv_timeout(PATIENCE).expect("it happens");
        if at == path {
            return what;
        }
    }
}

fn node(name: &str, version: u32) -> Value {
    json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "name": name, "resourceVersion": version.to_string() } })
}

fn pod(uid: &str, version: u32) -> Value {
    let metadata = json!({ "name": "p", "namespace": "x", "uid": uid, "resourceVersion": version.to_string() });
    json!({ "kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": { "nodeName": "a", "containers": [] } })
}

fn policy(egress: &Value) -> Value {
    let spec = json!({ "tier": "Admin", "priority": 1, "subject": { "namespaces": {} }, "egress": egress });
    let metadata = json!({ "name": "all", "uid": "c1", "resourceVersion": "2" });
    json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec })
}

#[test]
fn all_is_told_of_once_it_is_listed_and_then_what_changes() {
    let (server, happened) = Server::start();
    let mut nonsense = node("c", 1);
    nonsense["spec"] = json!({ "podCIDR": "10/8" });
    server.give(NODES, json!([node("a", 1), node("b", 1), nonsense]));
    server.give(PODS, json!([pod("u1", 1)]));
    let (heard, _asker) = server.follow();
    let mut all = first(&heard);
    all.sort();
    assert_eq!(all, ["Node a is", "Node b is", "Node c wrong", "Pod x/p u1 is"]);
    wait_for(&happened, NODES);
    server.say(NODES, "DELETED", &node("b", 2));
    assert_eq!(next(&heard), ["Node b gone"]);
    server.say(NODES, "MODIFIED", &node("c", 3));
    assert_eq!(next(&heard), ["Node c is"]);
    server.give(NODES, json!([node("c", 3)]));
    server.expire(NODES);
    let mut anew = next(&heard);
    while anew.len() < 2 {
        anew.extend(next(&heard));
    }
    assert_eq!(anew, ["Node c is", "Node a gone"], "it is told of no more");
}

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";

/// An object of namespace x, without which not much is known of Services.
fn named(name: &str, version: u32, mut object: Value) -> Value {
    object["metadata"] = json!({ "name": name, "namespace": "x", "resourceVersion": version.to_string() });
    object
}

#[test]
fn services_are_told_of_where_they_are_asked_for() {
    let (server, happened) = Server::start();
    let slice = |version| named("web-1", version, json!({ "addressType": "IPv4", "endpoints": [] }));
    server.give(SERVICES, json!([named("web", 1, json!({})), named("Web", 1, json!({}))]));
    server.give(SLICES, json!([slice(1)]));
    server.give(NODES, json!([node("a", 1)]));
    let (heard, _asker) = server.follow();
    assert_eq!(first(&heard), ["Node a is"]);
    let (heard, _asker) = server.follow_all(true);
    let mut all = first(&heard);
    all.sort();
    assert_eq!(all, ["EndpointSlice x/web-1 is", "Node a is", "Service x/Web wrong", "Service x/web is"]);
    wait_for(&happened, SLICES);
    server.say(SLICES, "DELETED", &slice(2));
    assert_eq!(next(&heard), ["EndpointSlice x/web-1 gone"]);
    let asked_for = server.0.asked_for.lock().expect("locks");
    for (path, label) in [(SERVICES, "service-proxy-name"), (SLICES, "headless")] {
        let query = &asked_for[path];
        assert!(query.contains(&format!("labelSelector=%21service.kubernetes.io%2F{label}")), "{query}");
    }
    assert!(!asked_for[NODES].contains("Selector"), "{:?}", asked_for[NODES]);
    let without_ended = "fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";
    assert!(asked_for[PODS].contains(without_ended), "{:?}", asked_for[PODS]);
}

#[test]
fn a_kind_that_is_not_installed_counts_once_it_is_and_until_it_is_not() {
    let (server, happened) = Server::start();
    server.give(NODES, json!([node("a", 1)]));
    let (heard, _asker) = server.follow();
    assert_eq!(first(&heard), ["Node a is"], "nothing waits for it");
    server.give(POLICIES, json!([policy(&json!([]))]));
    assert_eq!(next(&heard), ["ClusterNetworkPolicy all is"]);
    wait_for(&happened, POLICIES);
    server.0.given.lock().expect("locks").remove(POLICIES);
    server.expire(POLICIES);
    assert_eq!(next(&heard), ["ClusterNetworkPolicy all gone"]);
    server.give(POLICIES, json!([policy(&json!([]))]));
    assert_eq!(next(&heard), ["ClusterNetworkPolicy all is"]);
}

/// What may be denied by policies that nobody may see is not let through as if there were none.
#[test]
fn a_kind_that_may_not_be_seen_is_a_problem_and_holds_up_the_first_listing_until_it_may() {
    let (server, _happened) = Server::start();
    server.give(NODES, json!([node("a", 1)]));
    server.give(POLICIES, Value::Null);
    let (heard, _asker) = server.follow();
    let mut told = next(&heard);
    while !told[told.len() - 1].starts_with("problems: ") {
        told.extend(next(&heard));
    }
    let problem = told.pop().expect("there is one");
    for word in ["(the account may not)", "verbs list and watch on clusternetworkpolicies", "policy.networking.k8s.io"]
    {
        assert!(problem.contains(word), "{word:?} is not in {problem:?}");
    }
    assert!(!told.contains(&"listed".into()), "{told:?}");
    server.give(POLICIES, json!([policy(&json!([]))]));
    told.extend(first(&heard));
    told.sort();
    assert_eq!(told, ["ClusterNetworkPolicy all is", "Node a is", "problems: "]);
}

#[test]
fn of_a_kind_that_may_be_seen_no_more_the_last_word_counts_and_all_else_goes_on() {
    let (server, happened) = Server::start();
    server.give(NODES, json!([node("a", 1)]));
    server.give(POLICIES, json!([policy(&json!([]))]));
    let (heard, _asker) = server.follow();
    assert_eq!(first(&heard).len(), 2);
    let mut unwatched = BTreeSet::from([POLICIES, NODES]);
    while !unwatched.is_empty() {
        let (path, _) = happened.recv_timeout(PATIENCE).expect("it happens");
        unwatched.remove(&*path);
    }
    server.give(POLICIES, Value::Null);
    server.expire(POLICIES);
    let told = next(&heard);
    assert!(told.len() == 1 && told[0].contains("clusternetworkpolicies"), "{told:?}");
    server.say(NODES, "DELETED", &node("a", 2));
    assert_eq!(next(&heard), ["Node a gone"]);
    server.give(POLICIES, json!([]));
    let mut told = next(&heard);
    while told.len() < 2 {
        told.extend(next(&heard));
    }
    told.sort();
    assert_eq!(told, ["ClusterNetworkPolicy all gone", "problems: "]);
}

#[test]
fn who_is_refused_asks_ever_less_often_until_it_is_answered() {
    let mut patience = Patience::default();
    let mut wait = |is_answered: bool| {
        patience.is_answered.store(is_answered, Ordering::Relaxed);
        patience.reset();
        patience.next().expect("it does not give up")
    };
    let waits: Vec<Duration> = (0..8).map(|_| wait(false)).collect();
    assert!(waits[7] > waits[0] * 5, "{waits:?}");
    assert!(wait(true) < waits[7] / 5, "it begins anew");
}

#[test]
fn a_pod_that_is_asked_for_may_be_ahead_of_the_watch() {
    let (server, happened) = Server::start();
    server.give(PODS, json!([pod("u1", 5)]));
    let (heard, asker) = server.follow();
    assert_eq!(first(&heard), ["Pod x/p u1 is"]);
    wait_for(&happened, PODS);
    let path = "/api/v1/namespaces/x/pods/p";
    server.give(path, pod("u1", 6));
    asker.ask(PodName::new("x", "p"), "u2".into());
    wait_for(&happened, path);
    server.give(path, pod("u2", 9));
    assert_eq!(next(&heard), ["Pod x/p u2 is"]);
    server.say(PODS, "DELETED", &pod("u1", 8));
    assert_eq!(next(&heard), ["Pod x/p u1 gone"], "of the other, nothing is said");
    server.say(PODS, "ADDED", &pod("u2", 9));
    assert_eq!(next(&heard), ["Pod x/p u2 is"]);
}

/// Its validation only warns of host bits.
#[test]
fn policies_that_the_api_server_takes_are_taken() {
    let (server, _happened) = Server::start();
    let block = json!({ "ipBlock": { "cidr": "10.1.2.3/8", "except": ["10.1.2.3/16"] } });
    let metadata = json!({ "name": "db", "namespace": "x", "resourceVersion": "1" });
    server.give(
        "/apis/networking.k8s.io/v1/networkpolicies",
        json!([{ "metadata": metadata, "spec": { "podSelector": {}, "ingress": [{ "from": [block] }] } }]),
    );
    server.give(POLICIES, json!([policy(&json!([{ "action": "Deny", "to": [{ "networks": ["10.1.2.3/8"] }] }]))]));
    let (heard, _asker) = server.follow();
    let mut changes = heard.recv_timeout(PATIENCE).expect("it goes on");
    while !changes.contains(&Change::Listed) {
        changes.extend(heard.recv_timeout(PATIENCE).expect("it goes on"));
    }
    let notes: BTreeMap<String, Vec<String>> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Is(Object::Policy(policy)) => Some(policy),
            _ => None,
        })
        .map(|policy| (policy.name.to_string(), policy.notes.iter().map(|note| note.field.clone()).collect()))
        .collect();
    let expected = [
        ("ClusterNetworkPolicy all", vec!["spec.egress[0].to[0].networks[0]"]),
        (
            "NetworkPolicy x/db",
            vec!["spec.ingress[0].from[0].ipBlock.cidr", "spec.ingress[0].from[0].ipBlock.except[0]"],
        ),
    ];
    let expected = expected.map(|(name, fields)| (name.to_owned(), fields.into_iter().map(str::to_owned).collect()));
    assert_eq!(notes, BTreeMap::from(expected), "{changes:?}");
}

#[test]
fn what_is_not_supported_in_a_policy_stands_in_its_status() {
    let (server, happened) = Server::start();
    server.give(POLICIES, json!([policy(&json!([{ "action": "Deny", "to": [{ "domainNames": ["a.example"] }] }]))]));
    let (_heard, _asker) = server.follow();
    let patch = wait_for(&happened, &format!("{POLICIES}/all/status"));
    let conditions = patch["status"]["conditions"].as_array().expect("conditions");
    assert_eq!(conditions.len(), 1);
    assert_eq!((&conditions[0]["type"], &conditions[0]["status"]), (&json!("sluice.dev/Supported"), &json!("False")));
}

fn told(heard: Vec<Heard<Pod>>) -> Vec<String> {
    let mut known = Known::default();
    let mut words = Vec::new();
    for heard in heard {
        let told = known.hear(heard);
        words.extend(told.changes.iter().map(word));
        words.extend(told.is_listed.then(|| "listed".to_owned()));
    }
    words
}

fn read(value: Value) -> Pod {
    serde_json::from_value(value).expect("a pod")
}

#[test]
fn an_answer_that_the_watch_has_overtaken_is_not_told_of() {
    let heard = vec![
        Heard::Event(Event::Init),
        Heard::Event(Event::InitDone),
        Heard::Event(Event::Apply(read(pod("u1", 5)))),
        Heard::Event(Event::Delete(read(pod("u1", 6)))),
        Heard::Fetched(read(pod("u1", 5))),
    ];
    assert_eq!(told(heard), ["listed", "Pod x/p u1 is", "Pod x/p u1 gone"]);
}

#[test]
fn an_answer_during_a_listing_is_not_lost_by_it() {
    let heard = vec![
        Heard::Event(Event::Init),
        Heard::Fetched(read(pod("u2", 9))),
        Heard::Event(Event::InitDone),
        Heard::Event(Event::Init),
        Heard::Event(Event::InitDone),
    ];
    let name = ObjectName::new(Kind::Pod, "x", "p");
    assert_eq!(told(heard), ["Pod x/p u2 is".to_owned(), "listed".into(), format!("{name} gone")]);
}

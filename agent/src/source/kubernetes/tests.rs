//! Against a small server of the API.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{self as channel, Receiver, Sender};
use std::thread;

use serde_json::{Value, json};
use sluice_topology::{Pool, Range};

use super::*;

/// How long anything may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long it takes here until a kind is asked for again,
const ABSENT: Duration = Duration::from_millis(1);
/// and until a watch must have told of a Lease: as long as it never takes, for whoever has not heard of his own makes it again.
const SEEN: Duration = Duration::from_secs(1);

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";
const POLICIES: &str = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies";

/// What happens at a server: a path, and what was sent there.
type Happened = Receiver<(String, Value)>;

/// A server that lists what it is given, and tells of changes when it is told to.
#[derive(Clone)]
struct Server(Arc<State>);

struct State {
    address: SocketAddr,
    /// By path: a list's items or an object; null: what nobody may see; a number: with which code it fails; whether an answer has
    /// a beginning that never has an end. Of paths that are not there, it has nothing.
    given: Mutex<BTreeMap<String, Value>>,
    /// Paths at which objects cannot be made, and with which code that fails.
    unmakeable: Mutex<BTreeMap<String, u64>>,
    /// Watches that are open, by path: where more is to be said.
    watches: Mutex<BTreeMap<String, Vec<TcpStream>>>,
    /// What was made here, by path.
    made: Mutex<BTreeMap<String, Vec<Value>>>,
    /// By path, how it was last asked for.
    asked_for: Mutex<BTreeMap<String, String>>,
    /// Told of each watch, each patch, and each object that is asked for.
    happened: Mutex<Sender<(String, Value)>>,
}

impl Server {
    /// Starts one. Of what happens at it, it tells: a path, and what was sent there.
    fn start() -> (Self, Happened) {
        Self::start_at(TcpListener::bind("127.0.0.1:0").expect("binds"))
    }

    fn start_at(listener: TcpListener) -> (Self, Happened) {
        let address = listener.local_addr().expect("has an address");
        let (happens, happened) = channel::channel();
        let state = State {
            address,
            given: Mutex::default(),
            unmakeable: Mutex::default(),
            watches: Mutex::default(),
            made: Mutex::default(),
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

    /// What a path has; for who asks for one by its name, there may be something else.
    fn given(&self, path: &str, query: &str) -> Option<Value> {
        let given = self.0.given.lock().expect("locks");
        let by_name = query.contains("fieldSelector=metadata.name").then(|| given.get(&format!("{path}?name")));
        by_name.flatten().or_else(|| given.get(path)).cloned()
    }

    /// Says something to the watch of a path, which is open.
    fn say(&self, path: &str, what: &str, object: &Value) {
        let watches = self.0.watches.lock().expect("locks");
        for mut watch in watches.get(path).expect("somebody watches") {
            writeln!(watch, "{}", json!({ "type": what, "object": object })).expect("writes");
        }
    }

    /// Breaks the watch of a path off, and forgets where it was: who watches must list anew.
    fn expire(&self, path: &str) {
        self.say(path, "ERROR", &json!({ "kind": "Status", "code": 410, "status": "Failure", "message": "expired" }));
        self.0.watches.lock().expect("locks").remove(path);
    }

    /// Closes the watch of a path, which may go on where it was.
    fn close(&self, path: &str) {
        for watch in self.0.watches.lock().expect("locks").remove(path).expect("somebody watches") {
            watch.shutdown(Shutdown::Both).expect("closes");
        }
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
            let given = self.given(path, query);
            let unmakeable = self.0.unmakeable.lock().expect("locks").get(path).copied();
            let is_given = matches!(given, Some(Value::Array(_) | Value::Object(_)));
            if is_given && query.contains("watch=") {
                let _ = write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
                // Of what was made since the list, it tells too.
                let _none_is_made = self.0.given.lock().expect("locks");
                for object in self.0.made.lock().expect("locks").get(path).into_iter().flatten() {
                    let _ = writeln!(writer, "{}", json!({ "type": "ADDED", "object": object }));
                }
                self.0.watches.lock().expect("locks").entry(path.into()).or_default().push(writer);
                let _ = happened(Value::Null);
                return;
            }
            let (code, text) = match given {
                Some(Value::Array(_)) if head[0].starts_with("POST") && unmakeable.is_some() => {
                    let refused = serde_json::from_slice(&body).expect("is JSON");
                    let _ = self.0.happened.lock().expect("locks").send(("refused".into(), refused));
                    let code = unmakeable.expect("there is one");
                    (code, status(code, "the account may not").to_string())
                }
                Some(Value::Array(_)) if head[0].starts_with("POST") => {
                    let made: Value = serde_json::from_slice(&body).expect("is JSON");
                    let answer = self.make(path, made.clone());
                    let _ = happened(made);
                    answer
                }
                Some(Value::Array(items)) => {
                    let list = json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": items });
                    (200, list.to_string())
                }
                Some(Value::Bool(begins)) => {
                    if begins {
                        let _ = write!(writer, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{{");
                    }
                    let _ = happened(Value::Null);
                    // Until whoever has asked goes away.
                    let _ = reader.read(&mut [0]);
                    return;
                }
                Some(Value::Null) => (403, status(403, "the account may not").to_string()),
                Some(Value::Number(code)) => {
                    let _ = happened(Value::Null);
                    let code = code.as_u64().expect("a code");
                    (code, status(code, "no").to_string())
                }
                Some(object) => {
                    let _ = happened(Value::Null);
                    (200, object.to_string())
                }
                None if head[0].starts_with("PATCH") && path.ends_with("/pods/p/status") => {
                    let _ = happened(serde_json::from_slice(&body).expect("is JSON"));
                    (200, pod("u1", 1).to_string())
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

    /// Makes an object, unless there is one of its name.
    fn make(&self, path: &str, mut object: Value) -> (u64, String) {
        let mut given = self.0.given.lock().expect("locks");
        let items = given[path].as_array().expect("a list").clone();
        if items.iter().any(|item| item["metadata"]["name"] == object["metadata"]["name"]) {
            return (409, status(409, "it is there").to_string());
        }
        object["metadata"]["resourceVersion"] = (items.len() + 10).to_string().into();
        object["metadata"]["creationTimestamp"] = "2026-01-02T03:04:05Z".into();
        given.insert(path.into(), items.into_iter().chain([object.clone()]).collect());
        if self.0.watches.lock().expect("locks").contains_key(path) {
            self.say(path, "ADDED", &object);
        }
        self.0.made.lock().expect("locks").entry(path.into()).or_default().push(object.clone());
        (201, object.to_string())
    }

    /// Follows this server. What is told of, and who asks.
    fn follow(&self) -> (Receiver<Vec<Change>>, Messenger) {
        self.follow_all(false)
    }

    /// The same, with Services or without.
    fn follow_all(&self, services: bool) -> (Receiver<Vec<Change>>, Messenger) {
        follow_at(self.0.address, services, None)
    }

    /// The same, without Services, and with less patience than others.
    fn follow_impatiently(&self) -> (Receiver<Vec<Change>>, Messenger) {
        follow_for(self.0.address, false, None, Duration::from_millis(500))
    }
}

/// Follows whoever serves an address.
fn follow_at(address: SocketAddr, services: bool, claimant: Option<Claimant>) -> (Receiver<Vec<Change>>, Messenger) {
    follow_for(address, services, claimant, client::PATIENCE)
}

/// The same, with so much patience for answers.
fn follow_for(
    address: SocketAddr,
    services: bool,
    claimant: Option<Claimant>,
    patience: Duration,
) -> (Receiver<Vec<Change>>, Messenger) {
    let (said, heard) = channel::channel();
    let (Kubernetes { asked, words, counts, announced, .. }, messenger) = Kubernetes::new(None);
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
        runtime.block_on(async {
            let uri = format!("http://{address}").parse().expect("a URI");
            let (client, server, given) = connect(&kube::Config::new(uri), patience).expect("a client");
            let tell = &mut |changes| said.send(changes).is_ok();
            let (absent, seen) = (ABSENT, SEEN);
            let listening = Listening { asked, words, counts, given, services, claimant, announced, absent, seen };
            follow(&client, server, listening, tell).await;
        });
    });
    (heard, messenger)
}

fn status(code: u64, message: &str) -> Value {
    let reason = if code == 403 { "Forbidden" } else { "Other" };
    json!({ "kind": "Status", "code": code, "status": "Failure", "reason": reason, "message": message })
}

fn body_of_policy() -> String {
    json!({ "apiVersion": API_VERSION, "kind": KIND, "metadata": { "name": "all" } }).to_string()
}

/// What is told of next, as words; notes are passed over.
fn next(heard: &Receiver<Vec<Change>>) -> Vec<String> {
    loop {
        let changes = heard.recv_timeout(PATIENCE).expect("it goes on");
        let words: Vec<String> = changes.iter().filter_map(word).collect();
        if !words.is_empty() {
            return words;
        }
    }
}

/// The next notes.
fn noted(heard: &Receiver<Vec<Change>>) -> Vec<String> {
    loop {
        let changes = heard.recv_timeout(PATIENCE).expect("it goes on");
        let mut notes =
            changes.into_iter().filter_map(|change| if let Change::Notes(notes) = change { Some(notes) } else { None });
        if let Some(notes) = notes.next() {
            return notes;
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

fn word(change: &Change) -> Option<String> {
    Some(match change {
        Change::Is(Object::Pod(pod)) => format!("Pod {} {} is", pod.pod.name, pod.pod.uid),
        Change::Is(object) => format!("{} is", object.name()),
        Change::Gone(name, uid) if uid.is_empty() => format!("{name} gone"),
        Change::Gone(name, uid) => format!("{name} {uid} gone"),
        Change::Wrong(error) => format!("{} wrong", error.object),
        Change::Problems(problems) => format!("problems: {}", problems.join(", ")),
        Change::Notes(_) => return None,
        Change::Listed => "listed".into(),
    })
}

fn wait_for(happened: &Happened, path: &str) -> Value {
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
fn of_a_kind_that_need_not_be_there_it_is_noted_how_to_have_it() {
    let (server, _happened) = Server::start();
    let (heard, _asker) = server.follow();
    let notes = noted(&heard);
    assert!(notes.len() == 1 && notes[0].contains("install its CustomResourceDefinition"), "{notes:?}");
    server.give(POLICIES, json!([policy(&json!([]))]));
    assert_eq!(noted(&heard), [""; 0]);
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

/// What policies deny that nobody can read is not let through as if there were none.
#[test]
fn a_kind_that_is_there_in_another_version_only_is_a_problem_and_what_was_known_of_it_stays() {
    let (server, happened) = Server::start();
    server.give(NODES, json!([node("a", 1)]));
    server.give(POLICIES, json!([policy(&json!([]))]));
    let (heard, _asker) = server.follow();
    let mut told = first(&heard);
    told.sort();
    assert_eq!(told, ["ClusterNetworkPolicy all is", "Node a is"]);
    wait_for(&happened, POLICIES);
    let group = json!({ "name": "policy.networking.k8s.io", "versions": [
        { "groupVersion": "policy.networking.k8s.io/v1beta1", "version": "v1beta1" },
    ]});
    let kind = json!({ "name": "clusternetworkpolicies", "singularName": "", "namespaced": false,
        "kind": "ClusterNetworkPolicy", "verbs": ["list"] });
    server.give("/apis", json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [group] }));
    server.give(
        "/apis/policy.networking.k8s.io/v1beta1",
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "policy.networking.k8s.io/v1beta1",
            "resources": [kind] }),
    );
    let newer = "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies";
    server.give(newer, json!([policy(&json!([]))]));
    server.0.given.lock().expect("locks").remove(POLICIES);
    server.expire(POLICIES);
    let told = next(&heard);
    assert!(told.len() == 1 && told[0].starts_with("problems: "), "{told:?}");
    assert!(told[0].contains("every ClusterNetworkPolicy in policy.networking.k8s.io/v1beta1 only"), "{told:?}");
    server.give(newer, json!([]));
    let mut told = next(&heard);
    while !told.contains(&"problems: ".to_owned()) {
        told.extend(next(&heard));
    }
    assert!(told.contains(&"ClusterNetworkPolicy all gone".to_owned()), "{told:?}");
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

/// All kinds that the server must have, and whose they are.
const KINDS: [(&str, &str, &str); 6] = [
    (NODES, "nodes", "\"\""),
    (PODS, "pods", "\"\""),
    ("/api/v1/namespaces", "namespaces", "\"\""),
    ("/api/v1/services", "services", "\"\""),
    ("/apis/discovery.k8s.io/v1/endpointslices", "endpointslices", "\"discovery.k8s.io\""),
    ("/apis/networking.k8s.io/v1/networkpolicies", "networkpolicies", "\"networking.k8s.io\""),
];

/// What is wrong, as soon as anything is.
fn first_problem(heard: &Receiver<Vec<Change>>) -> String {
    loop {
        for change in heard.recv_timeout(PATIENCE).expect("it goes on") {
            if let Change::Problems(problems) = change
                && let [problem] = &problems[..]
            {
                return problem.clone();
            }
        }
    }
}

#[test]
fn of_every_kind_it_is_told_that_it_may_not_be_seen_or_is_not_there() {
    let is_told = |(path, plural, group): (&str, &str, &str)| {
        let (server, _happened) = Server::start();
        KINDS.iter().for_each(|(path, ..)| server.give(path, json!([])));
        server.give(path, Value::Null);
        let (heard, _asker) = server.follow_all(true);
        let told = first_problem(&heard);
        assert!(told.contains(&format!("verbs list and watch on {plural} of the API group {group}")), "{told}");
        server.0.given.lock().expect("locks").remove(path);
        let told = loop {
            let told = first_problem(&heard);
            if told.contains("does not have") {
                break told;
            }
        };
        assert!(told.contains("Kubernetes 1.30 or later"), "{told}");
        server.give(path, json!([]));
        while !next(&heard).contains(&"listed".into()) {}
    };
    // Each waits for a while between two attempts.
    thread::scope(|scope| KINDS.iter().for_each(|kind| drop(scope.spawn(|| is_told(*kind)))));
}

#[test]
fn the_oldest_version_is_that_of_the_chart() {
    let chart = include_str!("../../../../manifests/helm/sluice/Chart.yaml");
    assert!(chart.contains(&format!("\nkubeVersion: \">={OLDEST}.0-0\"\n")), "{OLDEST} is not in {chart}");
}

#[test]
fn policies_that_nobody_enforces_are_told_of() {
    let (server, _happened) = Server::start();
    let kinds = ["AdminNetworkPolicy", "BaselineAdminNetworkPolicy"].map(|kind| {
        json!({ "name": kind.to_lowercase(), "singularName": "", "namespaced": false, "kind": kind, "verbs": ["list"] })
    });
    let list =
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": ADMIN_POLICIES, "resources": [] });
    let mut filled = list.clone();
    filled["resources"] = json!(kinds);
    server.give(&format!("/apis/{ADMIN_POLICIES}"), filled);
    let (heard, _asker) = server.follow();
    let told = first_problem(&heard);
    assert!(
        told.contains("AdminNetworkPolicy and BaselineAdminNetworkPolicy of policy.networking.k8s.io/v1alpha1"),
        "{told}"
    );
    assert!(told.contains("ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2"), "{told}");
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
fn a_server_that_is_not_there_is_a_problem_until_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    drop(listener);
    let (heard, _asker) = follow_at(address, false, None);
    let told = next(&heard);
    let problem = format!("problems: the API server http://{address} tells nothing: Connection refused");
    assert!(told.len() == 1 && told[0].starts_with(&problem), "{told:?}");
    assert!(told[0].contains("no pod is added"), "{told:?}");
    let (server, _happened) = Server::start_at(TcpListener::bind(address).expect("binds"));
    server.give(NODES, json!([node("a", 1)]));
    let mut awaited = BTreeSet::from(["listed", "problems: "]);
    while !awaited.is_empty() {
        next(&heard).iter().for_each(|word| {
            awaited.remove(&**word);
        });
    }
}

/// A watch that goes on may say nothing for hours.
#[test]
fn a_server_that_is_back_is_no_problem_though_nothing_has_changed() {
    let (server, happened) = Server::start();
    server.give(NODES, json!([node("a", 1)]));
    let (heard, _asker) = server.follow();
    assert_eq!(first(&heard), ["Node a is"]);
    for (code, says, remedy) in [(503, "it answers 503 (no)", "see what is wrong"), (401, "401", "a service account")] {
        wait_for(&happened, NODES);
        server.give(NODES, json!(code));
        server.close(NODES);
        let told = next(&heard);
        assert!(told.len() == 1 && told[0].contains(says) && told[0].contains(remedy), "{told:?}");
        assert!(told[0].contains("what it said last stays in force since "), "{told:?}");
        while !server.0.watches.lock().expect("locks").contains_key(NODES) {
            server.give(NODES, json!([node("a", 1)]));
            wait_for(&happened, NODES);
        }
        assert_eq!(next(&heard), ["problems: "]);
        server.close(NODES);
    }
}

/// Its machine still acknowledges what it is sent.
#[test]
fn a_server_that_owes_an_answer_is_a_problem_and_asked_again() {
    for begins in [false, true] {
        let (server, _happened) = Server::start();
        server.give(NODES, json!(begins));
        let (heard, _asker) = server.follow_impatiently();
        let told = first_problem(&heard);
        assert!(told.contains("does not answer; see what is wrong with it"), "{told}");
        server.give(NODES, json!([node("a", 1)]));
        let mut awaited = BTreeSet::from(["Node a is", "listed", "problems: "]);
        while !awaited.is_empty() {
            next(&heard).iter().for_each(|word| {
                awaited.remove(&**word);
            });
        }
    }
}

/// A watch may have nothing to say for as long as it likes.
#[test]
fn a_watch_owes_nothing() {
    let (server, happened) = Server::start();
    server.give(NODES, json!([node("a", 1)]));
    let (heard, _asker) = server.follow_impatiently();
    assert_eq!(first(&heard), ["Node a is"]);
    wait_for(&happened, NODES);
    assert!(heard.recv_timeout(Duration::from_secs(2)).is_err(), "nothing is wrong");
    server.say(NODES, "DELETED", &node("a", 2));
    assert_eq!(next(&heard), ["Node a gone"]);
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
fn a_watch_that_has_expired_is_followed_by_a_listing_at_once() {
    let mut patience = Patience::default();
    let waits: Vec<Duration> = (0..8).filter_map(|_| patience.next()).collect();
    patience.has_expired.store(true, Ordering::Relaxed);
    let wait = patience.next().expect("it does not give up");
    assert!(wait < waits[7] / 5, "{wait:?} after {waits:?}");
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

#[test]
fn who_may_ask_for_no_pod_is_told_which_verb_he_lacks_until_he_may() {
    let (server, happened, heard, asker) = with_a_pod();
    let path = "/api/v1/namespaces/x/pods/p";
    server.give(path, Value::Null);
    asker.ask(PodName::new("x", "p"), "u2".into());
    let told = next(&heard);
    assert!(told.len() == 1 && told[0].contains("the verb get on pods"), "{told:?}");
    server.give(path, pod("u2", 9));
    wait_for(&happened, path);
    let mut awaited = BTreeSet::from(["Pod x/p u2 is", "problems: "]);
    while !awaited.is_empty() {
        next(&heard).iter().for_each(|word| {
            awaited.remove(&**word);
        });
    }
}

/// One that begins to answer about a pod and does not end is asked again while the pod is waited for.
#[test]
fn a_question_about_a_pod_that_is_not_answered_is_asked_again() {
    let (server, happened, heard, asker) = with_a_pod();
    let path = "/api/v1/namespaces/x/pods/p";
    server.give(path, json!(true));
    asker.ask(PodName::new("x", "p"), "u2".into());
    wait_for(&happened, path);
    server.give(path, pod("u2", 9));
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

#[test]
fn who_may_not_write_the_status_of_a_policy_is_told_which_verb_he_lacks_and_tries_again() {
    let (server, happened) = Server::start();
    let path = format!("{POLICIES}/all/status");
    server.give(&path, Value::Null);
    server.give(POLICIES, json!([policy(&json!([{ "action": "Deny", "to": [{ "domainNames": ["a.example"] }] }]))]));
    let (heard, _asker) = server.follow();
    let told = first_problem(&heard);
    assert!(told.contains("the verb patch on clusternetworkpolicies/status"), "{told}");
    server.0.given.lock().expect("locks").remove(&path);
    assert_eq!(wait_for(&happened, &path)["status"]["conditions"][0]["type"], "sluice.dev/Supported");
    while !next(&heard).contains(&"problems: ".into()) {}
}

#[test]
fn what_was_to_be_written_into_a_policy_that_is_gone_is_no_problem_any_more() {
    let (server, happened) = Server::start();
    let path = format!("{POLICIES}/all/status");
    let names = policy(&json!([{ "action": "Deny", "to": [{ "domainNames": ["a.example"] }] }]));
    server.give(&path, Value::Null);
    server.give(POLICIES, json!([names]));
    let (heard, _asker) = server.follow();
    first_problem(&heard);
    wait_for(&happened, POLICIES);
    server.say(POLICIES, "DELETED", &names);
    let mut awaited = BTreeSet::from(["ClusterNetworkPolicy all c1 gone", "problems: "]);
    while !awaited.is_empty() {
        next(&heard).iter().for_each(|word| {
            awaited.remove(&**word);
        });
    }
}

const STATUS: &str = "/api/v1/namespaces/x/pods/p/status";

/// A server that has a pod, somebody who follows it, and who tells it something.
fn with_a_pod() -> (Server, Happened, Receiver<Vec<Change>>, Messenger) {
    let (server, happened) = Server::start();
    server.give(PODS, json!([pod("u1", 1)]));
    let (heard, messenger) = server.follow();
    assert_eq!(first(&heard), ["Pod x/p u1 is"]);
    wait_for(&happened, PODS);
    (server, happened, heard, messenger)
}

fn publish(messenger: &Messenger, addresses: &[&str]) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().expect("an address")).collect();
    messenger.publish(PodName::new("x", "p"), "u1".into(), &addresses);
}

/// What is told of the pod's addresses next.
fn next_addresses(heard: &Receiver<Vec<Change>>) -> Vec<String> {
    loop {
        let changes = heard.recv_timeout(PATIENCE).expect("it goes on");
        let pods = changes.into_iter().filter_map(|change| match change {
            Change::Is(Object::Pod(pod)) => Some(pod.pod.addresses),
            _ => None,
        });
        if let Some(addresses) = pods.last() {
            return addresses.iter().map(ToString::to_string).collect();
        }
    }
}

#[test]
fn announced_addresses_count_once_they_are_known_to_be_of_the_nodes_pod_cidrs() {
    let (server, happened) = Server::start();
    let (heard, _messenger) = server.follow();
    let mut watches = BTreeSet::from([NODES, PODS]);
    while !watches.is_empty() {
        let (path, _) = happened.recv_timeout(PATIENCE).expect("they begin");
        watches.remove(&*path);
    }
    let mut announced = pod("u1", 2);
    announced["status"]["conditions"] =
        json!([{ "type": "sluice.dev/Addresses", "status": "True", "message": "10.1.0.7,2001:db8::7" }]);
    server.say(PODS, "ADDED", &announced);
    assert_eq!(next_addresses(&heard), [""; 0]);
    let mut node = node("a", 2);
    node["spec"] = json!({ "podCIDRs": ["10.1.0.0/24"] });
    server.say(NODES, "ADDED", &node);
    assert_eq!(next_addresses(&heard), ["10.1.0.7"]);
}

/// What a patch says.
fn condition(patch: &Value) -> (&Value, &Value, &Value) {
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(condition["type"], "sluice.dev/Addresses");
    (&patch["metadata"]["uid"], &condition["message"], &condition["$patch"])
}

#[test]
fn a_pods_addresses_stand_on_its_object_until_they_are_anothers() {
    let (_server, happened, _heard, messenger) = with_a_pod();
    publish(&messenger, &["10.1.0.1", "fd00::1"]);
    let patch = wait_for(&happened, STATUS);
    assert_eq!(condition(&patch), (&json!("u1"), &json!("10.1.0.1,fd00::1"), &Value::Null));
    publish(&messenger, &["10.1.0.2"]);
    assert_eq!(condition(&wait_for(&happened, STATUS)).1, "10.1.0.2", "it has other ones");
    publish(&messenger, &[]);
    let patch = wait_for(&happened, STATUS);
    assert_eq!(condition(&patch), (&json!("u1"), &Value::Null, &json!("delete")));
    assert_eq!(messenger.published()[1], 0);
}

/// The pod of a server, of which its kubelet says an address.
fn told_of(address: &str, version: u32) -> Value {
    let mut told = pod("u1", version);
    told["status"] = json!({ "podIP": address, "podIPs": [{ "ip": address }] });
    told
}

#[test]
fn what_the_kubelet_has_said_is_not_said_again_unless_it_is_of_a_sandbox_before() {
    let (server, happened, heard, messenger) = with_a_pod();
    server.give(STATUS, json!(503));
    publish(&messenger, &["10.1.0.2"]);
    wait_for(&happened, STATUS);
    server.say(PODS, "MODIFIED", &told_of("10.1.0.1", 2));
    assert_eq!(next(&heard), ["Pod x/p u1 is"]);
    wait_for(&happened, STATUS);
    server.say(PODS, "MODIFIED", &told_of("10.1.0.2", 3));
    assert_eq!(next(&heard), ["Pod x/p u1 is"]);
    server.0.given.lock().expect("locks").remove(STATUS);
    while let Ok((_, patch)) = happened.recv_timeout(Duration::from_secs(4)) {
        assert!(patch.is_null(), "{patch} is said again");
    }
}

/// The kubelet says no addresses while a pod is given another sandbox: those of the one before may be another pod's by then.
#[test]
fn addresses_are_taken_back_whoever_has_said_them_unless_the_object_goes() {
    let (server, happened, heard, messenger) = with_a_pod();
    server.say(PODS, "MODIFIED", &told_of("10.1.0.1", 2));
    assert_eq!(next(&heard), ["Pod x/p u1 is"]);
    publish(&messenger, &[]);
    assert_eq!(condition(&wait_for(&happened, STATUS)).2, "delete", "an agent before has said it");
    publish(&messenger, &["10.1.0.2"]);
    assert_eq!(condition(&wait_for(&happened, STATUS)).1, "10.1.0.2");
    let mut ending = told_of("10.1.0.2", 3);
    ending["metadata"]["deletionTimestamp"] = "2025-03-01T09:00:00Z".into();
    server.say(PODS, "MODIFIED", &ending);
    assert_eq!(next(&heard), ["Pod x/p u1 is"]);
    publish(&messenger, &[]);
    assert!(happened.recv_timeout(Duration::from_secs(1)).is_err(), "it is taken back");
}

#[test]
fn who_may_not_say_addresses_is_told_which_verb_he_lacks_and_tries_again() {
    // By authorization, and by admission.
    for refusal in [Value::Null, json!(422)] {
        let (server, happened, heard, messenger) = with_a_pod();
        server.give(STATUS, refusal);
        publish(&messenger, &["10.1.0.1"]);
        let told = next(&heard);
        assert!(told.len() == 1 && told[0].contains("the verb patch on pods/status"), "{told:?}");
        assert_eq!(messenger.published()[0], 0);
        server.0.given.lock().expect("locks").remove(STATUS);
        wait_for(&happened, STATUS);
        assert_eq!(next(&heard), ["problems: "]);
        assert!(messenger.published()[1] > 0);
    }
}

#[test]
fn whether_addresses_may_be_said_is_tried_with_a_pod_of_the_node_and_nothing_is_changed() {
    let (server, happened) = Server::start();
    let uri: Uri = format!("http://{}", server.0.address).parse().expect("a URI");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("builds");
    let refusal = || {
        let (client, ..) =
            runtime.block_on(async { connect(&kube::Config::new(uri.clone()), client::PATIENCE) }).expect("a client");
        runtime.block_on(publish::refusal(&client, "a"))
    };
    assert_eq!(refusal(), None, "there is no pod to try it with");
    server.give(PODS, json!([pod("u1", 1)]));
    assert_eq!(refusal(), None);
    assert_eq!(condition(&wait_for(&happened, STATUS)).2, "delete");
    let asked_for = |path: &str| server.0.asked_for.lock().expect("locks")[path].clone();
    assert!(asked_for(STATUS).contains("dryRun=All"), "{}", asked_for(STATUS));
    assert!(asked_for(PODS).contains("fieldSelector=spec.nodeName%3Da"), "{}", asked_for(PODS));
    server.give(STATUS, Value::Null);
    let refused = refusal().expect("admission says no");
    assert!(refused.contains("no admission policy or webhook denies it"), "{refused}");
    server.give(STATUS, json!(503));
    assert_eq!(refusal(), None, "that is no refusal");
}

/// Kubelets write to the same status.
#[test]
fn addresses_are_said_again_after_a_conflict_and_where_there_is_no_answer() {
    let (server, happened) = Server::start();
    server.give(PODS, json!([pod("u1", 1)]));
    let (heard, messenger) = server.follow_impatiently();
    assert_eq!(first(&heard), ["Pod x/p u1 is"]);
    for trouble in [json!(409), json!(false)] {
        server.give(STATUS, trouble);
        publish(&messenger, &["10.1.0.1"]);
        assert_eq!(wait_for(&happened, STATUS), Value::Null);
        server.0.given.lock().expect("locks").remove(STATUS);
        while wait_for(&happened, STATUS).is_null() {}
    }
}

#[test]
fn who_has_conflicts_only_is_another() {
    let (server, happened, _heard, messenger) = with_a_pod();
    server.give(STATUS, json!(409));
    publish(&messenger, &["10.1.0.1"]);
    for _ in 0..publish::CONFLICTS {
        wait_for(&happened, STATUS);
    }
    server.0.given.lock().expect("locks").remove(STATUS);
    publish(&messenger, &["10.1.0.2"]);
    assert_eq!(condition(&wait_for(&happened, STATUS)).1, "10.1.0.2", "it has another one, which may be said");
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

/// The agent of a node, with a pool of two blocks.
fn claimant(server: &Server, node: &str) -> Receiver<Vec<Change>> {
    let range = Range { cidr: "10.78.0.0/23".parse().expect("a CIDR"), block: 24 };
    let claimant =
        Claimant { pool: Pool(vec![range]), node: node.into(), in_use: Box::new(|| Ok(Vec::new())), takes: true };
    follow_at(server.0.address, false, Some(claimant)).0
}

fn node_with_uid(name: &str) -> Value {
    let mut node = node(name, 1);
    node["metadata"]["uid"] = format!("u-{name}").into();
    node
}

/// The pod CIDRs of a node, once it has some, and what is wrong until then.
fn pod_cidrs(heard: &Receiver<Vec<Change>>, name: &str) -> (String, Vec<String>) {
    let mut wrong = Vec::new();
    loop {
        for change in heard.recv_timeout(PATIENCE).expect("it goes on") {
            match change {
                Change::Is(Object::Node(_, ways)) if ways.name == name && !ways.pod_cidrs.is_empty() => {
                    return (ways.pod_cidrs.iter().map(ToString::to_string).collect(), wrong);
                }
                Change::Problems(problems) => wrong.extend(problems),
                _ => {}
            }
        }
    }
}

#[test]
fn agents_that_start_at_once_take_different_blocks_and_see_each_others() {
    let (server, _happened) = Server::start();
    server.give(NODES, json!([node_with_uid("a"), node_with_uid("b")]));
    server.give(LEASES, json!([]));
    let [a, b] = ["a", "b"].map(|name| claimant(&server, name));
    let own = [pod_cidrs(&a, "a").0, pod_cidrs(&b, "b").0];
    assert_ne!(own[0], own[1]);
    let c = claimant(&server, "a");
    let seen = pod_cidrs(&c, "b").0;
    assert_eq!(seen, own[1]);
    let leases = server.0.given.lock().expect("locks")[LEASES].clone();
    let owners: BTreeSet<String> = leases
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| it["metadata"]["ownerReferences"][0]["uid"].to_string())
        .collect();
    assert_eq!(owners, ["\"u-a\"".to_owned(), "\"u-b\"".to_owned()].into(), "{leases}");
}

#[test]
fn who_may_take_no_block_is_told_which_verb_he_lacks() {
    let (server, happened) = Server::start();
    server.give(NODES, json!([node_with_uid("a")]));
    server.give(LEASES, json!([]));
    server.0.unmakeable.lock().expect("locks").insert(LEASES.into(), 403);
    let heard = claimant(&server, "a");
    for _ in 0..REFUSALS {
        wait_for(&happened, "refused");
    }
    server.0.unmakeable.lock().expect("locks").clear();
    let (cidrs, wrong) = pod_cidrs(&heard, "a");
    assert!(["10.78.0.0/24", "10.78.1.0/24"].contains(&&*cidrs), "{cidrs}");
    assert!(wrong.iter().any(|what| what.contains("the verb create on leases")), "{wrong:?}");
}

#[test]
fn a_block_whose_lease_is_removed_is_taken_again() {
    let (server, happened) = Server::start();
    server.give(NODES, json!([node_with_uid("a")]));
    server.give(LEASES, json!([]));
    let heard = claimant(&server, "a");
    let before = pod_cidrs(&heard, "a").0;
    let lease = server.0.given.lock().expect("locks")[LEASES][0].clone();
    server.give(LEASES, json!([]));
    while happened.try_recv().is_ok() {}
    server.say(LEASES, "DELETED", &lease);
    let again = wait_for(&happened, LEASES);
    assert_eq!(again["metadata"]["name"], lease["metadata"]["name"]);
    assert_eq!(pod_cidrs(&heard, "a").0, before);
}

/// The watch may be late, and the Lease this node's own, of which it had no answer.
#[test]
fn a_block_that_is_there_is_strange_only_where_the_watch_will_not_tell_of_it() {
    for label in ["sluice.dev/pod-cidr", "other"] {
        let (server, happened) = Server::start();
        server.give(NODES, json!([node_with_uid("a")]));
        server.give(LEASES, json!([]));
        server.0.unmakeable.lock().expect("locks").insert(LEASES.into(), 409);
        let heard = claimant(&server, "a");
        let first = wait_for(&happened, "refused")["metadata"]["name"].clone();
        let lease = json!({ "metadata": { "name": first, "labels": { label: "taken" } } });
        server.give(&format!("{LEASES}?name"), json!([lease]));
        let others = (0..3).map(|_| wait_for(&happened, "refused")["metadata"]["name"].clone());
        assert_eq!(others.into_iter().any(|name| name != first), label == "other", "{label}");
        drop(heard);
    }
}

fn told(heard: Vec<Heard<Pod>>) -> Vec<String> {
    let mut known = Known::default();
    let mut words = Vec::new();
    for heard in heard {
        let told = known.hear(heard);
        words.extend(told.changes.iter().map(|tiding| match tiding {
            Tiding::Object(change) => word(change).expect("no notes"),
            Tiding::Block(change) => panic!("{change:?}"),
        }));
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

#[test]
fn certificate_authorities_are_asked_for_only_where_a_certificate_is_looked_at() {
    let trusted = |url: &str, accept_invalid_certs, named: Option<Vec<Vec<u8>>>| {
        let mut config = kube::Config::new(url.parse().expect("a URI"));
        config.accept_invalid_certs = accept_invalid_certs;
        config.root_cert = named;
        trust_nobody_in_vain(&mut config);
        config.root_cert.map(|certificates| certificates.len())
    };
    assert_eq!(trusted("http://192.0.2.1", false, None), Some(0));
    assert_eq!(trusted("https://192.0.2.1", true, None), Some(0));
    assert_eq!(trusted("https://192.0.2.1", false, None), None, "the system's");
    assert_eq!(trusted("https://192.0.2.1", false, Some(vec![vec![1]])), Some(1), "the cluster's");
}

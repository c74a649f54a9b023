//! The real functions on small directories.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use sluice_policy::Evaluator;
use sluice_policy::question::{self, Answered, Expected, Probe, Traffic};

use super::matrix::Reply;
use super::{cluster, explain, matrix};

/// The example of the API's documentation, and pods to ask about.
const EXAMPLE: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: test-network-policy, namespace: default}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
    - namespaceSelector: {matchLabels: {project: myproject}}
    - podSelector: {matchLabels: {role: frontend}}
    ports: [{protocol: TCP, port: 6379}]
  egress:
  - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
    ports: [{protocol: TCP, port: 5978}]
"#;

const PODS: &str = r#"
kind: NamespaceList
items:
- metadata: {name: default}
- metadata: {name: mine, labels: {project: myproject}}
---
kind: List
items:
- kind: Pod
  metadata: {name: db, namespace: default, labels: {role: db}}
  spec: {nodeName: n, containers: [{name: c, ports: [{containerPort: 6379}]}]}
  status: {podIPs: [{ip: 10.9.0.1}, {ip: "fd00::1"}]}
- kind: Pod
  metadata: {name: front, namespace: default, labels: {role: frontend}}
  spec: {nodeName: n, containers: [{name: c}]}
  status: {podIPs: [{ip: 10.9.0.2}, {ip: "fd00::2"}]}
- kind: Pod
  metadata: {name: other, namespace: default}
  spec: {nodeName: n, containers: [{name: c}]}
  status: {podIPs: [{ip: 10.9.0.3}]}
- kind: Pod
  metadata: {name: any, namespace: mine}
  spec: {nodeName: n, containers: [{name: c}]}
  status: {podIPs: [{ip: 10.9.1.1}]}
- {kind: Node, metadata: {name: n}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
- {kind: Service, metadata: {name: passed-over}}
"#;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn example() -> TempDir {
    directory(&[("policy.yaml", EXAMPLE), ("pods.yml", PODS), ("notes.txt", "kind: nothing")])
}

fn ask(directory: &Path, probes: &str) -> anyhow::Result<Vec<Reply>> {
    let file = directory.join("probes.jsonl");
    fs::write(&file, probes).unwrap();
    matrix::probes(&cluster::read(directory)?, &file)
}

#[test]
fn probes_of_the_well_known_example_are_answered_in_their_order() {
    let lines: Vec<String> = [
        ("172.17.0.1", "default/db", 6379, "allow"),
        ("172.17.1.1", "default/db", 6379, "deny"),
        ("mine/any", "default/db", 6379, "allow"),
        ("default/front", "default/db", 6379, "allow"),
        ("default/front", "default/db", 6380, "deny"),
        ("default/other", "10.9.0.1", 6379, "deny"),
        ("192.0.2.1", "default/db", 22, "allow"),
        ("default/db", "10.0.0.7", 5978, "allow"),
        ("default/db", "10.0.0.7", 5979, "deny"),
        ("default/db", "default/front", 5978, "deny"),
        ("default/db", "default/db", 1, "allow"),
    ]
    .iter()
    .map(|(from, to, port, expect)| {
        serde_json::json!({ "from": from, "to": to, "port": port, "protocol": "TCP", "expect": expect }).to_string()
    })
    .collect();
    let directory = example();
    let answers = ask(directory.path(), &lines.join("\n")).unwrap();
    assert_eq!(answers.len(), lines.len());
    assert_eq!(matrix::surprises(&answers), [""; 0]);
    let json = serde_json::to_value(&answers[1]).unwrap();
    assert_eq!((&json["from"], &json["verdict"]), (&"172.17.1.1".into(), &"deny".into()));
    assert_eq!((&json["egress"]["verdict"], &json["egress"]["policy"]), (&"allow".into(), &serde_json::Value::Null));
    assert_eq!(json["ingress"]["policy"]["name"], "test-network-policy");
    assert_eq!(json["ingress"]["policy"]["rule"], serde_json::Value::Null);
    let allowed = serde_json::to_value(&answers[0]).unwrap();
    assert_eq!(allowed["ingress"]["policy"]["rule"], 0);
    let wrong = ask(directory.path(), &lines[1].replace("deny", "allow")).unwrap();
    let surprises = matrix::surprises(&wrong);
    assert!(surprises.len() == 1 && surprises[0].contains("expected allow, found deny"), "{surprises:?}");
}

#[test]
fn probes_have_the_answers_of_the_whole_cluster() {
    let directory = example();
    let whole = cluster::read(directory.path()).unwrap();
    let pods: Vec<String> = whole.pods().map(|pod| pod.name.to_string()).collect();
    let addresses = ["10.9.0.1", "10.9.1.1", "172.17.0.1", "192.0.2.1", "203.0.113.1"];
    let ends = || pods.iter().map(String::as_str).chain(addresses);
    let pairs = ends().flat_map(|from| ends().map(move |to| (from.to_owned(), to.to_owned())));
    let probes: Vec<Probe> =
        pairs.map(|(from, to)| Probe { from, to, traffic: "6379/TCP".parse().unwrap(), expect: None }).collect();
    let line = |probe: &Probe| serde_json::json!({ "from": probe.from, "to": probe.to, "port": 6379 }).to_string();
    let file = directory.path().join("probes.jsonl");
    fs::write(&file, probes.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let evaluator = Evaluator::new(&whole);
    let expected: Vec<Answered> = probes.iter().map(|probe| probe.ask_once(&whole, &evaluator).unwrap()).collect();
    let uncompiled = cluster::read_for_excerpts(directory.path()).unwrap();
    assert_eq!(uncompiled.counts().rules, 0);
    let replies = matrix::probes(&uncompiled, &file).unwrap();
    assert!(replies.iter().map(Reply::answered).eq(expected.iter().map(Some)));
    for verdict in [Expected::Allow, Expected::Deny] {
        assert!(expected.iter().any(|answer| answer.verdict == verdict));
    }
}

#[test]
fn a_matrix_has_every_pair_family_and_port() {
    let directory = example();
    let index = cluster::read(directory.path()).unwrap();
    let declared = matrix::every_pair(&index, &[]).unwrap();
    let declared: Vec<&Answered> = declared.iter().filter_map(Reply::answered).collect();
    assert!(declared.iter().all(|answer| answer.to == "default/db" && answer.port == 6379));
    assert_eq!(declared.len(), 6, "four senders over IPv4, two over IPv6");
    let denied: Vec<&str> =
        declared.iter().filter(|it| it.verdict == Expected::Deny).map(|it| it.from.as_str()).collect();
    assert_eq!(denied, ["default/other"]);
    let ports: Vec<Traffic> = ["80/TCP", "53/UDP", "ICMP"].iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(matrix::every_pair(&index, &ports).unwrap().len(), 3 * (16 + 4));
}

#[test]
fn what_makes_no_sense_is_named_with_file_and_line() {
    let bad = EXAMPLE.replace("10.0.0.0/24", "10.0.0.1/24");
    let broken = directory(&[("a.yaml", &bad), ("b.yaml", "kind: Pod\nmetadata: []\n")]);
    let error = cluster::read(broken.path()).unwrap_err().to_string();
    assert!(error.contains("a.yaml:2: NetworkPolicy default/test-network-policy: spec.egress[0].to[0]"), "{error}");
    assert!(error.contains("b.yaml:1: Pod: metadata: invalid type: "), "{error}");
    let directory = example();
    let probes = "{\"from\":\"default/nobody\",\"to\":\"default/db\",\"port\":1}\n\n{\"from\":\"x\"}\n{\"from\":\"10.0.0.1\",\"to\":\"fd00::9\",\"port\":1}";
    let replies = ask(directory.path(), probes).unwrap();
    let errors = matrix::errors(&replies, Path::new("p"));
    for (error, start) in errors.iter().zip(["p:1: there is no pod default/nobody", "p:3: ", "p:4: "]) {
        assert!(error.starts_with(start), "{error}");
    }
    assert_eq!(errors.len(), 3);
    assert!("80/HTTP".parse::<Traffic>().is_err() && "web".parse::<Traffic>().is_err());
}

#[test]
fn a_probe_without_an_answer_takes_no_other_one_along() {
    let homeless = "{kind: Pod, metadata: {name: homeless}, spec: {containers: []}}";
    let directory = directory(&[("policy.yaml", EXAMPLE), ("pods.yml", PODS), ("more.yaml", homeless)]);
    let probe = |from: &str, to: &str| json!({ "from": from, "to": to, "port": 6379 }).to_string();
    let probes = [
        probe("default/front", "default/db"),
        probe("default/homeless", "default/db"),
        probe("mine/any", "fd00::7"),
        json!({ "from": "default/front", "to": "default/db", "protocol": "HTTP", "port": 80, "expect": "deny" })
            .to_string(),
        probe("default/other", "default/db"),
    ];
    let replies = ask(directory.path(), &probes.join("\n")).unwrap();
    let json: Vec<Value> = replies.iter().map(|reply| serde_json::to_value(reply).unwrap()).collect();
    let verdicts: Vec<&Value> = json.iter().map(|reply| &reply["verdict"]).collect();
    assert_eq!(verdicts, [&json!("allow"), &Value::Null, &Value::Null, &Value::Null, &json!("deny")]);
    let expected = json!({ "from": "default/homeless", "to": "default/db", "port": 6379, "error": "pod default/homeless has no IPv4 address" });
    assert_eq!(json[1], expected);
    assert_eq!((&json[3]["protocol"], &json[3]["expect"]), (&json!("HTTP"), &json!("deny")));
    assert_eq!(matrix::errors(&replies, Path::new("p")).len(), 3);
}

#[test]
fn addresses_of_different_families_mean_their_pods() {
    let directory = example();
    let ask = |from: &str, to: &str| {
        let replies = ask(directory.path(), &json!({ "from": from, "to": to, "port": 6379 }).to_string()).unwrap();
        replies[0].answered().map(|answer| answer.verdict)
    };
    assert_eq!(ask("10.9.0.2", "fd00::1"), Some(Expected::Allow), "front and db have both families");
    assert_eq!(ask("10.9.0.3", "fd00::1"), Some(Expected::Deny), "other has only IPv4");
    assert_eq!(ask("10.9.9.9", "fd00::1"), Some(Expected::Deny), "from outside");
    assert_eq!(ask("10.9.9.9", "fd00::9"), None, "nobody has both");
    let index = cluster::read(directory.path()).unwrap();
    let probe =
        Probe { from: "10.9.0.2".into(), to: "fd00::1".into(), traffic: "6379/TCP".parse().unwrap(), expect: None };
    assert_eq!(question::explain(&index, &probe).unwrap().len(), 2, "over each family");
}

#[test]
fn of_objects_that_are_written_twice_the_first_counts() {
    let policy = |ports: &str| {
        format!(
            "kind: NetworkPolicy\nmetadata: {{name: p}}\nspec: {{podSelector: {{}}, ingress: [{{ports: [{ports}]}}]}}\n"
        )
    };
    let (first, other) = (policy("{port: 80}"), policy("{port: 81}"));
    let directory =
        directory(&[("a.yaml", &first), ("b.yaml", &format!("---\n{first}---\n{other}")), ("pods.yml", PODS)]);
    let warnings = cluster::contents(directory.path()).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for part in ["b.yaml:6: NetworkPolicy default/p ", "a.yaml:1"] {
        assert!(warnings[0].contains(part), "{warnings:?}");
    }
    let probe = |port: u16| json!({ "from": "10.0.0.7", "to": "default/db", "port": port }).to_string();
    let replies = ask(directory.path(), &format!("{}\n{}", probe(80), probe(81))).unwrap();
    let verdicts: Vec<_> = replies.iter().filter_map(Reply::answered).map(|answer| answer.verdict).collect();
    assert_eq!(verdicts, [Expected::Allow, Expected::Deny]);
}

#[test]
fn an_explanation_goes_through_the_rules_in_their_order() {
    let directory = example();
    let index = cluster::read(directory.path()).unwrap();
    let ask = |from: &str, port: &str| {
        let probe = Probe { from: from.into(), to: "default/db".into(), traffic: port.parse().unwrap(), expect: None };
        let lines: Vec<String> = question::explain(&index, &probe).unwrap().iter().flat_map(explain::lines).collect();
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect::<Vec<_>>().join("\n")
    };
    let allowed = ask("default/front", "6379/TCP");
    assert!(allowed.contains("over IPv4: allow") && allowed.contains("over IPv6: allow"), "{allowed}");
    assert!(allowed.contains("rule 0 matches and decides: accepts"), "{allowed}");
    assert!(ask("default/front", "80/TCP").contains("rule 0 is about other ports or protocols"));
    let denied = ask("default/other", "6379/TCP");
    let isolated = "isolates the pod and decides: what no rule accepts is denied\n      rule 0 is about other peers";
    assert!(denied.contains(isolated), "{denied}");
}

#[test]
fn an_explanation_says_what_decides_and_what_is_not_asked() {
    let namespaces = |name: &str, tier: &str, priority: u16, rules: &str| {
        let metadata = format!("kind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\n");
        let spec = format!("tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, ingress: [{rules}]");
        format!("{metadata}spec: {{{spec}}}\n---\n")
    };
    let rule = |action: &str| format!("{{name: {action}-all, action: {action}, from: [{{namespaces: {{}}}}]}}");
    let policies = [
        namespaces("first", "Admin", 1, &format!("{}, {}", rule("Pass"), rule("Deny"))),
        namespaces("second", "Admin", 2, &rule("Accept")),
        "{kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {}}}\n---\n".to_owned(),
        "{kind: NetworkPolicy, metadata: {name: b}, spec: {podSelector: {}, ingress: [{}, {}]}}\n---\n".to_owned(),
        "{kind: NetworkPolicy, metadata: {name: c}, spec: {podSelector: {}, ingress: [{}]}}\n---\n".to_owned(),
        namespaces("last", "Baseline", 1, &rule("Deny")),
    ];
    let steps = |policies: &[String], from: &str| {
        let directory = directory(&[("policies.yaml", &policies.concat()), ("pods.yml", PODS)]);
        let index = cluster::read(directory.path()).unwrap();
        let traffic = "80/TCP".parse().unwrap();
        let explained =
            question::explain(&index, &Probe { from: from.into(), to: "default/db".into(), traffic, expect: None });
        explained.unwrap().swap_remove(0)
    };
    let ingress = |policies: &[String], from: &str| {
        let lines: Vec<String> = explain::lines(&steps(policies, from)).iter().map(|line| line.trim().into()).collect();
        let from = lines.iter().position(|line| line.starts_with("ingress: ")).unwrap() + 1;
        lines[from..].join("\n")
    };
    let passed = "ClusterNetworkPolicy first selects the pod\n\
        rule 0 (Pass-all) matches: passes to the next tier\n\
        rule 1 (Deny-all) is not asked\n\
        ClusterNetworkPolicy second is not asked\n\
        NetworkPolicy default/a selects and isolates the pod\n\
        NetworkPolicy default/b selects and isolates the pod\n\
        rule 0 matches and decides: accepts\n\
        rule 1 is not asked\n\
        NetworkPolicy default/c is not asked\n\
        ClusterNetworkPolicy last is not asked";
    assert_eq!(ingress(&policies, "default/front"), passed);
    let baseline = "ClusterNetworkPolicy last selects the pod\nrule 0 (Deny-all) matches and decides: denies";
    let two = [policies[1].clone(), policies[5].clone()];
    assert!(ingress(&policies[5..], "default/front").ends_with(baseline));
    assert!(
        ingress(&two, "default/front")
            .ends_with("matches and decides: accepts\nClusterNetworkPolicy last is not asked")
    );

    let json = serde_json::to_value(steps(&policies, "default/front").reasoning.ingress).unwrap();
    let told = |step: &serde_json::Value| (step["asked"].as_bool().unwrap(), step["decides"].as_bool().unwrap());
    let told: Vec<_> = json.as_array().unwrap().iter().map(told).collect();
    let (asked, decides, not_asked) = ((true, false), (true, true), (false, false));
    assert_eq!(told[..8], [asked, asked, not_asked, not_asked, not_asked, asked, asked, decides]);
    assert_eq!(told[8..], [not_asked; 5]);
    assert_eq!((&json[1]["name"], json[7].get("name")), (&"Pass-all".into(), None));

    // Nobody is asked about the pod itself, and its own node reaches it.
    for free in ["default/db", "192.0.2.1"] {
        let told = ingress(&policies, free);
        assert!(told.lines().count() == 6 && told.lines().all(|line| line.ends_with(" is not asked")), "{told}");
    }
}

#[test]
fn lint_finds_what_has_no_effect_and_nothing_else() {
    let clean = example();
    assert_eq!(cluster::lint(clean.path()).unwrap(), []);
    let policies = r#"
{kind: NetworkPolicy, metadata: {name: nobody}, spec: {podSelector: {matchLabels: {role: bd}}}}
---
kind: NetworkPolicy
metadata: {name: typos}
spec:
  podSelector: {matchLabels: {role: frontend}}
  policyTypes: [Ingress]
  egress: [{}]
  ingress:
  - {from: [{podSelector: {matchLabels: {role: bd}}}]}
  - {ports: [{port: web}]}
  - {ports: [{port: 80}]}
---
kind: ClusterNetworkPolicy
metadata: {name: first}
spec:
  {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [203.0.113.0/24]}]}]}
---
kind: ClusterNetworkPolicy
metadata: {name: second}
spec:
  {tier: Admin, priority: 2, subject: {namespaces: {}}, egress: [{action: Accept, to: [{networks: [203.0.113.0/25]}]}]}
"#;
    let directory = directory(&[("policy.yaml", policies), ("pods.yml", PODS)]);
    let found = cluster::lint(directory.path()).unwrap();
    let places: Vec<(&str, &str)> = found.iter().map(|it| (&*it.object.name, &*it.field)).collect();
    let expected = [
        ("nobody", "spec"),
        ("typos", "spec.egress"),
        ("typos", "spec.ingress[0]"),
        ("typos", "spec.ingress[1]"),
        ("second", "spec.egress[0]"),
    ];
    assert_eq!(places, expected);
}

//! The example that everybody knows, of the API's documentation.

use anyhow::Result;

use super::stage::{Stage, allows, denies};
use super::world::world;

const CAST: [(usize, &str); 9] = [
    (1, "default/db"),
    (2, "default/db-far"),
    (1, "default/front"),
    (2, "default/front-far"),
    (1, "default/other"),
    (1, "mine/any"),
    (2, "mine/any-far"),
    (2, "theirs/front"),
    (1, "theirs/any"),
];

const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: test-network-policy
  namespace: default
spec:
  podSelector:
    matchLabels:
      role: db
  policyTypes:
    - Ingress
    - Egress
  ingress:
    - from:
        - ipBlock:
            cidr: 172.17.0.0/16
            except:
              - 172.17.1.0/24
        - namespaceSelector:
            matchLabels:
              project: myproject
        - podSelector:
            matchLabels:
              role: frontend
      ports:
        - protocol: TCP
          port: 6379
  egress:
    - to:
        - ipBlock:
            cidr: 10.0.0.0/24
      ports:
        - protocol: TCP
          port: 5978
";

/// The same of IPv6: the example's addresses with a prefix that makes them such.
fn over_both_families() -> String {
    let block = |cidr: &str| format!("        - ipBlock:\n            cidr: {cidr}\n");
    let [from, to] = [block("fd17::/32") + "            except:\n              - fd17:0:1::/48\n", block("fd10::/64")];
    let (ingress, egress) = ("    - from:\n", "    - to:\n");
    POLICY.replace(ingress, &format!("{ingress}{from}")).replace(egress, &format!("{egress}{to}"))
}

fn example(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    let strangers = [
        "172.17.0.9",
        "172.17.255.9",
        "172.17.1.9",
        "172.18.0.9",
        "10.0.0.9",
        "10.0.1.9",
        "fd17::9",
        "fd17:0:ffff::9",
        "fd17:0:1::9",
        "fd18::9",
        "fd10::9",
        "fd10:0:0:1::9",
    ];
    for address in strangers {
        stage.lab.also_at(address.parse()?)?;
    }
    let cluster = world()
        .pods("default/db default/db-far", "role: db")
        .pods("default/front default/front-far theirs/front", "role: frontend")
        .pods("mine/any mine/any-far", "")
        .namespace("mine", "project: myproject")
        .namespace("theirs", "project: another");
    stage.play(&cluster)?;
    let dbs = "default/db default/db-far";
    let heard = "default/front default/front-far mine/any mine/any-far";
    let unheard = "default/other theirs/front theirs/any stranger";
    stage.expect([
        allows(&strangers.join(" "), dbs, "6379/TCP"),
        allows(unheard, dbs, "6379/TCP 6380/TCP"),
        allows(dbs, &strangers.join(" "), "5978/TCP"),
    ])?;
    let (hears, reaches) = (
        "no ingress rule of NetworkPolicy default/test-network-policy",
        "no egress rule of NetworkPolicy default/test-network-policy",
    );
    let (v4, v6) = ("172.17.0.9 172.17.255.9", "fd17::9 fd17:0:ffff::9");
    for (policy, also_heard, also_unheard, reached) in [
        (POLICY.to_owned(), v4.to_owned(), v6, "10.0.0.9"),
        (over_both_families(), format!("{v4} {v6}"), "", "10.0.0.9 fd10::9"),
    ] {
        stage.play(&cluster.clone().object(&policy))?;
        let heard = format!("{heard} {also_heard}");
        let others = format!("{unheard} {also_unheard} 172.17.1.9 172.18.0.9 fd17:0:1::9 fd18::9 10.0.0.9 fd10::9");
        stage.expect([
            allows(&heard, dbs, "6379/TCP"),
            denies(&heard, dbs, "6380/TCP 6379/UDP ICMP").because(hears),
            denies(&others, dbs, "6379/TCP").because(hears),
            allows(dbs, reached, "5978/TCP"),
            denies(dbs, reached, "5979/TCP 5978/UDP ICMP").because(reaches),
            denies(dbs, "10.0.1.9 fd10:0:0:1::9 172.17.0.9 stranger", "5978/TCP").because(reaches),
            denies(dbs, "default/front mine/any-far theirs/any", "5978/TCP").because(reaches),
            // A pod's own node, and the pod itself.
            allows("n1", "default/db", "6380/TCP"),
            allows("default/db", "n1 default/db", "6380/TCP"),
            denies("n2", "default/db", "6379/TCP").because(hears),
            // Nobody else is isolated.
            allows(unheard, "default/front default/front-far mine/any", "6379/TCP 6380/TCP"),
        ])?;
    }
    Ok(())
}

#[test]
fn the_well_known_example_holds_natively() -> Result<()> {
    example("native")
}

#[test]
fn the_well_known_example_holds_through_the_overlay() -> Result<()> {
    example("vxlan")
}

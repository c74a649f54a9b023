//! Whom policies isolate, and whom their selectors mean.

use anyhow::Result;

use super::stage::{Stage, allows, denies};
use super::world::{World, world};

/// Who talks: `x/db` and three others beside it on its node, three on the other one.
const CAST: [(usize, &str); 7] =
    [(1, "x/db"), (1, "x/web"), (1, "y/web"), (1, "z/any"), (2, "x/far"), (2, "y/far"), (2, "z/far")];
const OTHERS: &str = "x/web y/web z/any x/far y/far z/far";
const ALL_WAYS: &str = "80/TCP 53/UDP ICMP";

/// The labels that all of these scenarios have.
fn labelled() -> World {
    world()
        .pods("x/db", "role: db")
        .pods("x/web x/far", "role: web, tier: front")
        .pods("y/web", "role: web")
        .pods("y/far", "role: web, tier: back")
        .namespace("y", "team: red")
        .namespace("z", "team: blue, open: \"\"")
}

/// Has `x/db` hear only those that a list of peers means.
fn from(peers: &str) -> World {
    labelled().policy("x/db", &format!("podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{peers}]}}]"))
}

fn selectors(routing: &'static str) -> Result<()> {
    let stage = Stage::set(routing, &CAST)?;
    let role = |expression: &str| format!("{{podSelector: {{matchExpressions: [{{{expression}}}]}}}}");
    let team = |expression: &str| format!("{{namespaceSelector: {{matchExpressions: [{{{expression}}}]}}}}");
    let cases = [
        ("{podSelector: {matchLabels: {role: web}}}".to_owned(), "x/web x/far"),
        ("{podSelector: {}}".into(), "x/web x/far"),
        ("{namespaceSelector: {matchLabels: {team: red}}}".into(), "y/web y/far"),
        ("{namespaceSelector: {}}".into(), OTHERS),
        ("{namespaceSelector: {matchLabels: {team: red}}, podSelector: {matchLabels: {tier: back}}}".into(), "y/far"),
        (
            "{namespaceSelector: {matchLabels: {team: red}}}, {podSelector: {matchLabels: {tier: front}}}".into(),
            "y/web y/far x/web x/far",
        ),
        ("{namespaceSelector: {}, podSelector: {matchLabels: {role: web}}}".into(), "x/web x/far y/web y/far"),
        ("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}".into(), "z/any z/far"),
        (role("key: tier, operator: In, values: [front, back]"), "x/web x/far"),
        (role("key: tier, operator: DoesNotExist"), ""),
        (role("key: role, operator: NotIn, values: [db]"), "x/web x/far"),
        (team("key: team, operator: In, values: [red, blue]"), "y/web y/far z/any z/far"),
        (team("key: team, operator: NotIn, values: [red]"), "x/web x/far z/any z/far"),
        (team("key: team, operator: Exists"), "y/web y/far z/any z/far"),
        (team("key: team, operator: DoesNotExist"), "x/web x/far"),
        (team("key: open, operator: In, values: ['']"), "z/any z/far"),
        (team("key: team, operator: Exists}, {key: open, operator: DoesNotExist"), "y/web y/far"),
    ];
    for (peers, heard) in cases {
        stage.play(&from(&peers))?;
        let unheard: Vec<&str> =
            OTHERS.split(' ').filter(|name| !heard.split(' ').any(|other| other == *name)).collect();
        stage.expect([
            allows(heard, "x/db", ALL_WAYS),
            denies(&unheard.join(" "), "x/db", ALL_WAYS).because("no ingress rule of NetworkPolicy x/db"),
            // Neither is a pod.
            denies("stranger n2", "x/db", "80/TCP"),
            allows("x/db", OTHERS, "80/TCP"),
        ])?;
    }
    Ok(())
}

#[test]
fn selectors_mean_whom_they_match_natively() -> Result<()> {
    selectors("native")
}

#[test]
fn selectors_mean_whom_they_match_through_the_overlay() -> Result<()> {
    selectors("vxlan")
}

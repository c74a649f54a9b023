//! Policies are asked about who is given, and about who has asked.

use anyhow::Result;

use super::stage::{EVERY_WAY, Stage, each_way, ignored, served};
use super::world::{World, ports, world};

/// A service whose pods have policies of their own.
fn web(spec: &str) -> World {
    world().pods("a1 a2", "app: web").pods("c1", "app: c1").pods("c3", "app: c3").service(
        "web",
        10,
        &format!("type: NodePort, selector: {{app: web}}, {}, {spec}", ports("80>8080@30080")),
    )
}

/// A policy for pods with a label.
fn policy(name: &str, app: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, {spec}}}\n"
    )
}

const TO_TARGET: &str = "ports: [{port: 8080}, {port: 8080, protocol: UDP}]";
const TO_FRONTEND: &str = "ports: [{port: 80}, {port: 80, protocol: UDP}]";

#[test]
fn policies_are_about_clients_and_backends() -> Result<()> {
    each_way(&EVERY_WAY, |stage| {
        backends_are_asked_about_their_clients(stage)?;
        clients_are_asked_about_backends_not_about_services(stage)?;
        a_pod_reaches_itself_through_its_own_service_whatever_its_policies_say(stage)
    })
}

fn backends_are_asked_about_their_clients(stage: &mut Stage) -> Result<()> {
    let ingress = |from: &str| {
        web("externalTrafficPolicy: Local").object(&policy(
            "in",
            "web",
            &format!("policyTypes: [Ingress], ingress: [{{from: [{from}], {TO_TARGET}}}]"),
        ))
    };
    stage.play(&ingress("{podSelector: {matchLabels: {app: c1}}}"))?;
    stage.expect([
        served("c1", "web:80", "a1 a2").seen_as("itself"),
        ignored("c3 n3", "web:80"),
        served("c1", "n2:30080", "a2"),
        ignored("stranger c3", "n1:30080 n2:30080"),
        // A pod's own node reaches it.
        served("n1", "a1:8080", "a1"),
    ])?;
    stage.play(&ingress("{ipBlock: {cidr: 192.0.2.100/32}}, {ipBlock: {cidr: '2001:db8::64/128'}}"))?;
    stage.expect([
        served("stranger", "n1:30080", "a1").seen_as("stranger"),
        served("stranger", "n2:30080", "a2").seen_as("stranger"),
        ignored("c1 c3", "web:80 n1:30080"),
    ])?;
    stage.play(&web("externalTrafficPolicy: Local"))?;
    stage.expect([served("c1 c3 n3", "web:80", "a1 a2"), served("stranger", "n1:30080", "a1")])
}

fn clients_are_asked_about_backends_not_about_services(stage: &mut Stage) -> Result<()> {
    let egress = |to: &str, ports: &str| {
        let spec = format!("policyTypes: [Egress], egress: [{{to: [{to}], {ports}}}]");
        web("").object(&policy("out", "c1", &spec))
    };
    let (pods, services) = (
        "{podSelector: {matchLabels: {app: web}}}",
        "{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: 'fd00:96::/64'}}",
    );
    stage.play(&egress(pods, TO_TARGET))?;
    stage.expect([served("c1", "web:80 n1:30080", "a1 a2"), served("c3", "web:80", "a1 a2")])?;
    stage.play(&egress(pods, TO_FRONTEND))?;
    stage.expect([ignored("c1", "web:80 n1:30080"), served("c3", "web:80", "a1 a2")])?;
    stage.play(&egress(services, TO_FRONTEND))?;
    stage.expect([ignored("c1", "web:80")])?;
    stage.play(&egress("{ipBlock: {cidr: 10.1.1.0/24}}, {ipBlock: {cidr: 'fd00:1:1::/64'}}", TO_TARGET))?;
    // Only one of both may be asked, and nobody asks another for that.
    let local = web("internalTrafficPolicy: Local")
        .more_of(&egress("{ipBlock: {cidr: 10.1.1.0/24}}, {ipBlock: {cidr: 'fd00:1:1::/64'}}", TO_TARGET));
    stage.play(&local)?;
    stage.expect([served("c1", "web:80", "a1")])
}

fn a_pod_reaches_itself_through_its_own_service_whatever_its_policies_say(stage: &mut Stage) -> Result<()> {
    let own = world()
        .pods("a1", "app: web")
        .service("web", 10, &format!("type: NodePort, selector: {{app: web}}, {}", ports("80>8080@30080")))
        .object(&policy("none", "web", "policyTypes: [Ingress, Egress]"));
    stage.play(&own)?;
    stage.expect([served("a1", "web:80 n1:30080", "a1"), ignored("c1 stranger", "n1:30080")])
}

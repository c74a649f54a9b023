//! Who serves: ready and draining endpoints, slices that change, hints, ports of all kinds, processes of nodes.

use anyhow::{Result, ensure};
use sluice_tests::lab::serving::Means;

use super::stage::{MOST_WAYS, PLAIN, SLOW_OVERLAY, Stage, each_way, refused, served};
use super::world::{World, ports, world};

fn web(spec: &str) -> World {
    world().service("web", 10, &format!("type: NodePort, {}, {spec}", ports("80>8080@30080")))
}

const READY: &str = "conditions: {ready: true}";
const UNREADY: &str = "conditions: {ready: false, serving: false, terminating: false}";
const DRAINING: &str = "conditions: {ready: false, serving: true, terminating: true}";
const ENDED: &str = "conditions: {ready: false, serving: false, terminating: true}";

#[test]
fn endpoints_serve_whom_they_are_to() -> Result<()> {
    each_way(&[PLAIN, SLOW_OVERLAY], |stage| {
        those_serve_who_are_ready_or_where_nobody_is_who_drain(stage)?;
        clients_are_kept_in_their_zone_or_on_their_node_where_that_is_wished(stage)?;
        ports_are_each_for_themselves_and_may_change(stage)
    })
}

fn those_serve_who_are_ready_or_where_nobody_is_who_drain(stage: &mut Stage) -> Result<()> {
    let everybody = "c1 c3 n1 stranger";
    let at = |from: &str, by: &str| match by {
        "" => [refused("c1 c3 n1", "web:80"), refused("stranger", "n3:30080")],
        by => {
            [served("c1 c3 n1", "web:80", by), served(if from.is_empty() { everybody } else { from }, "n3:30080", by)]
        }
    };
    for (conditions, by) in [
        ([READY, READY], "a1 a2"),
        (["", UNREADY], "a1"),
        ([DRAINING, READY], "a2"),
        ([DRAINING, DRAINING], "a1 a2"),
        ([DRAINING, ENDED], "a1"),
        ([UNREADY, ENDED], ""),
    ] {
        let [a1, a2] = conditions;
        stage.play(&web("").slice("web", "web", "80>8080", &[("a1", a1), ("a2", a2)]))?;
        stage.expect(at("", by))?;
    }
    // They move between slices, and are in two for a while.
    for slices in [[&["a1", "a2"][..], &[]], [&["a1"], &["a2"]], [&["a1", "a2"], &["a2", "a1"]], [&[], &["a1", "a2"]]] {
        let mut world = web("");
        for (name, pods) in ["one", "other"].into_iter().zip(slices) {
            let endpoints: Vec<(&str, &str)> = pods.iter().map(|pod| (*pod, "")).collect();
            world = world.slice(name, "web", "80>8080", &endpoints);
        }
        stage.play(&world)?;
        stage.expect(at("", "a1 a2"))?;
    }
    // Without slices, pods say how they are.
    let selected = |spec: &str| web(&format!("selector: {{app: web}}, {spec}")).pods("a1 a2", "app: web").unready("a2");
    stage.play(&selected(""))?;
    stage.expect(at("", "a1"))?;
    stage.play(&selected("publishNotReadyAddresses: true"))?;
    stage.expect(at("", "a1 a2"))
}

#[test]
fn all_clients_find_processes_of_nodes_and_stay_where_that_is_wished() -> Result<()> {
    each_way(&MOST_WAYS, |stage| {
        processes_of_nodes_serve_too(stage)?;
        clients_stay_with_their_backend_where_that_is_wished(stage)
    })
}

fn processes_of_nodes_serve_too(stage: &mut Stage) -> Result<()> {
    if stage.how == PLAIN || stage.how.routing == "vxlan" && stage.how.sockets {
        stage.serve("n2", 9090)?;
    }
    stage.play(&web("").slice("web", "web", "80>9090", &[("n2", "")]))?;
    stage.expect([
        served("a1 c1 c3 n1 n3", "web:80", "n2"),
        served("stranger", "n1:30080 n2:30080 n3:30080", "n2"),
        served("stranger", "n2:30080", "n2").seen_as("stranger"),
        served("c1", "web:80", "n2").seen_as("c1 n1"),
        served("a2", "web:80", "n2"),
    ])?;
    if stage.how.sockets {
        stage.expect([served("n2", "web:80 n2:30080 127.0.0.1:30080 [::1]:30080", "n2")])?;
    }
    Ok(())
}

fn clients_are_kept_in_their_zone_or_on_their_node_where_that_is_wished(stage: &mut Stage) -> Result<()> {
    let zones = |world: World| {
        ["n1", "n2", "n3"]
            .iter()
            .zip(["west", "east", "east"])
            .fold(world, |world, (node, zone)| world.node(node, &format!("topology.kubernetes.io/zone: {zone}")))
    };
    let zone = |name: &str| format!("hints: {{forZones: [{{name: {name}}}]}}");
    let hinted = |one: &str, other: &str| zones(web("").slice("web", "web", "80>8080", &[("a1", one), ("a2", other)]));
    stage.play(&hinted(&zone("west"), &zone("east")))?;
    stage.expect([
        served("c1 n1", "web:80", "a1"),
        served("c3 n3", "web:80", "a2"),
        served("stranger", "n1:30080", "a1"),
        served("stranger", "n3:30080", "a2"),
    ])?;
    // Not all have hints: nobody follows them.
    stage.play(&hinted(&zone("west"), ""))?;
    stage.expect([served("c1 c3 n1", "web:80", "a1 a2")])?;
    let node = |name: &str| format!("hints: {{forNodes: [{{name: {name}}}], forZones: [{{name: west}}]}}");
    stage.play(&hinted(&node("n3"), &node("n1")))?;
    stage.expect([served("c1", "web:80", "a2"), served("c3", "web:80", "a1")])
}

fn ports_are_each_for_themselves_and_may_change(stage: &mut Stage) -> Result<()> {
    if stage.how == PLAIN || stage.how == SLOW_OVERLAY {
        stage.serve("a1", 8081)?;
        stage.serve("a2", 8082)?;
    }
    let two = |ports: &str| {
        world().pods("a1 a2", "app: web").service(
            "web",
            10,
            &format!("type: NodePort, selector: {{app: web}}, {ports}"),
        )
    };
    stage.play(&two(&ports("80>8081@30080 81>8082@30081")))?;
    // One that listens at only one of both refuses at the other.
    let slices = |world: World| {
        world.slice("one", "web", "80>8081", &[("a1", "")]).slice("two", "web", "81>8082", &[("a2", "")])
    };
    stage.play(&slices(two(&ports("80>8081@30080 81>8082@30081"))))?;
    stage.expect([
        served("c1 c3 n1", "web:80", "a1"),
        served("c1 c3 n1", "web:81", "a2"),
        served("stranger", "n1:30080", "a1"),
        served("stranger", "n1:30081", "a2"),
    ])?;
    stage.play(&slices(two(&ports("80>8081@30082 81>8082@30080"))))?;
    stage.expect([
        served("stranger", "n1:30082", "a1"),
        served("stranger", "n1:30080", "a2"),
        refused("stranger c3", "n1:30081"),
    ])?;
    stage.play(&two(&ports("90>8080@30080")))?;
    stage.expect([
        served("c1 c3 n1", "web:90", "a1 a2"),
        served("stranger", "n1:30080", "a1 a2"),
        refused("c1 c3 n1", "web:80 web:81"),
        refused("stranger", "n1:30082"),
    ])?;
    // By names that mean another port in each pod.
    let named = "ports: [{name: t, port: 80, targetPort: http}]";
    stage.play(
        &two(named)
            .container_ports("a1", "{name: http, containerPort: 8081}")
            .container_ports("a2", "{name: http, containerPort: 8082}"),
    )?;
    stage.expect([
        served("c1 c3 n1", "web:80", "a1 a2").by(&[Means::Tcp]),
        refused("c1 n1", "web:80").by(&[Means::ConnectedUdp]),
    ])
}

fn clients_stay_with_their_backend_where_that_is_wished(stage: &mut Stage) -> Result<()> {
    let sticky = |by: &str| {
        let spec =
            format!("type: NodePort, selector: {{app: web}}, sessionAffinity: ClientIP, {}", ports("80>8080@30080"));
        world().pods(by, "app: web").service("web", 10, &spec)
    };
    stage.play(&sticky("a1 a2"))?;
    for (from, at) in
        [("c1", "web:80"), ("c3", "web:80"), ("n3", "web:80"), ("stranger", "n3:30080"), ("c1", "n1:30080")]
    {
        for at in stage.at(at)? {
            for means in Means::ALL {
                let ask = || {
                    stage.place(from)?.inside(|| Ok(means.ask(at, sluice_tests::lab::serving::PATIENCE)?.said()?.name))
                };
                let first = ask()?;
                for _ in 0..10 {
                    let next = ask()?;
                    ensure!(next == first, "{from} asks {at}, and hears {first}, then {next}");
                }
            }
        }
    }
    stage.play(&sticky("a2"))?;
    stage.expect([served("c1 c3 n3", "web:80", "a2"), served("stranger", "n3:30080", "a2")])?;
    stage.play(&sticky("a1"))?;
    stage.expect([served("c1 c3 n3", "web:80", "a1"), served("stranger", "n3:30080", "a1")])
}

#[test]
fn nothing_is_served_of_what_others_serve() -> Result<()> {
    let stage = Stage::set(PLAIN)?;
    let service = |name: &str, more: &str| {
        format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{{more}}}\n")
    };
    let others = web("selector: {app: web}")
        .pods("a1 a2", "app: web")
        .object(&service("headless", &format!("clusterIP: None, selector: {{app: web}}, {}", ports("80>8080"))))
        .object(&service("elsewhere", "type: ExternalName, externalName: example.org, ports: [{port: 80}]"))
        .object(&service("four", "clusterIP: 10.96.0.44, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"))
        .object(&service("six", "clusterIP: 'fd00:96::66', ipFamilies: [IPv6], selector: {app: web}, ports: [{port: 80, targetPort: 8080}]"))
        .object(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: headless-1, namespace: default, labels: \
             {kubernetes.io/service-name: headless, service.kubernetes.io/headless: ''}}\naddressType: IPv4\n\
             ports: [{port: 8080}]\nendpoints: [{addresses: [10.1.1.1]}]\n",
        )
        .service("foreign", 20, &ports("80>8080"))
        .marked("foreign", "labels: {service.kubernetes.io/service-proxy-name: other}");
    stage.play(&others)?;
    let tcp = [Means::Tcp];
    stage.expect([
        served("c1 c3 n1", "web:80", "a1 a2"),
        served("c1 c3 n1", "a1:8080", "a1"),
        served("c1 c3 n1", "10.96.0.44:80 [fd00:96::66]:80", "a1 a2").by(&tcp),
    ])?;
    // The network knows no way to it, and says so, or nothing.
    let heard =
        stage.place("c1")?.inside(|| Ok(Means::Tcp.ask("10.96.0.20:80".parse()?, sluice_tests::lab::serving::SILENCE)));
    ensure!(heard.is_err() || heard.is_ok_and(|heard| heard.is_err()), "somebody serves what is another proxy's");
    Ok(())
}

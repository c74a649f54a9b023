//! What gives Services of load balancers their addresses: MetalLB, of which one node each answers for an address by ARP or NDP.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::run::{run, say};

/// Where MetalLB's manifests put it.
const NAMESPACE: &str = "metallb-system";

/// Installs it, with the addresses that clients of the cluster look for at its nodes.
///
/// # Errors
/// Where it does not start, or does not take them.
pub fn install(cluster: &Cluster) -> Result<()> {
    say("Installing MetalLB");
    let images = cluster.directory().join("images/upstream");
    run(cluster.script("load").args(["metallb-controller.tar", "metallb-speaker.tar"].map(|it| images.join(it))))?;
    let manifests = cluster.directory().join("manifests");
    let apply = |file: &str| run(&mut cluster.kubectl(&["apply", "-f", &manifests.join(file).display().to_string()]));
    apply("metallb.yaml")?;
    // The first judges what is applied next.
    for part in ["deployment/controller", "daemonset/speaker"] {
        run(&mut cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", part, "--timeout=120s"]))?;
    }
    let path = manifests.join("balancers.json");
    let text = addresses(&cluster.asked("balancers")?).to_string();
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    apply("balancers.json")
}

/// A pool of ranges, all of which are announced.
fn addresses(ranges: &str) -> Value {
    let of = |kind: &str, spec: Value| {
        let metadata = json!({"name": "lab", "namespace": NAMESPACE});
        json!({"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": metadata, "spec": spec})
    };
    let pool = of("IPAddressPool", json!({"addresses": ranges.split(',').collect::<Vec<_>>()}));
    json!({"apiVersion": "v1", "kind": "List", "items": [pool, of("L2Advertisement", json!({}))]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_all_ranges() {
        let list = addresses("10.76.1.0/24,fd00:76:1::/112");
        assert_eq!(list["items"][0]["spec"]["addresses"], json!(["10.76.1.0/24", "fd00:76:1::/112"]));
    }
}

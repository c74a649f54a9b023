//! Which of the upstream tests a full run is about, and why some of these do not run.

use crate::cluster::Shape;

/// The group of which all tests run.
const NETWORK: &str = "[sig-network]";
/// The group of which those run in which something talks to a pod, and what these are called.
const NODE: &str = "[sig-node]";
const TALKING: [&str; 8] = [
    "Probing container",
    "Container Lifecycle Hook",
    "PreStop",
    "KubeletManagedEtcHosts",
    "Pods should support remote command",
    "Pods should support retrieving logs",
    "Pods should contain environment variables for services",
    "InitContainer",
];

/// Why tests of these names do not run, by the first that fits.
const SKIPPED: [(&str, &str); 13] = [
    ("[Feature:OffByDefault]", "feature gates that are off by default"),
    ("[Feature:SCTPConnectivity]", "this kernel has no SCTP"),
    ("[Feature:LoadBalancer]", "a cloud's load balancers"),
    (DUAL, "a cluster of two families (`--dual`)"),
    ("[Feature:Networking-", "the Internet, or a measurement"),
    ("[Feature:PerformanceDNS]", "a measurement of the DNS server"),
    ("[Feature:KubeProxyNFAcct]", "kube-proxy's own counters"),
    ("[sig-network] KubeProxy", "kube-proxy's own settings of connection tracking"),
    ("kube-proxy urls", "kube-proxy's own ports"),
    ("after restarting kube-proxy", "kube-proxy, and a login on nodes"),
    ("after restarting apiserver", "a login on the control plane"),
    ("[Provider:", "another provider of machines"),
    ("DNS configMap", "the add-on manager's DNS server, which these reconfigure"),
];

const DUAL: &str = "[Feature:IPv6DualStack]";

/// Regular expressions of all that is in scope.
pub fn everything() -> Vec<String> {
    vec![escape(NETWORK), format!("{}.*({})", escape(NODE), TALKING.map(escape).join("|"))]
}

/// Whether a test is among those that a full run is about.
pub fn is_in_scope(name: &str) -> bool {
    name.contains(NETWORK) || name.contains(NODE) && TALKING.iter().any(|it| name.contains(it))
}

/// Names of tests that do not run in such a cluster, with the reasons.
pub fn skipped(shape: Shape) -> impl Iterator<Item = (&'static str, &'static str)> {
    SKIPPED.into_iter().filter(move |(name, _)| !(shape.dual && *name == DUAL))
}

/// A regular expression of a text as it is.
pub fn escape(text: &str) -> String {
    text.chars().flat_map(|it| (!it.is_alphanumeric() && it != ' ').then_some('\\').into_iter().chain([it])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_are() {
        assert_eq!(escape("[sig-network] DNS"), r"\[sig\-network\] DNS");
    }
}

//! Which of the upstream tests a full run is about, and why some of these do not run.

use crate::cluster::Shape;

/// The group of which all tests run.
const NETWORK: &str = "[sig-network]";
/// The group of which those run that every cluster has to pass, and those in which something else talks to a pod, or asks
/// for its addresses.
const NODE: &str = "[sig-node]";
const OF_NODE: [&str; 7] = [
    "[Conformance]",
    "Probing container",
    "Container Lifecycle Hook",
    "PreStop",
    "pod readiness gates",
    "if pod uses host network",
    "when hostNetwork is enabled",
];

const DUAL: &str = "[Feature:IPv6DualStack]";

/// How load balancers are reached here.
const ONE_NODE: &str = "needs load balancers that send clients to several nodes: each of MetalLB's is one node, for ARP and NDP have one answer";

/// Why tests of these names do not run, by the first that fits.
const SKIPPED: [(&str, &str); 18] = [
    ("[Feature:OffByDefault]", "needs feature gates that are off by default"),
    ("[Feature:SCTPConnectivity]", "needs a kernel with SCTP"),
    ("load balancer cleanup finalizer", "needs a controller that keeps Services by a finalizer: MetalLB does not"),
    ("should target all nodes with endpoints", ONE_NODE),
    ("switch session affinity for LoadBalancer service with Local traffic policy", ONE_NODE),
    (DUAL, "needs a cluster of two families (`--dual`)"),
    (
        "IPerf2",
        "needs iperf 2.2 or later: the images are made of Debian's programs, and Debian 12 has 2.1, whose columns it does not read",
    ),
    ("Internet connection for containers", "needs the Internet"),
    ("DNS configMap nameserver Forward", "needs the Internet: it looks up `dns.google`"),
    (
        "[Feature:PerformanceDNS]",
        "takes long: it makes 10,000 Services one by one, with a client that allows itself 20 requests a second, and asks for 500 of them",
    ),
    ("[Feature:KubeProxyNFAcct]", "is about kube-proxy's own counters"),
    ("[sig-network] KubeProxy", "is about kube-proxy's own settings of connection tracking"),
    ("kube-proxy urls", "is about kube-proxy's own ports"),
    ("after restarting kube-proxy", "needs a kube-proxy in pods, which it deletes"),
    (
        "after restarting apiserver",
        "needs an API server in a pod, which it deletes: here it is a process of the control plane",
    ),
    ("recreate its iptables rules", "needs nodes with SSH, and is about the kubelet's own chains"),
    ("[Provider:gce]", "needs Google's cloud, and its metadata server"),
    ("[sig-node] ImageVolume", "needs a registry: it always pulls the image that it mounts"),
];

/// Why further ones do not run in a cluster of IPv6 alone.
const SKIPPED_OF_IPV6: [(&str, &str); 2] = [
    (
        "should only allow access from service loadbalancer source ranges",
        "is of IPv4 only: it gives wget an address of IPv6 without brackets",
    ),
    (
        "ExternalTrafficPolicy: Local [Feature:LoadBalancer] should work from pods",
        "is of IPv4 only: it takes what is before the first colon for the client's address",
    ),
];

/// What there has to be for tests that find out for themselves that it is not there, by their words.
const REMEDIES: [(&str, &str); 1] = [("need at least 3 zones, with at least 2", "`--nodes 6`")];

/// Regular expressions of all that is in scope.
pub fn everything() -> Vec<String> {
    vec![escape(NETWORK), format!("{}.*({})", escape(NODE), OF_NODE.map(escape).join("|"))]
}

/// Whether a test is among those that a full run is about.
pub fn is_in_scope(name: &str) -> bool {
    name.contains(NETWORK) || name.contains(NODE) && OF_NODE.iter().any(|it| name.contains(it))
}

/// Names of tests that do not run in such a cluster, with the reasons.
pub fn skipped(shape: Shape) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_ipv6 = SKIPPED_OF_IPV6.into_iter().filter(move |_| shape.ipv6);
    SKIPPED.into_iter().filter(move |(name, _)| !(shape.dual && *name == DUAL)).chain(of_ipv6)
}

/// A test's own reason not to run, with what it takes here.
pub fn with_remedy(reason: String) -> String {
    match REMEDIES.iter().find(|(words, _)| reason.contains(words)) {
        Some((_, remedy)) => format!("{reason} ({remedy})"),
        None => reason,
    }
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

    #[test]
    fn of_nodes_what_all_clusters_have_to_pass_is_in_scope() {
        assert!(is_in_scope("[sig-network] Anything"));
        assert!(is_in_scope("[sig-node] Secrets should be consumable [Conformance]"));
        assert!(is_in_scope("[sig-node] Pods should support pod readiness gates [NodeConformance]"));
        assert!(!is_in_scope("[sig-node] Secrets should be optional [NodeConformance]"));
        assert!(!is_in_scope("[sig-storage] Disks [Conformance]"));
    }

    #[test]
    fn tests_that_know_ipv4_only_run_where_it_is() {
        let name = "[sig-network] LoadBalancers ExternalTrafficPolicy: Local [Feature:LoadBalancer] should work from pods [Slow]";
        let runs = |shape| !skipped(shape).any(|(part, _)| name.contains(part));
        let it = Shape::default();
        assert!(runs(it) && runs(Shape { dual: true, ..it }) && !runs(Shape { ipv6: true, ..it }));
    }

    #[test]
    fn a_name_has_the_first_reason_that_fits() {
        let why = |name: &str| skipped(Shape::default()).find(|(part, _)| name.contains(part)).map(|(_, why)| why);
        let of_google = "[sig-network] DNS should provide DNS for the cluster [Provider:gce]";
        let of_all = "[sig-network] Networking should recreate its iptables rules [Provider:gce,aws,local,azure]";
        assert_eq!(why(of_google), Some("needs Google's cloud, and its metadata server"));
        assert_eq!(why(of_all), Some("needs nodes with SSH, and is about the kubelet's own chains"));
        assert_eq!(why("[sig-network] DNS configMap nameserver Change stubDomain"), None);
    }
}

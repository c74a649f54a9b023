//! Pods that are known by their roles, and a policy about these.

use anyhow::Result;
use sluice_tests::lab::{Lab, Pod};

/// Tells of these pods, whose roles are their names.
pub fn declare<const N: usize>(lab: &Lab, pods: [&Pod; N]) -> Result<()> {
    pods.into_iter().try_for_each(|pod| lab.declare(pod, &[("role", &pod.name)], &[]))
}

/// Has `db` hear only from these.
pub fn only_from(lab: &Lab, roles: &str) -> Result<()> {
    let policy = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: db}}\n\
         spec: {{podSelector: {{matchLabels: {{role: db}}}}, ingress: [{{from: [{{podSelector: {{matchExpressions: \
         [{{key: role, operator: In, values: [{roles}]}}]}}}}]}}]}}\n"
    );
    lab.tell("policy.yaml", &policy)
}

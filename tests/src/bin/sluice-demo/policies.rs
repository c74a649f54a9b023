//! What the demo writes down as manifests: namespaces, policies, and an edit of one.

use anyhow::Result;
use sluice_tests::lab::{Lab, until_so};

/// The namespaces.
pub const NAMESPACES: &str = include_str!("manifests/namespaces.yaml");

/// A policy.
pub struct Policy {
    /// Its kind and name.
    pub name: &'static str,
    /// The file that it is written to.
    pub file: &'static str,
    /// Its manifest, which begins with a comment that says what it is for.
    pub text: &'static str,
}

/// All of them.
pub const POLICIES: [Policy; 3] = [
    Policy {
        name: "NetworkPolicy shop/database",
        file: "database.yaml",
        text: include_str!("manifests/database.yaml"),
    },
    FRONTEND,
    Policy { name: "ClusterNetworkPolicy ci", file: "ci.yaml", text: include_str!("manifests/ci.yaml") },
];

/// The one that is edited.
pub const FRONTEND: Policy = Policy {
    name: "NetworkPolicy shop/frontend",
    file: "frontend.yaml",
    text: include_str!("manifests/frontend.yaml"),
};

/// The edit: a line, and what becomes of it. It takes the world from the frontend, over IPv4.
pub const EDIT: [&str; 2] = ["- 192.0.3.0/26", "- 192.0.3.0/24"];

impl Policy {
    /// What it is for.
    pub fn purpose(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches("# ")
    }
}

/// Waits until all agents know of so many policies. An agent that does has them in force.
///
/// # Errors
/// Where one does not come to know them.
pub fn are_in_force(lab: &Lab, count: usize) -> Result<()> {
    until_so(&format!("{count} policies are in force on all nodes"), || {
        let mut statuses = lab.nodes.iter().map(|node| node.status());
        statuses.try_fold(true, |so_far, status| Ok(so_far && status?.objects.policies == count))
    })
}

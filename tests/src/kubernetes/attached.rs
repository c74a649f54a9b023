//! Programs that see a node's packets or the calls of its sockets, whoever has attached them.

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType};
use serde_json::Value;
use sluice_netlink::Netlink;

use super::Cluster;

impl Cluster {
    /// All of them, each with where it is.
    ///
    /// # Errors
    /// Where the node cannot be asked.
    pub fn attached(&self, node: &str) -> Result<Vec<String>> {
        let mut found = self.network(node)?.inside(by_links)?;
        for hook in self.bpftool(node, &["net", "show"])?[0].as_object().into_iter().flatten() {
            found.extend(each(hook.1).map(|it| format!("{}: {it}", hook.0)));
        }
        for group in self.on(node, &["findmnt", "-nt", "cgroup2", "-o", "TARGET"])?.lines() {
            found.extend(each(&self.bpftool(node, &["cgroup", "show", group])?).map(|it| format!("{group}: {it}")));
        }
        Ok(found)
    }

    fn bpftool(&self, node: &str, arguments: &[&str]) -> Result<Value> {
        let text = self.on(node, &[&["bpftool", "-j"], arguments].concat())?;
        // Of a group without programs it says nothing.
        let text = if text.trim().is_empty() { "[]" } else { &text };
        serde_json::from_str(text).with_context(|| format!("understanding bpftool {}: {text}", arguments.join(" ")))
    }
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Those that are attached to devices here by links, which kernels before 6.6 have none of.
fn by_links() -> Result<Vec<String>> {
    let mut found = Vec::new();
    for link in Netlink::open()?.links()? {
        for side in [TcAttachType::Ingress, TcAttachType::Egress] {
            let Ok((_, programs)) = SchedClassifier::query_tcx(&link.name, side) else { continue };
            found.extend(
                programs.iter().map(|it| format!("{} {side:?}: {}", link.name, it.name_as_str().unwrap_or("?"))),
            );
        }
    }
    Ok(found)
}

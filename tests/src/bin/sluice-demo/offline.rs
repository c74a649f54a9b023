//! What `sluicectl policy` answers for the manifests, without a cluster.

use anyhow::{Context, Result};
use serde_json::json;
use sluice_policy::question::{Answered, Expected};
use sluice_tests::lab::Lab;

use crate::calls::Talk;
use crate::echo::PORT;
use crate::party::Role;

/// Asks what is to become of those who talk; the answers are in their order.
///
/// # Errors
/// Where one has no answer.
pub fn answers(lab: &Lab, talks: &[Talk<'_>]) -> Result<Vec<Answered>> {
    let probe = |Talk { from, address, .. }: &Talk<'_>| {
        let from = match from.role {
            Role::Pod => from.full_name(),
            Role::Node | Role::World => from.address_like(*address).context("nobody calls so")?.to_string(),
        };
        Ok(json!({ "from": from, "to": address, "port": PORT }))
    };
    lab.ask_offline(&talks.iter().map(probe).collect::<Result<Vec<_>>>()?)
}

/// Why a call is to be denied, if it is: what the end says that is asked first.
pub fn denied_by(answer: &Answered) -> Option<String> {
    let denying = [&answer.egress, &answer.ingress].into_iter().find(|side| side.verdict == Expected::Deny);
    denying.map(|side| side.reason.clone())
}

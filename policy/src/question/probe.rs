//! Questions, and how they are answered.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sluice_datapath::Family;
use sluice_datapath::policy::Verdict;

use super::traffic::Traffic;
use crate::evaluator::{Answer, Evaluator, Judgement, Party, Why};
use crate::index::Index;
use crate::name::{ObjectName, PodName};
use crate::reason::Reason;

/// A question: what becomes of the first packet of a flow.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Who sends it, as it was written.
    pub from: String,
    /// Who it is sent to.
    pub to: String,
    /// What it is.
    pub traffic: Traffic,
    /// What is hoped for.
    pub expect: Option<Expected>,
}

/// A verdict, as probes and answers have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
}

impl Expected {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl From<Verdict> for Expected {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Allow,
            Verdict::Deny => Self::Deny,
        }
    }
}

/// The answer to a probe over one family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// As it was written.
    pub from: String,
    /// As it was written.
    pub to: String,
    /// Its name.
    pub protocol: String,
    /// 0 where the protocol has none.
    pub port: u16,
    /// `IPv4` or `IPv6`.
    #[serde(with = "family")]
    pub family: Family,
    /// Whether it passes.
    pub verdict: Expected,
    /// What was hoped for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect: Option<Expected>,
    /// What the sender's policies say.
    pub egress: SideAnswer,
    /// What the receiver's policies say.
    pub ingress: SideAnswer,
}

/// What the policies of one end say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SideAnswer {
    /// Whether it passes.
    pub verdict: Expected,
    /// The policy that says so; of several that isolate the pod, the first. `None`: no policy does.
    pub policy: Option<PolicyRef>,
    /// Why, in words.
    pub reason: String,
}

/// Names a policy, and what of it decides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyRef {
    /// Its kind in the API.
    pub kind: String,
    /// Its namespace; empty for kinds without.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// `ingress` or `egress`, as the policy's pod sees it.
    pub direction: String,
    /// From 0; `None`: that none of its rules allows it.
    pub rule: Option<u32>,
}

/// Families by their names.
mod family {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use sluice_datapath::Family;

    use super::family_name;

    pub fn serialize<S: Serializer>(family: &Family, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(family_name(*family))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Family, D::Error> {
        let name = String::deserialize(deserializer)?;
        let family = [Family::V4, Family::V6].into_iter().find(|family| family_name(*family) == name);
        family.ok_or_else(|| D::Error::custom(format!("{name:?} is neither IPv4 nor IPv6")))
    }
}

/// The name of a family.
pub fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

impl PolicyRef {
    /// Names what of a policy decides, or of several that isolate a pod, the first.
    pub fn of(reason: &Reason) -> Option<Self> {
        let (policy, direction, rule) = match reason {
            Reason::Rule { policy, direction, index, .. } => (policy, direction, Some(*index)),
            Reason::Isolated { direction, policies } => (policies.first()?, direction, None),
        };
        let ObjectName { kind, namespace, name } = policy.clone();
        Some(Self { kind: kind.name().into(), namespace, name, direction: direction.name().into(), rule })
    }
}

impl From<&Judgement<'_>> for SideAnswer {
    fn from(judgement: &Judgement<'_>) -> Self {
        let policy = match judgement.why {
            Why::Policy(reason) => PolicyRef::of(reason),
            Why::NotSubject | Why::Itself | Why::OwnNode | Why::NoPolicy | Why::Closed => None,
        };
        Self { verdict: judgement.verdict.into(), policy, reason: judgement.why.to_string() }
    }
}

/// An end as it is written: `namespace/name`, or an address.
///
/// # Errors
/// Where it is neither.
pub fn party(text: &str) -> Result<Party, String> {
    if let Ok(address) = text.parse() {
        return Ok(Party::Address(address));
    }
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Party::Pod(PodName::new(namespace, name)))
        }
        _ => Err(format!("{text:?} is neither a pod (namespace/name) nor an address")),
    }
}

/// The families that an end has. One that is not known has any: it is found out later.
fn families(index: &Index, party: &Party) -> Vec<Family> {
    let of = |address: &IpAddr| if address.is_ipv4() { Family::V4 } else { Family::V6 };
    match party {
        Party::Address(address) => vec![of(address)],
        Party::Pod(name) => match index.pod(name).filter(|pod| !pod.addresses.is_empty()) {
            Some(pod) => pod.addresses.iter().map(of).collect(),
            None => vec![Family::V4, Family::V6],
        },
    }
}

fn common_families(index: &Index, from: &Party, to: &Party) -> Vec<Family> {
    let theirs = families(index, to);
    families(index, from).into_iter().filter(|family| theirs.contains(family)).collect()
}

/// The pod that an address means, if it is one's.
fn pod_behind(index: &Index, party: Party) -> Party {
    match party {
        Party::Address(address) => index.pod_at(address).map_or(party, |pod| Party::Pod(pod.name.clone())),
        Party::Pod(_) => party,
    }
}

impl Probe {
    /// Who sends and who receives.
    ///
    /// # Errors
    /// Where either is nobody.
    pub fn ends(&self) -> Result<[Party; 2], String> {
        Ok([party(&self.from)?, party(&self.to)?])
    }

    /// The answers, one for each family that both ends have.
    ///
    /// # Errors
    /// Where it cannot be answered.
    pub fn ask(&self, index: &Index, evaluator: &Evaluator<'_>) -> Result<Vec<Answered>, String> {
        let [mut from, mut to] = self.ends()?;
        let mut common = common_families(index, &from, &to);
        if common.is_empty() {
            // Addresses of pods mean these, by whichever of their addresses.
            (from, to) = (pod_behind(index, from), pod_behind(index, to));
            common = common_families(index, &from, &to);
        }
        if common.is_empty() {
            return Err(format!("{} and {} have no address family in common", self.from, self.to));
        }
        let ask = |family: Family| {
            let protocol = self.traffic.protocol(family);
            let answer = evaluator.probe(&from, &to, protocol, self.traffic.port, family);
            answer.map(|answer| self.answered(family, &answer)).map_err(|error| error.to_string())
        };
        common.into_iter().map(ask).collect()
    }

    /// The address of an end in a family, as far as it is known.
    ///
    /// # Errors
    /// Where the end is none.
    pub fn address(index: &Index, end: &str, family: Family) -> Result<Option<IpAddr>, String> {
        let of_family = |address: &&IpAddr| address.is_ipv4() == (family == Family::V4);
        let end = party(end)?;
        let is_other = matches!(&end, Party::Address(address) if !of_family(&address));
        Ok(match if is_other { pod_behind(index, end) } else { end } {
            Party::Address(address) => Some(address),
            Party::Pod(name) => index.pod(&name).and_then(|pod| pod.addresses.iter().find(of_family)).copied(),
        })
    }

    /// One answer for all families: it passes where it does in each; else one is told in which it does not.
    ///
    /// # Errors
    /// Where it cannot be answered.
    pub fn ask_once(&self, index: &Index, evaluator: &Evaluator<'_>) -> Result<Answered, String> {
        let mut answers = self.ask(index, evaluator)?;
        let told = answers.iter().position(|answer| answer.verdict == Expected::Deny).unwrap_or_default();
        Ok(answers.swap_remove(told))
    }

    fn answered(&self, family: Family, answer: &Answer<'_>) -> Answered {
        Answered {
            from: self.from.clone(),
            to: self.to.clone(),
            protocol: self.traffic.protocol_name().into(),
            port: self.traffic.port,
            family,
            verdict: answer.verdict.into(),
            expect: self.expect,
            egress: SideAnswer::from(&answer.egress),
            ingress: SideAnswer::from(&answer.ingress),
        }
    }
}

//! Pods, where nobody makes EndpointSlices of them.

use k8s_openapi::api::core::v1::Pod;
use sluice_policy::ObjectError;
use sluice_policy::object::PodObject as KnownPod;

/// What matters of a Pod.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodObject {
    /// What matters of it to policies too.
    pub pod: KnownPod,
    /// Whether it is ready: unless its status says that it is not.
    pub is_ready: bool,
    /// Whether it is being deleted.
    pub is_terminating: bool,
}

impl TryFrom<&Pod> for PodObject {
    type Error = ObjectError;

    fn try_from(pod: &Pod) -> Result<Self, ObjectError> {
        let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        Ok(Self {
            pod: pod.try_into()?,
            is_ready: ready.is_none_or(|condition| condition.status == "True"),
            is_terminating: pod.metadata.deletion_timestamp.is_some(),
        })
    }
}

//! Policies, turned into what the datapath judges by. Pure: Kubernetes objects in, plain tables out.
#![forbid(unsafe_code)]

pub mod cluster_policy;

//! Sluice in a cluster of real kubelets: what Kubernetes does on a pod network.

mod installation;
mod pods;

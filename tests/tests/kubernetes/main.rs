//! Sluice in a cluster of real kubelets: what Kubernetes does on a pod network.

mod accounts;
mod admin;
mod balancers;
mod blocks;
mod fitness;
mod hosts;
mod ingress;
mod installation;
mod machines;
mod names;
mod nodes;
mod pods;
mod policies;
mod rights;
mod servers;
mod services;
mod tunnel;
mod upgrade;
mod workloads;

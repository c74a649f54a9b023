//! Services, as people want to see them.

use sluice_api::{BackendStatus, FrontendStatus, ServicePortStatus};
use sluice_service::{Choice, Frontend, FrontendKind, Index, Place, PortName, ServicePort};

/// All ports of Services, and host ports.
pub fn ports(index: &Index) -> Vec<ServicePortStatus> {
    index.ports().map(|(name, port)| status(name, port)).collect()
}

fn status(name: &PortName, port: &ServicePort) -> ServicePortStatus {
    let serves = |at: u32| {
        let roles = [("cluster_ip", &port.inside), ("inside", &port.inside_external), ("outside", &port.outside)];
        let given = roles.into_iter().filter(|(_, choice)| match choice {
            Choice::Among(members) => members.contains(&at),
            Choice::Reject | Choice::Drop => false,
        });
        given.map(|(role, _)| role.to_owned()).collect()
    };
    let backends = (0..).zip(&port.backends).map(|(at, backend)| BackendStatus {
        address: backend.address,
        port: backend.port,
        is_local: backend.is_local,
        serves: serves(at),
    });
    ServicePortStatus {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        port: name.port.to_string(),
        number: name.number,
        protocol: name.transport.name().to_owned(),
        frontends: port.frontends.iter().map(|frontend| reached(frontend, port)).collect(),
        backends: backends.collect(),
        affinity: port.affinity,
        source_ranges: port.source_ranges.iter().map(ToString::to_string).collect(),
    }
}

fn reached(frontend: &Frontend, port: &ServicePort) -> FrontendStatus {
    let (kind, inside, outside) = match frontend.kind {
        FrontendKind::ClusterIp => ("ClusterIP", &port.inside, &port.inside),
        FrontendKind::LoadBalancer => ("LoadBalancer", &port.inside_external, &port.outside),
        FrontendKind::ExternalIp => ("ExternalIP", &port.inside_external, &port.outside),
        FrontendKind::NodePort => ("NodePort", &port.inside_external, &port.outside),
        FrontendKind::HostPort => ("HostPort", &port.inside_external, &port.outside),
    };
    FrontendStatus {
        address: match frontend.at {
            Place::Address(address) => Some(address),
            Place::Node => None,
        },
        port: frontend.port,
        kind: kind.to_owned(),
        inside: fate(inside).to_owned(),
        outside: fate(outside).to_owned(),
    }
}

fn fate(choice: &Choice) -> &'static str {
    match choice {
        Choice::Among(_) => "served",
        Choice::Reject => "rejected",
        Choice::Drop => "dropped",
    }
}

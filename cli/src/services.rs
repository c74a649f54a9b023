//! Services as a table.

use sluice_api::{BackendStatus, FrontendStatus, ServicePortStatus};

use crate::end;
use crate::table::Table;

/// How many backends of a port are named; of the rest, how many they are.
const NAMED: usize = 4;

/// A row for each place where clients reach a port.
pub fn table(ports: &[ServicePortStatus]) -> Table {
    let mut table = Table::new(&["SERVICE", "PORT", "KIND", "AT", "FROM HERE", "FROM OUTSIDE", "BACKENDS", "AFFINITY"]);
    for port in ports {
        for frontend in &port.frontends {
            table.row(row(port, frontend));
        }
    }
    table
}

fn row(port: &ServicePortStatus, frontend: &FrontendStatus) -> [String; 8] {
    let name = if port.namespace.is_empty() { port.name.clone() } else { format!("{}/{}", port.namespace, port.name) };
    let number = format!("{}/{}", port.number, port.protocol);
    [
        name,
        if port.port.is_empty() { number } else { format!("{} {number}", port.port) },
        frontend.kind.clone(),
        frontend.address.map_or_else(|| format!("node:{}", frontend.port), |address| end(address, frontend.port)),
        frontend.inside.clone(),
        frontend.outside.clone(),
        backends(&port.backends),
        port.affinity.map_or_else(|| "-".into(), |seconds| format!("{seconds} s")),
    ]
}

fn backends(backends: &[BackendStatus]) -> String {
    let name = |backend: &BackendStatus| {
        let here = if backend.is_local { "*" } else { "" };
        let at = end(backend.address, backend.port);
        if backend.serves.is_empty() { format!("({at}{here})") } else { format!("{at}{here}") }
    };
    let mut names: Vec<String> = backends.iter().take(NAMED).map(name).collect();
    if backends.len() > NAMED {
        names.push(format!("and {} more", backends.len() - NAMED));
    }
    if names.is_empty() { "-".into() } else { names.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_here_are_marked_and_those_that_only_finish_are_in_brackets() {
        let backend = |last: u8, is_local, serves: &[&str]| BackendStatus {
            address: [10, 0, 0, last].into(),
            port: 80,
            is_local,
            serves: serves.iter().map(ToString::to_string).collect(),
        };
        let few = [backend(1, true, &["inside"]), backend(2, false, &[])];
        assert_eq!(backends(&few), "10.0.0.1:80*,(10.0.0.2:80)");
        let many: Vec<_> = (1..=7).map(|last| backend(last, false, &["outside"])).collect();
        assert_eq!(backends(&many), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80,10.0.0.4:80,and 3 more");
        assert_eq!(backends(&[]), "-");
    }
}

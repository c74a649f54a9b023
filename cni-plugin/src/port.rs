//! Ports of the node that lead to a container (capability `portMappings`).

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;
use sluice_api::{PortMapping, PortProtocol};

use crate::config::or_default;
use crate::error::{CniError, Code};

/// A port mapping, as runtimes give it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    host_port: i64,
    container_port: i64,
    protocol: String,
    #[serde(rename = "hostIP", default, deserialize_with = "or_default")]
    host_ip: String,
}

/// The port mappings that a runtime asks for.
///
/// # Errors
/// [`Code::InvalidConfiguration`] where one makes no sense, which is named.
pub fn mappings(asked: &[Value]) -> Result<Vec<PortMapping>, CniError> {
    let wrong = |asked: &Value, what: String| {
        CniError::new(Code::InvalidConfiguration, format!("the port mapping {asked} (portMappings) is wrong: {what}"))
    };
    asked.iter().map(|asked| mapping(asked).map_err(|what| wrong(asked, what))).collect()
}

fn mapping(asked: &Value) -> Result<PortMapping, String> {
    let Asked { host_port, container_port, protocol, host_ip } =
        Asked::deserialize(&spelled(asked)).map_err(|error| error.to_string())?;
    Ok(PortMapping {
        host_port: port("hostPort", host_port)?,
        container_port: port("containerPort", container_port)?,
        protocol: match protocol.to_ascii_lowercase().as_str() {
            "tcp" => PortProtocol::Tcp,
            "udp" => PortProtocol::Udp,
            "sctp" => PortProtocol::Sctp,
            _ => return Err(format!("protocol {protocol:?} is unknown; it is one of tcp, udp or sctp")),
        },
        host_ip: match host_ip.as_str() {
            "" => None,
            text => {
                let address: IpAddr = text.parse().map_err(|_| format!("hostIP {text:?} is no address"))?;
                Some(address.to_canonical())
            }
        },
    })
}

/// A mapping with its keys as the convention spells them. containerd writes them with capitals (`HostPort`; go-cni has no names
/// for its fields), which libraries for Go take for the same.
fn spelled(asked: &Value) -> Value {
    const KEYS: [&str; 4] = ["hostPort", "containerPort", "protocol", "hostIP"];
    let Value::Object(asked) = asked else { return asked.clone() };
    let spell = |key: &String| KEYS.into_iter().find(|it| it.eq_ignore_ascii_case(key)).map_or(key.clone(), Into::into);
    asked.iter().map(|(key, value)| (spell(key), value.clone())).collect()
}

fn port(key: &str, number: i64) -> Result<u16, String> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{key} {number} is no port; ports are 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mappings_are_read_as_runtimes_write_them() {
        let asked = [
            json!({ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }),
            json!({ "hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "" }),
            json!({ "hostPort": 1, "containerPort": 65535, "protocol": "sctp", "hostIP": "::", "other": 1 }),
            json!({ "hostPort": 2, "containerPort": 2, "protocol": "tcp", "hostIP": null }),
            json!({ "hostPort": 3, "containerPort": 3, "protocol": "tcp", "hostIP": "::ffff:192.0.2.1" }),
            json!({ "HostPort": 4, "ContainerPort": 4, "Protocol": "tcp", "HostIP": "127.0.0.1" }),
        ];
        let of = |host_port, container_port, protocol, host_ip: Option<&str>| {
            let host_ip = host_ip.map(|text| text.parse().expect("an address"));
            PortMapping { host_port, container_port, protocol, host_ip }
        };
        let expected = [
            of(8080, 80, PortProtocol::Tcp, None),
            of(53, 5353, PortProtocol::Udp, None),
            of(1, 65535, PortProtocol::Sctp, Some("::")),
            of(2, 2, PortProtocol::Tcp, None),
            of(3, 3, PortProtocol::Tcp, Some("192.0.2.1")),
            of(4, 4, PortProtocol::Tcp, Some("127.0.0.1")),
        ];
        assert_eq!(mappings(&asked).expect("they make sense"), expected);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let right = json!({ "hostPort": 80, "containerPort": 80, "protocol": "tcp" });
        for (key, value, word) in [
            ("hostPort", json!(0), "hostPort 0"),
            ("hostPort", json!(65536), "hostPort 65536"),
            ("hostPort", json!("80"), "expected i64"),
            ("containerPort", json!(-1), "containerPort -1"),
            ("containerPort", json!(null), "expected i64"),
            ("protocol", json!(""), "tcp, udp or sctp"),
            ("protocol", json!("icmp"), "icmp"),
            ("hostIP", json!("localhost"), "hostIP \"localhost\""),
            ("hostIP", json!("10.0.0.0/8"), "10.0.0.0/8"),
        ] {
            let mut asked = right.clone();
            asked[key] = value;
            let error = mappings(&[right.clone(), asked.clone()]).expect_err(word);
            assert_eq!(error.code, Code::InvalidConfiguration as u32);
            let named = error.message.contains(word) && error.message.contains(&asked.to_string());
            assert!(named, "{word}: {error}");
        }
        assert!(mappings(&[json!({ "hostPort": 1 })]).expect_err("incomplete").message.contains("containerPort"));
        assert!(mappings(&[json!(80)]).is_err());
    }
}

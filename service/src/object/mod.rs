//! What matters of each kind of object. A part that makes no sense is left out and noted, as kube-proxy leaves it out; the
//! rest counts.

mod address;
mod node;
mod pod;
mod service;
mod slice;

pub use node::{NodeObject, ZONE};
pub use pod::PodObject;
pub(crate) use service::family_of;
pub use service::{PortObject, ServiceObject, Target};
pub use slice::{Condition, EndpointObject, Names, SliceName, SliceObject, SlicePort};

use std::fmt::Display;

use sluice_policy::object::Note;
use sluice_policy::{Severity, Transport};

/// What is left out of an object.
#[derive(Default)]
struct Notes(Vec<Note>);

impl Notes {
    /// Something does not count as it stands.
    fn error(&mut self, field: impl Display, what: String) {
        self.0.push(Note { severity: Severity::Error, field: field.to_string(), what });
    }

    /// It counts, but perhaps not as it was meant.
    fn warn(&mut self, field: impl Display, what: String) {
        self.0.push(Note { severity: Severity::Warning, field: field.to_string(), what });
    }

    /// A port's number.
    fn port(&mut self, field: impl Display, number: i32) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.error(field, format!("{number} is no port: 1 to 65535; it is left out"));
        }
        port
    }

    /// A port's protocol.
    fn transport(&mut self, field: impl Display, name: Option<&str>) -> Option<Transport> {
        let transport = Transport::named(name);
        if transport.is_none() {
            self.error(field, format!("{:?} is not TCP, UDP or SCTP; its port is left out", name.unwrap_or_default()));
        }
        transport
    }
}

//! Errors, as the specification wants them told.

use std::io;

use sluice_api::{ClientError, RecordError};
use sluice_netlink::NetlinkError;

use crate::output::Version;

/// Codes of the CNI specification (section "Error", reserved below 100), and of this plugin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The version of the configuration is not spoken.
    IncompatibleVersion = 1,
    /// The container does not exist.
    UnknownContainer = 3,
    /// A variable of the environment is missing or wrong.
    InvalidEnvironment = 4,
    /// The disk, a pipe or a socket failed.
    Io = 5,
    /// What was to be read makes no sense.
    Decoding = 6,
    /// The configuration asks for something impossible.
    InvalidConfiguration = 7,
    /// Not now.
    TryAgainLater = 11,
    /// The plugin cannot serve ADD.
    Unavailable = 50,
    /// No address is free.
    Exhausted = 100,
    /// The kernel refused.
    Kernel = 101,
    /// An address that was asked for is taken or of no pool.
    AddressUnavailable = 102,
    /// CHECK has found something wrong.
    Damaged = 103,
    /// The agent refused.
    Refused = 104,
    /// Another plugin failed.
    Delegate = 105,
    /// The container's interface is there already.
    Exists = 106,
}

/// An error of the plugin.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// What kind.
    pub code: u32,
    /// What was attempted, on what, and what to do.
    pub message: String,
    /// More, for those who look closely.
    pub details: String,
}

impl CniError {
    /// An error with its message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code: code as u32, message: message.into(), details: String::new() }
    }

    /// The disk, a pipe or a socket failed at doing something.
    pub fn io(doing: &str, source: impl Into<io::Error>) -> Self {
        Self::new(Code::Io, format!("{doing}: {}", source.into()))
    }

    /// As the specification wants it on standard output.
    pub fn to_json(&self, version: Version) -> String {
        let mut value = serde_json::json!({ "cniVersion": version.name(), "code": self.code, "msg": self.message });
        if !self.details.is_empty() {
            value["details"] = self.details.clone().into();
        }
        format!("{value}\n")
    }
}

/// Takes all steps, whichever fail.
///
/// # Errors
/// The first failure, which tells of the others.
pub fn all(steps: impl IntoIterator<Item = Result<(), CniError>>) -> Result<(), CniError> {
    let mut failures = steps.into_iter().filter_map(Result::err);
    let Some(mut first) = failures.next() else { return Ok(()) };
    for other in failures {
        first.message = format!("{}; also {}", first.message, other.message);
    }
    Err(first)
}

impl From<NetlinkError> for CniError {
    fn from(error: NetlinkError) -> Self {
        Self::new(Code::Kernel, error.to_string())
    }
}

impl From<RecordError> for CniError {
    fn from(error: RecordError) -> Self {
        Self::new(Code::Io, error.to_string())
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        use sluice_api::ErrorKind;
        let code = match &error {
            ClientError::Absent { .. } | ClientError::Broken { .. } => Code::TryAgainLater,
            ClientError::Unintelligible { .. } => Code::Decoding,
            ClientError::Refused(failure) => match failure.kind {
                ErrorKind::Unavailable => Code::TryAgainLater,
                ErrorKind::Invalid | ErrorKind::Exhausted | ErrorKind::Internal | ErrorKind::Version => Code::Refused,
            },
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_are_taken_and_all_failures_told() {
        let mut taken = 0;
        let error = all((0..4).map(|step| {
            taken += 1;
            if step % 2 == 1 { Err(CniError::new(Code::Io, format!("step {step}"))) } else { Ok(()) }
        }))
        .expect_err("two fail");
        assert_eq!((taken, error.message.as_str()), (4, "step 1; also step 3"));
    }
}

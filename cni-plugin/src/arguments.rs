//! What the runtime says in the environment (CNI specification, section "Parameters").

use std::env;
use std::path::PathBuf;

use sluice_api::PodRef;

use crate::error::{CniError, Code};

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Wire a container.
    Add,
    /// Unwire it.
    Del,
    /// See whether it is still wired as it should be.
    Check,
    /// Unwire all but those listed.
    Gc,
    /// Say whether ADD can be served.
    Status,
    /// Say which versions are spoken.
    Version,
}

/// The environment of a call.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// What is to be done.
    pub verb: Verb,
    /// The container; empty with verbs that concern none.
    pub container_id: String,
    /// The name of its interface; empty with verbs that concern none.
    pub interface: String,
    /// Its network namespace, where the runtime named it.
    pub netns: Option<PathBuf>,
    /// `CNI_ARGS`: pairs of keys and values.
    pub extra: Vec<(String, String)>,
    /// Where other plugins are.
    pub path: Vec<PathBuf>,
}

fn variable(name: &str) -> Result<Option<String>, CniError> {
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(invalid(format!("{name} is not valid UTF-8"))),
    }
}

fn invalid(message: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidEnvironment, message)
}

fn required(name: &str) -> Result<String, CniError> {
    variable(name)?.ok_or_else(|| invalid(format!("{name} is missing; the runtime must set it")))
}

/// What the specification takes for a container id or a network's name: alphanumeric first, then also `_`, `.` and `-`.
pub fn is_plain(text: &str) -> bool {
    let mut letters = text.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-'))
}

fn container_id(id: String) -> Result<String, CniError> {
    let good = is_plain(&id) && id.len() <= 255;
    if good { Ok(id) } else { Err(invalid(format!("CNI_CONTAINERID {id:?} is not a container id"))) }
}

/// Names that the kernel takes for an interface.
fn interface(name: String) -> Result<String, CniError> {
    let good = (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.chars().all(|letter| letter.is_ascii_graphic() && !matches!(letter, '/' | ':' | '%'));
    if good { Ok(name) } else { Err(invalid(format!("CNI_IFNAME {name:?} is not a name that an interface can have"))) }
}

impl Arguments {
    /// Reads the environment.
    ///
    /// # Errors
    /// [`Code::InvalidEnvironment`] where a variable that the verb needs is missing or wrong.
    pub fn from_environment() -> Result<Self, CniError> {
        let verb = match required("CNI_COMMAND")?.as_str() {
            "ADD" => Verb::Add,
            "DEL" => Verb::Del,
            "CHECK" => Verb::Check,
            "GC" => Verb::Gc,
            "STATUS" => Verb::Status,
            "VERSION" => Verb::Version,
            other => {
                let known = "ADD, DEL, CHECK, GC, STATUS or VERSION";
                return Err(invalid(format!("CNI_COMMAND {other:?} is unknown; it is one of {known}")));
            }
        };
        let (id, name) = match verb {
            Verb::Add | Verb::Del | Verb::Check => {
                (container_id(required("CNI_CONTAINERID")?)?, interface(required("CNI_IFNAME")?)?)
            }
            Verb::Gc | Verb::Status | Verb::Version => (String::new(), String::new()),
        };
        let netns = match verb {
            Verb::Add | Verb::Check => Some(required("CNI_NETNS")?),
            Verb::Del => variable("CNI_NETNS")?,
            Verb::Gc | Verb::Status | Verb::Version => None,
        };
        let extra = variable("CNI_ARGS")?.map_or_else(|| Ok(Vec::new()), |text| pairs(&text))?;
        let path = variable("CNI_PATH")?.map_or_else(Vec::new, |path| env::split_paths(&path).collect());
        Ok(Self { verb, container_id: id, interface: name, netns: netns.map(PathBuf::from), extra, path })
    }

    /// The value of a key of `CNI_ARGS`.
    pub fn extra(&self, key: &str) -> Option<&str> {
        self.extra.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The pod, where the runtime is one of Kubernetes.
    pub fn pod(&self) -> Option<PodRef> {
        Some(PodRef {
            namespace: self.extra("K8S_POD_NAMESPACE")?.to_owned(),
            name: self.extra("K8S_POD_NAME")?.to_owned(),
            uid: self.extra("K8S_POD_UID").map(str::to_owned),
        })
    }

    /// What is to be done and to whom, in words for a log.
    pub fn described(&self) -> String {
        let pod = self.pod().map(|pod| format!("of {}/{}", pod.namespace, pod.name)).unwrap_or_default();
        let words = [&format!("{:?}", self.verb), &self.container_id, &self.interface, &pod];
        words.map(String::as_str).into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// `KEY=value;KEY=value`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, CniError> {
    text.split(';')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| invalid(format!("CNI_ARGS has {pair:?}, which is no KEY=VALUE")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        for bad in ["", "../etc", "a/b", ".hidden", "-x", "a b", "a\n", "é"] {
            assert!(container_id(bad.into()).is_err(), "{bad:?}");
        }
        for good in ["a", "0f3c", "a.b_c-d"] {
            assert!(container_id(good.into()).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "eth0\n", "%d", "sixteen-letters-"] {
            assert!(interface(bad.into()).is_err(), "{bad:?}");
        }
        assert!(interface("eth0".into()).is_ok() && interface("fifteen-letters".into()).is_ok());
    }

    #[test]
    fn a_log_names_the_pod_where_the_runtime_does() {
        let call = |verb, id: &str, name: &str, extra: &str| Arguments {
            verb,
            container_id: id.into(),
            interface: name.into(),
            netns: None,
            extra: pairs(extra).expect("pairs"),
            path: Vec::new(),
        };
        let pod = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0";
        assert_eq!(call(Verb::Add, "0f3c", "eth0", pod).described(), "Add 0f3c eth0 of shop/web-0");
        assert_eq!(call(Verb::Del, "0f3c", "eth0", "K8S_POD_NAME=web-0").described(), "Del 0f3c eth0");
        assert_eq!(call(Verb::Gc, "", "", "").described(), "Gc");
    }

    #[test]
    fn extra_arguments_are_pairs() {
        assert_eq!(pairs("A=1;B=x=y;").expect("pairs").len(), 2);
        assert!(pairs("A").is_err());
    }
}

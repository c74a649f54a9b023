//! Labels, and what may stand in them and in names.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Labels of an object, sorted by key. Those that are the same may be one in memory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// These labels with one more, where its key is not there yet.
    pub(crate) fn with_default(self, key: &str, value: &str) -> Self {
        match self.0.binary_search_by(|(other, _)| (**other).cmp(key)) {
            Ok(_) => self,
            Err(at) => {
                let mut labels = self.0.to_vec();
                labels.insert(at, (key.into(), value.into()));
                Self(labels.into())
            }
        }
    }
}

impl From<Option<&BTreeMap<String, String>>> for Labels {
    fn from(labels: Option<&BTreeMap<String, String>>) -> Self {
        let boxed = |(key, value): (&String, &String)| (key.as_str().into(), value.as_str().into());
        Self(labels.into_iter().flatten().map(boxed).collect())
    }
}

/// A number for a label, to look up what it is needed for. Two labels may share one: whoever looks, looks closer.
pub(crate) fn fingerprint(key: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, value).hash(&mut hasher);
    hasher.finish()
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Begins and ends with a letter or digit, and has only those and `inner` between.
fn is_framed(text: &str, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(|byte| is_alphanumeric(*byte)))
        && bytes.iter().all(|byte| is_alphanumeric(*byte) || inner.contains(byte))
}

/// A label's key: a name of 63 characters at most, perhaps with a prefix that is a DNS subdomain.
pub(crate) fn check_key(key: &str) -> Result<(), String> {
    let name = match key.split_once('/') {
        Some((prefix, name)) => {
            check_dns_subdomain(prefix).map_err(|what| format!("the prefix of the key {key:?}: {what}"))?;
            name
        }
        None => key,
    };
    if name.len() <= 63 && is_framed(name, b"-_.") {
        return Ok(());
    }
    Err(format!(
        "{key:?} is no key of a label: its name must have 1 to 63 letters, digits, '-', '_' or '.', the first and the last a letter or digit"
    ))
}

/// A label's value.
pub(crate) fn check_value(value: &str) -> Result<(), String> {
    if value.is_empty() || (value.len() <= 63 && is_framed(value, b"-_.")) {
        return Ok(());
    }
    Err(format!(
        "{value:?} is no value of a label: it must be empty or have at most 63 letters, digits, '-', '_' or '.', the first and the last a letter or digit"
    ))
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether a name is an RFC 1123 label, in lower case.
///
/// # Errors
/// If it is not.
pub fn check_dns_label(name: &str) -> Result<(), String> {
    if name.len() <= 63 && is_lower(name) && is_framed(name, b"-") {
        return Ok(());
    }
    Err(format!("{name:?} must have 1 to 63 lower-case letters, digits or '-', the first and the last no '-'"))
}

/// RFC 1123 subdomain, in lower case.
pub(crate) fn check_dns_subdomain(name: &str) -> Result<(), String> {
    if name.len() <= 253 && is_lower(name) && name.split('.').all(|part| is_framed(part, b"-")) {
        return Ok(());
    }
    Err(format!(
        "{name:?} must have 1 to 253 lower-case letters, digits, '-' or '.', and letters or digits at both ends and around each '.'"
    ))
}

/// A port's name (RFC 6335 section 5.1, in lower case).
pub(crate) fn check_port_name(name: &str) -> Result<(), String> {
    let has_letter = name.bytes().any(|byte| byte.is_ascii_alphabetic());
    if name.len() <= 15 && has_letter && is_lower(name) && is_framed(name, b"-") && !name.contains("--") {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name of a port: it must have 1 to 15 lower-case letters, digits or '-', at least one letter, and no '-' at an end or beside another"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values() {
        for good in ["a", "A_b.c-1", "example.com/role", "kubernetes.io/metadata.name"] {
            assert_eq!(check_key(good), Ok(()));
        }
        for bad in ["", "-a", "a-", "a b", "/a", "a/", "Example.com/a", "a/b/c", &"a".repeat(64)] {
            assert!(check_key(bad).is_err(), "{bad}");
        }
        assert_eq!(check_value(""), Ok(()));
        assert!(check_value("a b").is_err() && check_value(&"a".repeat(64)).is_err() && check_value("_a").is_err());
    }

    #[test]
    fn names() {
        assert!(check_dns_label("a-1").is_ok() && check_dns_label("a.b").is_err() && check_dns_label("A").is_err());
        assert!(check_dns_subdomain("a.b-c").is_ok() && check_dns_subdomain("a..b").is_err());
        assert!(check_dns_subdomain(&"a".repeat(254)).is_err());
        assert!(check_port_name("http-2").is_ok());
        for bad in ["80", "", "a--b", "-a", "Http", "averyveryverylong"] {
            assert!(check_port_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_default_gives_way() {
        let map = BTreeMap::from([("b".to_owned(), "1".to_owned())]);
        let labels = Labels::from(Some(&map));
        assert_eq!(labels.clone().with_default("b", "2").get("b"), Some("1"));
        let more = labels.with_default("a", "2");
        assert_eq!((more.get("a"), more.get("b"), more.get("c")), (Some("2"), Some("1"), None));
    }
}

//! Endpoint records: what the plugin leaves on disk about each endpoint, for the agent to find after a restart.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Container id, as the runtime gave it.
    pub container_id: String,
    /// Name of the interface inside the container.
    pub interface: String,
    /// Path of the container's network namespace, as the runtime gave it.
    pub netns: PathBuf,
    /// Name of the host side of the veth pair; also the name of the record's file.
    pub host_interface: String,
    /// Link-layer address of the container's side, `xx:xx:xx:xx:xx:xx`.
    pub mac: String,
    /// The container's own addresses: at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The name of the CNI network that it was added by.
    pub network: String,
    /// The pod, where the runtime named it.
    pub pod: Option<PodRef>,
    /// The node's ports that lead to the container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Where another IPAM plugin gave the addresses: the `ipam` section of the configuration by then, by which it takes them
    /// back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipam: Option<serde_json::Value>,
}

/// A port of the node that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// The node's port, not 0.
    pub host_port: u16,
    /// The container's, not 0.
    pub container_port: u16,
    /// Of which protocol both are.
    pub protocol: PortProtocol,
    /// At which of the node's addresses: `0.0.0.0` and `::` mean all of that family, none all of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, where the runtime gave it.
    pub uid: Option<String>,
}

/// The directory of endpoint records.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk refused.
    #[error("{action} endpoint record {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The content is not a record.
    #[error("endpoint record {} is damaged ({source}); remove it, and delete the pod it belonged to", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
}

impl Records {
    /// The records below a run directory, which need not exist yet.
    pub fn below(run_dir: &Path) -> Self {
        Self { directory: run_dir.join("endpoints") }
    }

    fn path(&self, host_interface: &str) -> PathBuf {
        self.directory.join(format!("{host_interface}.json"))
    }

    /// Where a record is until it is whole. Nobody writes another of the same endpoint meanwhile.
    fn unfinished(&self, host_interface: &str) -> PathBuf {
        self.directory.join(format!(".{host_interface}.new"))
    }

    /// Writes a record atomically, replacing one of the same endpoint.
    ///
    /// # Errors
    /// Where the disk refuses; nothing is left behind then.
    pub fn write(&self, record: &EndpointRecord) -> Result<(), RecordError> {
        let path = self.path(&record.host_interface);
        let temporary = self.unfinished(&record.host_interface);
        let write = || {
            fs::create_dir_all(&self.directory)?;
            let mut bytes = serde_json::to_vec(record)?;
            bytes.push(b'\n');
            // No disk is asked to keep it: a record is for as long as the kernel's state, which ends with the boot.
            fs::write(&temporary, bytes)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&temporary);
            RecordError::Io { action: "writing", path, source }
        })
    }

    /// The record of an endpoint, or `None`.
    ///
    /// # Errors
    /// Where it cannot be read or is damaged.
    pub fn read(&self, host_interface: &str) -> Result<Option<EndpointRecord>, RecordError> {
        Self::read_path(self.path(host_interface))
    }

    fn read_path(path: PathBuf) -> Result<Option<EndpointRecord>, RecordError> {
        match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|source| RecordError::Damaged { path, source })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError::Io { action: "reading", path, source }),
        }
    }

    /// Removes a record, and what is left of the writing of one; one that does not exist is no error.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn remove(&self, host_interface: &str) -> Result<(), RecordError> {
        for path in [self.unfinished(host_interface), self.path(host_interface)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(RecordError::Io { action: "removing", path, source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// All records, in the order of their names; those that cannot be read come as errors beside the others.
    ///
    /// # Errors
    /// Where the directory cannot be listed. One that does not exist is empty.
    pub fn list(&self) -> Result<Vec<Result<EndpointRecord, RecordError>>, RecordError> {
        self.listed("json")
    }

    /// As [`list`](Self::list), those whose writing was broken off, or goes on just now.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub fn list_unfinished(&self) -> Result<Vec<Result<EndpointRecord, RecordError>>, RecordError> {
        self.listed("new")
    }

    fn listed(&self, wanted: &str) -> Result<Vec<Result<EndpointRecord, RecordError>>, RecordError> {
        let listing = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other,
        };
        let failed = |source| RecordError::Io { action: "listing", path: self.directory.clone(), source };
        let mut paths = listing
            .map_err(failed)?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == wanted));
        paths.sort();
        Ok(paths.into_iter().filter_map(|path| Self::read_path(path).transpose()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(host_interface: &str) -> EndpointRecord {
        EndpointRecord {
            container_id: "c1".into(),
            interface: "eth0".into(),
            netns: "/run/netns/c1".into(),
            host_interface: host_interface.into(),
            mac: "02:00:00:00:00:01".into(),
            addresses: vec!["10.0.0.2".parse().expect("an address")],
            network: "sluice".into(),
            pod: None,
            port_mappings: Vec::new(),
            ipam: None,
        }
    }

    #[test]
    fn records_are_written_listed_and_removed() {
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::below(directory.path());
        assert!(records.list().expect("lists").is_empty());
        records.write(&record("slb")).expect("writes");
        records.write(&record("sla")).expect("writes");
        let listed: Vec<_> = records.list().expect("lists").into_iter().map(|r| r.expect("reads")).collect();
        assert_eq!(listed, [record("sla"), record("slb")]);
        records.remove("sla").expect("removes");
        records.remove("sla").expect("removing again is no error");
        assert_eq!(records.read("sla").expect("reads"), None);
    }

    #[test]
    fn port_mappings_are_kept_and_old_records_have_none() {
        let tcp = |host_port, host_ip: Option<&str>| PortMapping {
            host_port,
            container_port: 80,
            protocol: PortProtocol::Tcp,
            host_ip: host_ip.map(|text| text.parse().expect("an address")),
        };
        let mapped = EndpointRecord { port_mappings: vec![tcp(8080, None), tcp(8081, Some("::"))], ..record("sla") };
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::below(directory.path());
        records.write(&mapped).expect("writes");
        assert_eq!(records.read("sla").expect("reads"), Some(mapped));
        let old = serde_json::to_string(&record("sla")).expect("JSON");
        assert!(!old.contains("port_mappings"), "{old}");
        assert_eq!(serde_json::from_str::<EndpointRecord>(&old).expect("reads"), record("sla"));
    }

    #[test]
    fn what_a_broken_off_writing_leaves_is_listed_apart_and_goes_with_the_record() {
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::below(directory.path());
        records.write(&record("sla")).expect("writes");
        fs::rename(records.path("sla"), records.unfinished("sla")).expect("renames");
        assert!(records.list().expect("lists").is_empty());
        let unfinished: Vec<_> = records.list_unfinished().expect("lists").into_iter().flatten().collect();
        assert_eq!(unfinished, [record("sla")]);
        records.remove("sla").expect("removes");
        assert_eq!(fs::read_dir(&records.directory).expect("lists").count(), 0);
    }

    #[test]
    fn a_damaged_record_does_not_hide_the_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let records = Records::below(directory.path());
        records.write(&record("slb")).expect("writes");
        fs::write(directory.path().join("endpoints/sla.json"), b"{").expect("writes");
        let listed = records.list().expect("lists");
        assert!(matches!(listed[0], Err(RecordError::Damaged { .. })));
        assert!(listed[1].is_ok());
    }
}

//! Addresses that are in use: a file each, named by the address, made whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pool::Pool;
use crate::error::{CniError, Code, all};

/// Who has an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The network's name.
    pub network: String,
    /// The container.
    pub container_id: String,
    /// The name of its interface.
    pub interface: String,
}

impl Owner {
    /// A container's interface in a network.
    pub fn new(network: &str, container_id: &str, interface: &str) -> Self {
        Self { network: network.into(), container_id: container_id.into(), interface: interface.into() }
    }
}

/// The content of an address's file.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    owner: Owner,
    /// The boot of the node that the owner lives in: none survives another.
    boot: String,
}

/// The directory of addresses, while nobody else takes or gives back any.
pub struct Store {
    directory: PathBuf,
    /// This boot of the node.
    boot: String,
    /// Files of addresses that were taken, and that the disk has yet to keep.
    fresh: Vec<File>,
    _lock: Flock<File>,
}

/// Addresses that the disk is about to keep.
#[derive(Debug)]
#[must_use = "an address is for good once the disk has it"]
pub struct Settling(JoinHandle<Result<(), CniError>>);

impl Settling {
    /// Waits until the disk has them.
    ///
    /// # Errors
    /// Where it refuses.
    pub fn wait(self) -> Result<(), CniError> {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn failed(doing: &str, path: &Path) -> impl Fn(io::Error) -> CniError {
    let doing = format!("{doing} {}", path.display());
    move |source| CniError::io(&doing, source)
}

impl Store {
    /// Opens the directory, which is made where it is not there, and waits for its lock.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn open(state_dir: &Path) -> Result<Self, CniError> {
        let directory = state_dir.join("addresses");
        fs::create_dir_all(&directory).map_err(failed("making", &directory))?;
        Self::locked(directory)
    }

    /// As [`open`](Self::open); `None` where nobody has ever taken an address.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn existing(state_dir: &Path) -> Result<Option<Self>, CniError> {
        let directory = state_dir.join("addresses");
        if directory.is_dir() { Self::locked(directory).map(Some) } else { Ok(None) }
    }

    fn locked(directory: PathBuf) -> Result<Self, CniError> {
        let path = directory.join(".lock");
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("opening", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| CniError::io(&format!("locking {}", path.display()), errno))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into();
        Ok(Self { directory, boot, fresh: Vec::new(), _lock: lock })
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.directory.join(address.to_string())
    }

    /// The owner that a file names. Nobody: one of an earlier boot, which ended with the node, or of a disk that lost what
    /// it had promised to keep.
    fn living(&self, content: &[u8]) -> Option<Owner> {
        let entry: Entry = serde_json::from_slice(content).ok()?;
        (entry.boot == self.boot).then_some(entry.owner)
    }

    /// Who has an address.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn owner(&self, address: IpAddr) -> Result<Option<Owner>, CniError> {
        let path = self.path(address);
        match fs::read(&path) {
            Ok(bytes) => Ok(self.living(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading", &path)(error)),
        }
    }

    /// Where this process writes what is to appear whole.
    fn aside(&self) -> PathBuf {
        self.directory.join(format!(".{}", std::process::id()))
    }

    /// Takes an address; `false` where somebody has it.
    fn claim(&mut self, address: IpAddr, owner: &Owner) -> Result<bool, CniError> {
        let path = self.path(address);
        if let Ok(bytes) = fs::read(&path) {
            if self.living(&bytes).is_some() {
                return Ok(false);
            }
            fs::remove_file(&path).map_err(failed("removing", &path))?;
        }
        // Written aside and linked to its name: the name exists exclusively, and never without its content.
        let aside = self.aside();
        let entry = Entry { owner: owner.clone(), boot: self.boot.clone() };
        let write = || -> io::Result<File> {
            let mut file = File::create(&aside)?;
            file.write_all(&serde_json::to_vec(&entry)?)?;
            fs::hard_link(&aside, &path)?;
            fs::remove_file(&aside)?;
            Ok(file)
        };
        match write() {
            Ok(file) => {
                self.fresh.push(file);
                Ok(true)
            }
            Err(error) => {
                let _ = fs::remove_file(&aside);
                if error.kind() == ErrorKind::AlreadyExists {
                    return Ok(false);
                }
                let _ = fs::remove_file(&path);
                Err(failed("writing", &path)(error))
            }
        }
    }

    /// Has the disk keep what was taken, contents and names, on a thread of its own: it takes as long as all the rest of ADD.
    ///
    /// # Errors
    /// Where the kernel has no thread to spare.
    pub fn settle(self) -> Result<Settling, CniError> {
        let Self { directory, fresh, .. } = self;
        let keep = move || {
            let keep = || {
                fresh.iter().try_for_each(File::sync_all)?;
                File::open(&directory)?.sync_all()
            };
            keep().map_err(failed("writing addresses to", &directory))
        };
        let thread = thread::Builder::new().spawn(keep);
        thread.map(Settling).map_err(|error| CniError::io("starting a thread that writes addresses", error))
    }

    /// Takes this address, and gives it.
    ///
    /// # Errors
    /// [`Code::AddressUnavailable`] where somebody has it.
    pub fn take(&mut self, address: IpAddr, owner: &Owner) -> Result<IpAddr, CniError> {
        if self.claim(address, owner)? {
            return Ok(address);
        }
        let other = self.owner(address)?.map_or_else(|| "somebody".into(), |other| other.container_id);
        Err(CniError::new(Code::AddressUnavailable, format!("the requested address {address} is in use by {other}")))
    }

    /// Where the address of a pool is that was given out last. A pool's name may be longer than a file's can be.
    fn cursor(&self, pool: &Pool) -> PathBuf {
        let digest = Sha256::digest(pool.to_string());
        let digits: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!(".last-{digits}"))
    }

    /// Takes the next address of a pool.
    ///
    /// # Errors
    /// [`Code::Exhausted`] where all are in use.
    pub fn take_next(&mut self, pool: &Pool, owner: &Owner) -> Result<IpAddr, CniError> {
        let cursor = self.cursor(pool);
        let last = fs::read_to_string(&cursor).ok().and_then(|text| text.trim().parse().ok());
        let mut tried = 0;
        for address in pool.after(last) {
            if self.claim(address, owner)? {
                // Only a courtesy to addresses just given back: nothing depends on it.
                let aside = self.aside();
                if fs::write(&aside, address.to_string()).and_then(|()| fs::rename(&aside, &cursor)).is_err() {
                    let _ = fs::remove_file(&aside);
                }
                return Ok(address);
            }
            tried += 1;
        }
        let message = format!(
            "all {tried} addresses of {pool} are in use; give the node a larger pod CIDR or let it run fewer pods \
             (leaked ones are given back by GC)"
        );
        Err(CniError::new(Code::Exhausted, message))
    }

    /// Gives back all addresses of those who are gone, by `is_gone` or with an earlier boot, and what dead plugins left aside.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn give_back_all(&self, is_gone: impl Fn(&Owner) -> bool) -> Result<(), CniError> {
        let listing = fs::read_dir(&self.directory).map_err(failed("listing", &self.directory))?;
        all(listing.map(|entry| {
            let path = entry.map_err(failed("listing", &self.directory))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
            let remove = match name.strip_prefix('.') {
                // This process has the lock, and none that writes aside is without it.
                Some(aside) => aside.bytes().all(|byte| byte.is_ascii_digit()),
                None => {
                    name.parse::<IpAddr>().is_ok()
                        && fs::read(&path).is_ok_and(|bytes| self.living(&bytes).is_none_or(|owner| is_gone(&owner)))
                }
            };
            if remove { fs::remove_file(&path).map_err(failed("removing", &path)) } else { Ok(()) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Range;

    fn pool(subnet: &str) -> Pool {
        Pool::of(&[Range { subnet: subnet.parse().expect("a subnet"), range_start: None, range_end: None }])
            .expect("a pool")
    }

    #[test]
    fn addresses_are_taken_once_and_rotate() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Store::open(directory.path()).expect("opens");
        let pool = pool("10.0.0.0/29");
        let (a, b) = (Owner::new("n", "a", "eth0"), Owner::new("n", "b", "eth0"));
        let first = store.take_next(&pool, &a).expect("free");
        let second = store.take_next(&pool, &b).expect("free");
        assert_ne!(first, second);
        store.give_back_all(|owner| *owner == a).expect("gives back");
        assert_eq!(store.owner(first).expect("reads"), None);
        assert_eq!(store.owner(second).expect("reads"), Some(b));
        assert_ne!(store.take_next(&pool, &a).expect("free"), first, "not at once");
    }

    #[test]
    fn a_pool_of_many_ranges_rotates_too() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Store::open(directory.path()).expect("opens");
        let range = |number: u8| Range {
            subnet: format!("fd00:1111:2222:3333:4444:5555:6666:{number:x}/128").parse().expect("a subnet"),
            range_start: None,
            range_end: None,
        };
        let pool = Pool::of(&(1..20).map(range).collect::<Vec<_>>()).expect("a pool");
        let a = Owner::new("n", "a", "eth0");
        let first = store.take_next(&pool, &a).expect("free");
        store.give_back_all(|_| true).expect("gives back");
        assert_ne!(store.take_next(&pool, &a).expect("free"), first, "not at once");
    }

    #[test]
    fn a_full_pool_says_so_and_a_reboot_empties_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Store::open(directory.path()).expect("opens");
        let pool = pool("10.0.0.0/30");
        let (before, now) = (Owner::new("n", "a", "eth0"), Owner::new("n", "b", "eth0"));
        let first = store.take_next(&pool, &before).expect("free");
        store.take_next(&pool, &before).expect("free");
        assert_eq!(store.take_next(&pool, &before).expect_err("full").code, Code::Exhausted as u32);
        store.boot = "another".into();
        assert_eq!(store.owner(first).expect("reads"), None);
        assert_eq!(store.take_next(&pool, &now).expect("what the reboot ended is free"), first);
        store.give_back_all(|_| false).expect("gives back");
        let left: Vec<_> =
            fs::read_dir(&store.directory).expect("lists").flatten().map(|file| file.file_name()).collect();
        let left: Vec<_> = left.iter().filter_map(|name| name.to_str()?.parse::<IpAddr>().ok()).collect();
        assert_eq!(left, [first], "the other went with its boot");
    }

    #[test]
    fn a_requested_address_that_is_taken_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Store::open(directory.path()).expect("opens");
        let address = "10.0.0.9".parse().expect("an address");
        store.take(address, &Owner::new("n", "a", "eth0")).expect("free");
        let error = store.take(address, &Owner::new("n", "b", "eth0")).expect_err("taken");
        assert!(error.message.contains("in use by a"), "{error}");
    }
}

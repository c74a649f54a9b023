//! Disks that are full.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A small disk that is full; gone when dropped.
pub struct FullDisk {
    directory: PathBuf,
}

impl FullDisk {
    /// What takes all the room.
    pub const FILL: &str = ".fill";

    /// Puts one over a directory, which is made where it is missing.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn at(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let tmpfs = Some("tmpfs");
        mount(tmpfs, directory, tmpfs, MsFlags::empty(), Some("size=64k")).context("mounting a small disk")?;
        let disk = Self { directory: directory.to_owned() };
        let mut fill = OpenOptions::new().create(true).append(true).open(directory.join(Self::FILL))?;
        loop {
            match fill.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(disk),
                Err(error) => return Err(error).context("filling a small disk"),
            }
        }
    }

    /// Gives it room.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(self.directory.join(Self::FILL)).context("making room on a small disk")
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
    }
}

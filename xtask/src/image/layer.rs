//! Files, packed the same way whenever and wherever that is.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// What anybody may read.
pub const FILE: u32 = 0o644;
/// What anybody may run.
pub const PROGRAM: u32 = 0o755;

/// Files by their path without a slash before it: in the order of their packing.
#[derive(Default)]
pub struct Files(BTreeMap<PathBuf, File>);

#[derive(Clone)]
struct File {
    mode: u32,
    bytes: Vec<u8>,
}

impl Files {
    /// Adds one.
    pub fn add(&mut self, path: impl Into<PathBuf>, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), File { mode, bytes: bytes.into() });
    }

    /// How many bytes they have.
    pub fn size(&self) -> usize {
        self.0.values().map(|file| file.bytes.len()).sum()
    }

    /// Those below a directory, by their paths from there.
    #[must_use]
    pub fn below(&self, directory: impl AsRef<Path>) -> Self {
        let below = |(path, file): (&PathBuf, &File)| {
            Some((path.strip_prefix(directory.as_ref()).ok()?.to_owned(), file.clone()))
        };
        Self(self.0.iter().filter_map(below).collect())
    }

    /// Writes them into a directory.
    ///
    /// # Errors
    /// Where that is not possible.
    pub fn write(&self, directory: &Path) -> Result<()> {
        for (path, file) in &self.0 {
            let place = directory.join(path);
            let parent = place.parent().unwrap_or(directory);
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
            fs::write(&place, &file.bytes).with_context(|| format!("writing {}", place.display()))?;
        }
        Ok(())
    }

    /// An archive of them and of the directories that lead to them, all of a time, root's.
    ///
    /// # Errors
    /// Where a path is too long for an archive.
    pub fn pack(&self, seconds: u64) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        let mut made = None;
        for (path, file) in &self.0 {
            for directory in directories(path) {
                // In order: what a path shares with the one before is there.
                if made.as_ref().is_none_or(|made: &PathBuf| !made.starts_with(directory)) {
                    append(&mut archive, directory, EntryType::Directory, PROGRAM, &[], seconds)?;
                }
            }
            append(&mut archive, path, EntryType::Regular, file.mode, &file.bytes, seconds)?;
            made = path.parent().map(Path::to_owned);
        }
        archive.into_inner().context("ending an archive")
    }
}

/// The directories that lead to a file, the outermost first.
fn directories(path: &Path) -> Vec<&Path> {
    let mut directories: Vec<_> = path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
    directories.reverse();
    directories
}

fn append(
    archive: &mut Builder<Vec<u8>>,
    path: &Path,
    kind: EntryType,
    mode: u32,
    bytes: &[u8],
    seconds: u64,
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(seconds);
    header.set_size(bytes.len() as u64);
    // What unpackers expect of a directory.
    let name = if kind.is_dir() { path.join("") } else { path.to_owned() };
    archive.append_data(&mut header, &name, bytes).with_context(|| format!("packing {}", path.display()))
}

/// Compresses, with no word of when and where.
///
/// # Errors
/// Not in memory.
pub fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(bytes).context("compressing")?;
    encoder.finish().context("compressing")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u64 = 1_700_000_000;

    fn files(names: &[&str]) -> Files {
        let mut files = Files::default();
        for name in names {
            files.add(*name, if name.contains("bin") { PROGRAM } else { FILE }, name.as_bytes());
        }
        files
    }

    #[test]
    fn the_order_of_adding_does_not_matter() {
        let names = ["usr/bin/a", "opt/cni/bin/b", "usr/share/doc/c"];
        let packed = files(&names).pack(TIME).expect("packs");
        let mut names = names;
        names.reverse();
        assert_eq!(files(&names).pack(TIME).expect("packs"), packed);
        assert_ne!(files(&names).pack(TIME + 1).expect("packs"), packed);
        assert_eq!(compress(&packed).expect("compresses"), compress(&packed).expect("compresses"));
    }

    #[test]
    fn everything_is_roots_of_one_time_and_in_order_after_its_directories() {
        let packed = files(&["usr/share/doc/c", "usr/bin/a", "opt/b", "usr/bin/d"]).pack(TIME).expect("packs");
        let mut archive = tar::Archive::new(&packed[..]);
        let mut lines = Vec::new();
        for entry in archive.entries().expect("reads") {
            let entry = entry.expect("reads");
            let header = entry.header();
            assert_eq!((header.uid().ok(), header.gid().ok(), header.mtime().ok()), (Some(0), Some(0), Some(TIME)));
            let path = entry.path().expect("has a path").display().to_string();
            lines.push(format!("{path} {:o}", header.mode().expect("has a mode")));
        }
        let expected = [
            "opt/ 755",
            "opt/b 644",
            "usr/ 755",
            "usr/bin/ 755",
            "usr/bin/a 755",
            "usr/bin/d 755",
            "usr/share/ 755",
            "usr/share/doc/ 755",
            "usr/share/doc/c 644",
        ];
        assert_eq!(lines, expected);
    }
}

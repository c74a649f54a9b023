//! Watching a directory: what is at rest there, and what is being written.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{io, mem};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use sluice_manifest_reader::is_manifest;

/// A file that was closed or put in its place is at rest. But programs make several steps of a change, and editors replace
/// files by moving others away first: where a file is gone or being written, so long nothing must happen before a change
/// counts as made,
const QUIET: Duration = Duration::from_millis(100);
/// unless something has been happening for so long.
const LONGEST: Duration = Duration::from_secs(1);

/// A directory that is watched, and followed when it is replaced.
pub struct Watch {
    inotify: Inotify,
    path: PathBuf,
    parent: Option<WatchDescriptor>,
    /// The directory itself, while there is one.
    directory: Option<Followed>,
    moving: Moving,
    /// Something has happened that was not waited for yet.
    stirred: bool,
    /// Any file may be another for it.
    concerns_all: bool,
    /// And it may not be over.
    is_upset: bool,
}

/// What may be another than it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stirred {
    /// Any file.
    Everything,
    /// Files of these names.
    Files(BTreeSet<OsString>),
}

impl Stirred {
    /// Whether a file may be another.
    pub fn concerns(&self, path: &Path) -> bool {
        match self {
            Self::Everything => true,
            Self::Files(names) => path.file_name().is_some_and(|name| names.contains(name)),
        }
    }
}

#[derive(Clone, Copy)]
struct Followed {
    descriptor: WatchDescriptor,
    identity: (u64, u64),
}

/// Which files cannot be read just now.
#[derive(Debug, Default)]
struct Moving {
    /// Changed, and not closed since.
    written: BTreeSet<OsString>,
    /// Touched in any way since the last wait.
    touched: BTreeSet<OsString>,
    /// Of these, the manifests that may not be what they are to be yet.
    unsettled: BTreeSet<OsString>,
}

impl Moving {
    fn note(&mut self, name: &OsStr, mask: AddWatchFlags) {
        self.touched.insert(name.to_owned());
        if mask.intersects(AddWatchFlags::IN_MODIFY) {
            self.written.insert(name.to_owned());
        } else if !mask.intersects(AddWatchFlags::IN_CREATE) {
            // Closed, gone, or another by now.
            self.written.remove(name);
        }
        if mask.intersects(AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO) {
            self.unsettled.remove(name);
        } else {
            self.unsettled.insert(name.to_owned());
        }
    }
}

impl Watch {
    /// Watches a directory.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let parent = match path.parent() {
            Some(parent) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                let events = AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_MOVED_TO
                    | AddWatchFlags::IN_MOVED_FROM
                    | AddWatchFlags::IN_DELETE;
                Some(inotify.add_watch(parent, events)?)
            }
            None => None,
        };
        let (directory, moving) = (None, Moving::default());
        let mut this = Self {
            inotify,
            path: path.to_owned(),
            parent,
            directory,
            moving,
            stirred: false,
            concerns_all: false,
            is_upset: false,
        };
        this.follow()?;
        Ok(this)
    }

    /// Watches what is under the path now, if that is another directory than before.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn follow(&mut self) -> io::Result<()> {
        let identity = std::fs::metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        if identity == self.directory.map(|followed| followed.identity) {
            return Ok(());
        }
        if let Some(old) = self.directory.take() {
            // Gone by itself where the directory is gone.
            let _ = self.inotify.rm_watch(old.descriptor);
            self.moving = Moving::default();
        }
        let Some(identity) = identity else { return Ok(()) };
        let events = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.add_watch(&self.path, events) {
            Ok(descriptor) => self.directory = Some(Followed { descriptor, identity }),
            // Replaced or gone meanwhile: the parent has told of it.
            Err(Errno::ENOENT) => self.upset(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Whether a file is being written, or was touched since the last wait.
    pub fn is_moving(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| self.moving.written.contains(name) || self.moving.touched.contains(name))
    }

    /// Takes notice of what has happened, without waiting.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            match self.inotify.read_events() {
                Ok(events) => events.iter().for_each(|event| self.note(event)),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until something happens, if nothing has yet, and then until it is over; says what may be another since.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn wait(&mut self) -> io::Result<Stirred> {
        while !self.stirred {
            // What a link leads to may come into being without a word.
            let missing = self.directory.is_none();
            self.poll(missing.then_some(LONGEST))?;
            self.drain()?;
            if missing {
                self.upset();
            }
        }
        let deadline = Instant::now() + LONGEST;
        while !self.is_at_rest() && self.poll(Some(QUIET))? && Instant::now() < deadline {
            self.drain()?;
        }
        let touched = mem::take(&mut self.moving.touched);
        let stirred = if self.concerns_all { Stirred::Everything } else { Stirred::Files(touched) };
        (self.stirred, self.concerns_all, self.is_upset) = (false, false, false);
        self.moving.unsettled.clear();
        Ok(stirred)
    }

    /// Whether what has happened is over for all that is known.
    fn is_at_rest(&self) -> bool {
        !self.is_upset && self.moving.unsettled.is_empty()
    }

    fn upset(&mut self) {
        (self.stirred, self.concerns_all, self.is_upset) = (true, true, true);
    }

    /// Whether something happens within a time.
    fn poll(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout = timeout.map_or(PollTimeout::NONE, |time| time.try_into().unwrap_or(PollTimeout::MAX));
        match poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn note(&mut self, event: &InotifyEvent) {
        if event.mask.intersects(AddWatchFlags::IN_Q_OVERFLOW) {
            // Nobody knows what is being written.
            self.moving = Moving::default();
            self.upset();
        } else if Some(event.wd) == self.parent {
            if event.name.as_deref() == self.path.file_name() {
                self.upset();
            }
        } else if self.directory.is_some_and(|followed| followed.descriptor == event.wd) {
            match &event.name {
                Some(name) if is_manifest(Path::new(name)) => {
                    self.stirred = true;
                    self.moving.note(name, event.mask);
                }
                // Manifests may be links that lead by way of it, as those of a ConfigMap's volume do.
                Some(_) if event.mask.intersects(AddWatchFlags::IN_MOVED_TO) => {
                    (self.stirred, self.concerns_all) = (true, true);
                }
                Some(_) => {}
                None => self.upset(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    fn stirs(watch: &mut Watch, what: impl FnOnce()) {
        what();
        watch.wait().expect("something happens");
        watch.follow().expect("follows");
    }

    #[test]
    fn a_file_moves_from_its_first_change_until_it_is_closed() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.yaml");
        fs::write(&path, "before").expect("writes");
        let mut watch = Watch::open(directory.path()).expect("watches");
        let mut file = None;
        stirs(&mut watch, || file = fs::File::create(&path).ok());
        assert!(watch.is_moving(&path), "truncated");
        let mut file = file.expect("opens");
        stirs(&mut watch, || file.write_all(b"after").expect("writes"));
        assert!(watch.is_moving(&path));
        stirs(&mut watch, || drop(file));
        assert!(!watch.is_moving(&path));
        fs::write(&path, "while it is read").expect("writes");
        watch.drain().expect("takes notice");
        assert!(watch.is_moving(&path), "until it is read again");
    }

    #[test]
    fn what_is_put_in_its_place_is_at_rest_and_what_is_gone_may_come_back() {
        let root = tempfile::tempdir().expect("a directory");
        let directory = root.path().join("now");
        fs::create_dir(&directory).expect("makes");
        let (path, other) = (directory.join("a.yaml"), root.path().join("a.new"));
        let mut watch = Watch::open(&directory).expect("watches");
        let mut stir = |what: &dyn Fn()| {
            what();
            watch.drain().expect("takes notice");
            (watch.is_at_rest(), watch.wait().expect("something happens"))
        };
        let only = |name: &str| Stirred::Files([name.into()].into());
        assert_eq!(stir(&|| fs::write(&path, "written and closed").expect("writes")), (true, only("a.yaml")));
        fs::write(&other, "another").expect("writes");
        assert_eq!(stir(&|| fs::rename(&other, &path).expect("moves")), (true, only("a.yaml")));
        let hidden = directory.join(".a.yaml");
        let replace = || fs::write(&hidden, "unfinished").and_then(|()| fs::rename(&hidden, &path)).expect("moves");
        assert_eq!(stir(&replace), (true, only("a.yaml")));
        assert_eq!(stir(&|| fs::rename(&path, &other).expect("moves")), (false, only("a.yaml")), "gone");
        assert_eq!(stir(&|| fs::rename(&other, &path).expect("moves")), (true, only("a.yaml")));
        let link = root.path().join("link");
        symlink(&other, &link).expect("links");
        let lead = || fs::rename(&link, directory.join("..data")).expect("moves");
        assert_eq!(stir(&lead), (true, Stirred::Everything), "links may lead elsewhere");
        assert_eq!(stir(&|| fs::remove_file(&path).expect("removes")), (false, only("a.yaml")), "gone");
        assert_eq!(stir(&|| fs::remove_dir_all(&directory).expect("removes")), (false, Stirred::Everything));
    }

    #[test]
    fn a_directory_is_followed_when_it_is_replaced() {
        let root = tempfile::tempdir().expect("a directory");
        let (first, second, path) = (root.path().join("1"), root.path().join("2"), root.path().join("now"));
        for directory in [&first, &second] {
            fs::create_dir(directory).expect("makes");
        }
        symlink(&first, &path).expect("links");
        let mut watch = Watch::open(&path).expect("watches");
        stirs(&mut watch, || symlink(&second, first.join("a.yaml")).expect("links"));
        stirs(&mut watch, || {
            symlink(&second, root.path().join("next")).expect("links");
            fs::rename(root.path().join("next"), &path).expect("moves");
        });
        stirs(&mut watch, || fs::write(second.join("b.yaml"), "").expect("writes"));
        stirs(&mut watch, || fs::rename(&second, root.path().join("away")).expect("moves"));
        stirs(&mut watch, || fs::create_dir(&second).expect("makes"));
        stirs(&mut watch, || fs::write(second.join("c.yaml"), "").expect("writes"));
    }
}

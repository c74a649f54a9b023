//! What kept an agent from its work: a file beside its socket, for whoever finds nobody there.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::LAST_ERROR;

/// Notes what an agent, or what runs before one, has ended with, in its run directory.
///
/// # Errors
/// Where it cannot be written.
pub fn note(run_dir: &Path, text: &str) -> io::Result<()> {
    let aside = aside(run_dir);
    // Nobody reads half of it.
    fs::write(&aside, format!("{text}\n")).and_then(|()| fs::rename(&aside, run_dir.join(LAST_ERROR)))
}

/// Removes what was noted: it is so no longer.
///
/// # Errors
/// Where it cannot be removed.
pub fn forget(run_dir: &Path) -> io::Result<()> {
    [aside(run_dir), run_dir.join(LAST_ERROR)].iter().try_for_each(|path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}

/// What was noted, if anything.
pub(crate) fn read(run_dir: &Path) -> Option<String> {
    let text = fs::read_to_string(run_dir.join(LAST_ERROR)).ok()?;
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

fn aside(run_dir: &Path) -> PathBuf {
    run_dir.join(format!(".{LAST_ERROR}.new"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_counts_until_it_is_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let run_dir = directory.path();
        assert_eq!(read(run_dir), None);
        note(run_dir, "no type information").expect("writes");
        note(run_dir, "no rights").expect("writes");
        assert_eq!(read(run_dir).as_deref(), Some("no rights"));
        fs::write(aside(run_dir), "half").expect("writes");
        forget(run_dir).expect("removes");
        forget(run_dir).expect("finds nothing");
        assert_eq!(fs::read_dir(run_dir).expect("lists").count(), 0);
    }
}

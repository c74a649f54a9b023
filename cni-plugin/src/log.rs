//! The log file, written only where one is configured.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends a line, with seconds since 1970, to the file that has this name now: who rotates it may take it away or cut it. A log
/// that cannot be written stops nothing.
pub fn line(file: Option<&Path>, text: &str) {
    /// For whoever looks into a fault: it says which pods come and go.
    const MODE: u32 = 0o600;
    let Some(file) = file else { return };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).mode(MODE).open(file) {
        let _ = file.write_all(format!("{}.{:03} {text}\n", time.as_secs(), time.subsec_millis()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_its_owners_and_may_be_rotated_between_two_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let (log, old) = (directory.path().join("plugin.log"), directory.path().join("plugin.log.1"));
        let texts = |file: &Path| -> Vec<String> {
            let text = fs::read_to_string(file).expect("is there");
            text.lines().filter_map(|line| Some(line.split_once(' ')?.1.to_owned())).collect()
        };
        line(Some(&log), "one");
        line(Some(&log), "two");
        assert_eq!(fs::metadata(&log).expect("is there").permissions().mode() & 0o777, 0o600);
        fs::rename(&log, &old).expect("is moved");
        line(Some(&log), "three");
        assert_eq!((texts(&old), texts(&log)), (vec!["one".into(), "two".into()], vec!["three".into()]));
        fs::File::create(&log).expect("is cut");
        line(Some(&log), "four");
        assert_eq!(texts(&log), ["four"]);
    }
}

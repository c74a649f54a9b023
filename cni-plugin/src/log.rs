//! The log file, written only where one is configured.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Appends a line, with seconds since 1970. A log that cannot be written stops nothing.
pub fn line(file: Option<&Path>, text: &str) {
    let Some(file) = file else { return };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(file) {
        let _ = file.write_all(format!("{}.{:03} {text}\n", time.as_secs(), time.subsec_millis()).as_bytes());
    }
}

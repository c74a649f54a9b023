//! What is said. Who reads no further, as `head` does, misses nothing: that is no error, and changes no exit status.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// Says these lines, in colours on a terminal.
///
/// # Errors
/// Where they cannot be written, as on a full disk.
pub fn lines(lines: impl IntoIterator<Item = impl Display>) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    match lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Says what is wrong, if anybody still reads it.
pub fn warn(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

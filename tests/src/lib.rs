//! What the suites that need a kernel stand on.

pub mod packet;

//! What the suites that need a kernel stand on.

pub mod bench;
pub mod kubernetes;
pub mod lab;
pub mod packet;
pub mod service_maps;

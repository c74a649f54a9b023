//! Packets through the compiled programs and through the native build of the same source, side by side.

mod both;
mod build;
mod kernel;
mod native;
mod node;
mod scene;
mod served;
mod wire;
mod writer;

pub use both::{Both, Ran, Verdict, endpoint, mac};
pub use build::{Ip, Recipe, Transport, checksums_hold, reversed};
pub use kernel::{Kernel, Returned, object};
pub use native::{Bytes, Native};
pub use scene::{Scene, addresses};
pub use served::{Served, Serving};
pub use wire::Wire;
pub use writer::{Build, Writer};

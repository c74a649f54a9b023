//! Packets through the compiled programs and through the native build of the same source, side by side.

mod both;
mod build;
mod kernel;
mod native;
mod scene;
mod wire;

pub use both::{Both, Ran, Verdict, mac};
pub use build::{Ip, Recipe, Transport, checksums_hold, reversed};
pub use kernel::{Kernel, Returned, object};
pub use native::{Bytes, Native};
pub use scene::{Scene, addresses};
pub use wire::Wire;

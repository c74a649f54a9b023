//! Questions about flows, and answers to them, as people and machines read and write them.

mod explanation;
mod probe;
mod traffic;

pub use explanation::{BothSides, Explained, Step, What, explain};
pub use probe::{Answered, Expected, PolicyRef, Probe, SideAnswer, family_name, party};
pub use traffic::Traffic;

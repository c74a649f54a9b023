//! Where objects come from.

mod directory;

use sluice_topology::NodeObject;

pub use directory::Directory;

/// All that a source knows at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// The nodes.
    pub nodes: Vec<NodeObject>,
    /// What could not be used: where it is, what is wrong, what to do.
    pub problems: Vec<String>,
}

/// A source of objects.
pub trait Source: Send {
    /// Tells of all objects, once they have all been listed, and again whenever any has changed; until `tell` says that
    /// nobody listens any more.
    ///
    /// # Errors
    /// Where it cannot go on.
    fn run(self: Box<Self>, tell: &mut dyn FnMut(Objects) -> bool) -> anyhow::Result<()>;
}

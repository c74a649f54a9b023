//! What fuzzers try: from any bytes an input is made, and something must hold of it.
//!
//! All but text is drawn by strategies of `proptest`, for which the bytes stand in for chance. A check that fails panics.
#![forbid(unsafe_code)]

mod blocks;
mod compiler;
mod draw;
mod manifests;
mod selectors;
mod services;

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Text that may be manifests is read, or refused with the object and the field.
    Manifests,
    /// Label selectors select what a naive reading of the documentation selects.
    Selectors,
    /// CIDRs with excepts have the addresses that they have bit by bit.
    Blocks,
    /// After any changes the compiler's tables say what those of a new one say.
    Compiler,
    /// Whatever Services, EndpointSlices and pods say, each place is one's, and clients are sent to backends that there are.
    Services,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Manifests, Self::Selectors, Self::Blocks, Self::Compiler, Self::Services];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifests => "manifests",
            Self::Selectors => "selectors",
            Self::Blocks => "blocks",
            Self::Compiler => "compiler",
            Self::Services => "services",
        }
    }

    /// The target of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Tries an input.
    ///
    /// # Panics
    /// Where something does not hold.
    pub fn check(self, data: &[u8]) {
        match self {
            Self::Manifests => manifests::check(data),
            Self::Selectors => selectors::check(data),
            Self::Blocks => blocks::check(data),
            Self::Compiler => compiler::check(data),
            Self::Services => services::check(data),
        }
    }

    /// Inputs to begin with, always the same.
    pub fn seeds(self) -> Vec<Vec<u8>> {
        match self {
            Self::Manifests => manifests::seeds(),
            Self::Selectors | Self::Blocks => draw::seeds(64),
            Self::Compiler => draw::seeds(256),
            Self::Services => services::seeds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn everything_holds_of_the_seeds() {
        for target in Target::ALL {
            target.check(&[]);
            target.seeds().iter().for_each(|seed| target.check(seed));
        }
    }
}

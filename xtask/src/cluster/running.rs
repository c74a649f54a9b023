//! A cluster for as long as something is done in it.

use std::process::Child;

use anyhow::Result;

use super::{Cluster, Network, Shape};
use crate::run::say;

/// A cluster that ends with what is done in it, however that ends: at an interrupt, too, or where this program is killed.
pub struct Running {
    /// `None`: it stays.
    attendant: Option<Child>,
}

impl Running {
    /// Starts it. It ends too where it does not start, and stays up where it is to be kept, or was up already, for whatever is
    /// done in it.
    ///
    /// # Errors
    /// As [`Cluster::up`].
    pub fn start(cluster: &Cluster, shape: Shape, network: Network, keep: bool) -> Result<Self> {
        let stays = keep || cluster.is_up()?;
        let running = Self { attendant: if stays { None } else { Some(cluster.attendant()?) } };
        cluster.up(shape, network)?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match &mut self.attendant {
            None => say("The cluster stays up: cargo xtask cluster status, kubectl, exec; down ends it"),
            // Its input ends here.
            Some(attendant) => match attendant.wait() {
                Ok(status) if status.success() => {}
                other => say(&format!("The cluster is not down: {other:?}")),
            },
        }
    }
}

//! What is done to a cluster, and not for ever.

use super::Cluster;

/// What undoes something: it happens when this goes, whatever has become of the test.
pub struct Undone<'a> {
    cluster: &'a Cluster,
    by: Vec<Vec<String>>,
}

impl<'a> Undone<'a> {
    /// By these commands of kubectl, one after the other.
    pub fn by(cluster: &'a Cluster, commands: impl IntoIterator<Item = Vec<String>>) -> Self {
        Self { cluster, by: commands.into_iter().collect() }
    }
}

impl Drop for Undone<'_> {
    fn drop(&mut self) {
        for command in &self.by {
            let _ = self.cluster.kubectl(&command.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

/// A command as it is written, of words without spaces in them.
pub fn words(command: &str) -> Vec<String> {
    command.split(' ').map(str::to_owned).collect()
}

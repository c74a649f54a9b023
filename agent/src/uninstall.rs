//! Removing every trace of agent and plugin from a node.

use std::{fs, io};

use anyhow::{Context, Result};
use sluice_netlink::Netlink;

use crate::config::Config;
use crate::host;
use crate::kernel::Kernel;
use crate::{conflist, prepare};

/// Removes everything, and says what. Settings of the host's network stack stay: others may rely on them by now.
///
/// # Errors
/// Where an agent runs, or something cannot be removed.
pub fn run(config: &Config) -> Result<()> {
    let lock = prepare::lock(&config.run_dir)?;
    let say = |what: &str| println!("removed {what}");
    let conflist = conflist::path(&config.cni_conf_dir);
    if gone(fs::remove_file(&conflist)).with_context(|| format!("removing {}", conflist.display()))? {
        say(&conflist.display().to_string());
    }
    let mut netlink = Netlink::open()?;
    for link in netlink.links()?.into_iter().filter(|link| host::is_pods(&link.name)) {
        netlink.delete_link(&link.name)?;
        say(&format!("interface {}", link.name));
    }
    for what in Kernel::uninstall(&config.bpf_dir)? {
        say(&what);
    }
    let routes = host::remove_routes()?;
    if routes > 0 {
        say(&format!("{routes} routes"));
    }
    if host::remove_overlay()? {
        say(&format!("interface {}", host::OVERLAY));
    }
    drop(lock);
    for directory in [config.state_dir.join("addresses"), config.state_dir.clone(), config.run_dir.clone()] {
        if gone(fs::remove_dir_all(&directory)).with_context(|| format!("removing {}", directory.display()))? {
            say(&directory.display().to_string());
        }
    }
    println!("forwarding of packets stays switched on (net.ipv4.ip_forward, net.ipv6.conf.all.forwarding)");
    Ok(())
}

/// Whether something was removed; what is not there is no error.
fn gone(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

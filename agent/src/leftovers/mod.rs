//! What others have on this node, or have left there, that does something to packets of pods before or beside Sluice. All that
//! could be theirs is looked at together; whose it is, those say that know them: [`kube_proxy`], [`plugins`] and [`hooks`].

mod hooks;
pub mod kube_proxy;
mod netfilter;
mod plugins;
mod sockopt;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use sluice_netlink::{Link, Netlink};

use crate::config::{Config, Routing};
use crate::kernel::{Ahead, Strangers};
use crate::{causes, host};
use netfilter::Chains;

/// Until it is looked for again: nobody tells of most of it.
const AGAIN: Duration = Duration::from_secs(60);

/// What could be somebody's.
#[derive(Debug, Default)]
pub struct Sight {
    /// Network devices.
    links: Vec<Link>,
    /// Tables and chains of nf_tables and iptables.
    netfilter: Vec<Chains>,
    /// The tables of routes that rules lead to.
    rules: Vec<u32>,
    /// Names of programs in the kernel.
    programs: Vec<String>,
    /// Programs that see an uplink's packets before ours.
    ahead: Vec<Ahead>,
    /// Where there may be more, and why that is not known.
    unknown: Vec<String>,
}

/// What there is to be told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// What keeps Sluice from its work.
    pub errors: Vec<String>,
    /// What may.
    pub warnings: Vec<String>,
}

/// Who looks.
#[derive(Clone, Debug)]
pub struct Onlooker {
    /// Where programs are pinned.
    bpf_dir: PathBuf,
    /// The UDP port of the overlay, where there is one.
    overlay: Option<u16>,
}

impl Sight {
    /// Where there may be more, and why that is not known.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }
}

impl Onlooker {
    /// One for these settings.
    pub fn of(config: &Config) -> Self {
        let overlay = (config.routing != Routing::Native).then_some(config.vxlan.port);
        Self { bpf_dir: config.bpf_dir.clone(), overlay }
    }

    /// Looks at all of it.
    pub fn look(&self) -> Sight {
        let mut sight = Sight::default();
        type Part = (&'static str, fn(&Onlooker, &mut Sight) -> Result<()>);
        let parts: [Part; 4] = [
            ("network devices and rules", |_, sight| {
                let mut netlink = Netlink::open()?;
                sight.links = netlink.links()?;
                sight.rules = netlink.rules()?.iter().map(sluice_netlink::Rule::table).collect();
                Ok(())
            }),
            ("nf_tables", |_, sight| netfilter::nf_tables(&mut sight.netfilter)),
            ("iptables-legacy", |_, sight| netfilter::legacy(&mut sight.netfilter)),
            ("eBPF programs", |own, sight| {
                let strangers = Strangers::loaded()?;
                sight.ahead = strangers.ahead(&own.bpf_dir)?;
                sight.programs = strangers.names();
                Ok(())
            }),
        ];
        for (what, look) in parts {
            if let Err(error) = look(self, &mut sight) {
                sight.unknown.push(format!("{what}: {}", causes::of(error.as_ref())));
            }
        }
        sight
    }

    /// What is wrong with that, and what to do.
    pub fn problems(&self, sight: &Sight) -> Problems {
        let overlay = self.overlay.and_then(|port| host::overlay_clash(&sight.links, port));
        Problems {
            errors: kube_proxy::problem(sight).into_iter().chain(overlay).collect(),
            warnings: [plugins::problems(sight), hooks::problems(sight)].concat(),
        }
    }

    /// Looks again and again, and tells what is wrong whenever that has changed, until nobody listens any more.
    pub fn watch(&self, tell: impl Fn(Problems) -> bool) {
        let (mut last, mut unknown) = (Problems::default(), Vec::new());
        loop {
            let sight = self.look();
            for what in sight.unknown.iter().filter(|what| !unknown.contains(*what)) {
                tracing::info!("whether others have left anything here is not known in full: {what}");
            }
            let now = self.problems(&sight);
            if now != last && !tell(now.clone()) {
                return;
            }
            (last, unknown) = (now, sight.unknown);
            thread::sleep(AGAIN);
        }
    }
}

//! Whether the API server answers, and lets this agent do what it must: what is wrong, and what to do.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::mem;
use std::sync::Arc;

use hyper::Uri;
use k8s_openapi::jiff::Timestamp;

use super::client::Silence;
use crate::causes;

/// What the server is asked for, as the path of it there.
pub type Target = Arc<str>;

/// Where the server is.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address.
    pub url: Uri,
    /// Whether that is where pods are told that it is.
    pub is_service: bool,
}

/// Whether what is wrong may be right at the next attempt, without anybody's doing.
pub fn passes(error: &kube::Error) -> bool {
    !matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// Why the server does not give what it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not let this agent: what is wrong, and what to do.
    Refused(String),
    /// It lacks something, or has what should not be there: what is wrong, and what to do.
    Amiss(String),
    /// It does not have what it need not: what that means, and how to have it.
    Absent(String),
    /// It cannot be reached, or not as somebody whom it knows, or cannot do it.
    Away(Outage),
}

/// Why nothing is heard of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    what: String,
    /// What to look at.
    remedy: Remedy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Remedy {
    /// Where it is said to be, and whether it runs there.
    Place,
    /// Whether it is the right one.
    Certificate,
    /// As whom this agent comes.
    Credentials,
    /// The server itself.
    Server,
    /// Nothing: it is busy starting.
    Patience,
}

impl From<&kube::Error> for Outage {
    fn from(error: &kube::Error) -> Self {
        let root = root(error);
        match error {
            kube::Error::Api(status) => Self {
                what: format!("it answers {} ({})", status.code, status.message),
                remedy: match status.code {
                    401 => Remedy::Credentials,
                    // It reads what it is to tell. Where it cannot, the reason stands behind this.
                    429 if status.message.ends_with("storage is (re)initializing") => Remedy::Patience,
                    _ => Remedy::Server,
                },
            },
            kube::Error::Auth(_) => Self { what: root, remedy: Remedy::Credentials },
            _ if causes::chain(error).any(is_unheard) => {
                Self { what: "nobody answers there".into(), remedy: Remedy::Place }
            }
            _ if causes::chain(error).any(|cause| cause.is::<Silence>()) => Self { what: root, remedy: Remedy::Server },
            _ if root.contains("certificate") => Self { what: root, remedy: Remedy::Certificate },
            _ => Self { what: root, remedy: Remedy::Place },
        }
    }
}

/// Whether that is what comes of packets that nobody answers, to a new connection or to one that was there.
fn is_unheard(cause: &(dyn Error + 'static)) -> bool {
    cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// What is at the bottom of an error: what is above says that a request has failed.
fn root(error: &kube::Error) -> String {
    causes::chain(error).last().map_or_else(String::new, ToString::to_string)
}

/// How often in a row an account must be refused before that is told: a server that has just started does not know the roles yet,
/// and refuses everybody for a moment.
pub const REFUSALS: u32 = 3;

/// What the server does not give.
pub struct Troubles {
    server: Server,
    /// How often an account must be refused before it counts.
    refusals: u32,
    of: BTreeMap<Target, Repeated>,
    /// Since when something of it is away.
    since: Timestamp,
}

/// A trouble, and how often in a row it was of this kind.
struct Repeated {
    trouble: Trouble,
    times: u32,
}

impl Repeated {
    /// What is to be said of it.
    fn told(&self, refusals: u32) -> Option<&Trouble> {
        match &self.trouble {
            Trouble::Refused(_) => (self.times >= refusals).then_some(&self.trouble),
            Trouble::Amiss(_) | Trouble::Absent(_) | Trouble::Away(_) => Some(&self.trouble),
        }
    }
}

impl Troubles {
    /// None yet, with a server, of which so many refusals in a row count as one.
    pub fn new(server: Server, refusals: u32) -> Self {
        Self { server, refusals, of: BTreeMap::new(), since: Timestamp::UNIX_EPOCH }
    }

    /// Takes notice of what has come of asking for something. Whether that is another than before.
    pub fn note(&mut self, target: Target, access: Result<(), Trouble>, now: Timestamp) -> bool {
        let was_away = self.outages().next().is_some();
        let before = self.of.remove(&target);
        if let Err(trouble) = access {
            if matches!(trouble, Trouble::Away(_)) && !was_away {
                self.since = now;
            }
            let is_same = |before: &&Repeated| mem::discriminant(&before.trouble) == mem::discriminant(&trouble);
            let times = before.as_ref().filter(is_same).map_or(1, |before| before.times.saturating_add(1));
            self.of.insert(Arc::clone(&target), Repeated { trouble, times });
        }
        let told = |repeated: &Repeated| repeated.told(self.refusals).cloned();
        before.as_ref().and_then(told) != self.of.get(&target).and_then(told)
    }

    /// All of them. Whether there is something that the server has said is the difference for who must live with it.
    pub fn problems(&self, is_listed: bool) -> Vec<String> {
        // What is wrong with the server is wrong for whatever it is asked for, however that fails: of what is to be looked at in the
        // same place, one says it.
        let mut outages = BTreeMap::new();
        for outage in self.outages() {
            outages.entry(outage.remedy).or_insert(outage);
        }
        let outages = outages.into_values().map(|outage| self.outage(outage, is_listed));
        let others = self.of.values().filter_map(|repeated| match repeated.told(self.refusals)? {
            Trouble::Refused(why) | Trouble::Amiss(why) => Some(why.clone()),
            Trouble::Absent(_) | Trouble::Away(_) => None,
        });
        outages.chain(others).collect()
    }

    /// What is not there and need not be.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.of.values().filter_map(|repeated| match &repeated.trouble {
            Trouble::Absent(note) => Some(note.clone()),
            Trouble::Refused(_) | Trouble::Amiss(_) | Trouble::Away(_) => None,
        });
        notes.collect()
    }

    fn outages(&self) -> impl Iterator<Item = &Outage> {
        self.of.values().filter_map(|repeated| match &repeated.trouble {
            Trouble::Away(outage) => Some(outage),
            Trouble::Refused(_) | Trouble::Amiss(_) | Trouble::Absent(_) => None,
        })
    }

    fn outage(&self, Outage { what, remedy }: &Outage, is_listed: bool) -> String {
        let Self { server: Server { url, is_service }, since, .. } = self;
        let remedy = match remedy {
            Remedy::Place if *is_service => {
                "see whether it runs. That is the address that pods are given (KUBERNETES_SERVICE_HOST), which is a Service as a \
                 rule, and on a node that has just started only this agent can serve it: set api_server to an address where the \
                 server is without Services, such as https://192.0.2.1:6443"
            }
            Remedy::Place => "see whether it runs there; where it is, api_server says, or else the kubeconfig",
            Remedy::Certificate => {
                "see whether it is the right server: its certificate must be for the name or address in api_server, and signed by \
                 the authority that the kubeconfig, or the service account, names"
            }
            Remedy::Credentials => "give this agent a kubeconfig or a service account that the server knows",
            Remedy::Server => "see what is wrong with it",
            Remedy::Patience => "it is still starting, which takes a moment",
        };
        let meanwhile = if is_listed {
            format!("what it said last stays in force since {}", since.strftime("%Y-%m-%d %H:%M:%S UTC"))
        } else {
            "until it has told of all objects, what an earlier agent has left stays in force and no pod is added".into()
        };
        let url = url.to_string();
        let url = url.trim_end_matches('/');
        format!("the API server {url} tells nothing: {what}; {remedy}; it is tried again, and {meanwhile}")
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use tower::BoxError;

    use super::*;

    const NODES: &str = "/api/v1/nodes";
    const PODS: &str = "/api/v1/pods";

    fn troubles(is_service: bool) -> Troubles {
        Troubles::new(Server { url: Uri::from_static("https://10.96.0.1"), is_service }, 2)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn away(what: &str, remedy: Remedy) -> Result<(), Trouble> {
        Err(Trouble::Away(Outage { what: what.into(), remedy }))
    }

    #[test]
    fn an_outage_is_one_problem_from_its_beginning_until_all_is_reached_again() {
        let mut troubles = troubles(false);
        assert!(troubles.note(NODES.into(), away("refused", Remedy::Place), at(60)));
        let before = troubles.problems(true);
        assert!(before[0].starts_with("the API server https://10.96.0.1 tells nothing: refused; "), "{before:?}");
        assert!(before[0].ends_with("stays in force since 1970-01-01 00:01:00 UTC"), "{before:?}");
        troubles.note(PODS.into(), away("refused", Remedy::Place), at(120));
        assert!(!troubles.note(PODS.into(), away("refused", Remedy::Place), at(180)), "nothing new");
        assert_eq!(troubles.problems(true), before);
        troubles.note(PODS.into(), away("unreachable", Remedy::Place), at(180));
        assert_eq!(troubles.problems(true), before, "it fails in another way there");
        troubles.note(PODS.into(), away("refused", Remedy::Place), at(180));
        troubles.note(NODES.into(), Ok(()), at(240));
        assert_eq!(troubles.problems(true), before, "of pods nothing is heard yet");
        assert!(troubles.note(PODS.into(), Ok(()), at(300)) && !troubles.note(PODS.into(), Ok(()), at(300)));
        assert!(troubles.problems(true).is_empty());
        troubles.note(PODS.into(), away("refused", Remedy::Place), at(360));
        assert!(troubles.problems(true)[0].ends_with("00:06:00 UTC"));
        assert!(!troubles.problems(false)[0].contains("UTC"), "nothing was said yet");
    }

    #[test]
    fn what_is_to_be_done_depends_on_what_is_wrong() {
        let of = |is_service, remedy| {
            let mut troubles = troubles(is_service);
            troubles.note(NODES.into(), away("no", remedy), at(0));
            troubles.problems(false).remove(0)
        };
        assert!(of(true, Remedy::Place).contains("set api_server"));
        assert!(!of(false, Remedy::Place).contains("set api_server"));
        assert!(of(true, Remedy::Certificate).contains("its certificate"));
        assert!(of(true, Remedy::Credentials).contains("kubeconfig or a service account"));
    }

    #[test]
    fn who_is_let_no_more_is_not_away_and_refused_in_earnest_at_the_second_time() {
        let refused = |why: &str| Err(Trouble::Refused(why.into()));
        let mut troubles = troubles(false);
        assert!(!troubles.note(NODES.into(), refused("may not list"), at(0)), "the server may have just started");
        assert!(!troubles.note(PODS.into(), refused("may not list"), at(0)), "the same");
        assert!(!troubles.note(NODES.into(), Ok(()), at(0)) && troubles.problems(true).is_empty());
        assert!(troubles.note(PODS.into(), refused("may not watch"), at(0)));
        assert_eq!(troubles.problems(true), ["may not watch"]);
        assert!(troubles.note(PODS.into(), away("refused", Remedy::Place), at(0)));
        assert!(troubles.problems(true).len() == 1 && troubles.problems(true)[0].contains("refused"));
        assert!(troubles.note(PODS.into(), refused("may not"), at(0)), "it is there again");
        assert_eq!(troubles.problems(true), [""; 0]);
        assert!(troubles.note(PODS.into(), Err(Trouble::Amiss("is not there".into())), at(0)), "this is so at once");
        assert_eq!(troubles.problems(true), ["is not there"]);
    }

    #[test]
    fn a_server_that_nobody_hears_and_one_that_owes_an_answer_are_different_matters() {
        let of = |error: BoxError| Outage::from(&kube::Error::Service(error));
        for unheard in [io::Error::from_raw_os_error(110), io::Error::new(io::ErrorKind::TimedOut, "elapsed")] {
            assert_eq!(of(unheard.into()), Outage { what: "nobody answers there".into(), remedy: Remedy::Place });
        }
        assert_eq!(of(Silence.into()).remedy, Remedy::Server);
    }

    #[test]
    fn a_server_that_is_busy_starting_is_not_in_trouble() {
        let of = |message: &str| {
            let status = Status::failure(message, "TooManyRequests").with_code(429);
            Outage::from(&kube::Error::Api(Box::new(status))).remedy
        };
        assert_eq!(of("storage is (re)initializing"), Remedy::Patience);
        assert_eq!(of("storage is (re)initializing: no space left"), Remedy::Server);
        assert_eq!(of("Too many requests: later"), Remedy::Server);
    }
}

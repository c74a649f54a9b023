//! Policies, by the real API.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::kubernetes::{Cluster, Namespace, hostname_at};
use sluice_tests::lab::until;

#[test]
fn labels_of_namespaces_open_and_close_the_way() -> Result<()> {
    let cluster = Cluster::shared()?;
    let (served, guests) = (Namespace::new(&cluster, "served")?, Namespace::new(&cluster, "guests")?);
    served.serve("server", "n1")?;
    guests.serve("guest", "n2")?;
    let server = hostname_at(served.addresses("server")?[0], 8080);
    served.policy(
        "guests",
        &format!(
            "podSelector: {{}}\ningress: [{{from: [{{namespaceSelector: {{matchLabels: {{guest-of: {}}}}}}}]}}]",
            served.name
        ),
    )?;
    guests.is_cut_off("guest", &server)?;
    let namespace = format!("namespace/{}", guests.name);
    cluster.kubectl(&["label", &namespace, &format!("guest-of={}", served.name)])?;
    assert_eq!(until("guests are let in", || guests.fetch("guest", &server))?, "server");
    cluster.kubectl(&["label", &namespace, "guest-of-"])?;
    guests.is_cut_off("guest", &server)
}

#[test]
fn blocks_of_addresses_are_about_clients_outside() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "blocks")?;
    namespace.serve("server", "n2")?;
    let server = hostname_at(namespace.addresses("server")?[0], 8080);
    let ask = || cluster.outside(&["curl", "-sSfg", "--connect-timeout", "1", &server]);
    assert_eq!(ask()?, "server");
    namespace.deny_everything()?;
    let shut_out = || {
        until("clients outside are dropped", || {
            let answer = ask();
            ensure!(answer.as_ref().is_err_and(|error| format!("{error:#}").contains("(28)")), "{answer:?}");
            Ok(())
        })
    };
    shut_out()?;
    let outsider = cluster.outsider()?;
    let (one, all) = if outsider.is_ipv4() { (32, "0.0.0.0/0") } else { (128, "::/0") };
    let from = |block: &str| {
        namespace.policy("block", &format!("podSelector: {{}}\ningress: [{{from: [{{ipBlock: {{{block}}}}}]}}]"))
    };
    from(&format!("cidr: \"{outsider}/{one}\""))?;
    assert_eq!(until("they are let in", ask)?, "server");
    from(&format!("cidr: \"{all}\", except: [\"{outsider}/{one}\"]"))?;
    shut_out()
}

#[test]
fn a_new_pod_is_let_in_from_when_it_is_ready() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "atonce")?;
    namespace.deny_everything()?;
    namespace.policy(
        "in",
        "podSelector: {matchLabels: {role: server}}\ningress: [{from: [{podSelector: {matchLabels: {role: client}}}]}]",
    )?;
    namespace.policy(
        "out",
        "podSelector: {matchLabels: {role: client}}\npolicyTypes: [Egress]\n\
         egress: [{to: [{podSelector: {matchLabels: {role: server}}}]}]",
    )?;
    namespace.serve("server", "n1")?;
    namespace.serve("stranger", "n2")?;
    let server = hostname_at(namespace.addresses("server")?[0], 8080);
    namespace.is_cut_off("stranger", &server)?;
    for turn in 0..4 {
        let (name, node) = (format!("client-{turn}"), if turn % 2 == 0 { "n2" } else { "n1" });
        namespace.pod(&name).on(node).role("client").serve()?;
        // In less than a second nobody asks twice.
        let answer = namespace.exec(&name, &["curl", "-sSfg", "--connect-timeout", "0.9", &server]);
        assert_eq!(answer.with_context(|| format!("{name} on {node}"))?, "server");
    }
    Ok(())
}

#[test]
fn an_edited_policy_interrupts_a_connection_and_lets_it_go_on() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "edited")?;
    namespace.serve("server", "n1")?;
    namespace.serve("client", "n2")?;
    let from = |role: &str| {
        namespace.policy(
            "clients",
            &format!(
                "podSelector: {{matchLabels: {{role: server}}}}\ningress: [{{from: [{{podSelector: {{matchLabels: \
                 {{role: {role}}}}}}}]}}]"
            ),
        )
    };
    from("client")?;
    let mut conversation = until("a client connects", || {
        let mut it = Conversation::with(&cluster, &namespace, "client", namespace.addresses("server")?[0])?;
        it.ask()?;
        ensure!(it.is_answered(), "no answer");
        Ok(it)
    })?;
    conversation.ask()?;
    ensure!(conversation.is_answered(), "the connection lasts");
    from("nobody")?;
    until("the connection is interrupted", || {
        conversation.ask()?;
        ensure!(!conversation.is_answered(), "it is answered");
        Ok(())
    })?;
    from("client")?;
    until("the connection goes on", || {
        ensure!(conversation.is_answered(), "no answer");
        Ok(())
    })
}

/// One connection that a pod holds, of questions and answers.
struct Conversation {
    client: Child,
    questions: ChildStdin,
    answers: Receiver<String>,
}

/// Asks once for each line that it reads, by one connection.
const TALK: &str = r#"
exec 3<>"/dev/tcp/$0/8080"
while read -r _; do
    printf 'GET /hostname HTTP/1.1\r\nHost: server\r\n\r\n' >&3
    while read -r name value <&3; do
        case $name in Content-Length:) length=${value%$'\r'} ;; $'\r') break ;; esac
    done
    read -r -N "$length" answer <&3 && echo "$answer" || exit
done"#;

impl Conversation {
    fn with(cluster: &Cluster, namespace: &Namespace<'_>, pod: &str, server: IpAddr) -> Result<Self> {
        let mut client = cluster
            .kubectl_beside(&["-n", &namespace.name, "exec", "-i", pod, "--", "bash", "-c", TALK, &server.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting kubectl exec")?;
        let questions = client.stdin.take().context("the client's input")?;
        let lines = BufReader::new(client.stdout.take().context("the client's output")?).lines();
        let (sender, answers) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { client, questions, answers })
    }

    fn ask(&mut self) -> Result<()> {
        self.questions.write_all(b"\n").context("asking")
    }

    /// Whether an answer comes, by all that one can wait for.
    fn is_answered(&self) -> bool {
        self.answers.recv_timeout(Duration::from_secs(3)).is_ok_and(|answer| answer == "server")
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

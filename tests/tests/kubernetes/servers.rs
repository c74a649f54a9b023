//! The API server, which is outside the cluster, asks servers that are in pods.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use sluice_tests::kubernetes::{Cluster, Namespace};
use sluice_tests::lab::until;

/// An object of the whole cluster, which goes with the test.
pub struct Registered<'a> {
    cluster: &'a Cluster,
    object: String,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.kubectl(&["delete", "--ignore-not-found", &self.object]);
    }
}

/// Makes a key and a certificate for a Service, as the secret `tls`; gives the authority in base64, which the certificate itself is.
fn certify(namespace: &Namespace<'_>, service: &str) -> Result<String> {
    let name = format!("{service}.{}.svc", namespace.name);
    let file = |kind: &str| std::env::temp_dir().join(format!("{name}.{kind}")).display().to_string();
    let (key, certificate) = (file("key"), file("crt"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=server"])
        .args(["-addext", &format!("subjectAltName=DNS:{name}"), "-keyout", &key, "-out", &certificate])
        .output()
        .context("starting openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    let made = namespace.kubectl(&["create", "secret", "tls", "tls", "--key", &key, "--cert", &certificate]);
    for file in [&key, &certificate] {
        fs::remove_file(file).with_context(|| format!("removing {file}"))?;
    }
    made.and_then(|_| namespace.field("secret/tls", r".data.tls\.crt"))
}

/// Starts a server with that certificate behind a Service.
fn serve(namespace: &Namespace<'_>, name: &str, node: &str, arguments: &str) -> Result<()> {
    namespace.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{role: {name}}}, ports: [{{port: 443, targetPort: 8443}}]}}"
    ))?;
    let arguments = format!("{arguments}, --tls-cert-file=/tls/tls.crt, --tls-private-key-file=/tls/tls.key");
    namespace
        .pod(name)
        .on(node)
        .with("volumes: [{name: tls, secret: {secretName: tls}}]")
        .container("volumeMounts: [{name: tls, mountPath: /tls}]")
        .running(&arguments, "httpGet: {path: /readyz, port: 8443, scheme: HTTPS}")
        .serve()
}

/// Tries what needs the API server to reach a pod: without policies, with one that denies it, and with one that allows it.
fn asks_where_policies_allow(
    cluster: &Cluster,
    namespace: &Namespace<'_>,
    mut attempt: impl FnMut() -> Result<()>,
) -> Result<()> {
    until("the API server asks", &mut attempt)?;
    namespace.deny_everything()?;
    until("the API server is cut off", || {
        ensure!(attempt().is_err(), "it is not");
        Ok(())
    })?;
    let server = IpNet::from(cluster.outsider()?);
    namespace.policy(
        "api-server",
        &format!(
            "podSelector: {{}}\ningress: [{{from: [{{ipBlock: {{cidr: \"{server}\"}}}}], ports: [{{port: 8443}}]}}]"
        ),
    )?;
    until("the API server is let in", attempt)
}

/// Starts a webhook on a node that the API server is to ask about ConfigMaps of its namespace.
pub fn register_webhook<'a>(cluster: &'a Cluster, namespace: &Namespace<'_>, node: &str) -> Result<Registered<'a>> {
    let authority = certify(namespace, "hook")?;
    serve(namespace, "hook", node, "webhook, --port=8443")?;
    let name = &namespace.name;
    let hook = Registered { cluster, object: format!("mutatingwebhookconfiguration/{name}") };
    cluster.apply(&format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata: {{name: {name}}}\nwebhooks:\n\
         - name: hook.sluice.test\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  timeoutSeconds: 2\n  failurePolicy: Fail\n  \
         namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}\n  \
         rules: [{{apiGroups: [\"\"], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}}]\n  \
         clientConfig: {{caBundle: {authority}, service: {{name: hook, namespace: {name}, path: /mutating-configmaps}}}}"
    ))?;
    Ok(hook)
}

/// Has the API server ask that webhook.
pub fn webhook_is_asked(namespace: &Namespace<'_>) -> Result<()> {
    let create = ["create", "configmap", "any", "--from-literal=mutation-start=yes", "--dry-run=server"];
    let answer = namespace.kubectl(&[&create[..], &["-o", "jsonpath={.data.mutation-stage-1}"]].concat())?;
    ensure!(answer == "yes", "the webhook was not asked: {answer}");
    Ok(())
}

#[test]
fn the_api_server_asks_webhooks_in_pods() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "webhook")?;
    let _hook = register_webhook(&cluster, &namespace, "n2")?;
    asks_where_policies_allow(&cluster, &namespace, || webhook_is_asked(&namespace))
}

#[test]
fn the_api_server_has_requests_answered_by_servers_in_pods() -> Result<()> {
    let cluster = Cluster::shared()?;
    let namespace = Namespace::new(&cluster, "aggregated")?;
    let authority = certify(&namespace, "api")?;
    let (name, group) = (&namespace.name, format!("{}.sluice.test", namespace.name));
    // What it says of itself is all that it says.
    let says = format!(r#"{{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"{group}/v1","resources":[]}}"#);
    let said: String = says.bytes().map(|byte| format!("%{byte:02x}")).collect();
    serve(&namespace, "api", "n1", &format!("netexec, --http-port=8443, \"--http-override=/echo?msg={said}\""))?;
    let api = Registered { cluster: &cluster, object: format!("apiservice/v1.{group}") };
    cluster.apply(&format!(
        "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {{name: v1.{group}}}\nspec:\n  group: {group}\n  version: v1\n  \
         groupPriorityMinimum: 10\n  versionPriority: 10\n  caBundle: {authority}\n  service: {{name: api, namespace: {name}}}"
    ))?;
    cluster.kubectl(&["wait", "--for=condition=Available", "--timeout=60s", &api.object])?;
    asks_where_policies_allow(&cluster, &namespace, || {
        let answer = cluster.kubectl(&["get", "--request-timeout=2s", "--raw", &format!("/apis/{group}/v1")])?;
        ensure!(answer == says, "{answer}");
        Ok(())
    })
}

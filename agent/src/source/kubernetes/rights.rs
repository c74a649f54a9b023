//! What the agent's account is let do beyond listing, which is tried: the API server is asked, and nothing is changed by it.

use std::fmt::{self, Display, Formatter};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};

use super::blocks;

/// Verbs on a resource, as a manifest gives them.
struct Right {
    verbs: &'static [&'static str],
    group: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    namespace: Option<&'static str>,
    manifest: &'static str,
}

impl Right {
    const fn new(verbs: &'static [&'static str], group: &'static str, resource: &'static str) -> Self {
        Self { verbs, group, resource, subresource: None, namespace: None, manifest: "manifests/base/rbac.yaml" }
    }

    const fn on_status(self) -> Self {
        Self { subresource: Some("status"), ..self }
    }

    const fn within(self, namespace: &'static str) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    const fn by(self, manifest: &'static str) -> Self {
        Self { manifest, ..self }
    }
}

impl Display for Right {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        self.subresource.map_or(Ok(()), |part| write!(f, "/{part}"))?;
        write!(f, " of the API group {:?}", self.group)?;
        self.namespace.map_or(Ok(()), |namespace| write!(f, " in {namespace}"))
    }
}

const POLICIES: &str = "policy.networking.k8s.io";

/// What every agent needs.
const ALWAYS: [Right; 9] = [
    Right::new(&["watch"], "", "nodes"),
    Right::new(&["watch", "get"], "", "pods"),
    Right::new(&["patch"], "", "pods").on_status(),
    Right::new(&["watch"], "", "namespaces"),
    Right::new(&["watch"], "", "services"),
    Right::new(&["watch"], "discovery.k8s.io", "endpointslices"),
    Right::new(&["watch"], "networking.k8s.io", "networkpolicies"),
    Right::new(&["watch"], POLICIES, "clusternetworkpolicies"),
    Right::new(&["patch"], POLICIES, "clusternetworkpolicies").on_status(),
];
/// What one needs that takes blocks of a pool.
const FOR_POOL: Right = Right::new(&["create", "list", "watch"], "coordination.k8s.io", "leases")
    .within(blocks::NAMESPACE)
    .by("manifests/overlays/pool/rbac.yaml");

/// What the account lacks, and what to do.
pub async fn lacking(client: &Client, has_pool: bool) -> Vec<String> {
    let reviews = Api::<SelfSubjectAccessReview>::all(client.clone());
    let mut problems = Vec::new();
    for right in ALWAYS.into_iter().chain(has_pool.then_some(FOR_POOL)) {
        let mut lacking = Vec::new();
        for verb in right.verbs {
            if is_refused(&reviews, &right, verb).await {
                lacking.push(*verb);
            }
        }
        if !lacking.is_empty() {
            problems.push(format!(
                "the API server does not let this agent {} {right}: give its account the rights of {}",
                lacking.join(" and "),
                right.manifest
            ));
        }
    }
    problems
}

/// Whether the server says that the account may not. One that does not say, as without RBAC, is no problem by itself.
async fn is_refused(reviews: &Api<SelfSubjectAccessReview>, right: &Right, verb: &str) -> bool {
    let asked = ResourceAttributes {
        group: Some(right.group.into()),
        namespace: right.namespace.map(Into::into),
        resource: Some(right.resource.into()),
        subresource: right.subresource.map(Into::into),
        verb: Some(verb.into()),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(asked), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let reviewed = reviews.create(&PostParams::default(), &review).await;
    reviewed.is_ok_and(|review| review.status.is_some_and(|status| !status.allowed))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use futures::future::{BoxFuture, FutureExt};
    use http_body_util::BodyExt;
    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower::Service;

    use super::*;

    /// A server that lets the account do all but what this names, as `verb resource`.
    #[derive(Clone)]
    struct Server(&'static [&'static str]);

    impl Service<Request<Body>> for Server {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<Body>) -> Self::Future {
            let refused = self.0;
            let answer = async move {
                let body = request.into_body().collect().await.expect("is all there").to_bytes();
                let mut review: Value = serde_json::from_slice(&body).expect("is JSON");
                let asked = &review["spec"]["resourceAttributes"];
                let text = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
                let what = [text("verb"), text("resource"), text("subresource"), text("namespace")].join(" ");
                review["status"] = json!({ "allowed": !refused.contains(&what.trim_end()) });
                Ok(Response::new(Body::from(review.to_string().into_bytes())))
            };
            answer.boxed()
        }
    }

    fn lacking_at(refused: &'static [&'static str], has_pool: bool) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
        runtime.block_on(async { lacking(&Client::new(Server(refused), "default"), has_pool).await })
    }

    #[test]
    fn what_the_account_may_not_is_named_by_verb_and_resource() {
        assert_eq!(lacking_at(&[], true), [""; 0]);
        let [patch] = &lacking_at(&["patch pods status"], false)[..] else { panic!("it is one") };
        assert!(patch.contains("does not let this agent patch pods/status of the API group \"\": give"), "{patch}");
        assert!(patch.ends_with("manifests/base/rbac.yaml"), "{patch}");
        let [both] = &lacking_at(&["watch pods", "get pods"], false)[..] else { panic!("it is one") };
        assert!(both.contains("watch and get pods of"), "{both}");
    }

    #[test]
    fn leases_are_for_pools_and_in_their_namespace() {
        const REFUSED: &[&str] = &["create leases  kube-system"];
        assert_eq!(lacking_at(REFUSED, false), [""; 0]);
        let [lease] = &lacking_at(REFUSED, true)[..] else { panic!("it is one") };
        assert!(lease.contains("create leases of the API group \"coordination.k8s.io\" in kube-system: "), "{lease}");
        assert!(lease.ends_with("manifests/overlays/pool/rbac.yaml"), "{lease}");
    }
}

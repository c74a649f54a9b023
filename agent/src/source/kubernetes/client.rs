//! The client of the API server: it notices where that falls silent, and at which paths it gives what it is asked for.

use std::env;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::channel::mpsc::{self, UnboundedReceiver, UnboundedSender};
use futures::future::{BoxFuture, FutureExt};
use http_body_util::combinators::MapErr as MapBodyErr;
use http_body_util::{BodyExt, Either};
use hyper::body::Body as HttpBody;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::client::{Body, ClientBuilder, ConfigExt};
use tokio::time::timeout;
use tower::layer::layer_fn;
use tower::util::{MapErr, option_layer};
use tower::{BoxError, Service};
use tower_http::timeout::{TimeoutBody, TimeoutError};

use super::access::{Server, Target};

/// How long it may take to connect.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the server may be silent that owes an answer, or the next part of one: as long as it gives itself for all of it.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Until it is asked on an idle connection whether anybody is there, and how often.
const IDLE: Duration = Duration::from_secs(15);
const PROBES: Duration = Duration::from_secs(5);
/// How long nothing may be heard of what was sent, or asked. Nobody says that a machine is gone that has lost its power, or
/// that an address has moved to another, and the kernel alone would go on for a quarter of an hour.
const UNHEARD: Duration = Duration::from_secs(30);

/// A client of a server, where that is, and at which paths it gives what it is asked for, whenever it does: a watch that
/// goes on after an interruption may hear nothing for hours. With how long the server may be silent that owes an answer.
///
/// # Errors
/// Where the settings make no client.
pub fn connect(config: &kube::Config, patience: Duration) -> kube::Result<(Client, Server, UnboundedReceiver<Target>)> {
    if let Some(proxy_url) = config.proxy_url.clone().map(Box::new) {
        return Err(kube::Error::ProxyProtocolUnsupported { proxy_url });
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(IDLE));
    connector.set_keepalive_interval(Some(PROBES));
    connector.set_tcp_user_timeout(Some(UNHEARD));
    // Whoever asks tries again, and says what is wrong meanwhile: here nothing is.
    let http = Http::builder(TokioExecutor::new()).build(config.rustls_https_connector_with_connector(connector)?);
    let (gives, given) = mpsc::unbounded();
    let client = ClientBuilder::new(MapErr::new(http, BoxError::from), config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?)
        .with_layer(&option_layer(config.auth_layer()?))
        .with_layer(&config.base_uri_layer())
        .with_layer(&layer_fn(|inner| Impatient { inner, patience }))
        .with_layer(&layer_fn(|inner| Noting { inner, gives: gives.clone() }));
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_service = env::var("KUBERNETES_SERVICE_HOST").is_ok_and(|service| service == host);
    Ok((client.build(), Server { url: config.cluster_url.clone(), is_service }, given))
}

/// A server that acknowledges what it is sent, and owes an answer.
#[derive(Debug, thiserror::Error)]
#[error("it takes what it is asked, and does not answer")]
pub struct Silence;

/// Waits no longer for what the server owes.
struct Impatient<S> {
    inner: S,
    patience: Duration,
}

impl<S, B> Service<Request<Body>> for Impatient<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    type Response = Response<Either<B, MapBodyErr<TimeoutBody<B>, fn(BoxError) -> BoxError>>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let patience = self.patience;
        // Once a watch has begun, nothing is owed.
        let is_watch = request.uri().query().is_some_and(|query| query.split('&').any(|it| it.starts_with("watch=")));
        let answer = timeout(patience, self.inner.call(request));
        let limited = move |body| match is_watch {
            true => Either::Left(body),
            false => Either::Right(TimeoutBody::new(patience, body).map_err(silent as fn(BoxError) -> BoxError)),
        };
        async move { Ok(answer.await.map_err(|_| Silence)?.map_err(Into::into)?.map(limited)) }.boxed()
    }
}

fn silent(error: BoxError) -> BoxError {
    if error.is::<TimeoutError>() { Silence.into() } else { error }
}

/// Takes notice of answers.
struct Noting<S> {
    inner: S,
    gives: UnboundedSender<Target>,
}

impl<S, B> Service<Request<Body>> for Noting<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (gives, target) = (self.gives.clone(), Target::from(request.uri().path()));
        let note = move |answer: &Response<B>| {
            if answer.status().is_success() {
                // Who has ended does not want to know.
                let _ = gives.unbounded_send(target);
            }
        };
        self.inner.call(request).map(|answer| answer.inspect(note)).boxed()
    }
}

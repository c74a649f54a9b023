//! A small HTTP server: one request for each connection.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::Page;

/// Most clients at once; others wait until they are accepted.
const CLIENTS: usize = 16;
/// How long a client may take for all that it asks and takes.
const LONGEST: Duration = Duration::from_secs(15);
/// Until an address that is taken is tried again.
const TAKEN: Duration = Duration::from_secs(10);
/// Rest before the next attempt to accept a client where descriptors or memory are short, of whose return nobody tells.
const SHORT: Duration = Duration::from_millis(100);

/// Gives the page of a path; it may block.
pub type Answer = dyn Fn(&str) -> Page + Send + Sync;

/// Serves an address, on a thread of its own.
///
/// # Errors
/// Where there can be none.
pub fn listen(address: SocketAddr, answer: Arc<Answer>) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("starting the server of metrics")?;
    let serving = move || {
        let listener = bind(address);
        if let Err(error) = runtime.block_on(serve(listener, answer)) {
            tracing::warn!(%error, %address, "metrics are not served");
        }
    };
    thread::Builder::new().name("metrics".into()).spawn(serving).map(drop).context("starting the thread metrics")
}

fn bind(address: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => {
                tracing::info!(%address, "metrics are served");
                return listener;
            }
            Err(error) if !is_told => {
                tracing::warn!(
                    "metrics are not served at {address}: {error}; set metrics_address to another, or to off"
                );
                is_told = true;
            }
            Err(_) => {}
        }
        thread::sleep(TAKEN);
    }
}

async fn serve(listener: TcpListener, answer: Arc<Answer>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(SHORT).await;
            continue;
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let respond = service_fn(|request| respond(request, Arc::clone(&answer)));
            let client = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), respond);
            // Whoever goes, or talks nonsense, or says nothing, gets no answer.
            let _ = timeout(LONGEST, client).await;
            drop(place);
        });
    }
}

async fn respond(request: Request<Incoming>, answer: Arc<Answer>) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = if [Method::GET, Method::HEAD].contains(request.method()) {
        let path = request.uri().path().to_owned();
        let failed = |_| Page::plain(StatusCode::INTERNAL_SERVER_ERROR, "this page cannot be made".into());
        spawn_blocking(move || answer(&path)).await.unwrap_or_else(failed)
    } else {
        Page::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered".into())
    };
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    if page.status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    /// What a server answers to some bytes.
    fn ask(text: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("has an address");
        let runtime = Builder::new_current_thread().enable_all().build().expect("builds");
        let answer = Arc::new(|path: &str| Page::plain(StatusCode::OK, format!("page {path}")));
        let serving = runtime.spawn(serve(listener, answer));
        let text = text.to_owned();
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream.write_all(text.as_bytes()).expect("writes");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("reads");
            answer
        });
        let answer = runtime.block_on(async { spawn_blocking(move || client.join()).await.expect("is waited for") });
        serving.abort();
        answer.expect("is answered")
    }

    #[test]
    fn pages_are_given_and_connections_end() {
        let answer = ask("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\npage /metrics\n"), "{answer}");
        let answer = ask("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[test]
    fn nothing_can_be_changed_and_nonsense_is_refused() {
        let answer = ask("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
        assert!(ask("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }
}

//! A small HTTP server: one request for each connection.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

/// Most clients of an address at once; others wait until they are accepted.
const CLIENTS: usize = 16;
/// How long a client may take for all that it asks and takes.
const LONGEST: Duration = Duration::from_secs(15);
/// Until an address that is taken is tried again.
pub const TAKEN: Duration = Duration::from_secs(10);
/// Rest before the next attempt to accept a client where descriptors or memory are short, of whose return nobody tells.
const SHORT: Duration = Duration::from_millis(100);

/// Both families' way to say: all addresses.
pub const EVERYWHERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// An answer to somebody who asks.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// How it went.
    pub status: StatusCode,
    /// The type of the text.
    pub kind: &'static str,
    /// More headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The text.
    pub text: String,
}

impl Page {
    /// A line for people.
    pub fn plain(status: StatusCode, text: String) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", headers: Vec::new(), text: text + "\n" }
    }
}

/// Gives the page of a path; it may block.
pub type Answer = dyn Fn(&str) -> Page + Send + Sync;

/// What is served at an address.
#[derive(Clone, Copy, Debug)]
pub struct Matter {
    /// What it is; also the name of the thread.
    pub name: &'static str,
    /// The setting that says where.
    pub key: &'static str,
}

/// Serves an address, all of either family being all of both, on a thread of its own, for as long as there is an agent. Where it
/// is taken, it is tried again: nobody is to be without network for that.
///
/// # Errors
/// Where there can be no thread for it.
pub fn listen(matter: Matter, address: SocketAddr, answer: Arc<Answer>) -> Result<()> {
    let name = matter.name;
    let runtime =
        Builder::new_current_thread().enable_all().build().with_context(|| format!("starting the server of {name}"))?;
    let serving = move || {
        runtime.block_on(async {
            let one = |address| serve_at(matter, address, Arc::clone(&answer));
            meant_by(address).into_iter().map(one).collect::<JoinSet<()>>().join_all().await
        })
    };
    thread::Builder::new()
        .name(name.into())
        .spawn(serving)
        .map(drop)
        .with_context(|| format!("starting the thread {name}"))
}

/// What an address in the settings stands for.
fn meant_by(address: SocketAddr) -> Vec<SocketAddr> {
    if address.ip().is_unspecified() {
        EVERYWHERE.map(|ip| SocketAddr::new(ip, address.port())).to_vec()
    } else {
        vec![address]
    }
}

/// Serves an address once it is free.
async fn serve_at(matter: Matter, address: SocketAddr, answer: Arc<Answer>) {
    let Matter { name, key } = matter;
    let mut is_told = false;
    let listener = loop {
        match bind(address) {
            Ok(listener) => break listener,
            Err(error) if is_absent(address, &error) => return,
            Err(error) if !is_told => {
                tracing::warn!("{name} cannot be served at {address}: {error}; set {key} to another, or to off");
                is_told = true;
            }
            Err(_) => {}
        }
        sleep(TAKEN).await;
    };
    tracing::info!(%address, "{name} can be had");
    if let Err(error) = serve(listener, answer).await {
        tracing::warn!(%error, %address, "{name} can be had no more");
    }
}

/// Whether this is all addresses of a family that the host does not have.
pub fn is_absent(address: SocketAddr, error: &io::Error) -> bool {
    address.ip().is_unspecified() && error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

/// Listens at an address of one family: all IPv6 addresses are no IPv4 ones.
///
/// # Errors
/// Where the kernel refuses.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    /// As many may wait to be accepted.
    const WAITING: i32 = 128;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A predecessor's connections may linger there.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(WAITING)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Answers those who come to a listener that does not block.
///
/// # Errors
/// Where it cannot be listened to.
pub async fn serve(listener: TcpListener, answer: Arc<Answer>) -> io::Result<()> {
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
            let mut client = http1::Builder::new();
            // Those who look for a header by its letters look for these.
            client.keep_alive(false).title_case_headers(true);
            // Whoever goes, or talks nonsense, or says nothing, gets no answer.
            let _ = timeout(LONGEST, client.serve_connection(TokioIo::new(stream), respond)).await;
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
        Page {
            headers: vec![(ALLOW, HeaderValue::from_static("GET, HEAD"))],
            ..Page::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered".into())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(page.text)));
    *response.status_mut() = page.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    response.headers_mut().extend(page.headers);
    Ok(response)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;

    /// What is answered at an address to some bytes.
    pub fn ask(address: SocketAddr, text: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Asks for a path at an address until the answer is as it should be: servers come and go some time after they are
    /// told to.
    pub fn until(address: SocketAddr, path: &str, is_so: impl Fn(&io::Result<String>) -> bool) {
        /// Far longer than it takes.
        const PATIENCE: Duration = Duration::from_secs(60);
        let start = Instant::now();
        loop {
            let answer = ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            if is_so(&answer) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{address} still answers {answer:?}");
            thread::yield_now();
        }
    }

    /// What a server answers to some bytes.
    fn answer(text: &str) -> String {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binds");
        let address = listener.local_addr().expect("has an address");
        let runtime = Builder::new_current_thread().enable_all().build().expect("builds");
        let page = Arc::new(|path: &str| Page::plain(StatusCode::OK, format!("page {path}")));
        let serving = runtime.spawn(serve(listener, page));
        let text = text.to_owned();
        let answer = runtime.block_on(async { spawn_blocking(move || ask(address, &text)).await.expect("is asked") });
        serving.abort();
        answer.expect("is answered")
    }

    #[test]
    fn pages_are_given_and_connections_end() {
        let given = answer("GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(given.starts_with("HTTP/1.1 200 OK\r\n") && given.ends_with("\r\n\r\npage /metrics\n"), "{given}");
        let given = answer("HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(given.starts_with("HTTP/1.1 200 OK\r\n") && given.ends_with("\r\n\r\n"), "{given}");
    }

    #[test]
    fn nothing_can_be_changed_and_nonsense_is_refused() {
        let given = answer("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert!(given.starts_with("HTTP/1.1 405 ") && given.contains("Allow: GET, HEAD\r\n"), "{given}");
        assert!(answer("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn all_addresses_of_a_family_are_all_of_both() {
        let all: [SocketAddr; 2] = ["0.0.0.0:9921", "[::]:9921"].map(|it| it.parse().expect("an address"));
        for address in all {
            assert_eq!(meant_by(address), all);
        }
        let one: SocketAddr = "[::1]:9921".parse().expect("an address");
        assert_eq!(meant_by(one), [one]);
    }

    #[test]
    fn both_families_share_a_port_and_one_is_taken_without_the_other() {
        let v4 = bind((Ipv4Addr::UNSPECIFIED, 0).into()).expect("binds");
        let port = v4.local_addr().expect("has an address").port();
        let taken = bind((Ipv4Addr::UNSPECIFIED, port).into()).expect_err("it is taken");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let v6 = bind((Ipv6Addr::UNSPECIFIED, port).into()).expect("binds");
        assert_eq!(v6.local_addr().expect("has an address").port(), port);
    }
}

//! A small HTTP server: one request for each connection. Anybody may connect, and a kubelet that is not answered ends the agent: so a new
//! client is always taken, and gives its place up to the next, not to the clock.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking, yield_now};
use tokio::time::{sleep, timeout};

/// Most clients of an address at once that have yet to ask, and as many more that are being answered: neither take the others' places.
const CLIENTS: usize = 16;
/// How long a client may take.
const LIMITS: Limits = Limits { asking: Duration::from_secs(2), in_all: Duration::from_secs(15) };
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

/// How long a client may take
#[derive(Clone, Copy)]
struct Limits {
    /// until it has asked,
    asking: Duration,
    /// and for all that it asks and takes.
    in_all: Duration,
}

/// Answers those who come to a listener that does not block.
///
/// # Errors
/// Where it cannot be listened to.
pub async fn serve(listener: TcpListener, answer: Arc<Answer>) -> io::Result<()> {
    serve_within(LIMITS, listener, answer).await
}

async fn serve_within(limits: Limits, listener: TcpListener, answer: Arc<Answer>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let pages = Pages { answer, turns: Arc::new(Semaphore::new(CLIENTS)) };
    let mut clients = Clients::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(SHORT).await;
            continue;
        };
        clients.make_room();
        let has_asked = Arc::new(AtomicBool::new(false));
        let (asked, pages) = (Arc::clone(&has_asked), pages.clone());
        let task = tokio::spawn(async move {
            let respond = service_fn(|request| {
                asked.store(true, Ordering::Relaxed);
                respond(request, pages.clone())
            });
            let mut client = http1::Builder::new();
            client.timer(TokioTimer::new()).header_read_timeout(limits.asking);
            // Those who look for a header by its letters look for these.
            client.keep_alive(false).title_case_headers(true);
            // Whoever goes, or talks nonsense, or says nothing, gets no answer.
            let _ = timeout(limits.in_all, client.serve_connection(TokioIo::new(stream), respond)).await;
        });
        clients.0.push(Client { task, has_asked });
        // Who has asked already is known for one before there are others.
        yield_now().await;
    }
}

/// Who is connected, in the order of their coming.
#[derive(Default)]
struct Clients(Vec<Client>);

struct Client {
    task: JoinHandle<()>,
    has_asked: Arc<AtomicBool>,
}

impl Clients {
    /// Lets those go who have had their places longest, where all are taken.
    fn make_room(&mut self) {
        self.0.retain(|client| !client.task.is_finished());
        for has_asked in [false, true] {
            let is_alike = |client: &Client| client.has_asked.load(Ordering::Relaxed) == has_asked;
            if self.0.iter().filter(|client| is_alike(client)).count() >= CLIENTS
                && let Some(first) = self.0.iter().position(is_alike)
            {
                self.0.remove(first).task.abort();
            }
        }
    }
}

/// Who makes pages, of which only some are made at once: one that has been begun is made, though its client was let go.
#[derive(Clone)]
struct Pages {
    answer: Arc<Answer>,
    turns: Arc<Semaphore>,
}

impl Pages {
    async fn make(self, path: String) -> Page {
        // Never closed.
        let turn = self.turns.acquire_owned().await;
        let page = spawn_blocking(move || {
            let page = (self.answer)(&path);
            drop(turn);
            page
        });
        let failed = |_| Page::plain(StatusCode::INTERNAL_SERVER_ERROR, "this page cannot be made".into());
        page.await.unwrap_or_else(failed)
    }
}

async fn respond(request: Request<Incoming>, pages: Pages) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = if [Method::GET, Method::HEAD].contains(request.method()) {
        pages.make(request.uri().path().to_owned()).await
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
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc::{self, Sender};
    use std::sync::{Mutex, PoisonError};
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

    /// Far longer than anything takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Asks for a path at an address until the answer is as it should be: servers come and go some time after they are
    /// told to.
    pub fn until(address: SocketAddr, path: &str, is_so: impl Fn(&io::Result<String>) -> bool) {
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

    /// A listener at a port that is free, and its address.
    fn listener() -> (TcpListener, SocketAddr) {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binds");
        let address = listener.local_addr().expect("has an address");
        (listener, address)
    }

    /// Serves a listener until the tests end.
    fn start(listener: TcpListener, limits: Limits, answer: impl Fn(&str) -> Page + Send + Sync + 'static) {
        let runtime = Builder::new_current_thread().enable_all().build().expect("builds");
        thread::spawn(move || runtime.block_on(serve_within(limits, listener, Arc::new(answer))));
    }

    fn page(path: &str) -> Page {
        Page::plain(StatusCode::OK, format!("page {path}"))
    }

    /// Pages that are made once this is dropped.
    fn later() -> (Sender<Infallible>, impl Fn(&str) -> Page + Send + Sync + 'static) {
        let (gate, opened) = mpsc::channel();
        let opened = Mutex::new(opened);
        let answer = move |path: &str| {
            let _ = opened.lock().unwrap_or_else(PoisonError::into_inner).recv();
            page(path)
        };
        (gate, answer)
    }

    /// What a server answers to some bytes.
    fn answer(text: &str) -> String {
        let (listener, address) = listener();
        start(listener, PATIENT, page);
        ask(address, text).expect("is answered")
    }

    /// For clients that the clock does not let go.
    const PATIENT: Limits = Limits { asking: Duration::from_secs(3_600), in_all: Duration::from_secs(3_600) };
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";

    /// A client that says this.
    fn client(address: SocketAddr, says: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("is set");
        stream.write_all(says).expect("is sent");
        stream
    }

    fn clients(address: SocketAddr, says: &[u8], count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| client(address, says)).collect()
    }

    fn is_answered(mut client: &TcpStream) -> bool {
        let mut text = String::new();
        client.read_to_string(&mut text).is_ok() && text.ends_with("page /healthz\n")
    }

    /// Whether a client is let go without a word.
    fn is_let_go(mut client: &TcpStream) -> bool {
        match client.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
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
    fn a_new_client_is_answered_however_many_others_say_nothing() {
        let (listener, address) = listener();
        start(listener, PATIENT, page);
        let silent = clients(address, b"GET /", 3 * CLIENTS);
        assert!(is_answered(&client(address, REQUEST)));
        let (first, last) = silent.split_at(2 * CLIENTS);
        assert!(first.iter().all(is_let_go), "they have had their places longest");
        let stays = |client: &TcpStream| {
            client.set_nonblocking(true).is_ok()
                && (&mut &*client).read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        assert!(last[1..].iter().all(stays), "there are places for them");
    }

    #[test]
    fn who_has_asked_is_answered_however_many_others_come() {
        let (listener, address) = listener();
        let asker = client(address, REQUEST);
        let silent = clients(address, b"", 3 * CLIENTS);
        let (gate, answer) = later();
        start(listener, PATIENT, answer);
        assert!(silent[..2 * CLIENTS].iter().all(is_let_go));
        drop(gate);
        assert!(is_answered(&asker));
    }

    #[test]
    fn of_those_who_ask_the_first_give_way_and_only_some_pages_are_made_at_once() {
        let (listener, address) = listener();
        let askers = clients(address, REQUEST, 3 * CLIENTS);
        let (gate, answer) = later();
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        start(listener, PATIENT, move |path| {
            count.fetch_add(1, Ordering::Relaxed);
            answer(path)
        });
        let (first, last) = askers.split_at(2 * CLIENTS);
        assert!(first.iter().all(is_let_go));
        drop(gate);
        assert!(last.iter().all(is_answered));
        // Those of the first and of the last: the others have gone before their turn.
        assert_eq!(made.load(Ordering::Relaxed), 2 * CLIENTS);
    }

    #[test]
    fn who_does_not_ask_is_let_go_and_who_has_asked_has_more_time() {
        let (listener, address) = listener();
        let asker = client(address, REQUEST);
        let silent = [client(address, b""), client(address, b"GET /")];
        let (gate, answer) = later();
        start(listener, Limits { asking: Duration::from_millis(1), ..PATIENT }, answer);
        assert!(silent.iter().all(is_let_go));
        drop(gate);
        assert!(is_answered(&asker));
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

//! The admin address: the server's numbers for people, scripts and Prometheus, and its health for whoever sends it traffic.
//!
//! It lives on threads of its own (with processes, in their parent, which must not have any) with blocking calls and few
//! clients: whatever it does, no loop notices.

mod ask;
mod page;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use amped_runtime::process;
use serde_json::Value;

use self::ask::Ask;
use super::metrics::{self, Format};
use crate::config::plan::{Plan, Secret};

/// Where the numbers come from.
pub trait Source: Send {
    /// Everything there is to know.
    fn status(&self) -> Value;

    /// Whether new requests are wanted.
    fn is_ready(&self) -> bool;
}

/// Where it is asked, and by whom.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    token: Option<Secret>,
    started: Instant,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The admin address is served while this lives.
#[derive(Debug)]
pub struct Office {
    _open: UnixStream,
}

/// What is said to a request.
struct Answer {
    status: &'static str,
    fields: Vec<(&'static str, String)>,
    body: Body,
}

enum Body {
    Whole(String),
    /// The numbers, again and again.
    Events,
}

impl Listener {
    /// Listens where the plan says, if it does.
    ///
    /// # Errors
    /// The address and what the system said.
    pub fn of(plan: &Plan) -> Result<Option<Self>, String> {
        plan.admin.as_deref().map(|address| Self::bind(address, plan.admin_token.clone())).transpose()
    }

    /// Listens on `ADDR:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// The address and what the system said.
    pub fn bind(address: &str, token: Option<Secret>) -> Result<Self, String> {
        let bound = match address.strip_prefix("unix:") {
            Some(path) => {
                // A socket that an earlier process left behind is in the way, and nobody listens on it.
                if UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path).map(Socket::Unix)
            }
            None => TcpListener::bind(address).map(Socket::Tcp),
        };
        let failed = |error| format!("cannot listen on the admin address {address}: {error}");
        let socket = bound.map_err(failed)?;
        // Processes that share it are all told of a client, and one of them has it.
        socket.set_nonblocking().map_err(failed)?;
        Ok(Self { socket, token, started: Instant::now() })
    }

    /// The same of another process of this server, which bound it where the plan says.
    pub fn adopt(socket: OwnedFd, plan: &Plan) -> Self {
        let is_unix = plan.admin.as_deref().is_some_and(|address| address.starts_with("unix:"));
        let socket = if is_unix { Socket::Unix(socket.into()) } else { Socket::Tcp(socket.into()) };
        Self { socket, token: plan.admin_token.clone(), started: Instant::now() }
    }

    /// Answers on threads of its own until `Office` is dropped: where several processes share the address, another one answers then.
    ///
    /// # Errors
    /// In words: no thread or descriptor to be had.
    pub fn start(self, source: impl Source + Sync + 'static) -> Result<Office, String> {
        let failed = |error: io::Error| format!("cannot serve the admin address: {error}");
        let (office, end) = UnixStream::pair().map_err(failed)?;
        let shared = Arc::new((self, source));
        let serve = move || {
            let open = Arc::new(AtomicUsize::new(0));
            // Just when descriptors are short somebody wants to know.
            let mut spare = Vec::new();
            let mut silent = Silent::default();
            loop {
                spare.extend((spare.len()..SPARE).map_while(|_| end.as_fd().try_clone_to_owned().ok()));
                match process::readable(&[shared.0.as_fd(), end.as_fd()], None).as_deref() {
                    Ok([_, true]) => return,
                    Ok([true, _]) => serve_on_a_thread(&shared, &open, &mut silent, &mut spare),
                    _ => {}
                }
            }
        };
        spawn("amped-admin", serve).map_err(failed)?;
        Ok(Office { _open: office })
    }

    /// Waits for a client and answers it on this thread. Events are then one at a time: the browser asks again.
    pub fn serve_one(&self, source: &impl Source) {
        if let Ok(client) = self.accept(&mut Vec::new()) {
            // A client that misbehaves has no answer, and the next one is not concerned.
            let _ = self.converse(&client, source, false);
        }
    }

    /// The next client. Where there is no descriptor to be had, a spare one makes room.
    fn accept(&self, spare: &mut Vec<OwnedFd>) -> io::Result<Client> {
        loop {
            let client = match &self.socket {
                Socket::Tcp(listener) => listener.accept().map(|(stream, _)| Connection::Tcp(stream)),
                Socket::Unix(listener) => listener.accept().map(|(stream, _)| Connection::Unix(stream)),
            };
            let client = client.map(Client::new);
            // Another process that shares the address was quicker.
            let is_over = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
            if client.as_ref().err().is_none_or(is_over) {
                return client;
            }
            if spare.pop().is_none() {
                // To ask again and again would only keep a core busy.
                std::thread::sleep(PAUSE);
                return client;
            }
        }
    }

    fn converse(&self, client: &Client, source: &impl Source, may_stream: bool) -> io::Result<()> {
        let (mut client, has_asked) = (&client.socket, &client.has_asked);
        client.patience(PATIENCE)?;
        let Some(head) = read_head(client)? else { return Ok(()) };
        has_asked.store(true, Relaxed);
        let ask = Ask::parse(&head);
        let answer = self.answer(&ask, source);
        write!(client, "HTTP/1.1 {}\r\nConnection: close\r\nCache-Control: no-store\r\n", answer.status)?;
        write!(client, "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n")?;
        for (name, value) in &answer.fields {
            write!(client, "{name}: {value}\r\n")?;
        }
        match answer.body {
            Body::Whole(body) => {
                write!(client, "Content-Length: {}\r\n\r\n", body.len())?;
                if ask.method == "HEAD" { Ok(()) } else { client.write_all(body.as_bytes()) }
            }
            Body::Events => {
                client.write_all(b"\r\n")?;
                if ask.method == "HEAD" {
                    return Ok(());
                }
                write!(client, "retry: {}\n\n", INTERVAL.as_millis())?;
                loop {
                    write!(client, "data: {}\n\n", self.document(source))?;
                    if !may_stream {
                        break;
                    }
                    std::thread::sleep(INTERVAL);
                }
                Ok(())
            }
        }
    }

    fn answer(&self, ask: &Ask<'_>, source: &impl Source) -> Answer {
        if !["GET", "HEAD"].contains(&ask.method) {
            return error("405 Method Not Allowed", "ask with GET").with("Allow", "GET, HEAD");
        }
        // Health is for everybody: it says nothing else.
        match ask.path {
            "/healthz" => return text("200 OK", "alive\n"),
            "/readyz" if source.is_ready() => return text("200 OK", "ready\n"),
            "/readyz" => return text("503 Service Unavailable", "draining\n"),
            _ => {}
        }
        if let Some(refusal) = self.refusal(ask) {
            return refusal;
        }
        match ask.path {
            "/" => page::show(),
            "/status" => whole("200 OK", "application/json", format!("{}\n", self.document(source))),
            "/metrics" => {
                let format = Format::accepted(ask.accept);
                whole("200 OK", format.media_type(), metrics::render(&self.document(source), format))
            }
            "/events" => Answer {
                status: "200 OK",
                fields: vec![("Content-Type", "text/event-stream".into())],
                body: Body::Events,
            },
            _ => error("404 Not Found", "ask for /, /status, /metrics, /events, /healthz or /readyz"),
        }
    }

    /// Why this request is not answered, if it is not.
    fn refusal(&self, ask: &Ask<'_>) -> Option<Answer> {
        let Some(token) = &self.token else {
            // A name that leads here may be anybody's (DNS rebinding): their page would read what is said as if it were theirs.
            let is_ours = matches!(self.socket, Socket::Unix(_)) || ask.host_is_ours();
            return (!is_ours).then(|| error("421 Misdirected Request", "ask by address or as localhost"));
        };
        if [ask.bearer, ask.cookie].into_iter().flatten().any(|offered| token.is(offered)) {
            return None;
        }
        match ask.token() {
            // The address bar should not keep it.
            Some(offered) if ask.path == "/" && token.is(&offered) => Some(Answer {
                status: "303 See Other",
                fields: vec![
                    ("Location", "/".into()),
                    ("Set-Cookie", format!("{}={offered}; Path=/; HttpOnly; SameSite=Strict", ask::COOKIE)),
                ],
                body: Body::Whole(String::new()),
            }),
            _ => Some(
                error("401 Unauthorized", "send `Authorization: Bearer TOKEN`, or open /?token=TOKEN in a browser")
                    .with("WWW-Authenticate", "Bearer realm=\"amped\""),
            ),
        }
    }

    fn document(&self, source: &impl Source) -> Value {
        let mut status = source.status();
        if let Value::Object(status) = &mut status {
            status.insert("uptime_seconds".into(), self.started.elapsed().as_secs().into());
            status.insert("draining".into(), (!source.is_ready()).into());
        }
        status
    }
}

impl Socket {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        match listener.socket {
            Socket::Tcp(listener) => listener.into(),
            Socket::Unix(listener) => listener.into(),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Answers the next client on a thread of its own. When there are too many, the one makes room that has been silent for longest, or
/// the new one has no answer.
fn serve_on_a_thread<S: Source + Sync + 'static>(
    shared: &Arc<(Listener, S)>,
    open: &Arc<AtomicUsize>,
    silent: &mut Silent,
    spare: &mut Vec<OwnedFd>,
) {
    let Ok(client) = shared.0.accept(spare) else { return };
    let place = Place::take(open);
    if place.number > MAX_CLIENTS && !silent.end_longest() {
        return;
    }
    // Those who make room are gone in a moment, and there are to be no more threads than that.
    let end = Instant::now() + PATIENCE;
    while open.load(Relaxed) > MAX_CLIENTS * 2 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    let client = Arc::new(client);
    silent.add(&client);
    let shared = Arc::clone(shared);
    let answer = move || {
        let _ = shared.0.converse(&client, &shared.1, place.number <= MAX_STREAMS);
        drop(place);
    };
    // No thread to be had: this client has no answer.
    let _ = spawn("amped-admin", answer);
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work).map(drop)
}

/// Clients that have not asked yet, in the order in which they came.
#[derive(Default)]
struct Silent(VecDeque<Weak<Client>>);

impl Silent {
    fn add(&mut self, client: &Arc<Client>) {
        self.0.retain(|other| other.upgrade().is_some_and(|other| other.is_silent()));
        self.0.push_back(Arc::downgrade(client));
    }

    /// Ends the conversation with the first of them; says whether there was one.
    fn end_longest(&mut self) -> bool {
        std::iter::from_fn(|| self.0.pop_front())
            .any(|client| client.upgrade().is_some_and(|client| client.is_silent() && client.socket.shutdown().is_ok()))
    }
}

/// One of few.
struct Place {
    open: Arc<AtomicUsize>,
    number: usize,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Self {
        Self { open: Arc::clone(open), number: open.fetch_add(1, Relaxed) + 1 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// Who asks.
struct Client {
    socket: Connection,
    has_asked: AtomicBool,
}

/// A connection of either kind.
enum Connection {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Client {
    fn new(socket: Connection) -> Self {
        Self { socket, has_asked: AtomicBool::new(false) }
    }

    fn is_silent(&self) -> bool {
        !self.has_asked.load(Relaxed)
    }
}

impl Connection {
    /// How long one call may take.
    fn patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience.max(Duration::from_millis(1)));
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)),
            Self::Unix(stream) => stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)),
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        }
    }
}

impl Read for &Connection {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => (&*stream).read(bytes),
            Connection::Unix(stream) => (&*stream).read(bytes),
        }
    }
}

impl Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connection::Tcp(stream) => (&*stream).write(bytes),
            Connection::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The request's head, within a time for the whole of it: a client that sends a byte now and then holds nobody up for long.
fn read_head(mut client: &Connection) -> io::Result<Option<String>> {
    let end = Instant::now() + PATIENCE;
    let mut head = Vec::new();
    let mut bytes = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        client.patience(end.saturating_duration_since(Instant::now()))?;
        let read = match client.read(&mut bytes) {
            // A child of a pool that ends tells its parent, and a read with a time limit is not resumed (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 || head.len() + read > MAX_HEAD || Instant::now() > end {
            return Ok(None);
        }
        head.extend_from_slice(&bytes[..read]);
    }
    client.patience(PATIENCE)?;
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

impl Answer {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.into()));
        self
    }
}

fn whole(status: &'static str, media_type: &str, body: String) -> Answer {
    Answer { status, fields: vec![("Content-Type", media_type.into())], body: Body::Whole(body) }
}

fn text(status: &'static str, body: &str) -> Answer {
    whole(status, "text/plain; charset=utf-8", body.into())
}

fn error(status: &'static str, sentence: &str) -> Answer {
    whole(status, "application/json", format!("{}\n", serde_json::json!({ "error": sentence })))
}

const PATIENCE: Duration = Duration::from_secs(2);
/// A loop may be quicker to take what is let go of for a client, so there are a few.
const SPARE: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
/// Between two events.
const INTERVAL: Duration = Duration::from_secs(1);
const MAX_HEAD: usize = 16 * 1024;
/// Clients at one time, each with a thread; a newcomer takes the place of one that has not asked.
const MAX_CLIENTS: usize = 32;
/// Of these, how many may stay for a stream of events: the others have one, and ask again.
const MAX_STREAMS: usize = 16;
/// Enough for rendering all there is.
const STACK: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(bool);

    impl Source for Fixed {
        fn status(&self) -> Value {
            serde_json::json!({ "connections": 7 })
        }

        fn is_ready(&self) -> bool {
            self.0
        }
    }

    /// The answer to one request on a connection of its own.
    fn ask(token: Option<&str>, ready: bool, request: &str) -> String {
        let token = token.map(|token| Secret::parse(token).expect("a token"));
        let listener = Listener::bind("127.0.0.1:0", token).expect("a port");
        let Socket::Tcp(socket) = &listener.socket else { unreachable!("an address and a port") };
        let mut client = TcpStream::connect(socket.local_addr().expect("a socket")).expect("it listens");
        client.write_all(request.as_bytes()).expect("it takes what is sent");
        client.shutdown(std::net::Shutdown::Write).expect("it is open");
        listener.serve_one(&Fixed(ready));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn get(path: &str, more: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9000\r\n{more}\r\n")
    }

    #[test]
    fn every_page_has_its_type() {
        for (path, media_type, words) in [
            ("/status", "application/json", "\"connections\":7"),
            ("/metrics", "text/plain; version=0.0.4", "amped_uptime_seconds"),
            ("/events", "text/event-stream", "data: {"),
            ("/", "text/html; charset=utf-8", "<!doctype html>"),
            ("/healthz", "text/plain", "alive"),
            ("/readyz", "text/plain", "ready"),
        ] {
            let answer = ask(None, true, &get(path, ""));
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {answer}");
            assert!(
                answer.contains(&format!("Content-Type: {media_type}")) && answer.contains(words),
                "{path}: {answer}"
            );
        }
        assert!(ask(None, true, &get("/x", "")).starts_with("HTTP/1.1 404"));
        assert!(ask(None, true, "POST /status HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        let head = ask(None, true, &get("/status", "").replace("GET", "HEAD"));
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        assert_eq!(ask(None, true, "half a head"), "");
        assert_eq!(ask(None, true, &format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000))), "");
    }

    #[test]
    fn silent_clients_make_room_for_who_asks() {
        let listener = Listener::bind("127.0.0.1:0", None).expect("a port");
        let Socket::Tcp(socket) = &listener.socket else { unreachable!("an address and a port") };
        let address = socket.local_addr().expect("a socket");
        let _office = listener.start(Fixed(true)).expect("a thread");
        let connect = || TcpStream::connect(address).expect("it listens");
        let silent: Vec<TcpStream> = (0..MAX_CLIENTS * 2).map(|_| connect()).collect();
        for path in ["/healthz", "/status"] {
            let (mut client, mut answer) = (connect(), String::new());
            client.write_all(get(path, "").as_bytes()).expect("it takes what is sent");
            client.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        }
        drop(silent);
    }

    #[test]
    fn a_draining_server_is_alive_and_not_ready() {
        assert!(ask(None, false, &get("/readyz", "")).starts_with("HTTP/1.1 503"));
        assert!(ask(None, false, &get("/healthz", "")).starts_with("HTTP/1.1 200"));
        assert!(ask(None, false, &get("/status", "")).contains("\"draining\":true"));
    }

    #[test]
    fn the_token_opens_everything_but_health_needs_none() {
        let token = Some("0123456789abcdef");
        for path in ["/", "/status", "/metrics", "/events"] {
            let closed = ask(token, true, &get(path, ""));
            assert!(closed.starts_with("HTTP/1.1 401") && closed.contains("WWW-Authenticate: Bearer"), "{closed}");
            for more in ["Authorization: Bearer 0123456789abcdef\r\n", "cookie: a=b; amped_admin=0123456789abcdef\r\n"]
            {
                assert!(ask(token, true, &get(path, more)).starts_with("HTTP/1.1 200"), "{path} {more}");
            }
            let wrong = ask(token, true, &get(path, "Authorization: Bearer 0123456789abcdeX\r\n"));
            assert!(wrong.starts_with("HTTP/1.1 401"));
        }
        let page = ask(token, true, &get("/?token=0123456789abcdef", ""));
        assert!(page.starts_with("HTTP/1.1 303") && page.contains("HttpOnly; SameSite=Strict"), "{page}");
        assert!(ask(token, true, &get("/status?token=0123456789abcdef", "")).starts_with("HTTP/1.1 401"));
        assert!(ask(token, true, &get("/healthz", "")).starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn without_a_token_names_of_others_are_not_answered() {
        for (host, answered) in [
            ("localhost:9000", true),
            ("box", true),
            ("[::1]:9000", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let answer = ask(None, true, &format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(answer.starts_with("HTTP/1.1 200"), answered, "{host}: {answer}");
        }
    }
}

//! What the contract's tests stand on: one test on every driver, peers that are ordinary sockets, and patience with an end.
//!
//! A body runs in a thread of its own, so that a hang is a failure with a name. A body whose subject is the whole process
//! (descriptors, limits) runs in a child process, which is this same binary asked for one test.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use amped_runtime::driver::{self, Kind};
use amped_runtime::net::{Listener, Stream};
use amped_runtime::{Chunk, Runtime, SendQueue};

/// Makes `name::epoll_edge`, `name::uring` and so on, one for each driver, of each async function named.
macro_rules! on_every_driver {
    ($($test:ident),* $(,)?) => { $(
        mod $test {
            use amped_runtime::driver::Kind;

            #[test]
            fn epoll_edge() {
                crate::support::on(Kind::EpollEdge, super::$test);
            }

            #[test]
            fn poll() {
                crate::support::on(Kind::Poll, super::$test);
            }

            #[test]
            fn epoll_level() {
                crate::support::on(Kind::EpollLevel, super::$test);
            }

            #[test]
            fn portable() {
                crate::support::on(Kind::Portable, super::$test);
            }

            #[test]
            fn select() {
                crate::support::on(Kind::Select, super::$test);
            }

            #[test]
            fn sigio() {
                crate::support::on(Kind::Sigio, super::$test);
            }

            #[test]
            fn uring() {
                crate::support::on(Kind::Uring, super::$test);
            }

            #[test]
            fn blocking() {
                crate::support::on(Kind::Blocking, super::$test);
            }
        }
    )* };
}

/// As `on_every_driver`, for plain functions of a `Kind` that need a process to themselves.
macro_rules! alone_on_every_driver {
    ($($test:ident),* $(,)?) => { $(
        mod $test {
            use amped_runtime::driver::Kind;

            #[test]
            fn epoll_edge() {
                crate::support::alone(concat!(module_path!(), "::epoll_edge"), Kind::EpollEdge, super::$test);
            }

            #[test]
            fn poll() {
                crate::support::alone(concat!(module_path!(), "::poll"), Kind::Poll, super::$test);
            }

            #[test]
            fn epoll_level() {
                crate::support::alone(concat!(module_path!(), "::epoll_level"), Kind::EpollLevel, super::$test);
            }

            #[test]
            fn portable() {
                crate::support::alone(concat!(module_path!(), "::portable"), Kind::Portable, super::$test);
            }

            #[test]
            fn select() {
                crate::support::alone(concat!(module_path!(), "::select"), Kind::Select, super::$test);
            }

            #[test]
            fn sigio() {
                crate::support::alone(concat!(module_path!(), "::sigio"), Kind::Sigio, super::$test);
            }

            #[test]
            fn uring() {
                crate::support::alone(concat!(module_path!(), "::uring"), Kind::Uring, super::$test);
            }

            #[test]
            fn blocking() {
                crate::support::alone(concat!(module_path!(), "::blocking"), Kind::Blocking, super::$test);
            }
        }
    )* };
}

#[test]
fn the_macros_name_every_driver() {
    let mut names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    names.sort_unstable();
    let expected = ["blocking", "epoll-edge", "epoll-level", "poll", "portable", "select", "sigio", "uring"];
    assert_eq!(names, expected, "a new driver belongs into both macros of this file");
}

/// Runs `body` on a loop of this kind, and sees to it that nothing holds the loop afterwards.
pub fn on<F: Future<Output = ()> + 'static>(kind: Kind, body: impl FnOnce(Rc<Runtime>) -> F + Send + 'static) {
    if is_available(kind) {
        watched(kind, move || run(kind, body));
    }
}

/// One loop, from its set-up to its end.
pub fn run<F: Future<Output = ()> + 'static>(kind: Kind, body: impl FnOnce(Rc<Runtime>) -> F) {
    let runtime = Runtime::new(kind).expect("the driver can be set up");
    let main = body(Rc::clone(&runtime));
    runtime.run(main).expect("the loop waits without an error");
    assert_eq!(Rc::strong_count(&runtime), 1, "{kind}: something still holds the loop after its end");
    let began = Instant::now();
    drop(runtime);
    // A ring whose operations do not come back gives up after a second and leaks them.
    assert!(
        began.elapsed() < Duration::from_millis(900) * slowness(),
        "{kind}: the loop's memory was not given back at once"
    );
}

/// Runs `body` in a child process, where it is the only test.
pub fn alone(test: &str, kind: Kind, body: fn(Kind)) {
    let test = test.split_once("::").map_or(test, |(_, test)| test);
    if std::env::var_os(CHILD).is_some_and(|child| child == test) {
        if is_available(kind) {
            watched(kind, move || body(kind));
        }
        return;
    }
    let this = std::env::current_exe().expect("a test binary has a path");
    let child = Command::new(this)
        .args([test, "--exact", "--test-threads=1", "--nocapture"])
        .env(CHILD, test)
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts");
    let output = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{test} in a process of its own: {}\n{output}", child.status);
    assert!(output.contains("1 passed"), "{test}: the child ran another number of tests\n{output}");
}

/// Whether the driver works here. Only io_uring may be missing, and then the set-up must say so.
fn is_available(kind: Kind) -> bool {
    let Err(error) = driver::probe(kind) else { return true };
    assert_eq!(kind, Kind::Uring, "{kind} works on every Linux: {error}");
    assert!(Runtime::new(kind).is_err(), "a driver that does not work must not be set up");
    // Once, and past the capture of the tests' output, which would hide it as long as they pass.
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let note =
            format!("NOT RUN: io_uring cannot be set up on this machine ({error}): only its refusal was tested\n");
        io::stderr().write_all(note.as_bytes()).expect("a standard error");
    });
    false
}

fn watched(kind: Kind, body: impl FnOnce() + Send + 'static) {
    let (alive, ended) = mpsc::channel::<()>();
    let thread = thread::Builder::new().name(kind.name().into()).spawn(move || {
        let _alive = alive;
        body();
    });
    let thread = thread.expect("a thread for the loop");
    if ended.recv_timeout(patience()) == Err(RecvTimeoutError::Timeout) {
        panic!("{kind}: not over after {:?}", patience());
    }
    if let Err(panic) = thread.join() {
        eprintln!("on the driver {kind}");
        std::panic::resume_unwind(panic);
    }
}

/// How long a test may take before it counts as hanging.
pub fn patience() -> Duration {
    PATIENCE * slowness()
}

/// More than 1 where the machine is known to be slow (an emulator, a sanitizer).
fn slowness() -> u32 {
    let seconds = std::env::var("AMPED_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse::<u32>().ok());
    seconds.map_or(1, |seconds| (seconds / PATIENCE.as_secs() as u32).max(1))
}

/// A stream on the loop and its peer, an ordinary blocking socket that fails rather than hangs.
pub fn pair(runtime: &Rc<Runtime>) -> (Stream, TcpStream) {
    let (ours, theirs) = sockets();
    (Stream::adopt(runtime, ours).expect("a connected socket"), theirs)
}

/// Two connected sockets, accepted and connecting.
pub fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let theirs = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    let (ours, from) = listener.accept().expect("a connection");
    assert_eq!(from, theirs.local_addr().expect("an address"), "no stranger connects to a fresh port");
    (ours, guarded(theirs))
}

/// A listener on the loop.
pub fn listener(runtime: &Rc<Runtime>) -> Listener {
    let socket = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    Listener::new(runtime, socket).expect("a listening socket")
}

/// An ordinary blocking connection to the listener.
pub fn client(listener: &Listener) -> TcpStream {
    guarded(TcpStream::connect(listener.address()).expect("a connection"))
}

/// Gives a blocking peer the patience of its test.
pub fn guarded(peer: TcpStream) -> TcpStream {
    peer.set_read_timeout(Some(patience())).expect("a time limit");
    peer.set_write_timeout(Some(patience())).expect("a time limit");
    peer.set_nodelay(true).expect("an option");
    peer
}

/// Closes the peer's end with RST instead of FIN.
pub fn reset(peer: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).expect("an option");
}

/// Bytes that are wrong wherever one is lost, doubled or moved.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Fails at the first difference rather than printing megabytes.
pub fn assert_same(seen: &[u8], expected: &[u8], what: &str) {
    if let Some(at) = seen.iter().zip(expected).position(|(seen, expected)| seen != expected) {
        panic!("{what}: byte {at} differs");
    }
    assert_eq!(seen.len(), expected.len(), "{what}: the length differs");
}

/// Receives until `length` bytes are there or the peer has finished.
pub async fn receive(stream: &Stream, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let chunk = stream.recv().await.expect("bytes");
        if chunk.is_empty() {
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

/// Sends bytes and waits until they have left.
pub async fn send(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut queue = SendQueue::default();
    queue.own().extend_from_slice(bytes);
    stream.send(&mut queue).await?;
    assert!(queue.is_empty(), "on return a queue belongs to the operation");
    sent(stream).await
}

/// Waits until nothing is in flight towards the peer.
pub async fn sent(stream: &Stream) -> io::Result<()> {
    poll_fn(|context| stream.poll_sent(context)).await
}

/// Waits until the stream is known to be gone.
pub async fn gone(stream: &Stream, end: bool) {
    poll_fn(|context| stream.poll_gone(end, context)).await;
}

/// Sends back what comes until the peer finishes.
pub async fn echo(stream: Stream) {
    let mut queue = SendQueue::default();
    loop {
        let chunk = stream.recv().await.expect("bytes");
        if chunk.is_empty() {
            return;
        }
        queue.own().extend_from_slice(&chunk);
        drop(chunk);
        stream.send(&mut queue).await.expect("a peer that reads");
    }
}

/// Starts a task whose result can be awaited.
pub fn task<T: 'static>(runtime: &Runtime, future: impl Future<Output = T> + 'static) -> impl Future<Output = T> {
    let place = Rc::new(RefCell::new((None, None::<Waker>)));
    let result = Rc::clone(&place);
    runtime.spawn(async move {
        let value = future.await;
        let mut place = place.borrow_mut();
        place.0 = Some(value);
        if let Some(waker) = place.1.take() {
            waker.wake();
        }
    });
    poll_fn(move |context| {
        let mut result = result.borrow_mut();
        match result.0.take() {
            Some(value) => Poll::Ready(value),
            None => {
                result.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    })
}

/// Runs `body` on a thread of its own; the loop is woken from there when it has ended.
pub fn in_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> InThread<T> {
    let place = Arc::new(Mutex::new((None, None::<Waker>)));
    let result = InThread(Arc::clone(&place));
    thread::spawn(move || {
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        let mut place = place.lock().expect("no panic under this lock");
        place.0 = Some(value);
        if let Some(waker) = place.1.take() {
            waker.wake();
        }
    });
    result
}

/// The result of a thread, awaited on a loop.
pub struct InThread<T>(Arc<Mutex<Place<T>>>);

type Place<T> = (Option<thread::Result<T>>, Option<Waker>);

impl<T> Future for InThread<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut place = self.0.lock().expect("no panic under this lock");
        match place.0.take() {
            Some(Ok(value)) => Poll::Ready(value),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => {
                place.1 = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// The future's value, or `None` when `limit` passes first.
pub async fn within<T>(runtime: &Rc<Runtime>, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut limit) = (pin!(future), pin!(runtime.sleep(limit)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => limit.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// The value of a future that must come soon.
pub async fn soon<T>(runtime: &Rc<Runtime>, what: &str, future: impl Future<Output = T>) -> T {
    let limit = patience() / 2;
    within(runtime, limit, future).await.unwrap_or_else(|| panic!("{}: {what} within {limit:?}", runtime.kind()))
}

/// A future that must still be waiting after a while.
pub async fn still_waits<T>(runtime: &Rc<Runtime>, what: &str, future: impl Future<Output = T>) {
    let value = within(runtime, A_WHILE, future).await;
    assert!(value.is_none(), "{}: {what} must still wait", runtime.kind());
}

/// Polls once, as a task that then loses interest does.
pub async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Receives once, or loses interest at once.
pub async fn glance(stream: &Stream) -> Option<io::Result<Chunk>> {
    poll_once(stream.recv()).await
}

/// Waits until `is_so`, turning the loop meanwhile.
pub async fn until(runtime: &Rc<Runtime>, what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            runtime.sleep(Duration::from_millis(2)).await;
        }
    };
    soon(runtime, what, waiting).await;
}

/// This process's open descriptors, with what they lead to.
pub fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("a /proc file system").flatten();
    let mut found: Vec<String> = entries
        .map(|entry| {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            format!("{} -> {}", entry.file_name().to_string_lossy(), target.display())
        })
        .filter(|name| !name.contains("/proc/"))
        .collect();
    found.sort();
    found
}

/// Runs `body` between two counts of the process's descriptors: for children, where nothing else opens any.
pub fn leaves_no_descriptor(body: impl FnOnce()) {
    let before = descriptors();
    body();
    let after = descriptors();
    assert_eq!(after.len(), before.len(), "descriptors before: {before:#?}\nafter: {after:#?}");
}

/// Reads exactly this many bytes from a blocking peer.
pub fn read(mut peer: &TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    peer.read_exact(&mut bytes).expect("bytes for the peer");
    bytes
}

/// Writes from a blocking peer.
pub fn write(mut peer: &TcpStream, bytes: &[u8]) {
    peer.write_all(bytes).expect("room for the peer's bytes");
}

/// Limits what the kernel buffers on a socket, so that "full" is reached soon.
pub fn small_buffers(socket: impl AsFd) {
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, 64 * 1024).expect("an option");
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 64 * 1024).expect("an option");
}

/// How long a test may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough that what would come by mistake has come.
pub const A_WHILE: Duration = Duration::from_millis(60);
const CHILD: &str = "AMPED_TEST_ALONE";

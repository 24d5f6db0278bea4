//! Connections: accepted, made, refused, handed to another loop, a thousand at a time, and when no descriptor is left.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use amped_runtime::Runtime;
use amped_runtime::driver::{self, Kind};
use amped_runtime::net::{ConnectOptions, Listener, Stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

on_every_driver!(
    a_connection_is_accepted,
    connections_that_wait_are_each_accepted_once,
    a_dropped_accept_loses_no_connection,
    a_closed_listener_refuses,
    a_connection_is_made,
    a_connection_is_made_as_asked,
    a_refused_connection_says_so,
    a_connection_given_up_is_closed,
    a_socket_is_handed_to_another_loop,
    a_thousand_connections_echo,
);

alone_on_every_driver!(no_descriptor_left_is_survived, no_descriptor_for_a_driver_is_an_error);

async fn a_connection_is_accepted(runtime: Rc<Runtime>) {
    let listener = listener(&runtime);
    assert_ne!(listener.address().port(), 0, "the kernel's choice is known");
    let peer = client(&listener);
    let socket = soon(&runtime, "a connection", listener.accept()).await.expect("a connection");
    assert_eq!(Listener::address_of(&socket).expect("an address"), listener.address());
    let stream = Listener::stream(&runtime, socket);
    assert_eq!(stream.peer_address().expect("an address"), peer.local_addr().expect("an address"));
    write(&peer, b"ping");
    assert_eq!(soon(&runtime, "bytes", receive(&stream, 4)).await, b"ping");
    soon(&runtime, "a send", send(&stream, b"pong")).await.expect("a peer that reads");
    assert_eq!(read(&peer, 4), b"pong");
    // And once more, now that the listener has been waited on.
    let waiting = in_thread({
        let address = listener.address();
        move || {
            thread::sleep(Duration::from_millis(20));
            TcpStream::connect(address).expect("a connection")
        }
    });
    soon(&runtime, "a second connection", listener.accept()).await.expect("a connection");
    soon(&runtime, "its peer", waiting).await;
}

async fn connections_that_wait_are_each_accepted_once(runtime: Rc<Runtime>) {
    let listener = listener(&runtime);
    for _ in 0..3 {
        let peers: Vec<TcpStream> = (0..60).map(|_| client(&listener)).collect();
        let mut expected: HashSet<SocketAddr> =
            peers.iter().map(|peer| peer.local_addr().expect("an address")).collect();
        for _ in 0..peers.len() {
            let socket = soon(&runtime, "one of many", listener.accept()).await.expect("a connection");
            let from = Listener::stream(&runtime, socket).peer_address().expect("an address");
            assert!(expected.remove(&from), "{from} was accepted twice, or is a stranger");
        }
        assert!(poll_once(listener.accept()).await.is_none(), "nobody else has connected");
    }
}

async fn a_dropped_accept_loses_no_connection(runtime: Rc<Runtime>) {
    let listener = listener(&runtime);
    for _ in 0..10 {
        assert!(poll_once(listener.accept()).await.is_none(), "nobody has connected");
        let peer = client(&listener);
        runtime.sleep(Duration::from_millis(5)).await;
        let socket = soon(&runtime, "the connection that came meanwhile", listener.accept()).await;
        let stream = Listener::stream(&runtime, socket.expect("a connection"));
        assert_eq!(stream.peer_address().expect("an address"), peer.local_addr().expect("an address"));
    }
}

async fn a_closed_listener_refuses(runtime: Rc<Runtime>) {
    let listener = listener(&runtime);
    let address = listener.address();
    assert!(poll_once(listener.accept()).await.is_none(), "nobody has connected");
    drop(listener);
    // What waits in the ring is cancelled first, so the port may stay open for a turn.
    until(&runtime, "a closed listener refuses", || TcpStream::connect(address).is_err()).await;
}

/// The drivers that wait for several listeners at once.
fn on_every_loop<F: Future<Output = ()> + 'static>(body: fn(Rc<Runtime>) -> F) {
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::Blocking).for_each(|kind| on(kind, body));
}

#[test]
fn a_stopped_listener_gives_what_has_come() {
    on_every_loop(|runtime| async move {
        let listener = listener(&runtime);
        assert!(poll_once(listener.accept()).await.is_none(), "nobody has connected");
        let peers: Vec<TcpStream> = (0..5).map(|_| client(&listener)).collect();
        listener.stop();
        assert!(listener.is_stopped());
        for _ in &peers {
            soon(&runtime, "one that had come", listener.accept()).await.expect("a connection");
        }
        let error = soon(&runtime, "the end", listener.accept()).await.expect_err("nobody else has come");
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    });
}

/// Another loop waits for the same socket, is told of the connection, and does not come to look.
#[test]
fn a_connection_that_another_was_told_of_is_found() {
    on_every_loop(|runtime| async move {
        let socket = Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let (same, kind) = (socket.try_clone().expect("a descriptor"), runtime.kind());
        let ((waits, waiting), (free, freed)) = (channel(), channel::<()>());
        let stuck = in_thread(move || {
            run(kind, |runtime| async move {
                let listener = Listener::new(&runtime, same).expect("a listener");
                assert!(poll_once(listener.accept()).await.is_none(), "nobody has connected");
                runtime.sleep(Duration::from_millis(5)).await;
                waits.send(()).expect("somebody listens");
                freed.recv().expect("an end");
            });
        });
        waiting.recv().expect("it waits");
        let listener = Listener::new(&runtime, socket).expect("a listener");
        assert!(poll_once(listener.accept()).await.is_none(), "nobody has connected");
        runtime.sleep(Duration::from_millis(5)).await;
        let _peer = client(&listener);
        let found = async {
            loop {
                listener.look_again();
                if let Some(socket) = within(&runtime, Duration::from_millis(50), listener.accept()).await {
                    break socket;
                }
            }
        };
        soon(&runtime, "the connection", found).await.expect("a connection");
        free.send(()).expect("it is stuck");
        soon(&runtime, "the other's end", stuck).await;
    });
}

async fn a_connection_is_made(runtime: Rc<Runtime>) {
    let there = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = there.local_addr().expect("an address");
    for _ in 0..5 {
        let stream = soon(&runtime, "a connect", Stream::connect(&runtime, address)).await.expect("a connection");
        assert_eq!(stream.peer_address().expect("an address"), address);
        let peer = guarded(there.accept().expect("a connection").0);
        soon(&runtime, "a send", send(&stream, b"to you")).await.expect("a peer that reads");
        assert_eq!(read(&peer, 6), b"to you");
        write(&peer, b"to me");
        assert_eq!(soon(&runtime, "bytes", receive(&stream, 5)).await, b"to me");
    }
    // Both ends on one loop.
    let listener = listener(&runtime);
    let accepted = async { Listener::stream(&runtime, listener.accept().await.expect("a connection")) };
    let connecting = task(&runtime, {
        let (runtime, address) = (Rc::clone(&runtime), listener.address());
        async move { Stream::connect(&runtime, address).await.expect("a connection") }
    });
    let server = soon(&runtime, "an accept", accepted).await;
    let client = soon(&runtime, "a connect", connecting).await;
    soon(&runtime, "a send", send(&client, b"one loop")).await.expect("a peer that reads");
    assert_eq!(soon(&runtime, "bytes", receive(&server, 8)).await, b"one loop");
}

async fn a_connection_is_made_as_asked(runtime: Rc<Runtime>) {
    let there = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = there.local_addr().expect("an address");
    for last in 2..7 {
        let source = IpAddr::from([127, 0, 0, last]);
        let options = ConnectOptions { source: Some(source), receive_buffer: Some(4096), patience: None };
        let connecting = Stream::connect_with(&runtime, address, &options);
        let stream = soon(&runtime, "a connect", connecting).await.expect("a connection");
        let (peer, from) = there.accept().expect("a connection");
        assert_eq!(from.ip(), source, "the address that was asked for");
        drop((stream, peer));
    }
    // An address that is not this machine's: for documentation only (RFC 5737).
    let options = ConnectOptions { source: Some(IpAddr::from([192, 0, 2, 1])), ..ConnectOptions::default() };
    let outcome = Stream::connect_with(&runtime, address, &options).await.map(drop);
    assert_eq!(outcome.expect_err("a stranger's address").kind(), io::ErrorKind::AddrNotAvailable);
    // A listener whose queue is full does not answer at all.
    let full = full_listener();
    let address = Listener::address_of(&full.0).expect("an address");
    let options = ConnectOptions { patience: Some(Duration::from_millis(30)), ..ConnectOptions::default() };
    let outcome = soon(&runtime, "an end of patience", Stream::connect_with(&runtime, address, &options)).await;
    assert_eq!(outcome.map(drop).expect_err("nobody answers").kind(), io::ErrorKind::TimedOut);
}

/// A listening socket that has more connections waiting than it may, and those.
fn full_listener() -> (OwnedFd, Vec<OwnedFd>) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, listen, socket, socket_with};
    let full = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&full, &"127.0.0.1:0".parse::<SocketAddr>().expect("an address")).expect("a port");
    listen(&full, 0).expect("a listener");
    let address = Listener::address_of(&full).expect("an address");
    let waiting = (0..4).map(|_| {
        let one = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).expect("a socket");
        let _ = connect(&one, &address);
        one
    });
    let waiting = waiting.collect();
    (full, waiting)
}

async fn a_refused_connection_says_so(runtime: Rc<Runtime>) {
    // Bound and not listening: the port is ours, so nobody else can begin to listen there.
    use rustix::net::{AddressFamily, SocketType, bind, socket};
    let taken = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&taken, &"127.0.0.1:0".parse::<SocketAddr>().expect("an address")).expect("a port");
    let address = Listener::address_of(&taken).expect("an address");
    for _ in 0..5 {
        let outcome = soon(&runtime, "a refusal", Stream::connect(&runtime, address)).await;
        let error = outcome.map(drop).expect_err("nobody listens there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    }
}

async fn a_connection_given_up_is_closed(runtime: Rc<Runtime>) {
    let there = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = there.local_addr().expect("an address");
    let before = runtime.descriptors();
    for _ in 0..20 {
        let _ = poll_once(Stream::connect(&runtime, address)).await;
    }
    until(&runtime, "connects given up are closed", || runtime.descriptors() == before).await;
}

async fn a_socket_is_handed_to_another_loop(runtime: Rc<Runtime>) {
    let (mailbox, kind) = (Arc::new(Mailbox::default()), runtime.kind());
    let inbound = Arc::clone(&mailbox);
    let other = in_thread(move || {
        run(kind, |runtime| async move {
            for _ in 0..20 {
                let socket = soon(&runtime, "a socket from the other loop", inbound.take()).await;
                echo(Listener::stream(&runtime, socket)).await;
            }
        });
    });
    let listener = listener(&runtime);
    for round in 0..20 {
        let peer = client(&listener);
        let bytes = pattern(5000, round);
        write(&peer, &bytes);
        let socket = soon(&runtime, "a connection", listener.accept()).await.expect("a connection");
        mailbox.put(socket);
        let echoed = in_thread(move || read(&peer, 5000));
        assert_same(&soon(&runtime, "the other loop's echo", echoed).await, &bytes, "the other loop's echo");
    }
    soon(&runtime, "the other loop ends", other).await;
}

/// Sockets on their way to another loop, as a worker would pass them.
#[derive(Default)]
struct Mailbox(Mutex<(VecDeque<OwnedFd>, Option<Waker>)>);

impl Mailbox {
    fn put(&self, socket: OwnedFd) {
        let mut inside = self.0.lock().expect("no panic under this lock");
        inside.0.push_back(socket);
        if let Some(waker) = inside.1.take() {
            waker.wake();
        }
    }

    async fn take(&self) -> OwnedFd {
        poll_fn(|context| {
            let mut inside = self.0.lock().expect("no panic under this lock");
            match inside.0.pop_front() {
                Some(socket) => Poll::Ready(socket),
                None => {
                    inside.1 = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

async fn a_thousand_connections_echo(runtime: Rc<Runtime>) {
    const COUNT: usize = 1000;
    assert!(amped_runtime::descriptor_limit() > 4 * COUNT, "this test needs descriptors");
    let listener = listener(&runtime);
    let address = listener.address();
    let serving = Rc::clone(&runtime);
    runtime.spawn(async move {
        loop {
            let socket = listener.accept().await.expect("a connection");
            serving.spawn(echo(Listener::stream(&serving, socket)));
        }
    });
    let clients = in_thread(move || {
        let peers: Vec<TcpStream> =
            (0..COUNT).map(|_| guarded(TcpStream::connect(address).expect("a connection"))).collect();
        for round in 0..3 {
            for (number, peer) in peers.iter().enumerate() {
                write(peer, &pattern(200 + round * 900, (round * COUNT + number) as u64));
            }
            for (number, peer) in peers.iter().enumerate() {
                let expected = pattern(200 + round * 900, (round * COUNT + number) as u64);
                assert_same(&read(peer, expected.len()), &expected, "one echo of a thousand");
            }
        }
    });
    soon(&runtime, "a thousand echoes", clients).await;
    until(&runtime, "a thousand connections end", || runtime.descriptors() <= 2).await;
}

/// accept(2) says EMFILE, the connections stay queued in the kernel, and are served when there is room again.
fn no_descriptor_left_is_survived(kind: Kind) {
    leaves_no_descriptor(|| {
        run(kind, |runtime| async move {
            let listener = listener(&runtime);
            assert!(poll_once(listener.accept()).await.is_none(), "nobody has connected");
            let before = runtime.descriptors();
            let limits = lower_the_limit();
            // One descriptor is kept for each client; then there are none.
            let reserve: Vec<File> = (0..3).map(|_| null().expect("below the limit")).collect();
            let mut fill: Vec<File> = std::iter::from_fn(|| null().ok()).collect();
            let mut peers = Vec::new();
            for file in reserve {
                drop(file);
                peers.push(client(&listener));
                write(peers.last().expect("just pushed"), b"queued");
            }
            for attempt in 0..3 {
                let error = soon(&runtime, "an error", listener.accept()).await.expect_err("no descriptor is left");
                assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "attempt {attempt}: {error}");
                runtime.sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(runtime.descriptors(), before, "nothing was accepted");
            let mut streams = Vec::new();
            for _ in 0..3 {
                fill.pop();
                let socket = loop {
                    match soon(&runtime, "an accept", listener.accept()).await {
                        Ok(socket) => break socket,
                        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}"),
                    }
                    runtime.sleep(Duration::from_millis(5)).await;
                };
                let stream = Listener::stream(&runtime, socket);
                assert_eq!(soon(&runtime, "what was queued", receive(&stream, 6)).await, b"queued");
                streams.push(stream);
            }
            drop(fill);
            setrlimit(Resource::Nofile, limits).expect("the limit of before");
            peers.push(client(&listener));
            let socket = loop {
                match soon(&runtime, "an accept as before", listener.accept()).await {
                    Ok(socket) => break socket,
                    // The error of the last attempt may have been on its way.
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}"),
                }
            };
            drop(socket);
        });
    });
}

/// A set-up that fails says so, so that another driver can be taken, and leaves nothing behind.
fn no_descriptor_for_a_driver_is_an_error(kind: Kind) {
    // What is set up once in a process is set up before the first count.
    drop(Runtime::new(kind).expect("a loop"));
    leaves_no_descriptor(|| {
        let limits = lower_the_limit();
        let mut fill: Vec<File> = std::iter::from_fn(|| null().ok()).collect();
        loop {
            match Runtime::new(kind) {
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EMFILE), "{error}"),
                Ok(_) => break,
            }
            // One descriptor more each time: every step of the set-up fails once.
            assert!(fill.pop().is_some(), "some number of descriptors suffices");
            let _ = driver::probe(kind);
        }
        drop(fill);
        setrlimit(Resource::Nofile, limits).expect("the limit of before");
    });
}

fn lower_the_limit() -> Rlimit {
    let limits = getrlimit(Resource::Nofile);
    let lower = Rlimit { current: Some(descriptors().len() as u64 + 40), maximum: limits.maximum };
    setrlimit(Resource::Nofile, lower).expect("a lower limit");
    limits
}

fn null() -> io::Result<File> {
    File::open("/dev/null")
}

//! What the blocking driver promises beyond the others: the thread waits in the very call, and several threads share a listener.

use std::fs;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use amped_runtime::Runtime;
use amped_runtime::driver::Kind;
use amped_runtime::net::Listener;

use crate::support::{echo, guarded};

/// The number of the system call in which a thread of this process waits; `None` while it runs.
fn waits_in(thread: i32) -> Option<i64> {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/syscall")).expect("a thread of this process");
    text.split(' ').next()?.trim().parse().ok()
}

fn expect_to_wait_in(thread: i32, call: i64, what: &str) {
    let began = Instant::now();
    while waits_in(thread) != Some(call) {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: it waits in call {:?}", waits_in(thread));
        thread::sleep(Duration::from_millis(1));
    }
}

fn bound() -> OwnedFd {
    Listener::bind("127.0.0.1:0".parse().expect("an address")).expect("a port")
}

fn ask(address: std::net::SocketAddr, text: &[u8]) -> std::net::TcpStream {
    let mut peer = guarded(std::net::TcpStream::connect(address).expect("a connection"));
    exchange(&mut peer, text);
    peer
}

fn exchange(peer: &mut std::net::TcpStream, text: &[u8]) {
    peer.write_all(text).expect("room");
    let mut answer = vec![0; text.len()];
    peer.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, text);
}

/// Accepts connections from any of these, and serves each to its end, until told to end.
fn serve_one_by_one(sockets: Vec<OwnedFd>, told: &Arc<Mutex<Told>>) {
    let runtime = Runtime::new(Kind::Blocking).expect("a driver");
    let this = Rc::clone(&runtime);
    let told = Arc::clone(told);
    let main = async move {
        let listeners: Vec<Listener> =
            sockets.into_iter().map(|socket| Listener::new(&this, socket).expect("a socket")).collect();
        loop {
            let next = poll_fn(|context| {
                let mut told = told.lock().expect("no panic under this lock");
                if told.is_over {
                    return Poll::Ready(None);
                }
                told.wakers.push(context.waker().clone());
                drop(told);
                let ready = listeners.iter().map(|listener| listener.poll_accept(context)).find(Poll::is_ready);
                ready.unwrap_or(Poll::Pending).map(Some)
            });
            let Some(socket) = next.await else { return };
            echo(Listener::stream(&this, socket.expect("a connection"))).await;
        }
    };
    runtime.run(main).expect("the loop waits without an error");
}

#[derive(Default)]
struct Told {
    is_over: bool,
    wakers: Vec<Waker>,
}

fn end(told: &Mutex<Told>) {
    let wakers = {
        let mut told = told.lock().expect("no panic under this lock");
        told.is_over = true;
        std::mem::take(&mut told.wakers)
    };
    wakers.into_iter().for_each(Waker::wake);
}

#[test]
fn a_thread_waits_in_its_own_call() {
    let socket = bound();
    let address = Listener::address_of(&socket).expect("an address");
    let told = Arc::new(Mutex::new(Told::default()));
    let (told_too, (number, numbers)) = (Arc::clone(&told), channel());
    let server = thread::spawn(move || {
        number.send(rustix::thread::gettid().as_raw_pid()).expect("the test waits");
        serve_one_by_one(vec![socket], &told_too);
    });
    let thread = numbers.recv().expect("a thread");
    expect_to_wait_in(thread, libc::SYS_accept4, "for a connection");
    let mut peer = ask(address, b"once");
    expect_to_wait_in(thread, libc::SYS_recvfrom, "for a request");
    exchange(&mut peer, b"twice");
    expect_to_wait_in(thread, libc::SYS_recvfrom, "for another request");
    drop(peer);
    expect_to_wait_in(thread, libc::SYS_accept4, "for another connection");
    end(&told);
    server.join().expect("no panic");
}

/// One listener is waited for in accept(2), two in poll(2), by four threads at once; nobody is left waiting.
#[test]
fn threads_share_their_listeners() {
    for count in [1, 2] {
        let sockets: Vec<OwnedFd> = (0..count).map(|_| bound()).collect();
        let addresses: Vec<_> =
            sockets.iter().map(|socket| Listener::address_of(socket).expect("an address")).collect();
        let told = Arc::new(Mutex::new(Told::default()));
        let servers: Vec<_> = (0..4)
            .map(|_| {
                let shared = sockets.iter().map(|socket| socket.try_clone().expect("a descriptor")).collect();
                let told = Arc::clone(&told);
                thread::spawn(move || serve_one_by_one(shared, &told))
            })
            .collect();
        drop(sockets);
        for round in 0..100 {
            let peers: Vec<_> = (0..3).map(|at| ask(addresses[(round + at) % count], b"who is there?")).collect();
            drop(peers);
        }
        end(&told);
        servers.into_iter().for_each(|server| server.join().expect("no panic"));
    }
}

//! What sets the ways to wait apart: what is reported in vain, numbers that are used again, numbers beyond a bitmap, and a
//! queue of signals that overflows.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use amped_runtime::Runtime;
use amped_runtime::driver::Kind;
use amped_runtime::net::Stream;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

on_every_driver!(what_nobody_waits_for_turns_nothing);

alone_on_every_driver!(
    a_number_used_again_is_not_taken_for_its_past,
    a_number_beyond_any_bitmap_is_served,
    a_thread_is_left_as_it_was,
);

/// Bytes, ends, resets and room that nobody asks about, and those who only look out: the loop sleeps.
async fn what_nobody_waits_for_turns_nothing(runtime: Rc<Runtime>) {
    let (unread, unread_peer) = pair(&runtime);
    let (ended, ended_peer) = pair(&runtime);
    let (dead, dead_peer) = pair(&runtime);
    let (full, full_peer) = pair(&runtime);
    for stream in [&unread, &ended, &dead, &full] {
        assert!(glance(stream).await.is_none(), "the peer has sent nothing");
    }
    let mut queue = amped_runtime::SendQueue::default();
    queue.own().resize(32 << 20, 1);
    let sending = task(&runtime, async move {
        let _ = within(full.runtime(), A_WHILE, full.send(&mut queue)).await;
        full
    });
    write(&unread_peer, b"unread");
    ended_peer.shutdown(Shutdown::Write).expect("a half-close");
    reset(dead_peer);
    let full = soon(&runtime, "the send is given up", sending).await;
    expect_sleep(&runtime, "nobody waits").await;
    // What is read makes room for which nobody waits any more.
    let reader = in_thread(move || read(&full_peer, 1 << 20).len());
    assert_eq!(soon(&runtime, "a megabyte", reader).await, 1 << 20);
    expect_sleep(&runtime, "nobody waits for room").await;
    still_waits(&runtime, "a look-out beside bytes", gone(&unread, true)).await;
    soon(&runtime, "the end", gone(&ended, true)).await;
    let looking_out = async {
        let one = task(&runtime, async move { gone(&unread, true).await });
        let other = task(&runtime, async move { gone(&ended, false).await });
        expect_sleep(&runtime, "two look out").await;
        (one, other)
    };
    drop(looking_out.await);
    soon(&runtime, "the reset", gone(&dead, false)).await;
    drop((unread_peer, ended_peer, full));
}

async fn expect_sleep(runtime: &Rc<Runtime>, when: &str) {
    // A report in vain may be needed to find out that it is.
    runtime.sleep(Duration::from_millis(5)).await;
    let before = runtime.meter().turns();
    runtime.sleep(Duration::from_millis(100)).await;
    let turns = runtime.meter().turns() - before;
    assert!(turns <= 20, "{}: {turns} turns in a tenth of a second, while {when}", runtime.kind());
}

/// Events of a closed descriptor are on their way when its very number is given to another.
fn a_number_used_again_is_not_taken_for_its_past(kind: Kind) {
    run(kind, |runtime| async move {
        for round in 0..30u64 {
            let before = runtime.descriptors();
            let (socket, old_peer) = sockets();
            let number = socket.as_raw_fd();
            let old = Stream::adopt(&runtime, socket).expect("a socket");
            assert!(glance(&old).await.is_none(), "the peer has sent nothing");
            runtime.sleep(Duration::from_millis(1)).await;
            let (socket, new_peer) = sockets();
            write(&old_peer, b"too late");
            match round % 3 {
                0 => {}
                1 => old_peer.shutdown(Shutdown::Write).expect("a half-close"),
                _ => reset(old_peer),
            }
            drop(old);
            if kind == Kind::Uring {
                // The ring closes it when its last operation has come back.
                until(&runtime, "the old one is let go of", || runtime.descriptors() == before).await;
            }
            let new = at_number(&socket, number);
            drop(socket);
            let new = Stream::adopt(&runtime, new).expect("a socket");
            let early = within(&runtime, Duration::from_millis(2), new.recv()).await;
            assert!(early.is_none(), "{kind}: a new stream received {early:?} of an old one");
            let alive = within(&runtime, Duration::from_millis(2), gone(&new, true)).await;
            assert!(alive.is_none(), "{kind}: a new stream has died of an old one's end");
            let bytes = pattern(3000, round);
            write(&new_peer, &bytes);
            assert_same(&soon(&runtime, "its own bytes", receive(&new, 3000)).await, &bytes, "the new stream's bytes");
            new_peer.shutdown(Shutdown::Write).expect("a half-close");
            soon(&runtime, "its own end", gone(&new, true)).await;
        }
        assert!(runtime.late_events() <= 60, "{kind}: {} late events", runtime.late_events());
    });
}

/// The same socket under this very number.
fn at_number(socket: &TcpStream, number: i32) -> OwnedFd {
    let copy = rustix::io::fcntl_dupfd_cloexec(socket, number).expect("a free descriptor");
    assert_eq!(copy.as_raw_fd(), number, "nothing else opens descriptors here");
    copy
}

/// FD_SETSIZE is 1,024; other drivers must not have such a bound either.
fn a_number_beyond_any_bitmap_is_served(kind: Kind) {
    let limit = amped_runtime::descriptor_limit();
    assert!(limit > 3000, "this test needs 3,000 descriptors, and {limit} are allowed");
    run(kind, |runtime| async move {
        for number in [1023, 1024, 1087, 1088, 2999] {
            let (socket, peer) = sockets();
            let stream = Stream::adopt(&runtime, at_number(&socket, number)).expect("a socket");
            drop(socket);
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
            runtime.sleep(Duration::from_millis(1)).await;
            let bytes = pattern(8 << 20, number as u64);
            let (length, expected) = (bytes.len(), bytes.clone());
            let seen = in_thread(move || (read(&peer, length), peer));
            soon(&runtime, "a send", send(&stream, &bytes)).await.expect("a reader");
            let (seen, peer) = soon(&runtime, "all bytes", seen).await;
            assert_same(&seen, &expected, "bytes sent");
            write(&peer, b"back");
            assert_eq!(soon(&runtime, "bytes", receive(&stream, 4)).await, b"back");
            drop(peer);
            soon(&runtime, "the end", gone(&stream, true)).await;
        }
    });
}

/// No signal is blocked that was not, and none comes later, though a duplicate of a socket lives on.
fn a_thread_is_left_as_it_was(kind: Kind) {
    let blocked = || {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("a /proc file system");
        status.lines().find(|line| line.starts_with("SigBlk:")).expect("a mask").to_owned()
    };
    let before = blocked();
    let (socket, peer) = sockets();
    let handle = socket.try_clone().expect("a second handle");
    run(kind, |runtime| async move {
        let stream = Stream::adopt(&runtime, socket).expect("a socket");
        assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        runtime.sleep(Duration::from_millis(1)).await;
        // It waits until the loop has gone.
        runtime.spawn(async move { drop(stream.recv().await) });
        runtime.sleep(Duration::from_millis(1)).await;
    });
    assert_eq!(blocked(), before, "{kind}: signals are left blocked");
    (&peer).write_all(b"for nobody").expect("the handle lives");
    drop((peer, handle));
}

/// A queue of eight signals and forty connections with something to say at once.
#[test]
fn a_full_signal_queue_loses_nothing() {
    alone(concat!(module_path!(), "::a_full_signal_queue_loses_nothing"), Kind::Sigio, |kind| {
        let maximum = getrlimit(Resource::Sigpending).maximum;
        setrlimit(Resource::Sigpending, Rlimit { current: Some(8), maximum }).expect("a lower limit");
        run(kind, |runtime| async move {
            let mut connections = Vec::new();
            for _ in 0..40 {
                let (stream, peer) = pair(&runtime);
                assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
                connections.push((stream, peer));
            }
            runtime.sleep(Duration::from_millis(5)).await;
            let before = runtime.overflows();
            for round in 0..20u64 {
                // The loop does not turn meanwhile.
                for (number, (_, peer)) in connections.iter().enumerate() {
                    write(peer, &pattern(500, round << 8 | number as u64));
                }
                for (number, (stream, _)) in connections.iter().enumerate() {
                    let seen = soon(&runtime, "bytes after an overflow", receive(stream, 500)).await;
                    assert_same(&seen, &pattern(500, round << 8 | number as u64), "bytes after an overflow");
                }
                for (stream, _) in &connections {
                    assert!(glance(stream).await.is_none(), "everything has been received");
                }
                runtime.sleep(Duration::from_millis(1)).await;
            }
            let overflows = runtime.overflows() - before;
            assert!((20..=2000).contains(&overflows), "{overflows} overflows in 20 rounds");
            for (_, peer) in &connections {
                peer.shutdown(Shutdown::Write).expect("a half-close");
            }
            for (stream, _) in &connections {
                soon(&runtime, "an end after an overflow", gone(stream, true)).await;
            }
        });
    });
}

/// A signal that is queued when its descriptor is closed finds nobody, and is counted.
#[test]
fn a_stale_signal_is_recognised() {
    alone(concat!(module_path!(), "::a_stale_signal_is_recognised"), Kind::Sigio, |kind| {
        run(kind, |runtime| async move {
            let (stream, peer) = pair(&runtime);
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
            runtime.sleep(Duration::from_millis(5)).await;
            assert_eq!(runtime.late_events(), 0);
            write(&peer, b"too late");
            drop(stream);
            until(&runtime, "a late event", || runtime.late_events() > 0).await;
        });
    });
}

/// The queue belongs to the thread, so a second loop would read the first one's signals.
#[test]
fn a_thread_has_one_loop_of_signals() {
    alone(concat!(module_path!(), "::a_thread_has_one_loop_of_signals"), Kind::Sigio, |kind| {
        let first = Runtime::new(kind).expect("a loop");
        let error = Runtime::new(kind).expect_err("the thread has one");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
        drop(first);
        run(kind, |runtime| async move { runtime.sleep(Duration::from_millis(1)).await });
    });
}

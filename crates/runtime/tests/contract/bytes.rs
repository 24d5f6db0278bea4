//! Bytes in and bytes out: receives, sends of one piece and of hundreds, peers that are slow, greedy or many.

use std::cell::RefCell;
use std::io::Read;
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use std::future::poll_fn;

use amped_runtime::driver::{Arrivals, Kind};
use amped_runtime::net::{ConnectOptions, Stream};
use amped_runtime::{Runtime, SendQueue};

use crate::support::*;

on_every_driver!(
    a_slow_reader_takes_what_it_asks_for,
    bytes_arrive_and_then_the_end,
    what_was_there_before_is_received,
    a_small_send_arrives,
    hundreds_of_pieces_leave_in_order,
    a_send_larger_than_the_buffers_waits_for_a_slow_reader,
    a_second_send_waits_for_the_first,
    more_is_a_promise_that_loses_nothing,
    both_directions_flow_at_once,
    an_empty_queue_is_sent_at_once,
    shared_memory_is_let_go_of_when_it_has_left,
    a_burst_on_two_hundred_connections_is_not_lost,
    what_comes_at_once_is_shown_before_it_is_received,
    a_greedy_peer_is_held,
    held_chunks_do_not_starve_others,
    a_unix_socket_is_a_stream_too,
);

async fn a_slow_reader_takes_what_it_asks_for(runtime: Rc<Runtime>) {
    // Loopback's segments are as large as the window, so the peer's send buffer is kept small too.
    let there = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = there.local_addr().expect("an address");
    let options = ConnectOptions { receive_buffer: Some(4096), ..ConnectOptions::default() };
    let connecting = Stream::connect_with(&runtime, address, &options);
    let stream = soon(&runtime, "a connect", connecting).await.expect("a connection");
    let peer = guarded(there.accept().expect("a connection").0);
    rustix::net::sockopt::set_socket_send_buffer_size(&peer, 4096).expect("an option");

    still_waits(&runtime, "a reader whose peer is silent", stream.recv_up_to(100)).await;
    let bytes = pattern(200_000, 9);
    let sent = Arc::new(AtomicUsize::new(0));
    let writing = in_thread({
        let (bytes, sent) = (bytes.clone(), Arc::clone(&sent));
        move || {
            for part in bytes.chunks(1000) {
                write(&peer, part);
                sent.fetch_add(part.len(), Relaxed);
            }
        }
    });
    let mut seen = Vec::new();
    for _ in 0..10 {
        let chunk = soon(&runtime, "a little", stream.recv_up_to(100)).await.expect("bytes");
        assert!((1..=100).contains(&chunk.len()), "{} bytes", chunk.len());
        seen.extend_from_slice(&chunk);
    }
    runtime.sleep(A_WHILE).await;
    let ahead = sent.load(Relaxed);
    assert!(ahead < 150_000, "{ahead} bytes were taken from the peer for a reader of 1,000");
    while seen.len() < bytes.len() {
        let chunk = soon(&runtime, "the rest", stream.recv_up_to(5000)).await.expect("bytes");
        assert!((1..=5000).contains(&chunk.len()), "{} bytes", chunk.len());
        seen.extend_from_slice(&chunk);
    }
    assert_same(&seen, &bytes, "in small portions");
    soon(&runtime, "the writer", writing).await;
    let end = soon(&runtime, "the end", stream.recv_up_to(100)).await.expect("an end");
    assert!(end.is_empty(), "the peer has finished");
}

async fn bytes_arrive_and_then_the_end(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    for round in 0..20 {
        let message = pattern(1 + round * 700, round as u64);
        write(&peer, &message);
        let seen = soon(&runtime, "bytes arrive", receive(&stream, message.len())).await;
        assert_same(&seen, &message, "a message");
    }
    drop(peer);
    for _ in 0..3 {
        let chunk = soon(&runtime, "the end arrives", stream.recv()).await.expect("an orderly end");
        assert!(chunk.is_empty(), "the end stays the end");
    }
}

async fn what_was_there_before_is_received(runtime: Rc<Runtime>) {
    let (socket, peer) = sockets();
    write(&peer, b"early");
    peer.shutdown(Shutdown::Write).expect("a half-close");
    thread::sleep(Duration::from_millis(5));
    let stream = amped_runtime::net::Stream::adopt(&runtime, socket).expect("a socket");
    let seen = soon(&runtime, "the early bytes and the end", receive(&stream, usize::MAX)).await;
    assert_eq!(seen, b"early");
}

async fn a_small_send_arrives(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    // First with nothing else going on, then with a receive armed: the ring sends in different ways.
    for round in 0..10 {
        let message = pattern(100 + round, round as u64);
        soon(&runtime, "a small send", send(&stream, &message)).await.expect("a peer that reads");
        assert_same(&read(&peer, message.len()), &message, "a small send");
        assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
    }
}

async fn hundreds_of_pieces_leave_in_order(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let (mut queue, mut expected) = (SendQueue::default(), Vec::new());
        for piece in 0..1500usize {
            let head = format!("piece {piece} ");
            queue.own().extend_from_slice(head.as_bytes());
            expected.extend_from_slice(head.as_bytes());
            let body: Arc<[u8]> = pattern(piece % 257, piece as u64).into();
            let range = piece % 3..body.len().max(piece % 3);
            if body.len() >= range.end {
                queue.share(&body, range.clone());
                expected.extend_from_slice(&body[range]);
            }
        }
        assert_eq!(queue.len(), expected.len(), "the queue counts what it holds");
        let length = expected.len();
        let seen = in_thread(move || read(&peer, length));
        soon(&runtime, "a send of many pieces", stream.send(&mut queue)).await.expect("a peer that reads");
        assert!(queue.is_empty());
        assert_same(&soon(&runtime, "the pieces arrive", seen).await, &expected, "many pieces");
    }
}

async fn a_send_larger_than_the_buffers_waits_for_a_slow_reader(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let body: Arc<[u8]> = pattern(12 << 20, 3).into();
        let mut queue = SendQueue::default();
        queue.own().extend_from_slice(b"head");
        queue.share(&body, 0..body.len());
        queue.own().extend_from_slice(b"tail");
        let reader = in_thread(move || {
            let mut peer = &peer;
            let (mut seen, mut part) = (Vec::new(), vec![0; 256 * 1024]);
            loop {
                let length = peer.read(&mut part).expect("bytes for the peer");
                if length == 0 {
                    return seen;
                }
                seen.extend_from_slice(&part[..length]);
                if seen.len() < 3 << 20 {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        });
        soon(&runtime, "a large send", stream.send(&mut queue)).await.expect("a peer that reads");
        soon(&runtime, "its last byte", sent(&stream)).await.expect("a peer that reads");
        drop(stream);
        let seen = soon(&runtime, "a slow reader's last byte", reader).await;
        assert_same(&seen[..4], b"head", "the head");
        assert_same(&seen[4..seen.len() - 4], &body, "the body");
        assert_same(&seen[seen.len() - 4..], b"tail", "the tail");
    }
}

async fn a_second_send_waits_for_the_first(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
    let bytes = pattern(6 << 20, 5);
    let length = bytes.len();
    let seen = in_thread(move || {
        thread::sleep(Duration::from_millis(20));
        read(&peer, length)
    });
    let mut queue = SendQueue::default();
    for part in bytes.chunks(100_003) {
        queue.own().extend_from_slice(part);
        soon(&runtime, "one of many sends", stream.send(&mut queue)).await.expect("a peer that reads");
        assert!(queue.is_empty(), "a send takes the whole queue");
    }
    assert_same(&soon(&runtime, "all sends arrive", seen).await, &bytes, "many sends");
}

async fn more_is_a_promise_that_loses_nothing(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    for armed in [false, true] {
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let mut queue = SendQueue::default();
        for (part, more) in [("head ", true), ("middle ", true), ("tail", false)] {
            queue.own().extend_from_slice(part.as_bytes());
            let sending = poll_fn(|context| stream.poll_send(&mut queue, more, context));
            soon(&runtime, "a send with more to come", sending).await.expect("a peer that reads");
        }
        soon(&runtime, "the last part leaves", sent(&stream)).await.expect("a peer that reads");
        assert_eq!(read(&peer, 16), b"head middle tail");
    }
}

async fn both_directions_flow_at_once(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    let stream = Rc::new(stream);
    let (up, down) = (pattern(5 << 20, 7), pattern(5 << 20, 8));
    let writer = peer.try_clone().expect("a second handle");
    let (sending, length) = (up.clone(), down.len());
    let wrote = in_thread(move || write(&writer, &sending));
    let seen_by_peer = in_thread(move || read(&peer, length));
    let (reading, length) = (Rc::clone(&stream), up.len());
    let seen = task(&runtime, async move { receive(&reading, length).await });
    let mut queue = SendQueue::default();
    for part in down.chunks(65_537) {
        queue.own().extend_from_slice(part);
        soon(&runtime, "a send beside a receive", stream.send(&mut queue)).await.expect("a peer that reads");
    }
    soon(&runtime, "the peer has written", wrote).await;
    assert_same(&soon(&runtime, "all bytes up", seen).await, &up, "bytes up");
    assert_same(&soon(&runtime, "all bytes down", seen_by_peer).await, &down, "bytes down");
}

async fn an_empty_queue_is_sent_at_once(runtime: Rc<Runtime>) {
    let (stream, _peer) = pair(&runtime);
    let mut queue = SendQueue::default();
    let outcome = poll_once(stream.send(&mut queue)).await.expect("nothing to wait for");
    outcome.expect("nothing to fail");
    let outcome = poll_once(sent(&stream)).await.expect("nothing to wait for");
    outcome.expect("nothing to fail");
}

async fn shared_memory_is_let_go_of_when_it_has_left(runtime: Rc<Runtime>) {
    let body: Arc<[u8]> = pattern(9000, 1).into();
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let mut queue = SendQueue::default();
        for _ in 0..100 {
            queue.share(&body, 0..body.len());
        }
        let length = body.len() * 100;
        let seen = in_thread(move || read(&peer, length));
        soon(&runtime, "a send", stream.send(&mut queue)).await.expect("a peer that reads");
        soon(&runtime, "the last byte", sent(&stream)).await.expect("a peer that reads");
        soon(&runtime, "the bytes arrive", seen).await;
        assert_eq!(Arc::strong_count(&body), 1, "nobody keeps what has left");
    }
}

/// More than the ring has buffers, while nobody reads: the ring runs dry, and ordinary receives must find the rest.
async fn a_burst_on_two_hundred_connections_is_not_lost(runtime: Rc<Runtime>) {
    const EACH: usize = 16 * 1024;
    let mut connections = Vec::new();
    for number in 0..200u64 {
        let (stream, peer) = pair(&runtime);
        assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        connections.push((stream, peer, pattern(EACH, number)));
    }
    for round in 0..3 {
        for (_, peer, bytes) in &connections {
            write(peer, bytes);
        }
        runtime.sleep(A_WHILE).await;
        if round == 1 {
            // The second time in the other order, so that the last to be starved is the first to read.
            connections.reverse();
        }
        for (stream, _, bytes) in &connections {
            let seen = soon(&runtime, "a burst is received", receive(stream, EACH)).await;
            assert_same(&seen, bytes, "a burst");
        }
        // Receives are armed again before the next burst.
        for (stream, ..) in &connections {
            assert!(glance(stream).await.is_none(), "everything has been received");
        }
    }
    for (stream, peer, _) in &connections {
        peer.shutdown(Shutdown::Write).expect("a half-close");
        let chunk = soon(&runtime, "the end after a burst", stream.recv()).await.expect("an orderly end");
        assert!(chunk.is_empty());
    }
}

async fn what_comes_at_once_is_shown_before_it_is_received(runtime: Rc<Runtime>) {
    let shown = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&shown);
    let look = move |arrivals: &Arrivals<'_>| {
        assert!(!arrivals.is_empty());
        log.borrow_mut().extend(arrivals.iter().map(<[u8]>::to_vec));
    };
    runtime.on_arrivals(|| true, look);
    let connections: Vec<_> = (0..8).map(|number| (pair(&runtime), pattern(100, number))).collect();
    for ((stream, _), _) in &connections {
        stream.idle_for(Duration::from_secs(60));
        assert!(glance(stream).await.is_none(), "the peer has sent nothing");
    }
    for ((_, peer), bytes) in &connections {
        write(peer, bytes);
    }
    runtime.sleep(A_WHILE).await;
    let mut shown = shown.take();
    for ((stream, _), bytes) in &connections {
        let seen = soon(&runtime, "what was shown", receive(stream, bytes.len())).await;
        assert_same(&seen, bytes, "what was shown");
    }
    // A driver that blocks has nothing to show.
    let expected = connections.into_iter().map(|(_, bytes)| bytes).filter(|_| runtime.kind() != Kind::Blocking);
    shown.sort();
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    assert_eq!(shown, expected);
}

/// 24 MB at a conversation that is busy with something else: the peer is stopped by the buffers, and loses nothing later.
async fn a_greedy_peer_is_held(runtime: Rc<Runtime>) {
    const ALL: usize = 24 << 20;
    for watching in [false, true] {
        let (stream, peer) = pair(&runtime);
        small_buffers(&peer);
        assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        let written = Arc::new(AtomicUsize::new(0));
        let progress = Arc::clone(&written);
        let wrote = in_thread(move || {
            for part in pattern(ALL, 11).chunks(64 * 1024) {
                write(&peer, part);
                progress.fetch_add(part.len(), Relaxed);
            }
        });
        // Busy: either deaf, or looking out for the peer's end only.
        let mut seen_before = usize::MAX;
        while written.load(Relaxed) != seen_before {
            seen_before = written.load(Relaxed);
            let busy = async {
                if watching {
                    gone(&stream, true).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            assert!(within(&runtime, Duration::from_millis(150), busy).await.is_none(), "the peer is there");
        }
        assert!(seen_before < ALL / 2, "{}: {seen_before} bytes were taken in unread", runtime.kind());
        let seen = soon(&runtime, "a held peer's bytes", receive(&stream, ALL)).await;
        assert_same(&seen, &pattern(ALL, 11), "a held peer's bytes");
        soon(&runtime, "the peer has written", wrote).await;
    }
}

/// Conversations that sit on what they received must not keep others from receiving.
async fn held_chunks_do_not_starve_others(runtime: Rc<Runtime>) {
    let mut connections = Vec::new();
    for _ in 0..200 {
        let (stream, peer) = pair(&runtime);
        assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        connections.push((stream, peer));
    }
    let mut held = Vec::new();
    for (number, (stream, peer)) in connections.iter().enumerate() {
        let message = pattern(300, number as u64);
        write(peer, &message);
        let chunk = soon(&runtime, "a message beside held ones", stream.recv()).await.expect("bytes");
        held.push((chunk, message));
    }
    for (stream, peer) in &connections {
        write(peer, b"again");
        assert_eq!(soon(&runtime, "a second message", receive(stream, 5)).await, b"again");
    }
    for (chunk, message) in &held {
        assert_same(chunk, message, "a held chunk stays as it was received");
    }
}

async fn a_unix_socket_is_a_stream_too(runtime: Rc<Runtime>) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("two sockets");
    let stream = amped_runtime::net::Stream::adopt(&runtime, ours).expect("a socket");
    let peer = task(&runtime, echo(amped_runtime::net::Stream::adopt(&runtime, theirs).expect("a socket")));
    let bytes = pattern(300_000, 2);
    for part in bytes.chunks(10_000) {
        soon(&runtime, "a send", send(&stream, part)).await.expect("a peer that reads");
        assert_same(&soon(&runtime, "its echo", receive(&stream, part.len())).await, part, "an echo");
    }
    stream.shutdown_write().expect("a half-close");
    soon(&runtime, "the peer ends", peer).await;
}

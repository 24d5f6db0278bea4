//! How connections end: orderly, half, by reset, by the owner's hand, with operations in flight, and what comes too late.

use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use amped_runtime::driver::Kind;
use amped_runtime::net::Stream;
use amped_runtime::{Runtime, SendQueue};

use crate::files::{file, send_file};
use crate::support::*;

on_every_driver!(
    our_half_close_lets_the_peer_answer,
    the_peers_half_close_lets_us_answer,
    a_close_can_reset,
    a_reset_ends_a_receive,
    a_reset_is_found_by_a_later_receive,
    a_reset_ends_a_send,
    a_reset_ends_a_send_in_flight,
    a_reset_is_noticed_without_reading,
    the_peers_end_is_noticed_only_if_asked_for,
    a_reset_after_the_peers_end_is_noticed,
    the_end_is_noticed_and_the_bytes_before_it_kept,
    giving_up_receives_loses_nothing,
    a_stream_closed_with_a_receive_in_flight_lets_go,
    a_stream_closed_with_a_send_in_flight_lets_go,
    a_stream_closed_with_a_sendfile_waiting_lets_go,
    sent_means_that_closing_loses_nothing,
    what_comes_for_a_closed_stream_reaches_nobody,
    a_reused_slot_is_not_woken_by_its_past,
    a_second_handle_outlives_the_first,
    the_end_is_noticed_by_a_look_out_that_had_to_wait,
);

alone_on_every_driver!(every_ending_gives_its_descriptor_back);

async fn our_half_close_lets_the_peer_answer(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
    soon(&runtime, "a send", send(&stream, b"question")).await.expect("a reader");
    stream.shutdown_write().expect("a connection");
    let answered = in_thread(move || {
        let mut question = Vec::new();
        (&peer).read_to_end(&mut question).expect("an end");
        assert_eq!(question, b"question");
        write(&peer, b"answer");
        drop(peer);
    });
    assert_eq!(soon(&runtime, "an answer and the end", receive(&stream, usize::MAX)).await, b"answer");
    soon(&runtime, "the peer ends", answered).await;
    let mut queue = SendQueue::default();
    queue.own().push(1);
    let refused = async {
        match stream.send(&mut queue).await {
            Err(error) => Err(error),
            Ok(()) => sent(&stream).await,
        }
    };
    assert!(soon(&runtime, "an error", refused).await.is_err(), "after the end nothing can be sent");
}

async fn the_peers_half_close_lets_us_answer(runtime: Rc<Runtime>) {
    for early in [true, false] {
        let (stream, peer) = pair(&runtime);
        if !early {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        write(&peer, b"question");
        peer.shutdown(Shutdown::Write).expect("a half-close");
        assert_eq!(soon(&runtime, "a question and the end", receive(&stream, usize::MAX)).await, b"question");
        let answer = pattern(3 << 20, 1);
        let length = answer.len();
        let seen = in_thread(move || read(&peer, length));
        soon(&runtime, "a send after the end", send(&stream, &answer)).await.expect("a reader");
        assert_same(&soon(&runtime, "an answer", seen).await, &answer, "an answer after the end");
    }
}

async fn a_close_can_reset(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        stream.reset_on_close().expect("an option");
        drop(stream);
        let outcome = in_thread(move || (&peer).read(&mut [0]));
        let error = soon(&runtime, "a reset", outcome).await.expect_err("a reset, not an end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    }
}

async fn a_reset_ends_a_receive(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    let receiving = task(&runtime, async move { stream.recv().await.map(drop) });
    still_waits(&runtime, "a receive", std::future::pending::<()>()).await;
    reset(peer);
    let error = soon(&runtime, "a reset", receiving).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

async fn a_reset_is_found_by_a_later_receive(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        reset(peer);
        runtime.sleep(Duration::from_millis(5)).await;
        let error = soon(&runtime, "a reset", stream.recv()).await.map(drop).expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
        // An error is said once; what follows is the end or an error, and never a wait.
        let _ = soon(&runtime, "an end", stream.recv()).await;
    }
}

async fn a_reset_ends_a_send(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        reset(peer);
        let sending = async {
            loop {
                if let Err(error) = send(&stream, &[1; 1000]).await {
                    return error;
                }
                runtime.sleep(Duration::from_millis(1)).await;
            }
        };
        assert_dead(&soon(&runtime, "an error", sending).await);
    }
}

async fn a_reset_ends_a_send_in_flight(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let sending = task(&runtime, async move { send(&stream, &vec![1; 32 << 20]).await });
        runtime.sleep(A_WHILE).await;
        reset(peer);
        assert_dead(&soon(&runtime, "an error", sending).await.expect_err("the peer is gone"));
    }
}

fn assert_dead(error: &io::Error) {
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
}

async fn a_reset_is_noticed_without_reading(runtime: Rc<Runtime>) {
    for end in [false, true] {
        for unread in [false, true] {
            let (stream, peer) = pair(&runtime);
            still_waits(&runtime, "a look-out", gone(&stream, end)).await;
            if unread {
                write(&peer, b"unread");
                still_waits(&runtime, "a look-out beside bytes", gone(&stream, end)).await;
            }
            reset(peer);
            soon(&runtime, "a reset noticed", gone(&stream, end)).await;
        }
    }
}

async fn the_peers_end_is_noticed_only_if_asked_for(runtime: Rc<Runtime>) {
    for early in [true, false] {
        let (stream, peer) = pair(&runtime);
        if !early {
            still_waits(&runtime, "a look-out", gone(&stream, true)).await;
        }
        peer.shutdown(Shutdown::Write).expect("a half-close");
        still_waits(&runtime, "a look-out for a reset", gone(&stream, false)).await;
        soon(&runtime, "the end noticed", gone(&stream, true)).await;
        still_waits(&runtime, "a look-out for a reset", gone(&stream, false)).await;
        assert!(soon(&runtime, "the end", stream.recv()).await.expect("an orderly end").is_empty());
        soon(&runtime, "the end noticed again", gone(&stream, true)).await;
    }
}

/// A client that has sent its request and FIN, and then goes away for good.
async fn a_reset_after_the_peers_end_is_noticed(runtime: Rc<Runtime>) {
    for received in [true, false] {
        let (stream, peer) = pair(&runtime);
        write(&peer, b"request");
        peer.shutdown(Shutdown::Write).expect("a half-close");
        if received {
            assert_eq!(soon(&runtime, "a request and the end", receive(&stream, usize::MAX)).await, b"request");
        }
        still_waits(&runtime, "a look-out for a reset", gone(&stream, false)).await;
        reset(peer);
        soon(&runtime, "a reset noticed after the end", gone(&stream, false)).await;
    }
}

async fn the_end_is_noticed_and_the_bytes_before_it_kept(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    let bytes = pattern(20_000, 6);
    still_waits(&runtime, "a look-out", gone(&stream, true)).await;
    write(&peer, &bytes);
    peer.shutdown(Shutdown::Write).expect("a half-close");
    soon(&runtime, "the end noticed", gone(&stream, true)).await;
    assert_same(&soon(&runtime, "all bytes", receive(&stream, usize::MAX)).await, &bytes, "bytes before the end");
}

/// A receive is begun and given up at every possible moment.
async fn giving_up_receives_loses_nothing(runtime: Rc<Runtime>) {
    const ALL: usize = 400_000;
    let (stream, peer) = pair(&runtime);
    let writer = in_thread(move || {
        for (number, part) in pattern(ALL, 9).chunks(777).enumerate() {
            write(&peer, part);
            if number % 16 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
        peer
    });
    let (mut seen, mut glances) = (Vec::new(), 0u32);
    let receiving = async {
        while seen.len() < ALL {
            glances += 1;
            match glances % 3 {
                0 => {
                    if let Some(chunk) = glance(&stream).await {
                        seen.extend_from_slice(&chunk.expect("bytes"));
                    }
                    amped_runtime::yield_now().await;
                }
                1 => {
                    if let Some(chunk) = within(&runtime, Duration::from_millis(1), stream.recv()).await {
                        seen.extend_from_slice(&chunk.expect("bytes"));
                    }
                }
                _ => {
                    glance_and_sleep(&runtime, &stream, &mut seen).await;
                }
            }
        }
    };
    soon(&runtime, "all bytes", receiving).await;
    assert_same(&seen, &pattern(ALL, 9), "bytes received by fits and starts");
    soon(&runtime, "the peer ends", writer).await;
}

async fn glance_and_sleep(runtime: &Rc<Runtime>, stream: &Stream, seen: &mut Vec<u8>) {
    if let Some(chunk) = glance(stream).await {
        seen.extend_from_slice(&chunk.expect("bytes"));
        runtime.sleep(Duration::from_millis(1)).await;
    }
}

async fn a_stream_closed_with_a_receive_in_flight_lets_go(runtime: Rc<Runtime>) {
    let before = runtime.descriptors();
    for turn in [false, true] {
        let mut peers = Vec::new();
        for _ in 0..50 {
            let (stream, peer) = pair(&runtime);
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
            if turn {
                amped_runtime::yield_now().await;
            }
            peers.push(peer);
        }
        until(&runtime, "the streams are let go of", || runtime.descriptors() == before).await;
        for peer in peers {
            assert_eq!((&peer).read(&mut [0]).expect("an orderly end"), 0);
        }
    }
}

async fn a_stream_closed_with_a_send_in_flight_lets_go(runtime: Rc<Runtime>) {
    let before = runtime.descriptors();
    let body: Arc<[u8]> = pattern(16 << 20, 2).into();
    for turn in [false, true] {
        for armed in [false, true] {
            let mut peers = Vec::new();
            for _ in 0..10 {
                let (stream, peer) = pair(&runtime);
                if armed {
                    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
                }
                let mut queue = SendQueue::default();
                queue.share(&body, 0..body.len());
                let _ = poll_once(stream.send(&mut queue)).await;
                let _ = poll_once(sent(&stream)).await;
                if turn {
                    runtime.sleep(Duration::from_millis(1)).await;
                }
                peers.push(peer);
            }
            until(&runtime, "the streams are let go of", || runtime.descriptors() == before).await;
            until(&runtime, "the memory is let go of", || Arc::strong_count(&body) == 1).await;
            for peer in peers {
                let seen = in_thread(move || drain(&peer));
                let seen = soon(&runtime, "the peer's end", seen).await;
                assert_same(&seen, &body[..seen.len()], "what left before the close");
            }
        }
    }
}

/// Reads until the end, whichever way it comes.
fn drain(mut peer: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = peer.read_to_end(&mut bytes);
    bytes
}

async fn a_stream_closed_with_a_sendfile_waiting_lets_go(runtime: Rc<Runtime>) {
    let before = runtime.descriptors();
    let (file, bytes) = file(24 << 20);
    let mut peers = Vec::new();
    for _ in 0..5 {
        let (stream, peer) = pair(&runtime);
        let waiting = within(&runtime, Duration::from_millis(5), send_file(&stream, &file, 0, bytes.len())).await;
        assert!(waiting.is_none(), "nobody reads");
        peers.push(peer);
    }
    until(&runtime, "the streams are let go of", || runtime.descriptors() == before).await;
    for peer in peers {
        let seen = soon(&runtime, "the peer's end", in_thread(move || drain(&peer))).await;
        assert_same(&seen, &bytes[..seen.len()], "what left before the close");
    }
}

async fn sent_means_that_closing_loses_nothing(runtime: Rc<Runtime>) {
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let bytes = pattern(9 << 20, 3);
        let seen = in_thread(move || {
            thread::sleep(Duration::from_millis(20));
            drain(&peer)
        });
        soon(&runtime, "a send", send(&stream, &bytes)).await.expect("a reader");
        stream.shutdown_write().expect("a connection");
        drop(stream);
        assert_same(&soon(&runtime, "the peer's end", seen).await, &bytes, "all that was sent");
    }
}

/// Bytes, ends and resets are on their way when the stream is closed; its slot and its descriptor's number are used again.
async fn what_comes_for_a_closed_stream_reaches_nobody(runtime: Rc<Runtime>) {
    let late = runtime.late_events();
    for round in 0..60u64 {
        let (old, old_peer) = pair(&runtime);
        assert!(glance(&old).await.is_none(), "the peer has sent nothing");
        amped_runtime::yield_now().await;
        write(&old_peer, b"too late");
        match round % 3 {
            0 => {}
            1 => old_peer.shutdown(Shutdown::Write).expect("a half-close"),
            _ => reset(old_peer.try_clone().expect("a second handle")),
        }
        drop(old);
        let (new, new_peer) = pair(&runtime);
        still_waits_briefly(&runtime, &new).await;
        let bytes = pattern(3000, round);
        write(&new_peer, &bytes);
        assert_same(&soon(&runtime, "its own bytes", receive(&new, 3000)).await, &bytes, "the new stream's bytes");
        assert!(glance(&new).await.is_none(), "nothing else is there for it");
        soon(&runtime, "a send", send(&new, &bytes)).await.expect("the new stream lives");
        assert_same(&read(&new_peer, 3000), &bytes, "the new stream's answer");
    }
    let late = runtime.late_events() - late;
    assert!(late < 1000, "{late} late events are a flood");
    until(&runtime, "everything is let go of", || runtime.descriptors() <= 1).await;
}

async fn still_waits_briefly(runtime: &Rc<Runtime>, stream: &Stream) {
    let early = within(runtime, Duration::from_millis(2), stream.recv()).await;
    assert!(early.is_none(), "{}: a new stream received {early:?} of an old one", runtime.kind());
}

/// The old socket lives on under another handle, so that the kernel goes on reporting it: events for a token of the past.
async fn a_reused_slot_is_not_woken_by_its_past(runtime: Rc<Runtime>) {
    let (socket, peer) = sockets();
    let handle = socket.try_clone().expect("a second handle");
    let old = Stream::adopt(&runtime, socket).expect("a socket");
    assert!(glance(&old).await.is_none(), "the peer has sent nothing");
    amped_runtime::yield_now().await;
    drop(old);
    let (new, new_peer) = pair(&runtime);
    let mut wakes = 0;
    {
        let mut receiving = pin!(new.recv());
        let counting = poll_fn(|context| {
            wakes += 1;
            receiving.as_mut().poll(context)
        });
        for _ in 0..5 {
            write(&peer, b"for the old one");
        }
        drop(peer);
        assert!(within(&runtime, A_WHILE, counting).await.is_none(), "nothing is there for the new stream");
    }
    assert!(wakes <= 3, "{}: woken {wakes} times for another's events", runtime.kind());
    write(&new_peer, b"for the new one");
    assert_eq!(soon(&runtime, "its own bytes", receive(&new, 15)).await, b"for the new one");
    drop(handle);
}

/// Two handles on one socket: closing one cancels its own operations and leaves the other's alone.
async fn a_second_handle_outlives_the_first(runtime: Rc<Runtime>) {
    let (socket, peer) = sockets();
    small_buffers(&socket);
    small_buffers(&peer);
    let first = Stream::adopt(&runtime, socket.try_clone().expect("a second handle")).expect("a socket");
    let second = Stream::adopt(&runtime, socket).expect("a socket");
    assert!(glance(&first).await.is_none(), "the peer has sent nothing");
    assert!(glance(&second).await.is_none(), "the peer has sent nothing");
    let body = pattern(8 << 20, 12);
    let mut queue = SendQueue::default();
    queue.own().extend_from_slice(&body);
    let sending = task(&runtime, async move {
        stream_out(&second, &mut queue).await.expect("the second handle lives");
        second
    });
    // Until the send waits for room.
    runtime.sleep(A_WHILE * 2).await;
    drop(first);
    runtime.sleep(Duration::from_millis(5)).await;
    let length = body.len();
    let (seen, peer) = soon(&runtime, "all bytes", in_thread(move || (read(&peer, length), peer))).await;
    assert_same(&seen, &body, "bytes of the second handle");
    let second = soon(&runtime, "the send", sending).await;
    write(&peer, b"still there");
    assert_eq!(soon(&runtime, "bytes", receive(&second, 11)).await, b"still there");
}

async fn stream_out(stream: &Stream, queue: &mut SendQueue) -> io::Result<()> {
    stream.send(queue).await?;
    sent(stream).await
}

/// While unread bytes are in the way only a reset can be seen; once they are read, an end is seen as before.
async fn the_end_is_noticed_by_a_look_out_that_had_to_wait(runtime: Rc<Runtime>) {
    let (stream, peer) = pair(&runtime);
    small_buffers(&peer);
    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
    let bytes = pattern(300_000, 13);
    let all = bytes.clone();
    let wrote = in_thread(move || {
        write(&peer, &all);
        peer
    });
    let _ = within(&runtime, Duration::from_millis(100), gone(&stream, true)).await;
    let seen = soon(&runtime, "all bytes", receive(&stream, bytes.len())).await;
    assert_same(&seen, &bytes, "bytes before a look-out");
    let peer = soon(&runtime, "the peer has written", wrote).await;
    still_waits(&runtime, "a look-out", gone(&stream, true)).await;
    peer.shutdown(Shutdown::Write).expect("a half-close");
    soon(&runtime, "the end noticed", gone(&stream, true)).await;
}

/// All the ways at once, many times over, and the process has as many descriptors as before.
fn every_ending_gives_its_descriptor_back(kind: Kind) {
    leaves_no_descriptor(|| {
        run(kind, |runtime| async move {
            let body: Arc<[u8]> = pattern(4 << 20, 2).into();
            for round in 0..40 {
                let (stream, peer) = pair(&runtime);
                let stream = Rc::new(stream);
                let mut queue = SendQueue::default();
                queue.share(&body, 0..body.len());
                let receiving = Rc::clone(&stream);
                if round % 2 == 0 {
                    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
                }
                runtime.spawn(async move {
                    while let Ok(chunk) = receiving.recv().await
                        && !chunk.is_empty()
                    {}
                });
                let _ = poll_once(stream.send(&mut queue)).await;
                amped_runtime::yield_now().await;
                match round % 5 {
                    0 => reset(peer),
                    1 => drop(peer),
                    2 => {
                        write(&peer, &[7; 5000]);
                        peer.shutdown(Shutdown::Write).expect("a half-close");
                    }
                    3 => stream.deadline_in(Duration::from_millis(1)),
                    _ => {
                        stream.shutdown_write().expect("a connection");
                        drop(peer);
                    }
                }
                drop(stream);
            }
            until(&runtime, "only what cannot end is left", || runtime.descriptors() <= 10).await;
        });
    });
}

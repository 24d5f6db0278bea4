//! sendfile: from any offset, past the end, against a full socket, and while a send is in flight.

use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Write};
use std::rc::Rc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use amped_runtime::net::Stream;
use amped_runtime::{Runtime, SendQueue};

use crate::support::*;

on_every_driver!(
    a_file_is_sent_whole_and_in_part,
    a_short_file_ends_with_zero,
    a_large_file_waits_for_a_slow_reader,
    a_socket_that_a_file_has_filled_says_when_there_is_room,
    a_file_follows_what_was_sent_before,
    an_offset_beyond_what_a_file_can_have_is_an_error,
);

async fn a_file_is_sent_whole_and_in_part(runtime: Rc<Runtime>) {
    let (file, bytes) = file(70_000);
    for (offset, length) in [(0, bytes.len()), (1, 10), (4095, 4097), (65_536, 4464), (69_999, 1)] {
        let (stream, peer) = pair(&runtime);
        let seen = in_thread(move || read(&peer, length));
        let done = soon(&runtime, "a sendfile", send_file(&stream, &file, offset, length)).await.expect("a reader");
        assert_eq!(done, length);
        let expected = &bytes[offset as usize..offset as usize + length];
        assert_same(&soon(&runtime, "the window arrives", seen).await, expected, "a window of a file");
    }
}

async fn a_short_file_ends_with_zero(runtime: Rc<Runtime>) {
    let (file, bytes) = file(5000);
    let (stream, peer) = pair(&runtime);
    let done = soon(&runtime, "a sendfile", send_file(&stream, &file, 4000, 9000)).await.expect("a reader");
    assert_eq!(done, 1000, "what there is, and then the end");
    assert_same(&read(&peer, 1000), &bytes[4000..], "the file's end");
    let done = soon(&runtime, "a sendfile", send_file(&stream, &file, 1 << 40, 9000)).await.expect("a reader");
    assert_eq!(done, 0, "nothing lies beyond the end");
}

async fn a_large_file_waits_for_a_slow_reader(runtime: Rc<Runtime>) {
    let (file, bytes) = file(16 << 20);
    for armed in [false, true] {
        let (stream, peer) = pair(&runtime);
        if armed {
            assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
        }
        let length = bytes.len();
        let seen = in_thread(move || {
            thread::sleep(Duration::from_millis(30));
            read(&peer, length)
        });
        let done = soon(&runtime, "a sendfile", send_file(&stream, &file, 0, length)).await.expect("a reader");
        assert_eq!(done, length);
        assert_same(&soon(&runtime, "the file arrives", seen).await, &bytes, "a large file");
    }
}

/// Without another call that finds out in vain, and as often as it happens.
async fn a_socket_that_a_file_has_filled_says_when_there_is_room(runtime: Rc<Runtime>) {
    let (file, bytes) = file(16 << 20);
    let (stream, peer) = pair(&runtime);
    let mut peer = Some(peer);
    let mut done = 0;
    for _ in 0..2 {
        let sent = poll_fn(|context| stream.poll_sendfile(&file, done as u64, bytes.len() - done, context));
        let sent = soon(&runtime, "a sendfile", sent).await.expect("a reader");
        assert!(sent > 0 && sent < bytes.len() - done, "{sent} bytes: nobody reads");
        let is_full = poll_fn(|context| Poll::Ready(stream.poll_writable(context).is_pending())).await;
        assert!(is_full, "a short count is a full socket");
        let (socket, from) = (peer.take().expect("it comes back"), done);
        let seen = in_thread(move || (read(&socket, sent), socket));
        soon(&runtime, "there is room", poll_fn(|context| stream.poll_writable(context))).await;
        let (read, socket) = soon(&runtime, "what was sent arrives", seen).await;
        assert_same(&read, &bytes[from..from + sent], "a part of the file");
        (peer, done) = (Some(socket), done + sent);
    }
    // Who has gone leaves nothing to wait for.
    soon(&runtime, "the socket is filled", async {
        while poll_fn(|context| Poll::Ready(stream.poll_sendfile(&file, 0, bytes.len(), context))).await.is_ready() {}
    })
    .await;
    drop(peer);
    soon(&runtime, "the end", poll_fn(|context| stream.poll_writable(context))).await;
}

/// A head in flight, then the file: nothing may overtake.
async fn a_file_follows_what_was_sent_before(runtime: Rc<Runtime>) {
    let (file, bytes) = file(300_000);
    let (stream, peer) = pair(&runtime);
    assert!(glance(&stream).await.is_none(), "the peer has sent nothing");
    let head = pattern(3 << 20, 4);
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.extend_from_slice(&head);
        expected.extend_from_slice(&bytes);
    }
    let length = expected.len();
    let seen = in_thread(move || {
        thread::sleep(Duration::from_millis(30));
        read(&peer, length)
    });
    let mut queue = SendQueue::default();
    for _ in 0..3 {
        queue.own().extend_from_slice(&head);
        soon(&runtime, "a head", stream.send(&mut queue)).await.expect("a reader");
        soon(&runtime, "a sendfile", send_file(&stream, &file, 0, bytes.len())).await.expect("a reader");
    }
    assert_same(&soon(&runtime, "heads and files arrive", seen).await, &expected, "heads and files");
}

async fn an_offset_beyond_what_a_file_can_have_is_an_error(runtime: Rc<Runtime>) {
    let (file, _) = file(10);
    let (stream, _peer) = pair(&runtime);
    assert!(soon(&runtime, "an error", send_file(&stream, &file, u64::MAX, 10)).await.is_err());
}

/// Sends until `length` bytes have left or the file ends; says how many.
pub async fn send_file(stream: &Stream, file: &File, offset: u64, length: usize) -> io::Result<usize> {
    let mut done = 0;
    while done < length {
        let (at, left) = (offset + done as u64, length - done);
        match poll_fn(|context| stream.poll_sendfile(file, at, left, context)).await? {
            0 => break,
            sent => done += sent,
        }
    }
    Ok(done)
}

/// A file of so many bytes, in memory as far as the page cache goes.
pub fn file(length: usize) -> (File, Vec<u8>) {
    let bytes = pattern(length, length as u64);
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&bytes).expect("room on the disk");
    (file, bytes)
}

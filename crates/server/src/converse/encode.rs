//! From a reply to bytes in the send queue.
//!
//! A usual answer from memory leaves alone and as it lies there, if that is of this second (`opening`): one piece, which leaves with a plain
//! send, and nothing is copied. Otherwise small bodies are copied behind their heads: one contiguous piece costs the kernel less than
//! two, and us less than the bookkeeping. Larger ones are shared.

use std::ops::Range;
use std::sync::Arc;

use amped_runtime::{Clock, SendQueue};
use amped_wire::h1::encode;
use amped_wire::head::{Method, Request, Version};
use amped_wire::status::Status;

use crate::answer::opening::{self, Opening};
use crate::answer::reply::{Body, Head, Piece, Reply};

/// The part of a head that all answers of one second have in common.
#[derive(Debug, Default)]
pub struct CommonHead(Opening);

/// How a request wants to be answered, kept from its head.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The connection goes on after this answer.
    pub keep_alive: bool,
    /// The client is of HTTP/1.0 and must be told that the connection goes on.
    pub say_keep_alive: bool,
    /// The answer has a head only.
    pub head_only: bool,
    /// Another request has come behind it: their answers leave together.
    pub is_followed: bool,
}

impl Manner {
    /// What `request` wants.
    pub fn of(request: &Request<'_>) -> Self {
        Self {
            keep_alive: request.keep_alive,
            say_keep_alive: request.keep_alive && request.version == Version::Http10,
            head_only: request.method == Method::Head,
            is_followed: false,
        }
    }

    /// The manner of a connection's last words.
    pub fn last() -> Self {
        Self { keep_alive: false, say_keep_alive: false, head_only: false, is_followed: false }
    }

    /// Whether the head says nothing of the connection: it goes on, as HTTP/1.1 takes for granted (RFC 9112 section 9.3).
    fn is_usual(self) -> bool {
        self.keep_alive && !self.say_keep_alive
    }
}

impl CommonHead {
    /// Appends the reply's head, and its body as far as it is in memory; the rest is returned, to be sent afterwards.
    pub fn put(&self, queue: &mut SendQueue, reply: Reply, manner: Manner, clock: &Clock) -> Option<Vec<Piece>> {
        let opening = self.0.at(clock.unix_seconds());
        match (reply.head, reply.body) {
            (Head::Whole(memory, body), _) => {
                let body = if manner.head_only { body.start..body.start } else { body };
                put_memory(queue, &memory, body, manner, &opening);
                None
            }
            (Head::Own(head), body) => {
                put_head(queue.own(), reply.status, manner, &opening);
                queue.own().extend_from_slice(&head);
                if manner.head_only { None } else { put_body(queue, body) }
            }
        }
    }
}

/// A file in memory, with a body that may be left away: as it lies there if it begins with what is to be said now.
fn put_memory(queue: &mut SendQueue, memory: &Arc<[u8]>, body: Range<usize>, manner: Manner, opening: &opening::Bytes) {
    // A buffer that others wait for (`Passing`) is larger than what it holds, and copied from if that sets it free at once.
    let is_kept = memory.len() == body.end;
    let is_alone = is_kept && body.end > opening::COPIED_UP_TO && queue.is_empty() && !manner.is_followed;
    if (is_alone || body.len() > COPIED) && manner.is_usual() && memory.starts_with(opening) {
        return queue.share(memory, 0..body.end);
    }
    put_head(queue.own(), Status::OK, manner, opening);
    if body.len() <= COPIED {
        queue.own().extend_from_slice(&memory[opening::LENGTH..body.end]);
    } else {
        queue.own().extend_from_slice(&memory[opening::LENGTH..body.start]);
        queue.share(memory, body);
    }
}

fn put_head(out: &mut Vec<u8>, status: Status, manner: Manner, opening: &opening::Bytes) {
    if status == Status::OK {
        out.extend_from_slice(opening);
    } else {
        encode::status_line(out, status, Version::Http11);
        out.extend_from_slice(&opening[opening::AFTER_STATUS..]);
    }
    if !manner.keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if manner.say_keep_alive {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
    }
}

fn put_body(queue: &mut SendQueue, body: Body) -> Option<Vec<Piece>> {
    match body {
        Body::Empty => None,
        Body::Shared(memory, range) if range.len() <= COPIED => {
            queue.own().extend_from_slice(&memory[range]);
            None
        }
        Body::Shared(memory, range) => {
            queue.share(&memory, range);
            None
        }
        Body::Pieces(pieces) => Some(pieces.into()),
    }
}

/// Bodies up to this size are copied into the queue instead of being shared: at 4.5 KB the plain send of one piece saves 5 to
/// 10% of the whole request against a vectored send of two.
const COPIED: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Manner = Manner { keep_alive: true, say_keep_alive: false, head_only: false, is_followed: false };
    const HEAD: &[u8] = b"Content-Type: text/plain\r\n\r\n";

    /// A file in memory with so large a body, ready for this second.
    fn memory(second: u64, body: usize) -> (Arc<[u8]>, Range<usize>) {
        let bytes = [&Opening::default().at(second)[..], HEAD, &vec![b'x'; body]].concat();
        let start = opening::LENGTH + HEAD.len();
        (bytes.into(), start..start + body)
    }

    /// What is put for it in second 7 behind what the queue has: how much is copied, and whether the memory is referred to.
    fn put(queue: &mut SendQueue, (memory, body): &(Arc<[u8]>, Range<usize>), manner: Manner) -> (usize, bool) {
        let (own, length) = (queue.own().len(), queue.len());
        let references = Arc::strong_count(memory);
        put_memory(queue, memory, body.clone(), manner, &Opening::default().at(7));
        assert!(queue.len() - length >= body.end);
        (queue.own().len() - own, Arc::strong_count(memory) > references)
    }

    #[test]
    fn an_answer_alone_leaves_as_it_lies_in_memory() {
        for body in [4000, 60_000] {
            assert_eq!(put(&mut SendQueue::default(), &memory(7, body), USUAL), (0, true), "{body}");
        }
        let small = memory(7, 1000);
        assert_eq!(put(&mut SendQueue::default(), &small, USUAL), (small.0.len(), false), "copying is as cheap");
        let (file, body) = memory(7, 4000);
        let passing = [&file[..], &[0; 9000]].concat().into();
        assert_eq!(put(&mut SendQueue::default(), &(passing, body), USUAL), (file.len(), false), "others wait for it");
    }

    #[test]
    fn what_says_something_else_is_copied() {
        let close = Manner { keep_alive: false, ..USUAL };
        let old = Manner { say_keep_alive: true, ..USUAL };
        let file = memory(7, 4000);
        assert_eq!(put(&mut SendQueue::default(), &memory(6, 4000), USUAL), (file.0.len(), false), "another second");
        let said = "Connection: close\r\n".len();
        assert_eq!(put(&mut SendQueue::default(), &file, close), (file.0.len() + said, false));
        let said = "Connection: keep-alive\r\n".len();
        assert_eq!(put(&mut SendQueue::default(), &file, old), (file.0.len() + said, false));
        let head = opening::LENGTH + HEAD.len();
        assert_eq!(put(&mut SendQueue::default(), &memory(6, 60_000), USUAL), (head, true), "a large body is not");
    }

    #[test]
    fn answers_that_leave_together_are_one_piece_unless_they_are_large() {
        let mut queue = SendQueue::default();
        let file = memory(7, 4000);
        let followed = Manner { is_followed: true, ..USUAL };
        assert_eq!(put(&mut queue, &file, followed), (file.0.len(), false));
        let small = memory(7, 100);
        put(&mut queue, &small, followed);
        assert_eq!(put(&mut queue, &file, USUAL), (file.0.len(), false), "not the first");
        assert_eq!(put(&mut queue, &memory(7, 60_000), USUAL), (0, true));
        assert_eq!(put(&mut queue, &small, USUAL), (small.0.len(), false));
        assert_eq!(queue.len(), 2 * small.0.len() + 2 * file.0.len() + memory(7, 60_000).0.len());
    }
}

//! HTTP/1.1 on one connection.
//!
//! ```text
//!          bytes                        all answered, all sent
//!   Idle ────────► turn (synchronous) ─────────────────────────► Idle
//!    │ ▲                 │ something must wait: the disk, the socket, the rest of a head
//!    │ │                 ▼
//!    │ └────────────── Busy ──── the last answer is sent ──► Lingering ──► closed
//!    └── the peer ends, or idles too long ──► closed
//! ```
//!
//! An idle connection is this task, its driver slot and a timer entry: no buffer, no queue. The usual request never leaves the
//! synchronous turn: it costs a receive, a look-up and a send.

use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};

use amped_runtime::SendQueue;
use amped_runtime::net::Stream;
use amped_wire::h1::parse_request;
use amped_wire::head::Framing;

use super::busy::{Busy, Item};
use super::encode::Manner;
use super::{Context, linger};
use crate::answer::Answer;
use crate::answer::reply::Body;

/// What becomes of a connection after a turn.
pub enum Next {
    /// It waits for its next request.
    Idle,
    /// It is over and nothing is unread.
    Close,
    /// It is over, and the peer may still be sending.
    Linger,
    /// Something must be waited for.
    Busy(Box<Busy>),
}

/// A connection, and the guest that is dropped with it.
pub struct Connection<G> {
    context: Rc<Context>,
    stream: Stream,
    _guest: G,
}

impl<G> Connection<G> {
    /// A fresh connection.
    pub fn new(context: &Rc<Context>, stream: Stream, guest: G) -> Self {
        Self { context: Rc::clone(context), stream, _guest: guest }
    }

    /// Serves the connection to its end.
    ///
    /// An idle connection costs this future, so it borrows its parts instead of moving them about (a moved part is kept twice),
    /// and what happens rarely is boxed.
    #[allow(clippy::manual_async_fn)]
    pub fn converse(self) -> impl Future<Output = ()> {
        async move {
            let Self { context, stream, .. } = &self;
            loop {
                stream.idle_for(context.limits().idle_timeout);
                let mut next = poll_fn(|task| idle(context, stream, task)).await;
                while let Next::Busy(busy) = &mut next {
                    next = poll_fn(|task| busy.poll(context, stream, task)).await;
                }
                match next {
                    Next::Idle if !context.is_draining() => {}
                    Next::Idle | Next::Close => return Box::pin(finish(context, stream)).await,
                    Next::Linger => return Box::pin(linger::close(stream)).await,
                    Next::Busy(_) => unreachable!("a busy conversation ends idle or closed"),
                }
            }
        }
    }
}

/// Waits for requests and answers them, for as long as memory can tell the answers.
fn idle(context: &Rc<Context>, stream: &Stream, task: &mut Task<'_>) -> Poll<Next> {
    loop {
        let chunk = match ready!(stream.poll_recv(task)) {
            Ok(chunk) if !chunk.is_empty() => chunk,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                context.counters.timeouts.add(u64::from(!context.is_draining()));
                return Poll::Ready(Next::Close);
            }
            _ => return Poll::Ready(Next::Close),
        };
        match turn(context, stream, &chunk, task) {
            Next::Idle if !context.is_draining() => stream.idle_for(context.limits().idle_timeout),
            next => return Poll::Ready(next),
        }
    }
}

/// Lets what is in flight leave before the descriptor is closed.
async fn finish(context: &Context, stream: &Stream) {
    stream.deadline_in(context.limits().write_timeout);
    // Nothing to be done about an error: the connection is over either way.
    let _ = poll_fn(|task| stream.poll_sent(task)).await;
}

/// Answers everything in the chunk that memory can answer, and sends it in one go.
fn turn(context: &Rc<Context>, stream: &Stream, chunk: &[u8], task: &mut Task<'_>) -> Next {
    let mut queue = context.take_queue();
    let mut input = chunk;
    let mut scanned = 0;
    while !input.is_empty() {
        let Ok(Some((request, head))) = parse_request(input, &mut scanned) else {
            // The rest of a head, or a refusal: both take their time.
            return go_on(queue, input, scanned, None);
        };
        if request.framing != Framing::None || request.expect_continue || context.log.is_some() {
            return go_on(queue, input, 0, None);
        }
        let mut manner = Manner::of(&request);
        manner.keep_alive &= !context.is_draining();
        match context.answers.answer(&request) {
            Answer::Ready(reply) if !reply.close && !matches!(reply.body, Body::Pieces(_)) => {
                super::busy::count(context, &reply);
                context.common_head.put(&mut queue, reply, manner, context.runtime().clock());
            }
            answer => {
                let item = Item::new(answer, manner, None);
                return go_on(queue, &input[head..], 0, Some(item));
            }
        }
        input = &input[head..];
        scanned = 0;
        if !manner.keep_alive {
            return send_last(context, stream, queue, input, task);
        }
    }
    match send(context, stream, &mut queue, task) {
        Poll::Ready(Ok(())) => {
            context.put_queue(queue);
            Next::Idle
        }
        Poll::Ready(Err(_)) => Next::Close,
        Poll::Pending => go_on(queue, &[], 0, None),
    }
}

/// Sends and counts.
fn send(context: &Context, stream: &Stream, queue: &mut SendQueue, task: &mut Task<'_>) -> Poll<io::Result<()>> {
    let before = queue.len();
    let sent = stream.poll_send(queue, false, task);
    context.counters.bytes_sent.add((before - queue.len()) as u64);
    sent
}

fn send_last(context: &Context, stream: &Stream, mut queue: SendQueue, unread: &[u8], task: &mut Task<'_>) -> Next {
    match send(context, stream, &mut queue, task) {
        Poll::Ready(Ok(())) => {
            context.put_queue(queue);
            if unread.is_empty() { Next::Close } else { Next::Linger }
        }
        Poll::Ready(Err(_)) => Next::Close,
        Poll::Pending => Next::Busy(Box::new(Busy::last(queue))),
    }
}

/// The conversation needs a state of its own from here on.
fn go_on(queue: SendQueue, input: &[u8], scanned: usize, item: Option<Item>) -> Next {
    Next::Busy(Box::new(Busy::new(queue, input, scanned, item)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what `converse` makes, without a connection to make it of.
    fn size_of_future<G, F: Future>(_: impl FnOnce(Connection<G>) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_stays_small() {
        let size = size_of_future(Connection::<[usize; 2]>::converse);
        assert!(size <= 112, "{size} bytes for every connection");
    }
}

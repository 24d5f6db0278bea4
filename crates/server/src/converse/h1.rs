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

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};

use amped_runtime::SendQueue;
use amped_runtime::net::Stream;
use amped_wire::h1::parse_request;
use amped_wire::head::{Framing, Request};
use amped_wire::status::Status;

use super::busy::{Busy, Item, peer};
use super::encode::Manner;
use super::standing::{Doing, Standing};
use super::survive::Panicked;
use super::{Context, linger, survive};
use crate::answer::Answer;
use crate::answer::reply::Body;
use crate::observe::access_log::Asked;
use crate::observe::samples::Sample;

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
    /// It is over, and nothing is left of it.
    Over,
}

/// A connection and its conversation, to be spawned; the guest is dropped with it.
///
/// This is what an idle connection costs beside its driver slot, so it is a future written by hand: a compiled one keeps
/// what it borrows and what it moves twice, and was twice as large.
pub struct Connection<G> {
    context: Rc<Context>,
    /// There until the connection ends.
    stream: Option<Stream>,
    state: State,
    _guest: G,
}

enum State {
    Idle,
    Busy(Box<Busy>),
    Ending(Pin<Box<dyn Future<Output = ()>>>),
}

impl<G> Connection<G> {
    /// A fresh connection.
    pub fn new(context: &Rc<Context>, stream: Stream, guest: G) -> Self {
        stream.idle_for(context.idle_timeout());
        Self { context: Rc::clone(context), stream: Some(stream), state: State::Idle, _guest: guest }
    }

    /// Enters the state that follows; ready when nothing is left to be done.
    fn go_to(&mut self, next: Next) -> Poll<()> {
        let Some(stream) = &self.stream else { return Poll::Ready(()) };
        self.state = match next {
            Next::Idle if !self.context.is_draining() => {
                stream.idle_for(self.context.idle_timeout());
                State::Idle
            }
            Next::Busy(busy) => State::Busy(busy),
            Next::Over => return Poll::Ready(()),
            // Whatever is in flight must leave before the descriptor is closed; usually nothing is.
            Next::Idle | Next::Close if stream.in_flight() == 0 => return Poll::Ready(()),
            ending => {
                let (context, stream) = (Rc::clone(&self.context), self.stream.take());
                State::Ending(Box::pin(finish(context, stream, matches!(ending, Next::Linger))))
            }
        };
        Poll::Pending
    }
}

impl<G> Connection<G> {
    /// The conversation itself has panicked. If the peer has heard nothing yet, it hears 500; else only a reset tells it that
    /// what it has is not whole.
    fn after_panic(&mut self, panicked: &Panicked) -> Next {
        let (context, Some(stream)) = (&self.context, &self.stream) else { return Next::Over };
        context.counters.panics.add(1);
        let has_spoken = match &self.state {
            State::Idle => context.sending.get(),
            State::Busy(busy) => busy.has_spoken(),
            State::Ending(_) => true,
        };
        if has_spoken {
            panicked.log(b"a conversation", "its connection is reset");
            let _ = stream.reset_on_close();
            return Next::Close;
        }
        panicked.log(b"a conversation", "it is answered 500, and its connection ends");
        let reply = context.answers().refuse(Status::INTERNAL_SERVER_ERROR, "");
        let mut queue = SendQueue::default();
        super::busy::count(context, &reply);
        context.common_head.put(&mut queue, reply, Manner::last(), context.runtime().clock());
        Next::Busy(Box::new(Busy::last(queue)))
    }
}

impl<G: Unpin> Future for Connection<G> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let step = || match (&mut this.state, &this.stream) {
                (State::Idle, Some(stream)) => idle(&this.context, stream, task),
                (State::Busy(busy), Some(stream)) => busy.poll(&this.context, stream, task),
                (State::Ending(ending), _) => ending.as_mut().poll(task).map(|()| Next::Over),
                (_, None) => unreachable!("only an ending connection has given its stream away"),
            };
            let next = match survive::guard(step) {
                Ok(poll) => ready!(poll),
                Err(panicked) => this.after_panic(&panicked),
            };
            if this.go_to(next).is_ready() {
                return Poll::Ready(());
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
            Next::Idle if !context.is_draining() => stream.idle_for(context.idle_timeout()),
            next => return Poll::Ready(next),
        }
    }
}

/// Lets what is in flight leave before the descriptor is closed, and what the peer is still sending come.
async fn finish(context: Rc<Context>, stream: Option<Stream>, may_be_sending: bool) {
    let Some(stream) = stream else { return };
    let _standing = Standing::new(&context, Doing::Closing);
    if may_be_sending {
        linger::close(&context, &stream).await;
    } else {
        // Nothing to be done about an error: the connection is over either way.
        let _ = linger::sent(&context, &stream).await;
    }
}

/// Answers everything in the chunk that memory can answer, and sends it in one go.
fn turn(context: &Rc<Context>, stream: &Stream, chunk: &[u8], task: &mut Task<'_>) -> Next {
    let mut queue = context.take_queue();
    context.sending.set(false);
    let mut input = chunk;
    let mut scanned = 0;
    let mut sampled_now = 0;
    while !input.is_empty() {
        let Ok(Some((request, head))) = parse_request(input, &mut scanned) else {
            // The rest of a head, or a refusal: both take their time.
            return go_on(queue, input, scanned, None);
        };
        if request.framing != Framing::None || request.expect_continue {
            return go_on(queue, input, 0, None);
        }
        let mut manner = Manner::of(&request);
        // What has come already is answered, whatever is to become of the connection then.
        manner.is_followed = head < input.len();
        manner.keep_alive &= manner.is_followed || context.keeps_alive();
        match context.answer(&request, stream) {
            Answer::Ready(reply) if !reply.close && !matches!(reply.body, Body::Pieces(_)) => {
                super::busy::count(context, &reply);
                let clock = context.runtime().clock();
                sampled_now += context.sampler.answered(request.target.path(), reply.status, clock);
                if let Some(log) = &context.log {
                    let asked = Asked::of(&request, peer(stream));
                    super::busy::note(context, log, &asked, &reply, manner);
                }
                context.common_head.put(&mut queue, reply, manner, clock);
            }
            answer => {
                let asked = context.log.as_ref().map(|_| Box::new(Asked::of(&request, peer(stream))));
                let item = Item::new(context, &request, answer, manner, asked);
                return go_on(queue, &input[head..], 0, Some(item));
            }
        }
        input = &input[head..];
        scanned = 0;
        if !manner.keep_alive {
            let next = send_last(context, stream, queue, input, task);
            took(context, sampled_now);
            return next;
        }
    }
    let sent = send(context, stream, &mut queue, false, task);
    took(context, sampled_now);
    match sent {
        Poll::Ready(Ok(())) => {
            context.put_queue(queue);
            Next::Idle
        }
        Poll::Ready(Err(_)) => Next::Close,
        Poll::Pending => go_on(queue, &[], 0, None),
    }
}

/// The answers of this turn have left: how long that took, if the sampler wants to know.
fn took(context: &Context, sampled: u64) {
    if sampled > 0 {
        context.sampler.took(sampled, context.runtime().clock());
    }
}

/// What the sampler keeps of a request that is answered later.
pub fn sampled(context: &Context, request: &Request<'_>, answer: &Answer) -> Option<Box<Sample>> {
    let known = match answer {
        Answer::Ready(reply) => Some(reply.status),
        Answer::Pending(_) => None,
    };
    context.sampler.asked(request.target.path(), known, context.runtime().clock())
}

/// Sends and counts; `more` as in `Stream::poll_send`.
fn send(
    context: &Context,
    stream: &Stream,
    queue: &mut SendQueue,
    more: bool,
    task: &mut Task<'_>,
) -> Poll<io::Result<()>> {
    let before = queue.len();
    context.sending.set(true);
    let sent = stream.poll_send(queue, more, task);
    context.counters.bytes_sent.add((before - queue.len()) as u64);
    sent
}

/// Sends the last answers. What follows at once is the close, so the kernel may put the FIN into the last segment: a packet
/// less both ways, a tenth of what a connection for one request costs.
fn send_last(context: &Context, stream: &Stream, mut queue: SendQueue, unread: &[u8], task: &mut Task<'_>) -> Next {
    match send(context, stream, &mut queue, unread.is_empty(), task) {
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

    #[test]
    fn an_idle_connection_stays_small() {
        let size = size_of::<Connection<Box<u8>>>();
        assert!(size <= 56, "{size} bytes for every connection");
    }
}

//! A conversation that has to wait: for the disk, for the socket, for the rest of a head or body.
//!
//! Pipelined requests are looked up as they arrive, all at the same time, and answered in their order. What is ready leaves in
//! one send; nothing is flushed early and nothing is held back: the queue is sent when no further complete request waits in
//! what has been read.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};
use std::time::Duration;

use amped_runtime::SendQueue;
use amped_runtime::net::Stream;
use amped_wire::h1::{BodyDecoder, BodyEvent, parse_request};
use amped_wire::head::{Framing, Request};
use amped_wire::limits::MAX_PIPELINED;
use amped_wire::status::{Reject, Status};

use super::encode::Manner;
use super::h1::{Next, sampled};
use super::pace::{Demand, Pace};
use super::standing::{Doing, Standing};
use super::{Context, survive};
use crate::answer::files::Means;
use crate::answer::reply::{Piece, Reply};
use crate::answer::{Answer, Pending};
use crate::observe::access_log::{Asked, Log};
use crate::observe::samples::Sample;

/// The state of a conversation while it waits.
pub struct Busy {
    /// What has been read and not been understood yet.
    input: Vec<u8>,
    /// How much of `input` was searched for the end of a head.
    scanned: usize,
    /// The request body that is being read and forgotten.
    body: Option<Discard>,
    /// Answers in the order of their requests.
    items: VecDeque<Item>,
    /// The rest of the front answer's body.
    pieces: VecDeque<Piece>,
    queue: SendQueue,
    ending: Ending,
    /// What the deadline is for, so that it is set when that changes and not at every poll.
    awaiting: Awaiting,
    /// How slow the peer may be with its body, or with taking the answers.
    pace: Option<(Awaiting, Pace)>,
    /// Bytes handed to the kernel, and bytes of bodies that came.
    sent: u64,
    received: u64,
    standing: Option<Standing>,
    /// The peer has finished sending.
    ended: bool,
    /// Bytes of the present answers may have reached the peer.
    has_spoken: bool,
}

/// One request's answer, and how it is to be given.
pub struct Item {
    answer: Progress,
    manner: Manner,
    asked: Option<Box<Asked>>,
    sample: Option<Box<Sample>>,
}

enum Progress {
    Ready(Box<Reply>),
    /// The answer to come, and what was asked, should that panic.
    Pending(Pending, Box<[u8]>),
}

/// A body nobody wants: its decoder, and how many more bytes of it are put up with.
struct Discard {
    decoder: BodyDecoder,
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    /// The connection goes on.
    No,
    /// It ends when everything is sent.
    Close,
    /// Likewise, and unread bytes may be waiting.
    Linger,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaiting {
    Nothing,
    Head,
    Body,
    Disk,
    Socket,
}

impl Busy {
    /// A conversation with `queue` to be sent, `input` to be understood, and perhaps a first answer.
    pub fn new(queue: SendQueue, input: &[u8], scanned: usize, item: Option<Item>) -> Self {
        let last = item.as_ref().is_some_and(Item::is_last);
        Self {
            input: input.to_vec(),
            scanned,
            body: None,
            items: item.into_iter().collect(),
            pieces: VecDeque::new(),
            queue,
            ending: match (last, input.is_empty()) {
                (false, _) => Ending::No,
                (true, true) => Ending::Close,
                (true, false) => Ending::Linger,
            },
            awaiting: Awaiting::Nothing,
            pace: None,
            sent: 0,
            received: 0,
            standing: None,
            ended: false,
            has_spoken: false,
        }
    }

    /// A conversation whose last bytes are in `queue`.
    pub fn last(queue: SendQueue) -> Self {
        Self { ending: Ending::Linger, ..Self::new(queue, &[], 0, None) }
    }

    /// Whether the peer may have had a part of the answers by now: another one could not be told from their rest.
    pub fn has_spoken(&self) -> bool {
        self.has_spoken
    }

    /// Goes on until the conversation is idle again, or over.
    pub fn poll(&mut self, context: &Rc<Context>, stream: &Stream, task: &mut Task<'_>) -> Poll<Next> {
        loop {
            self.has_spoken &= !(self.queue.is_empty() && self.pieces.is_empty());
            self.understand(context, stream);
            self.look_after_pending(context, task);
            let sending = self.send(context, stream, task);
            match sending {
                Poll::Ready(Err(error)) if self.bears_with(context, stream, &error) => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(self.fail(context, stream, &error)),
                // Something went out, so there may be room for more answers.
                Poll::Ready(Ok(true)) => {
                    self.awaiting = Awaiting::Nothing;
                    continue;
                }
                _ => {}
            }
            if self.is_done() {
                return Poll::Ready(self.finish(context));
            }
            self.set_deadline(context, stream, sending.is_pending());
            if self.wants_input() {
                match stream.poll_recv(task) {
                    Poll::Ready(received) => match received {
                        Ok(chunk) if chunk.is_empty() => self.end_of_input(),
                        Ok(chunk) => {
                            self.input.extend_from_slice(&chunk);
                            // A body may take its time as long as it comes; a head may not.
                            if self.body.is_some() {
                                self.received += chunk.len() as u64;
                                self.expect(context, stream, Awaiting::Body);
                            }
                        }
                        Err(error) if self.bears_with(context, stream, &error) => {}
                        Err(error) => return Poll::Ready(self.fail(context, stream, &error)),
                    },
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                // Waiting for the disk: a client that has gone need not be waited for. One that has only finished sending may
                // still be listening, and is given up only when the disk has no time for it.
                let is_hopeless = self.waits_for_disk_only() && context.helpers.is_overloaded();
                ready!(stream.poll_gone(is_hopeless, task));
                return Poll::Ready(Next::Close);
            }
        }
    }

    /// Turns what has been read into answers, ready or on their way.
    fn understand(&mut self, context: &Rc<Context>, stream: &Stream) {
        while self.ending == Ending::No && !self.input.is_empty() && self.items.len() < MAX_PIPELINED {
            if self.body.is_some() {
                if !self.discard_body(context) {
                    return;
                }
                continue;
            }
            let mut input = std::mem::take(&mut self.input);
            let understood = match parse_request(&input, &mut self.scanned) {
                Ok(Some((request, head))) => {
                    self.scanned = 0;
                    self.take_request(context, stream, &request, head < input.len());
                    head
                }
                Ok(None) => 0,
                Err(reject) => {
                    self.refuse(context, stream, reject);
                    0
                }
            };
            input.drain(..understood);
            self.input = input;
            if understood == 0 {
                return;
            }
        }
    }

    /// Takes the next request; `more` has come already, and is answered whatever is to become of the connection then.
    fn take_request(&mut self, context: &Rc<Context>, stream: &Stream, request: &Request<'_>, more: bool) {
        let mut manner = Manner::of(request);
        manner.keep_alive &= (more && request.framing == Framing::None) || context.keeps_alive();
        let asked = context.log.as_ref().map(|_| Box::new(Asked::of(request, peer(stream))));
        let limit = context.limits().max_body;
        let too_large = matches!(request.framing, Framing::Length(length) if length > limit);
        let answer = if too_large {
            Answer::Ready(context.answers().refuse(Status::CONTENT_TOO_LARGE, "the body is larger than allowed"))
        } else {
            context.answer(request, stream)
        };
        // Whoever waits for 100 (Continue) has its answer instead, and may or may not send the body then: nobody could tell
        // where the next request begins.
        // What is refused for want of time is refused before its body is read.
        let is_refused = matches!(&answer, Answer::Ready(reply) if reply.is_refusal());
        let refuses_body = too_large || request.expect_continue || (is_refused && request.framing != Framing::None);
        manner.keep_alive &= !refuses_body;
        let item = Item::new(context, request, answer, manner, asked);
        if refuses_body {
            self.ending = Ending::Linger;
        } else if item.is_last() {
            self.ending = if request.framing == Framing::None { Ending::Close } else { Ending::Linger };
        } else if request.framing != Framing::None {
            let decoder = BodyDecoder::new(request.framing);
            self.body = (!decoder.is_done()).then_some(Discard { decoder, left: limit });
        }
        self.items.push_back(item);
    }

    /// Reads and forgets body bytes from `input`; says whether the body has ended.
    fn discard_body(&mut self, context: &Context) -> bool {
        let Some(body) = &mut self.body else { return true };
        match body.decoder.decode(&self.input) {
            Ok((consumed, event)) => {
                self.input.drain(..consumed);
                body.left = body.left.saturating_sub(consumed as u64);
                if event == BodyEvent::Done {
                    self.body = None;
                    return true;
                }
                if body.left == 0 && !body.decoder.is_done() {
                    self.ending = Ending::Linger;
                }
                event != BodyEvent::NeedMore
            }
            Err(_) => {
                // Its request has been answered; only the connection cannot go on.
                context.counters.refused_requests.add(1);
                self.ending = Ending::Linger;
                false
            }
        }
    }

    fn refuse(&mut self, context: &Context, stream: &Stream, reject: Reject) {
        context.counters.refused_requests.add(1);
        let reply = context.answers().refuse(reject.status, reject.reason);
        let asked = context.log.as_ref().map(|_| Box::new(Asked::nothing(peer(stream))));
        self.items.push_back(Item::ready(reply, Manner::last(), asked, None));
        self.ending = Ending::Linger;
    }

    /// Lets every pending answer make progress, whatever its place in the order.
    fn look_after_pending(&mut self, context: &Context, task: &mut Task<'_>) {
        for item in &mut self.items {
            let Progress::Pending(pending, what) = &mut item.answer else { continue };
            let polled = survive::guard(|| pending.as_mut().poll(task));
            if let Poll::Ready(reply) =
                polled.unwrap_or_else(|panicked| Poll::Ready(context.answer_panic(&panicked, what)))
            {
                item.answer = Progress::Ready(Box::new(reply));
            }
        }
    }

    /// Sends what is ready, in order. Ready(true): something left; Ready(false): nothing to send now.
    fn send(&mut self, context: &Rc<Context>, stream: &Stream, task: &mut Task<'_>) -> Poll<io::Result<bool>> {
        let mut progress = false;
        self.gather(context);
        let answers = context.answers();
        let means = Means {
            stream,
            helpers: &context.helpers,
            mode: context.disk(),
            budget: &context.budget,
            trims: context.gate.trims(),
            files: answers.files(),
        };
        if !self.queue.is_empty() {
            let more = match self.pieces.front_mut() {
                Some(Piece::File(file)) => file.is_ready(means),
                Some(_) => false,
                // The close follows at once, see `h1::send_last`.
                None => self.ending == Ending::Close && self.items.is_empty() && self.input.is_empty(),
            };
            let before = self.queue.len();
            self.has_spoken = true;
            let sent = stream.poll_send(&mut self.queue, more, task);
            let gone = before - self.queue.len();
            context.counters.bytes_sent.add(gone as u64);
            self.sent += gone as u64;
            progress = gone > 0;
            match sent {
                Poll::Pending if progress => return Poll::Ready(Ok(true)),
                other => ready!(other)?,
            }
        }
        self.send_file(context, means, task, progress)
    }

    fn send_file(
        &mut self,
        context: &Context,
        means: Means<'_>,
        task: &mut Task<'_>,
        progress: bool,
    ) -> Poll<io::Result<bool>> {
        let Some(Piece::File(transfer)) = self.pieces.front_mut() else { return Poll::Ready(Ok(progress)) };
        match transfer.poll_send(means, task) {
            Poll::Pending if progress => Poll::Ready(Ok(true)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(sent)) => {
                context.counters.bytes_sent.add(sent as u64);
                self.sent += sent as u64;
                self.awaiting = Awaiting::Nothing;
                if transfer.is_done() {
                    self.pieces.pop_front();
                    return Poll::Ready(Ok(true));
                }
                // What the turn had is sent: the others first. A full socket says itself when it is so no longer.
                if means.stream.poll_writable(task).is_ready() {
                    task.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }

    /// Moves what is ready into the queue: whole answers, and pieces of bodies up to the next one from a file.
    fn gather(&mut self, context: &Context) {
        while self.queue.len() < MAX_GATHERED {
            match self.pieces.pop_front() {
                Some(Piece::Own(bytes)) => self.queue.own().extend_from_slice(&bytes),
                Some(Piece::Shared(memory, range)) => self.queue.share(&memory, range),
                Some(file @ Piece::File(_)) => return self.pieces.push_front(file),
                None if !self.begin_answer(context) => return,
                None => {}
            }
        }
    }

    /// Puts the front answer's head into the queue if it is ready.
    fn begin_answer(&mut self, context: &Context) -> bool {
        if !matches!(self.items.front(), Some(Item { answer: Progress::Ready(_), .. })) {
            return false;
        }
        let Some(Item { answer: Progress::Ready(reply), mut manner, asked, sample }) = self.items.pop_front() else {
            return false;
        };
        if reply.close {
            manner.keep_alive = false;
            self.ending = Ending::Linger;
        }
        if !manner.keep_alive {
            self.items.clear();
        }
        manner.is_followed = !self.items.is_empty();
        count(context, &reply);
        let clock = context.runtime().clock();
        if let Some(sample) = sample {
            context.sampler.given(&sample, reply.status, clock);
        }
        if let (Some(log), Some(asked)) = (&context.log, asked) {
            note(context, log, &asked, &reply, manner);
        }
        if let Some(pieces) = context.common_head.put(&mut self.queue, *reply, manner, clock) {
            self.pieces = pieces.into();
        }
        true
    }

    fn waits_for_disk_only(&self) -> bool {
        !self.items.is_empty() && self.pieces.is_empty() && self.queue.is_empty()
    }

    fn has_nothing_to_send(&self) -> bool {
        self.items.is_empty() && self.pieces.is_empty() && self.queue.is_empty()
    }

    fn is_done(&self) -> bool {
        let expects_nothing = self.ending != Ending::No || self.ended || (self.input.is_empty() && self.body.is_none());
        self.has_nothing_to_send() && expects_nothing
    }

    /// Whether more may be read: not while what was read last is still to be sent, so that a peer that does not read its
    /// answers does not make us gather them.
    fn wants_input(&self) -> bool {
        self.ending == Ending::No
            && !self.ended
            && self.queue.is_empty()
            && self.pieces.is_empty()
            && self.items.len() < MAX_PIPELINED
    }

    fn finish(&mut self, context: &Context) -> Next {
        context.put_queue(std::mem::take(&mut self.queue));
        match self.ending {
            Ending::Linger => Next::Linger,
            Ending::Close if self.input.is_empty() => Next::Close,
            Ending::Close => Next::Linger,
            Ending::No if self.ended => Next::Close,
            Ending::No => Next::Idle,
        }
    }

    fn end_of_input(&mut self) {
        self.ended = true;
        self.awaiting = Awaiting::Nothing;
    }

    /// An operation failed. A head that did not come in time is answered; nothing else can be.
    fn fail(&mut self, context: &Rc<Context>, stream: &Stream, error: &io::Error) -> Next {
        match error.kind() {
            io::ErrorKind::TimedOut => {
                context.counters.timeouts.add(1);
                context.counters.too_slow.add(1);
                if self.awaiting == Awaiting::Head && self.has_nothing_to_send() {
                    return self.answer_late_head(context, stream);
                }
                if self.awaiting == Awaiting::Socket {
                    // A reader given up would leave the kernel what it did not take: megabytes, for as long as it answers probes.
                    let _ = stream.reset_on_close();
                    return Next::Over;
                }
            }
            io::ErrorKind::InvalidData | io::ErrorKind::Other => {
                context.counters.broken_transfers.add(1);
                // The client was promised more: a reset tells it so, where a FIN might pass for the end.
                let _ = stream.reset_on_close();
            }
            _ => {}
        }
        Next::Close
    }

    /// 408, and the end (RFC 9110 section 15.5.9).
    fn answer_late_head(&mut self, context: &Rc<Context>, stream: &Stream) -> Next {
        stream.no_deadline();
        self.refuse(context, stream, Reject::new(Status::REQUEST_TIMEOUT, "the head was not complete in time"));
        self.gather(context);
        Next::Busy(Box::new(Self::last(std::mem::take(&mut self.queue))))
    }

    fn set_deadline(&mut self, context: &Rc<Context>, stream: &Stream, blocked: bool) {
        let awaiting = match () {
            () if blocked && !self.awaits_disk() => Awaiting::Socket,
            () if !self.items.is_empty() || blocked => Awaiting::Disk,
            () if self.body.is_some() => Awaiting::Body,
            () => Awaiting::Head,
        };
        if awaiting == self.awaiting {
            return;
        }
        self.awaiting = awaiting;
        self.stand(context, awaiting);
        match awaiting {
            Awaiting::Socket | Awaiting::Body => {
                self.expect(context, stream, awaiting);
                return;
            }
            Awaiting::Head => stream.deadline_in(context.limits().head_timeout),
            Awaiting::Disk | Awaiting::Nothing => stream.no_deadline(),
        }
        self.pace = None;
    }

    /// The peer is waited for, to send or to take bytes: for as long as its pace so far allows, in milliseconds.
    fn expect(&mut self, context: &Context, stream: &Stream, awaiting: Awaiting) -> u32 {
        let now = context.runtime().clock().ticks();
        let demand = match awaiting {
            Awaiting::Body => Demand::of_sender(&context.limits()),
            _ => Demand::of_reader(&context.limits()),
        };
        let moved = || match awaiting {
            // What fills the kernel's buffer is not taken yet.
            Awaiting::Socket => self.sent.saturating_sub(stream.unacknowledged().unwrap_or(0) as u64),
            _ => self.received,
        };
        let left = match &mut self.pace {
            Some((of, pace)) if *of == awaiting && pace.is_recent(now) => pace.left(),
            Some((of, pace)) if *of == awaiting => pace.note(demand, now, moved()),
            other => {
                *other = Some((awaiting, Pace::new(demand, now, moved())));
                demand.patience
            }
        };
        stream.deadline_in(Duration::from_millis(left.into()));
        left
    }

    /// The deadline has come. Whether there is patience left all the same, since bytes have moved where nobody was told: a reader
    /// may take what the kernel holds without there being room for more.
    fn bears_with(&mut self, context: &Context, stream: &Stream, error: &io::Error) -> bool {
        let is_paced = matches!(self.awaiting, Awaiting::Socket | Awaiting::Body);
        error.kind() == io::ErrorKind::TimedOut && is_paced && self.expect(context, stream, self.awaiting) > 0
    }

    fn stand(&mut self, context: &Rc<Context>, awaiting: Awaiting) {
        let doing = match awaiting {
            Awaiting::Head | Awaiting::Nothing => Doing::ReadingHead,
            Awaiting::Body => Doing::ReadingBody,
            Awaiting::Disk => Doing::WaitingForDisk,
            Awaiting::Socket => Doing::Sending,
        };
        match &mut self.standing {
            Some(standing) => standing.change(doing),
            None => self.standing = Some(Standing::new(context, doing)),
        }
    }

    fn awaits_disk(&self) -> bool {
        matches!(self.pieces.front(), Some(Piece::File(transfer)) if transfer.awaits_disk())
    }
}

impl Item {
    /// An answer, how to give it, and what to log and to sample of it.
    pub fn new(
        context: &Context,
        request: &Request<'_>,
        answer: Answer,
        manner: Manner,
        asked: Option<Box<Asked>>,
    ) -> Self {
        let sample = sampled(context, request, &answer);
        match answer {
            Answer::Ready(reply) => Self::ready(reply, manner, asked, sample),
            Answer::Pending(pending) => {
                let answer = Progress::Pending(pending, context.answers().describe(request));
                Self { answer, manner, asked, sample }
            }
        }
    }

    fn ready(reply: Reply, manner: Manner, asked: Option<Box<Asked>>, sample: Option<Box<Sample>>) -> Self {
        Self { answer: Progress::Ready(Box::new(reply)), manner, asked, sample }
    }

    fn is_last(&self) -> bool {
        !self.manner.keep_alive || matches!(&self.answer, Progress::Ready(reply) if reply.close)
    }
}

/// Counts an answer that is about to be given.
pub fn count(context: &Context, reply: &Reply) {
    context.answers().sites().count(reply.site, reply.status.code());
}

/// Logs an answer that is about to be given.
pub fn note(context: &Context, log: &Log, asked: &Asked, reply: &Reply, manner: Manner) {
    let length = if manner.head_only { 0 } else { reply.length };
    log.add(asked, reply.status.code(), length, context.runtime().clock().unix_time());
}

/// The client's address, for the log.
pub fn peer(stream: &Stream) -> Option<std::net::IpAddr> {
    stream.peer_address().ok().map(|address| address.ip())
}

/// Bytes gathered before they are sent: what a socket buffer takes at once.
const MAX_GATHERED: usize = 256 * 1024;

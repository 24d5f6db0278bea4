//! A client: one connection at a time, its requests, its answers.
//!
//! ```text
//!           ┌────────── a request is due (open), there is one left (closed), it is time (crowd)
//!           ▼
//! connect, if there is no connection ─► send ─► receive ─► count what is whole ─┐
//!           ▲                                      │ failed: count, close       │ more under way: receive on
//!           └──────────────────────────────────────┴────────────────────────────┘
//! ```
//!
//! A request counts from its intended time, before a connection is made for it: whoever comes back to a closed door waits.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use amped_runtime::net::Stream;
use amped_runtime::{Chunk, SendQueue};

use super::Load;
use super::line::Line;
use crate::response::{Answer, Ending, ResponseReader};
use crate::tally::Failure;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Asks again as soon as it is answered.
    Closed,
    /// Takes the schedule's requests.
    Open,
    /// Asks now and then.
    Crowd,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    load: Rc<Load>,
    role: Role,
    /// Its place in the schedule.
    number: u32,
    connection: Option<Connection>,
    /// Requests without a whole answer, in order.
    under_way: VecDeque<Request>,
    /// How many there may be.
    depth: usize,
    queue: SendQueue,
    reader: ResponseReader,
}

#[derive(Debug)]
struct Connection {
    stream: Stream,
    /// Requests sent on it.
    asked: u64,
    line: Option<Line>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    target: u32,
    intended: Instant,
    sent: Instant,
}

/// What a client waits for.
enum Happening {
    /// A request may be taken.
    Due,
    /// Something came, or the end.
    Received(io::Result<Chunk>),
}

impl Client {
    /// A client of this load.
    pub fn new(load: &Rc<Load>, role: Role, number: u32) -> Self {
        Self {
            load: Rc::clone(load),
            role,
            number,
            connection: None,
            under_way: VecDeque::new(),
            depth: if role == Role::Crowd { 1 } else { load.plan.pipeline },
            queue: SendQueue::default(),
            reader: ResponseReader::default(),
        }
    }

    /// Connects, waits for the beginning, and asks until the load ends.
    pub async fn live(mut self) {
        // With a connection for each request, connecting is a part of the request.
        if self.per_connection() > 1 {
            let load = Rc::clone(&self.load);
            let _pass = load.gate.enter().await;
            // A failure is met again by the first request, and counted there.
            let _ = self.connect().await;
        }
        self.load.settle();
        self.wait_for_the_beginning().await;
        if self.role == Role::Crowd { self.ask_now_and_then().await } else { self.ask_on_and_on().await }
    }

    async fn ask_on_and_on(&mut self) {
        loop {
            self.take_requests();
            if !self.under_way.is_empty() {
                self.go_on().await;
            } else if self.role == Role::Closed {
                return;
            } else {
                self.wait_for_work().await;
            }
        }
    }

    async fn ask_now_and_then(&mut self) {
        let every = self.load.plan.idle_every;
        // Spread evenly from the beginning.
        let mut due = Instant::now() + every.mul_f64(self.load.random.unit());
        loop {
            self.rest_until(due).await;
            let now = Instant::now();
            self.push(now, now);
            while !self.under_way.is_empty() {
                self.go_on().await;
            }
            self.queue.release();
            due = (due + every).max(Instant::now());
        }
    }

    /// Fills the connection up with what is due.
    fn take_requests(&mut self) {
        let per_connection = self.per_connection();
        let mut now = None;
        while self.under_way.len() < self.depth && self.asked() < per_connection {
            let present = *now.get_or_insert_with(Instant::now);
            let intended = match self.role {
                Role::Open => self.load.take_open(present),
                _ => self.load.take_closed(present).then_some(present),
            };
            let Some(intended) = intended else { return };
            self.load.begun();
            self.push(intended, present);
        }
    }

    /// Requests sent on the connection there is, or to be sent on the next one.
    fn asked(&self) -> u64 {
        self.connection.as_ref().map_or(self.under_way.len() as u64, |connection| connection.asked)
    }

    fn per_connection(&self) -> u64 {
        if self.role == Role::Crowd { u64::MAX } else { self.load.plan.per_connection.unwrap_or(u64::MAX) }
    }

    fn push(&mut self, intended: Instant, now: Instant) {
        let request = Request { target: self.load.plan.picker.pick(), intended, sent: now };
        self.under_way.push_back(request);
        let last = self.per_connection();
        if let Some(connection) = &mut self.connection {
            connection.asked += 1;
            self.load.plan.catalogue.append(request.target, connection.asked == last, self.queue.own());
        }
    }

    /// One step with requests under way: whatever fails is counted.
    async fn go_on(&mut self) {
        if let Err(failure) = self.try_to_go_on().await {
            self.fail(failure).await;
        }
        // What was read is still on its way through the line.
        if let Some(line) = self.connection.as_ref().and_then(|connection| connection.line.as_ref()) {
            let runtime = &self.load.runtime;
            let busy = line.busy(runtime.clock().now());
            if !busy.is_zero() {
                runtime.sleep(busy).await;
            }
        }
    }

    async fn try_to_go_on(&mut self) -> Result<(), Failure> {
        if self.connection.is_none() {
            self.connect().await?;
            self.ask_again();
        }
        self.send().await;
        match self.happening().await {
            Happening::Due => Ok(()),
            Happening::Received(Ok(chunk)) if chunk.is_empty() => self.ended(),
            Happening::Received(Ok(chunk)) => self.digest(&chunk),
            Happening::Received(Err(error)) => Err(failure_of(&error)),
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let load = Rc::clone(&self.load);
        let stream = load.connect().await.map_err(|_| Failure::Connect)?;
        self.reader.reset();
        self.queue.clear();
        let plan = &load.plan;
        let modem = plan.modem.filter(|_| self.role != Role::Crowd);
        let line = modem.map(|rate| Line::new(rate, plan.receive_buffer.unwrap_or(usize::MAX), Instant::now()));
        self.connection = Some(Connection { stream, asked: 0, line });
        load.count(self.role, |tally| tally.counts.connections += 1);
        if self.role == Role::Crowd {
            load.idle_connected.set(load.idle_connected.get() + 1);
        }
        Ok(())
    }

    /// Puts all that is under way onto a new connection.
    fn ask_again(&mut self) {
        let (now, last) = (Instant::now(), self.per_connection());
        let Some(connection) = &mut self.connection else { return };
        for request in &mut self.under_way {
            request.sent = now;
            connection.asked += 1;
            self.load.plan.catalogue.append(request.target, connection.asked == last, self.queue.own());
        }
    }

    /// Sends what is queued. An error is left for the receive that follows: it finds the answer that came before it, or the
    /// same error.
    async fn send(&mut self) {
        let Some(connection) = &self.connection else { return };
        let (stream, plan) = (&connection.stream, &self.load.plan);
        stream.deadline_in(plan.timeout);
        if self.queue.is_empty() {
            return;
        }
        let bytes = self.queue.len() as u64;
        self.load.count(self.role, |tally| tally.counts.sent += bytes);
        let Some(pause) = plan.trickle.filter(|_| self.role != Role::Crowd) else {
            if stream.send(&mut self.queue).await.is_err() {
                self.queue.clear();
            }
            return;
        };
        let mut request = std::mem::take(self.queue.own());
        self.queue.clear();
        // Of a request with a body the head goes at once.
        let slow = request.split_off(request.len() - plan.body.map_or(request.len(), |body| body.min(request.len())));
        let mut due = Instant::now();
        for piece in std::iter::once(&request[..]).filter(|head| !head.is_empty()).chain(slow.chunks(1)) {
            self.queue.own().extend_from_slice(piece);
            stream.deadline_in(plan.timeout);
            if stream.send(&mut self.queue).await.is_err() {
                self.queue.clear();
                return;
            }
            due += pause;
            self.load.runtime.sleep(due.saturating_duration_since(self.load.runtime.clock().now())).await;
        }
    }

    /// Waits for the answer; with room left, also for the next request.
    async fn happening(&mut self) -> Happening {
        let has_room = self.under_way.len() < self.depth && self.asked() < self.per_connection();
        let schedule = self.load.schedule.as_ref().filter(|_| has_room && self.role == Role::Open);
        let Some(connection) = &self.connection else {
            return Happening::Received(Err(io::ErrorKind::NotConnected.into()));
        };
        poll_fn(|context| {
            if schedule.is_some_and(|schedule| schedule.poll_due(self.number, Instant::now(), context).is_ready()) {
                return Poll::Ready(Happening::Due);
            }
            let received = match &connection.line {
                None => connection.stream.poll_recv(context),
                Some(line) => connection.stream.poll_recv_up_to(line.piece(), context),
            };
            received.map(Happening::Received)
        })
        .await
    }

    /// Reads what came, and counts the answers it completes.
    fn digest(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut now = Instant::now();
        if let Some(line) = self.connection.as_mut().and_then(|connection| connection.line.as_mut()) {
            // An answer is there when the line has carried it.
            now = line.carry(bytes.len(), now);
        }
        self.load.count(self.role, |tally| tally.counts.received += bytes.len() as u64);
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.under_way.is_empty() {
                // More than was asked for. The answers before it are counted.
                self.disconnect();
                return Err(Failure::BadAnswer);
            }
            let (used, answer) = self.reader.read(rest, self.load.plan.to_head).map_err(|_| Failure::BadAnswer)?;
            rest = &rest[used..];
            if let Some(answer) = answer {
                self.answered(answer, now);
                if !answer.keep_alive {
                    // What else is under way is asked again on the next connection (RFC 9112 section 9.3.2).
                    self.disconnect();
                    return Ok(());
                }
            }
        }
        if self.under_way.is_empty() && self.asked() >= self.per_connection() {
            self.disconnect();
        }
        Ok(())
    }

    fn answered(&mut self, answer: Answer, now: Instant) {
        let Some(request) = self.under_way.pop_front() else { return };
        if request.intended >= self.load.measured_from.get() {
            let is_wrong = match self.load.plan.expect_status {
                Some(expected) => answer.status != expected,
                None => answer.status >= 400,
            };
            self.load.count(self.role, |tally| {
                tally.counts.answer(answer.status, answer.body);
                let from_sending = now.saturating_duration_since(request.sent);
                if is_wrong {
                    tally.counts.errors.add(Failure::Status, 1);
                    tally.refused.record(from_sending);
                    return;
                }
                tally.latency.record(now.saturating_duration_since(request.intended));
                if let Some(service) = &mut tally.service {
                    service.record(from_sending);
                }
            });
        }
        if self.role != Role::Crowd {
            self.load.ended(1);
        }
    }

    /// The server has finished sending.
    fn ended(&mut self) -> Result<(), Failure> {
        match self.reader.end() {
            Ending::Whole(answer) => {
                self.answered(answer, Instant::now());
                self.disconnect();
                Ok(())
            }
            Ending::Between => Err(Failure::Closed),
            Ending::Short => Err(Failure::ShortBody),
        }
    }

    /// All that is under way has failed.
    async fn fail(&mut self, failure: Failure) {
        self.disconnect();
        let measured_from = self.load.measured_from.get();
        let all = self.under_way.len() as u64;
        let measured = match all {
            // Nothing was asked, and yet something came.
            0 => u64::from(Instant::now() >= measured_from),
            _ => self.under_way.iter().filter(|request| request.intended >= measured_from).count() as u64,
        };
        self.under_way.clear();
        self.load.count(self.role, |tally| tally.counts.errors.add(failure, measured));
        if self.role != Role::Crowd && all > 0 {
            self.load.ended(all);
        }
        if failure == Failure::Connect {
            if let Some(schedule) = &self.load.schedule {
                schedule.leave(self.number);
            }
            self.load.runtime.sleep(BEFORE_ANOTHER_TRY).await;
        }
    }

    fn disconnect(&mut self) {
        if self.connection.take().is_some() && self.role == Role::Crowd {
            self.load.idle_connected.set(self.load.idle_connected.get() - 1);
        }
        self.reader.reset();
        self.queue.clear();
    }

    async fn wait_for_the_beginning(&mut self) {
        let load = Rc::clone(&self.load);
        self.unless_closed(load.start.wait()).await;
    }

    /// Waits for a due request of the schedule; meanwhile the server may close the connection.
    async fn wait_for_work(&mut self) {
        let load = Rc::clone(&self.load);
        let Some(schedule) = &load.schedule else { return };
        let number = self.number;
        self.unless_closed(poll_fn(|context| schedule.poll_due(number, Instant::now(), context))).await;
    }

    async fn rest_until(&mut self, due: Instant) {
        let delay = due.saturating_duration_since(self.load.runtime.clock().now());
        let sleep = self.load.runtime.sleep(delay);
        self.unless_closed(sleep).await;
    }

    /// Waits for `what`. A connection that the server closes meanwhile is counted and made again when it is needed.
    async fn unless_closed(&mut self, what: impl Future<Output = ()>) {
        let mut what = pin!(what);
        if let Some(Connection { stream, line, .. }) = &self.connection {
            stream.no_deadline();
            let is_over = poll_fn(|context| {
                if what.as_mut().poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                match line {
                    None => stream.poll_recv(context).map(|_| false),
                    Some(_) => stream.poll_recv_up_to(1, context).map(|_| false),
                }
            })
            .await;
            if is_over {
                return;
            }
            self.disconnect();
            self.load.count(self.role, |tally| tally.counts.closed_idle += 1);
        }
        what.await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.disconnect();
    }
}

fn failure_of(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::TimedOut { Failure::Timeout } else { Failure::Reset }
}

/// So that a server that refuses is not asked a hundred thousand times a second.
const BEFORE_ANOTHER_TRY: Duration = Duration::from_millis(100);

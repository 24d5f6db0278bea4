//! Conversations: what is said on one connection, from its first byte to its last.

mod busy;
mod encode;
pub mod h1;
mod linger;
mod pace;
mod standing;
mod survive;

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use amped_runtime::disk::Helpers;
use amped_runtime::net::Stream;
use amped_runtime::{Runtime, SendQueue};
use amped_wire::head::Request;
use amped_wire::status::Status;

use self::encode::CommonHead;
use self::survive::Panicked;
pub use self::survive::watch as watch_panics;
use crate::answer::files::Budget;
use crate::answer::reply::Reply;
use crate::answer::{Answer, Answers};
use crate::config::choice::DiskMode;
use crate::config::plan::Limits;
use crate::observe::access_log::Log;
use crate::observe::counters::Counters;
use crate::observe::samples::Sampler;
use crate::overload::{Clients, Gate};

/// What all conversations of a worker share.
#[derive(Debug)]
pub struct Context {
    runtime: Rc<Runtime>,
    /// Who answers, by the plan of the day: a reload exchanges it between two requests.
    answers: RefCell<Rc<Answers>>,
    /// Who waits for the disk.
    pub helpers: Helpers,
    /// Where it is counted.
    pub counters: Arc<Counters>,
    /// Where it is logged, if it is.
    pub log: Option<Log>,
    /// What is given up when there is too much to do.
    pub gate: Rc<Gate>,
    /// What one client may have, if that is limited.
    pub clients: Option<Arc<Clients>>,
    /// Who is looked at closely.
    pub sampler: Sampler,
    common_head: CommonHead,
    draining: Cell<bool>,
    /// When idle connections were last ended to make room.
    reaped_at: Cell<u64>,
    /// Bytes of an answer have been on their way to the kernel since this was last cleared.
    sending: Cell<bool>,
    budget: Budget,
    /// Send queues that nobody uses now; only a conversation that is busy holds one.
    spare: RefCell<Vec<SendQueue>>,
}

impl Context {
    /// A worker's context.
    pub fn new(
        answers: Rc<Answers>,
        helpers: Helpers,
        counters: Arc<Counters>,
        log: Option<Log>,
        clients: Option<Arc<Clients>>,
    ) -> Rc<Self> {
        Rc::new(Self {
            gate: Rc::clone(answers.gate()),
            clients,
            runtime: Rc::clone(answers.runtime()),
            answers: RefCell::new(answers),
            helpers,
            sampler: Sampler::new(&counters),
            counters,
            log,
            common_head: CommonHead::default(),
            draining: Cell::new(false),
            reaped_at: Cell::new(0),
            sending: Cell::new(false),
            budget: Budget::default(),
            spare: RefCell::default(),
        })
    }

    /// The worker's loop.
    pub fn runtime(&self) -> &Rc<Runtime> {
        &self.runtime
    }

    /// Who answers a request that comes now.
    pub fn answers(&self) -> Ref<'_, Rc<Answers>> {
        self.answers.borrow()
    }

    /// Has requests from now on answered by another plan; those under way end by the one they began with.
    pub fn exchange(&self, answers: Rc<Answers>) {
        drop(self.answers.replace(answers));
    }

    /// Timeouts and bounds. Not to be kept: a reload may come in any wait.
    pub fn limits(&self) -> Ref<'_, Limits> {
        Ref::map(self.answers.borrow(), |answers| &answers.plan().limits)
    }

    fn disk(&self) -> DiskMode {
        self.answers.borrow().plan().disk
    }

    /// From now on every answer is its connection's last. Idle connections go on waiting until `Runtime::end_idle`.
    pub fn drain(&self) {
        self.draining.set(true);
    }

    fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Ends the connections of this worker that have idled longest, at most `count` and at most once in `REAP_INTERVAL_MS`: finding
    /// them means looking at all.
    pub fn reap(&self, count: usize) {
        let now = self.runtime().clock().ticks();
        if now.saturating_sub(self.reaped_at.get()) < REAP_INTERVAL_MS {
            return;
        }
        self.reaped_at.set(now);
        let least = self.gate.reap_idle();
        let left = self.limits().idle_timeout.saturating_sub(least);
        let reaped = self.runtime().end_longest_idle(count.max(1), left);
        self.counters.reaped.add(reaped as u64);
    }

    /// How long a connection may wait for its next request.
    fn idle_timeout(&self) -> Duration {
        self.gate.idle_timeout(self.limits().idle_timeout)
    }

    /// Whether the connection of a request goes on after its answer, as far as the server is concerned.
    fn keeps_alive(&self) -> bool {
        let closes = self.gate.closes();
        self.counters.closed_to_save.add(u64::from(closes));
        !closes && !self.is_draining()
    }

    /// The answer to a request; 429 when its client has asked too often, 500 when looking it up panics.
    fn answer(&self, request: &Request<'_>, stream: &Stream) -> Answer {
        if let Some(clients) = &self.clients
            && let Some(peer) = busy::peer(stream)
            && let Err(seconds) = clients.ask(peer, self.runtime().clock().ticks())
        {
            self.counters.client_requests_refused.add(1);
            return Answer::Ready(self.answers().too_many(request, seconds));
        }
        survive::guard(|| self.answers().answer(request))
            .unwrap_or_else(|panicked| Answer::Ready(self.answer_panic(&panicked, &self.answers().describe(request))))
    }

    /// Counts and logs a panic; its request is answered so.
    fn answer_panic(&self, panicked: &Panicked, what: &[u8]) -> Reply {
        self.counters.panics.add(1);
        panicked.log(what, "it is answered 500, and its connection ends");
        self.answers().refuse(Status::INTERNAL_SERVER_ERROR, "")
    }

    fn take_queue(&self) -> SendQueue {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    fn put_queue(&self, mut queue: SendQueue) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            queue.clear();
            spare.push(queue);
        }
    }
}

const MAX_SPARE: usize = 64;
const REAP_INTERVAL_MS: u64 = 10;

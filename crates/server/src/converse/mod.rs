//! Conversations: what is said on one connection, from its first byte to its last.

mod busy;
mod encode;
pub mod h1;
mod linger;

use std::cell::{Cell, Ref, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use amped_runtime::disk::Helpers;
use amped_runtime::{Runtime, SendQueue};

use self::encode::CommonHead;
use crate::answer::Answers;
use crate::answer::files::Budget;
use crate::config::choice::DiskMode;
use crate::config::plan::Limits;
use crate::observe::access_log::Log;
use crate::observe::counters::Counters;

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
    common_head: CommonHead,
    draining: Cell<bool>,
    budget: Budget,
    /// Send queues that nobody uses now; only a conversation that is busy holds one.
    spare: RefCell<Vec<SendQueue>>,
}

impl Context {
    /// A worker's context.
    pub fn new(answers: Rc<Answers>, helpers: Helpers, counters: Arc<Counters>, log: Option<Log>) -> Rc<Self> {
        Rc::new(Self {
            runtime: Rc::clone(answers.runtime()),
            answers: RefCell::new(answers),
            helpers,
            counters,
            log,
            common_head: CommonHead::default(),
            draining: Cell::new(false),
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

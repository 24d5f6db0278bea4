//! Helpers: a bounded pool of threads for whatever can block, shared by all loops.
//!
//! Jobs wait in one queue, first in first out. When the queue is a standing one (`codel`) or half full the disk is short of what is
//! asked of it: those go first for which the most have asked, since one read answers them all, and of those for which as many
//! have the newest, because the oldest have waited so long that their clients are likely to give up anyway. Essential ones,
//! which are not refused, have every other turn. Who has waited too long is refused, and who cannot be served in time is refused at
//! once; when the queue is full the oldest for which one has asked is refused, so a newcomer always has a chance. A job whose `Job`
//! was dropped is never run. Urgent jobs (revalidation of what memory holds) have a queue and one thread of their own, so that helpers
//! held by a dead disk do not hold them too; while that one is stuck, those of other folders go to the others.
//!
//! A helper whose job takes more than a second counts as stuck. A folder with half of the helpers stuck in it gets no more of
//! them, and stuck ones are replaced, up to as many as there were: a dead mount starves nobody else.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::codel::Codel;
use super::job::Job;
use super::line::{Line, Waiting};
use super::priority::yield_to_loops;
use crate::clock;
use crate::meter::{BUCKETS, bucket};

/// A handle on the pool; clones share it.
#[derive(Clone, Debug)]
pub struct Helpers(Arc<Pool>);

/// Which queue a job waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A request waits for it.
    Serve,
    /// Likewise, and it is not refused for having to wait.
    Essential,
    /// Likewise, and it is the first to be refused.
    Sheddable,
    /// Memory answers meanwhile; small and quick unless the disk is in trouble.
    Urgent,
}

/// What the pool is doing, for the log and the admin page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Threads started.
    pub threads: usize,
    /// Helpers with a job.
    pub busy: usize,
    /// Helpers whose job has taken more than a second so far: a disk in trouble.
    pub stuck: usize,
    /// Jobs waiting.
    pub queued: usize,
    /// Jobs run.
    pub ran: u64,
    /// Jobs refused, for whichever reason.
    pub refused: u64,
    /// Those of them that had waited too long in a standing queue.
    pub late: u64,
    /// Those of them that were refused at once, because they would have to wait too long.
    pub no_room: u64,
    /// How often the queue has become a standing one.
    pub incidents: u64,
    /// Whether it is one now.
    pub standing: bool,
    /// Helpers started in place of stuck ones.
    pub replaced: u64,
    /// Jobs that panicked.
    pub panicked: u64,
    /// Jobs dropped because nobody wanted them any more.
    pub dropped: u64,
    /// The queue's delay, a moving average.
    pub delay: Duration,
    /// The longest a job has waited before a helper began it.
    pub longest_delay: Duration,
    /// Jobs by how long they waited: bucket i counts delays of less than 2^i microseconds (and at least half that), the last one
    /// all that are longer.
    pub delays: [u64; BUCKETS],
    /// What all jobs have waited together.
    pub total_delay: Duration,
}

#[derive(Debug)]
pub(crate) struct Pool {
    queues: Mutex<Queues>,
    /// To the line: the place of a job for which twice as many have asked as before.
    doublings: Sender<u64>,
    work: Condvar,
    urgent_work: Condvar,
    origin: Instant,
    helpers: usize,
    bound: usize,
    /// By helper: when its job began, in milliseconds since `origin` plus one; 0 while it has none. Helper 0 is the urgent one.
    began: Vec<AtomicU64>,
    /// By helper: the folder of its job.
    folders: Vec<AtomicUsize>,
    ran: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    delay_us: AtomicU64,
    longest_delay_us: AtomicU64,
    delays: [AtomicU64; BUCKETS],
    total_delay_ns: AtomicU64,
    queued: AtomicUsize,
    late: AtomicU64,
    no_room: AtomicU64,
    replaced: AtomicU64,
    panicked: AtomicU64,
    is_standing: AtomicBool,
    is_wary: AtomicBool,
    /// Nothing of other folders waits behind the urgent helper's present job.
    is_relieved: AtomicBool,
}

struct Queues {
    serve: Line,
    urgent: VecDeque<Waiting>,
    threads: usize,
    idle: usize,
    urgent_thread: bool,
    /// Places of helpers that have ended.
    free: Vec<usize>,
    codel: Codel,
}

impl Helpers {
    /// A pool of at most `helpers` threads (plus one for urgent jobs), started when first needed, and at most `bound` waiting
    /// jobs.
    pub fn new(helpers: usize, bound: usize) -> Self {
        Self::with_target(helpers, bound, Duration::from_secs(3600))
    }

    /// The same, of which no job is to wait longer than about `target` once the queue does not drain any more.
    pub fn with_target(helpers: usize, bound: usize, target: Duration) -> Self {
        let helpers = helpers.max(1);
        let (serve, doublings) = Line::new();
        let queues = Queues {
            serve,
            urgent: VecDeque::new(),
            threads: 0,
            idle: 0,
            urgent_thread: false,
            free: Vec::new(),
            codel: Codel::new(target.as_micros() as u64),
        };
        Self(Arc::new(Pool {
            queues: Mutex::new(queues),
            doublings,
            work: Condvar::new(),
            urgent_work: Condvar::new(),
            origin: clock::read(),
            helpers,
            bound: bound.max(1),
            began: (0..=helpers * 2).map(|_| AtomicU64::new(0)).collect(),
            folders: (0..=helpers * 2).map(|_| AtomicUsize::new(0)).collect(),
            late: AtomicU64::new(0),
            no_room: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            panicked: AtomicU64::new(0),
            is_standing: AtomicBool::new(false),
            is_wary: AtomicBool::new(false),
            is_relieved: AtomicBool::new(false),
            ran: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            delay_us: AtomicU64::new(0),
            longest_delay_us: AtomicU64::new(0),
            delays: Default::default(),
            total_delay_ns: AtomicU64::new(0),
            queued: AtomicUsize::new(0),
        }))
    }

    /// Lets a helper run `call`. When the queue is full, its oldest job is refused to make room.
    pub fn submit<T: Send + 'static>(&self, class: Class, call: impl FnOnce() -> T + Send + 'static) -> Job<T> {
        self.submit_in(0, class, call)
    }

    /// `submit`, for a job in a folder (any number that tells folders apart; 0 is no folder): one that hangs then cannot hold
    /// all helpers.
    pub fn submit_in<T: Send + 'static>(
        &self,
        folder: usize,
        class: Class,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Job<T> {
        let (job, work) = Job::new(call);
        self.0.enqueue(Waiting::new(class, folder, work, clock::read()));
        job
    }

    /// One more asks for a job: what many ask for goes first when the disk is short of what is asked of it.
    pub fn join<T>(&self, job: &Job<T>) {
        if let Some(place) = job.join() {
            // The receiver lives as long as the pool does.
            let _ = self.0.doublings.send(place);
        }
    }

    /// Urgent jobs that wait behind a stuck one go to the other helpers, but for those of the folder it is stuck in. To be called by
    /// whoever has waited for long; a later urgent job does it too.
    pub fn relieve(&self) {
        self.0.relieve();
    }

    /// Whether the oldest jobs do not go first any more: the queue is a standing one, or half full.
    pub fn is_overloaded(&self) -> bool {
        self.0.is_standing.load(Relaxed) || self.0.queued.load(Relaxed) * 2 >= self.0.bound
    }

    /// Whether the next job may be refused: the queue is, or lately was, a standing one, or it is half full.
    pub fn may_refuse(&self) -> bool {
        self.0.is_wary.load(Relaxed) || self.is_overloaded()
    }

    /// What the pool is doing now.
    pub fn stats(&self) -> Stats {
        let pool = &self.0;
        let busy = pool.began.iter().filter(|began| began.load(Relaxed) != 0).count();
        let now = pool.millis();
        let stuck = pool.began.iter().filter(|began| is_stuck(began, now)).count();
        let queues = pool.lock();
        Stats {
            threads: queues.threads + usize::from(queues.urgent_thread),
            busy,
            stuck,
            queued: queues.serve.len() + queues.urgent.len(),
            ran: pool.ran.load(Relaxed),
            refused: pool.refused.load(Relaxed),
            late: pool.late.load(Relaxed),
            no_room: pool.no_room.load(Relaxed),
            incidents: queues.codel.incidents,
            standing: queues.codel.is_standing(),
            replaced: pool.replaced.load(Relaxed),
            panicked: pool.panicked.load(Relaxed),
            dropped: pool.dropped.load(Relaxed),
            delay: Duration::from_micros(pool.delay_us.load(Relaxed)),
            longest_delay: Duration::from_micros(pool.longest_delay_us.load(Relaxed)),
            delays: std::array::from_fn(|place| pool.delays[place].load(Relaxed)),
            total_delay: Duration::from_nanos(pool.total_delay_ns.load(Relaxed)),
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> u64 {
        clock::read().saturating_duration_since(self.origin).as_millis() as u64 + 1
    }

    fn micros(&self) -> u64 {
        clock::read().saturating_duration_since(self.origin).as_micros() as u64
    }

    /// The folders in which helpers are stuck, one entry for each. The urgent one has its own queue: where it is stuck says nothing
    /// about how many others a folder holds, and nobody is woken when it is free again.
    fn stuck(&self) -> impl Iterator<Item = usize> {
        let now = self.millis();
        let helpers = self.began.iter().zip(&self.folders).skip(1);
        helpers.filter(move |(began, _)| is_stuck(began, now)).map(|(_, folder)| folder.load(Relaxed))
    }

    /// Whether a folder holds as many of the helpers that are stuck in these as it may.
    fn is_full_of(&self, stuck: &[usize], folder: usize) -> bool {
        folder != 0 && stuck.iter().filter(|stuck| **stuck == folder).count() >= self.helpers.div_ceil(2)
    }

    fn enqueue(self: &Arc<Self>, waiting: Waiting) {
        let (class, folder) = (waiting.class, waiting.folder);
        let mut queues = self.lock();
        if class == Class::Urgent {
            if self.is_stuck_elsewhere(folder) {
                drop(queues);
                self.relieve();
                return self.enqueue(waiting.for_any_helper());
            }
            queues.urgent.push_back(waiting);
            let needs_thread = !std::mem::replace(&mut queues.urgent_thread, true);
            drop(queues);
            return self.start_or_notify(needs_thread.then_some(0), class);
        }
        // Who has waited too long is told now: the helpers may all be busy for a while.
        let late = Self::late(&mut queues);
        self.late.fetch_add(u64::from(late.as_ref().is_some_and(|late| late.work.is_wanted())), Relaxed);
        // Jobs that idle helpers are about to take do not wait.
        let free = queues.idle + self.helpers.saturating_sub(queues.threads);
        if queues.serve.is_empty() && queues.codel.is_wary() && queues.codel.forget(self.micros()) {
            self.publish(&queues.codel);
        }
        let has_room = match class {
            Class::Sheddable => !queues.codel.is_standing(),
            Class::Serve => {
                let waiting = queues.serve.len().saturating_sub(free);
                queues.codel.admits(waiting)
            }
            Class::Essential | Class::Urgent => true,
        };
        if !has_room {
            drop(queues);
            self.no_room.fetch_add(1, Relaxed);
            return late.into_iter().chain([waiting]).for_each(|waiting| self.turn_away(waiting));
        }
        let evicted = if queues.serve.len() >= self.bound { queues.serve.pop_least_wanted() } else { None };
        queues.serve.push(waiting);
        self.queued.store(queues.serve.len(), Relaxed);
        // An idle helper that has been woken and has not come yet still counts as idle, so more jobs than idle helpers need one.
        let needs_thread = queues.serve.len() > queues.idle
            && (queues.threads < self.helpers || (queues.idle == 0 && self.may_replace(queues.threads, folder)));
        let number = if needs_thread {
            self.replaced.fetch_add(u64::from(queues.threads >= self.helpers), Relaxed);
            queues.threads += 1;
            let next = queues.threads;
            queues.free.pop().unwrap_or(next)
        } else {
            0
        };
        drop(queues);
        evicted.into_iter().chain(late).for_each(|waiting| self.turn_away(waiting));
        self.start_or_notify(needs_thread.then_some(number), class);
    }

    /// Whether the urgent helper is stuck in another folder than this one.
    fn is_stuck_elsewhere(&self, folder: usize) -> bool {
        let is_same = folder != 0 && self.folders[0].load(Relaxed) == folder;
        !is_same && is_stuck(&self.began[0], self.millis())
    }

    /// Once for each job that is stuck: what comes later does not wait behind it.
    fn relieve(self: &Arc<Self>) {
        if !is_stuck(&self.began[0], self.millis()) || self.is_relieved.swap(true, Relaxed) {
            return;
        }
        let mut queues = self.lock();
        let (free, held): (VecDeque<_>, _) =
            std::mem::take(&mut queues.urgent).into_iter().partition(|waiting| self.is_stuck_elsewhere(waiting.folder));
        queues.urgent = held;
        drop(queues);
        free.into_iter().for_each(|waiting| self.enqueue(waiting.for_any_helper()));
    }

    /// Whether there may be one more than `threads`, for a job in `folder`: in place of a stuck one.
    fn may_replace(&self, threads: usize, folder: usize) -> bool {
        let stuck: Vec<usize> = self.stuck().collect();
        threads < self.helpers + stuck.len().min(self.helpers) && !self.is_full_of(&stuck, folder)
    }

    fn turn_away(&self, evicted: Waiting) {
        let counter = if evicted.work.is_wanted() { &self.refused } else { &self.dropped };
        counter.fetch_add(1, Relaxed);
        evicted.work.refuse();
    }

    fn start_or_notify(self: &Arc<Self>, thread: Option<usize>, class: Class) {
        if thread.is_some_and(|number| self.start(class, number).is_ok()) {
            return;
        }
        simulated!(|world| world.call_helpers(class == Class::Urgent, false));
        match class {
            Class::Urgent => self.urgent_work.notify_one(),
            _ => self.work.notify_one(),
        }
    }

    fn start(self: &Arc<Self>, class: Class, number: usize) -> io::Result<()> {
        match self.spawn(class, number) {
            Ok(()) => Ok(()),
            Err(error) => {
                // No thread to be had now (a limit, memory): those there are go on, and the next job tries again. Where there is
                // none, nobody would ever come for what waits, and who asks for the same file would wait for it too.
                let mut queues = self.lock();
                let is_alone = match class {
                    Class::Urgent => {
                        queues.urgent_thread = false;
                        true
                    }
                    _ => {
                        queues.threads -= 1;
                        queues.free.push(number);
                        queues.threads == 0
                    }
                };
                let orphans: Vec<_> = match class {
                    _ if !is_alone => Vec::new(),
                    Class::Urgent => std::mem::take(&mut queues.urgent).into(),
                    _ => queues.serve.take().collect(),
                };
                self.queued.store(queues.serve.len(), Relaxed);
                drop(queues);
                orphans.into_iter().for_each(|orphan| self.turn_away(orphan));
                Err(error)
            }
        }
    }

    fn spawn(self: &Arc<Self>, class: Class, number: usize) -> io::Result<()> {
        simulated!(|world| world.start_helper(self, class, number));
        let pool = Arc::clone(self);
        let name = if class == Class::Urgent { "amped-urgent" } else { "amped-helper" };
        let thread = std::thread::Builder::new().name(name.into()).stack_size(STACK);
        thread.spawn(move || pool.help(class, number)).map(drop)
    }

    /// A helper's life.
    fn help(&self, class: Class, number: usize) {
        yield_to_loops();
        loop {
            let waiting = self.next(class);
            self.begins(number, &waiting);
            if self.run(class, number, waiting) {
                return;
            }
        }
    }

    /// A helper has a job.
    pub(crate) fn begins(&self, number: usize, waiting: &Waiting) {
        if number == 0 {
            self.is_relieved.store(false, Relaxed);
        }
        self.folders[number].store(waiting.folder, Relaxed);
        self.began[number].store(self.millis(), Relaxed);
    }

    /// A helper does its job; says whether it is its last one.
    pub(crate) fn run(&self, class: Class, number: usize, waiting: Waiting) -> bool {
        let mut is_whole = true;
        survive(|| is_whole = waiting.work.run());
        let began = self.began[number].swap(0, Relaxed);
        self.ran.fetch_add(1, Relaxed);
        self.panicked.fetch_add(u64::from(!is_whole), Relaxed);
        self.millis() - began > STUCK_MS && class != Class::Urgent && self.is_surplus(number)
    }

    /// A stuck helper is free again: others may go on with its folder, and its replacement or itself is one too many.
    fn is_surplus(&self, number: usize) -> bool {
        let mut queues = self.lock();
        let is_surplus = queues.threads > self.helpers;
        if is_surplus {
            queues.threads -= 1;
            queues.free.push(number);
        }
        drop(queues);
        self.notify_all();
        is_surplus
    }

    fn notify_all(&self) {
        simulated!(|world| world.call_helpers(false, true));
        self.work.notify_all();
    }

    /// Waits for a job.
    fn next(&self, class: Class) -> Waiting {
        let mut queues = self.lock();
        loop {
            let found;
            (queues, found) = self.find(queues, class);
            if let Some(waiting) = found {
                return waiting;
            }
            queues.idle += usize::from(class != Class::Urgent);
            let signal = if class == Class::Urgent { &self.urgent_work } else { &self.work };
            queues = signal.wait(queues).unwrap_or_else(PoisonError::into_inner);
            queues.idle -= usize::from(class != Class::Urgent);
        }
    }

    /// A job that is worth doing, if there is one: what is met on the way and is not, is turned away.
    fn find<'a>(
        &'a self,
        mut queues: MutexGuard<'a, Queues>,
        class: Class,
    ) -> (MutexGuard<'a, Queues>, Option<Waiting>) {
        loop {
            let waiting = match class {
                Class::Urgent => queues.urgent.pop_front(),
                _ => self.choose(&mut queues),
            };
            self.queued.store(queues.serve.len(), Relaxed);
            match waiting {
                Some(waiting) if waiting.work.is_wanted() => {
                    let now = clock::read();
                    let waited = |waiting: &Waiting| now.saturating_duration_since(waiting.since);
                    self.note_delay(waited(&waiting));
                    let [delay, oldest] = [Some(&waiting), queues.serve.oldest()]
                        .map(|waiting| waiting.map_or(0, |waiting| waited(waiting).as_micros() as u64));
                    let is_late = class != Class::Urgent && queues.codel.leaves(self.micros(), delay, oldest);
                    self.publish(&queues.codel);
                    if is_late && waiting.class != Class::Essential {
                        drop(queues);
                        self.late.fetch_add(1, Relaxed);
                        survive(|| self.turn_away(waiting));
                        queues = self.lock();
                        continue;
                    }
                    return (queues, Some(waiting));
                }
                Some(unwanted) => {
                    self.dropped.fetch_add(1, Relaxed);
                    // What it holds may be slow to let go of (a file on a dead disk), so nobody may be made to wait for the lock.
                    drop(queues);
                    survive(|| drop(unwanted));
                    queues = self.lock();
                }
                None => {
                    if class != Class::Urgent && queues.serve.is_empty() {
                        queues.codel.is_empty(self.micros());
                        self.publish(&queues.codel);
                    }
                    return (queues, None);
                }
            }
        }
    }

    /// `next` of a simulated helper, which counts as idle when there is no job.
    #[cfg(feature = "sim")]
    pub(crate) fn try_next(&self, class: Class) -> Option<Waiting> {
        let (mut queues, found) = self.find(self.lock(), class);
        queues.idle += usize::from(found.is_none() && class != Class::Urgent);
        found
    }

    /// A simulated helper is not idle any more.
    #[cfg(feature = "sim")]
    pub(crate) fn wakes(&self, class: Class) {
        self.lock().idle -= usize::from(class != Class::Urgent);
    }

    /// The next job: the oldest, or in a bad queue the most wanted, of those whose folder may have another helper. The oldest that
    /// has waited too long comes before it, to be refused: its client should know.
    fn choose(&self, queues: &mut Queues) -> Option<Waiting> {
        if let Some(late) = Self::late(queues) {
            return Some(late);
        }
        let is_bad = queues.codel.is_standing() || queues.serve.len() * 2 >= self.bound;
        let stuck: Vec<usize> = self.stuck().collect();
        let lives = |waiting: &Waiting| !self.is_full_of(&stuck, waiting.folder);
        if is_bad { queues.serve.pop_most_wanted(lives) } else { queues.serve.pop_first(lives) }
    }

    /// Tells those who do not hold the queues' lock.
    fn publish(&self, codel: &Codel) {
        self.is_standing.store(codel.is_standing(), Relaxed);
        self.is_wary.store(codel.is_wary(), Relaxed);
    }

    /// The oldest, if it has waited too long.
    fn late(queues: &mut Queues) -> Option<Waiting> {
        let oldest = queues.serve.oldest()?;
        let is_late = queues.codel.is_late(clock::read().saturating_duration_since(oldest.since).as_micros() as u64);
        if is_late { queues.serve.pop_oldest() } else { None }
    }

    /// Called under the queues' lock, so load and store suffice.
    fn note_delay(&self, delay: Duration) {
        let nanos = delay.as_nanos() as u64;
        let count = &self.delays[bucket(nanos)];
        count.store(count.load(Relaxed) + 1, Relaxed);
        self.total_delay_ns.store(self.total_delay_ns.load(Relaxed) + nanos, Relaxed);
        let delay = delay.as_micros() as u64;
        let average = self.delay_us.load(Relaxed);
        self.delay_us.store((average * 7 + delay) / 8, Relaxed);
        if delay > self.longest_delay_us.load(Relaxed) {
            self.longest_delay_us.store(delay, Relaxed);
        }
    }
}

fn is_stuck(began: &AtomicU64, now: u64) -> bool {
    let began = began.load(Relaxed);
    began != 0 && now.saturating_sub(began) > STUCK_MS
}

/// A job's own panic is its `Refused`; this is for the destructors of what it leaves behind. They cost no helper either.
fn survive(step: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(step));
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Queues").field("serve", &self.serve.len()).finish_non_exhaustive()
    }
}

/// A helper's job that takes longer than this is counted as stuck.
const STUCK_MS: u64 = 1000;
/// Helpers call nothing deep; many of them should cost little.
const STACK: usize = 256 * 1024;

//! The turn-time meter: the promise "never blocked" is measured, always.
//!
//! A turn is what one request can be made to wait for others. Two clock reads a turn (50 ns, shared by all requests of the
//! turn) and plain stores; anyone may read from another thread.
//!
//! A long turn has computed, or blocked, or been put aside for others (a thread, the kernel's own, another guest of the same
//! machine). Only the first two are the server's doing, so the longest turn says how much of it the processor worked for it.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;

/// One loop's turns: how many of which length, and the longest. Written by its loop only.
#[derive(Debug)]
pub struct Meter {
    origin: Instant,
    /// Bucket i counts turns of less than 2^i microseconds (and at least half that).
    buckets: [AtomicU64; BUCKETS],
    /// All turns together.
    total_ns: AtomicU64,
    longest_ns: AtomicU64,
    /// The shortest turn since somebody last asked for it.
    shortest_ns: AtomicU64,
    worst: Mutex<Option<Worst>>,
    /// The slowest timed step of the present turn.
    step_ns: AtomicU64,
    step: Mutex<&'static str>,
    /// What the thread had used when a turn last began, read once a millisecond at most, and when that was.
    used: [AtomicU64; 3],
    used_read_us: AtomicU64,
    overflows: AtomicU64,
    /// Twice the count of turns, and one more while a turn is under way; and whose they are.
    pulse: AtomicU64,
    thread: AtomicI32,
}

/// The longest turn so far.
#[derive(Clone, Copy, Debug)]
pub struct Worst {
    /// How long the turn took.
    pub took: Duration,
    /// How long after the loop was made it ended.
    pub after: Duration,
    /// Tasks that ran in it.
    pub tasks: usize,
    /// Its slowest timed step, "tasks" when none was timed, and how long that took.
    pub step: (&'static str, Duration),
    /// Processor time of the turn, at most (up to a millisecond before it may be counted in).
    pub processor: Duration,
    /// How often the thread gave the processor up in that time: it slept, in a wait or in a call that blocked.
    pub blocked: u64,
    /// How often the processor was taken from it.
    pub preempted: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            origin: clock::read(),
            buckets: Default::default(),
            total_ns: AtomicU64::default(),
            longest_ns: AtomicU64::default(),
            shortest_ns: AtomicU64::new(u64::MAX),
            worst: Mutex::default(),
            step_ns: AtomicU64::default(),
            step: Mutex::default(),
            used: used().map(AtomicU64::new),
            used_read_us: AtomicU64::default(),
            overflows: AtomicU64::default(),
            pulse: AtomicU64::default(),
            thread: AtomicI32::default(),
        }
    }
}

impl Meter {
    /// Runs `step`, which might wait for something it should not, and remembers it if it is the turn's slowest.
    pub fn timed<T>(&self, name: &'static str, step: impl FnOnce() -> T) -> T {
        let start = clock::read();
        let result = step();
        let took = clock::read().saturating_duration_since(start).as_nanos() as u64;
        if took > self.step_ns.load(Relaxed) {
            self.step_ns.store(took, Relaxed);
            *self.step.lock().unwrap_or_else(PoisonError::into_inner) = name;
        }
        result
    }

    /// A turn ends, or begins.
    pub(crate) fn beat(&self) {
        self.pulse.store(self.pulse.load(Relaxed) + 1, Relaxed);
    }

    /// Whose turns they are; the loop's first turn is under way from here.
    pub(crate) fn belongs_here(&self) {
        self.thread.store(crate::stack::thread(), Relaxed);
        self.beat();
    }

    /// The turn that is under way, by its count; `None` while the loop waits. For whoever looks whether it ever ends.
    pub fn turn(&self) -> Option<u64> {
        let pulse = self.pulse.load(Relaxed);
        (pulse % 2 == 1).then_some(pulse / 2)
    }

    /// The kernel's number of the loop's thread; 0 before it runs.
    pub fn thread(&self) -> i32 {
        self.thread.load(Relaxed)
    }

    pub(crate) fn turn_began(&self, now: Instant) {
        let micros = now.duration_since(self.origin).as_micros() as u64;
        if micros.saturating_sub(self.used_read_us.load(Relaxed)) >= 1000 {
            self.used_read_us.store(micros, Relaxed);
            self.used.iter().zip(used()).for_each(|(kept, used)| kept.store(used, Relaxed));
        }
    }

    pub(crate) fn turn_ended(&self, began: Instant, tasks: usize) {
        let took = clock::read().saturating_duration_since(began);
        let nanos = took.as_nanos() as u64;
        let bucket = &self.buckets[bucket(nanos)];
        bucket.store(bucket.load(Relaxed) + 1, Relaxed);
        if nanos < self.shortest_ns.load(Relaxed) {
            self.shortest_ns.store(nanos, Relaxed);
        }
        self.total_ns.store(self.total_ns.load(Relaxed) + nanos, Relaxed);
        if nanos > self.longest_ns.load(Relaxed) {
            self.longest_ns.store(nanos, Relaxed);
            let step = match self.step_ns.load(Relaxed) {
                0 => ("tasks", took),
                nanos => (*self.step.lock().unwrap_or_else(PoisonError::into_inner), Duration::from_nanos(nanos)),
            };
            let [micros, blocked, preempted] = self.used_since();
            let processor = Duration::from_micros(micros).min(took);
            let after = (began + took).saturating_duration_since(self.origin);
            let worst = Worst { took, after, tasks, step, processor, blocked, preempted };
            *self.worst.lock().unwrap_or_else(PoisonError::into_inner) = Some(worst);
        }
        if self.step_ns.load(Relaxed) != 0 {
            self.step_ns.store(0, Relaxed);
        }
    }

    /// The shortest turn since the last call, for the loop itself: its lag. A request waits for about a turn before it is looked at;
    /// where even the shortest one was long, that is no accident. Zero when there was none.
    pub fn lag(&self) -> Duration {
        match self.shortest_ns.swap(u64::MAX, Relaxed) {
            u64::MAX => Duration::ZERO,
            nanos => Duration::from_nanos(nanos),
        }
    }

    fn used_since(&self) -> [u64; 3] {
        let mut since = used();
        since.iter_mut().zip(&self.used).for_each(|(used, before)| *used = used.saturating_sub(before.load(Relaxed)));
        since
    }

    /// The longest turn since the start, or since the last `reset`.
    pub fn worst(&self) -> Option<Worst> {
        *self.worst.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often the driver's queue of reports was full and everything was looked at instead (`sigio`).
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    pub(crate) fn overflowed(&self, so_far: u64) {
        self.overflows.store(so_far, Relaxed);
    }

    /// Turns by length: `(upper bound in microseconds, count)` for every bucket.
    pub fn histogram(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(index, count)| (1 << index, count.load(Relaxed)))
    }

    /// How long all turns took together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total_ns.load(Relaxed))
    }

    /// Turns so far.
    pub fn turns(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }
}

/// What this thread has used: processor time in microseconds, voluntary and involuntary switches (getrusage(2)).
fn used() -> [u64; 3] {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `usage` has room for what the call writes.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) } < 0 {
        return [0; 3];
    }
    // SAFETY: the call succeeded, so it has written the whole structure.
    let usage = unsafe { usage.assume_init() };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    [micros(usage.ru_utime) + micros(usage.ru_stime), usage.ru_nvcsw as u64, usage.ru_nivcsw as u64]
}

/// The place of a time among buckets of which number i holds what is below 2^i microseconds, and the last one the rest.
pub(crate) fn bucket(nanos: u64) -> usize {
    let micros = nanos / 1000;
    ((u64::BITS - micros.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// The last bucket holds everything from half a second up.
pub(crate) const BUCKETS: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two_microseconds() {
        assert_eq!(bucket(999), 0);
        assert_eq!(bucket(1_000), 1);
        assert_eq!(bucket(1_999), 1);
        assert_eq!(bucket(2_000), 2);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_longest_turn_names_its_slowest_step() {
        let meter = Meter::default();
        let began = Instant::now();
        meter.timed("open", || std::thread::sleep(Duration::from_millis(2)));
        meter.timed("read", || ());
        meter.turn_ended(began, 3);
        meter.turn_ended(Instant::now(), 1);
        let worst = meter.worst().expect("two turns ended");
        assert_eq!((worst.step.0, worst.tasks), ("open", 3));
        assert!(worst.took >= Duration::from_millis(2) && worst.after >= worst.took);
        assert!(worst.blocked >= 1, "the sleep gave the processor up");
        assert!(worst.processor < worst.took, "which did not work meanwhile");
        assert_eq!(meter.turns(), 2);
        assert!(meter.lag() < Duration::from_millis(1), "the shorter of the two");
        assert_eq!(meter.lag(), Duration::ZERO);
        assert_eq!((meter.turn(), meter.thread()), (None, 0));
        meter.belongs_here();
        assert_eq!((meter.turn(), meter.thread()), (Some(0), crate::stack::thread()));
        meter.beat();
        assert_eq!(meter.turn(), None);
        meter.beat();
        assert_eq!(meter.turn(), Some(1));
    }
}

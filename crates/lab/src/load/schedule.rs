//! The open loop's schedule: when each request is due, whatever the server does, and who sends it.
//!
//! Request k is due at `start + k / rate`. A connection with room takes the next due one; when none has room, requests wait
//! and their latency runs. So a server that stalls is charged for every request it delayed: there is no coordinated omission
//! (Tene, "How NOT to measure latency", 2013). Idle connections are woken in turn, so all are used alike.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use amped_runtime::{Alarm, Runtime};

/// The times of all requests of this process.
#[derive(Debug)]
pub struct Schedule {
    start: Cell<Instant>,
    rate: f64,
    /// Requests that have been taken.
    taken: Cell<u64>,
    /// Requests there are.
    limit: Cell<u64>,
    parked: RefCell<Parked>,
}

/// Connections that wait for a request to be due.
#[derive(Debug, Default)]
struct Parked {
    /// By connection: how to wake it, if it waits, and whether it stands in the queue.
    places: Vec<(Option<Waker>, bool)>,
    queue: VecDeque<u32>,
}

impl Schedule {
    /// `limit` requests at `rate` per second; the first is due when `begin` says so.
    pub fn new(rate: f64, limit: u64) -> Self {
        Self {
            start: Cell::new(Instant::now()),
            rate,
            taken: Cell::new(0),
            limit: Cell::new(limit),
            parked: RefCell::default(),
        }
    }

    /// The first request is due at `start`.
    pub fn begin(&self, start: Instant) {
        self.start.set(start);
    }

    /// No request after those due by now.
    pub fn cut(&self, now: Instant) {
        self.limit.set(self.due(now).max(self.taken.get()));
    }

    /// When request `number` is due.
    pub fn time_of(&self, number: u64) -> Instant {
        self.start.get() + Duration::from_nanos((number as f64 * (1e9 / self.rate)) as u64)
    }

    /// Takes the next request if it is due: its intended time.
    pub fn take(&self, now: Instant) -> Option<Instant> {
        let next = self.taken.get();
        let time = self.time_of(next);
        if next >= self.limit.get() || time > now {
            return None;
        }
        self.taken.set(next + 1);
        Some(time)
    }

    /// Requests that were never taken.
    pub fn left(&self) -> u64 {
        self.limit.get() - self.taken.get()
    }

    /// Ready when a request is due that nobody has taken.
    pub fn poll_due(&self, connection: u32, now: Instant, context: &mut Context<'_>) -> Poll<()> {
        let mut parked = self.parked.borrow_mut();
        let Parked { places, queue } = &mut *parked;
        let at = connection as usize;
        if at >= places.len() {
            places.resize(at + 1, (None, false));
        }
        let (waker, queued) = &mut places[at];
        if self.left() > 0 && self.time_of(self.taken.get()) <= now {
            *waker = None;
            return Poll::Ready(());
        }
        if !waker.as_ref().is_some_and(|present| present.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        if !*queued {
            *queued = true;
            queue.push_back(connection);
        }
        Poll::Pending
    }

    /// Wakes connections as requests become due, until all have been taken.
    ///
    /// # Errors
    /// When there is no timer to be had.
    pub async fn pace(self: Rc<Self>, runtime: Rc<Runtime>) -> io::Result<()> {
        let alarm = Alarm::new(&runtime)?;
        loop {
            let now = Instant::now();
            let due = self.due(now);
            self.wake(due.saturating_sub(self.taken.get()));
            if due >= self.limit.get() {
                // Who has room takes the rest without being woken; who waits was woken just now.
                return Ok(());
            }
            let next = self.time_of(due).saturating_duration_since(now);
            alarm.after(next.max(LEAST_WAIT)).await?;
        }
    }

    /// Requests due by `now`, taken or not.
    fn due(&self, now: Instant) -> u64 {
        let Some(passed) = now.checked_duration_since(self.start.get()) else { return 0 };
        // Rounding may put a request one early or late; `time_of` has the last word.
        let mut due = (passed.as_nanos() as f64 / (1e9 / self.rate)) as u64;
        while self.time_of(due) <= now {
            due += 1;
        }
        due.min(self.limit.get())
    }

    fn wake(&self, mut count: u64) {
        let mut parked = self.parked.borrow_mut();
        let Parked { places, queue } = &mut *parked;
        while count > 0
            && let Some(connection) = queue.pop_front()
        {
            let (waker, queued) = &mut places[connection as usize];
            *queued = false;
            // Without a waker it has found work by itself meanwhile.
            if let Some(waker) = waker.take() {
                waker.wake();
                count -= 1;
            }
        }
    }
}

/// Above 20,000 requests per second several leave at a time: a wake-up for each would cost more than the requests do.
const LEAST_WAIT: Duration = Duration::from_micros(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_times_and_once() {
        let schedule = Schedule::new(1000.0, 5);
        let start = Instant::now();
        schedule.begin(start);
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(schedule.take(at(0)), Some(start));
        assert_eq!(schedule.take(at(0)), None, "the second is due after a millisecond");
        assert_eq!(schedule.due(at(2)), 3);
        // A stall: all that came due meanwhile keep their own times.
        assert_eq!(schedule.take(at(500)), Some(at(1)));
        assert_eq!(schedule.take(at(500)), Some(at(2)));
        assert_eq!((schedule.due(at(500)), schedule.left()), (5, 2));
        schedule.cut(at(3));
        assert_eq!((schedule.take(at(500)), schedule.take(at(500))), (Some(at(3)), None));
    }

    #[test]
    fn odd_rates_lose_nothing() {
        for rate in [0.1, 3.0, 7.7, 1e6 / 3.0] {
            let schedule = Schedule::new(rate, u64::MAX);
            let start = Instant::now();
            schedule.begin(start);
            let after = Duration::from_secs(100);
            let mut taken = 0;
            while schedule.take(start + after / 1000 * (taken % 3) as u32 + after).is_some() && taken < 40_000 {
                taken += 1;
            }
            let expected = (rate * 100.0) as u64 + 1;
            assert!(taken >= expected.min(40_000), "{taken} of {expected} at {rate}");
            for number in [0, 1, 10, 999_999] {
                let time = schedule.time_of(number);
                assert_eq!(schedule.due(time), number + 1, "{rate}: request {number} is due at its time");
            }
        }
    }
}

//! The open loop's schedule: when each request is due, whatever the server does, and who sends it.
//!
//! Request k is due at `start + k / rate`, or after a random gap (Poisson arrivals). A connection with room takes the next due
//! one; when none has room, requests wait and their latency runs, until `Load::take_open` gives them up. So a server that stalls is
//! charged for every request it delayed: there is no coordinated omission (Tene, "How NOT to measure latency", 2013). Idle connections are woken in turn.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use amped_runtime::{Alarm, Runtime};

use crate::random::Random;

/// The times of all requests of this process.
#[derive(Debug)]
pub struct Schedule {
    course: Cell<Course>,
    /// The next request to be taken.
    taken: RefCell<Arrivals>,
    /// The first request that was not due when somebody last looked.
    due: RefCell<Arrivals>,
    parked: RefCell<Parked>,
}

/// The bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// The first request is due.
    pub start: Instant,
    /// Requests due earlier belong to the warm-up.
    pub measured_from: Instant,
    /// No request is due any more; `None` when only the limit ends the run.
    pub end: Option<Instant>,
    /// Measured requests there are at most.
    pub limit: u64,
}

/// The times requests are due, one after the other; two of the same seed see the same times.
#[derive(Debug)]
struct Arrivals {
    /// Nanoseconds between two, on average.
    gap: f64,
    random: Option<Random>,
    /// Requests before this one, and those of them that are measured.
    number: u64,
    measured: u64,
    /// When this one is due, in nanoseconds from the start.
    at: f64,
}

/// Connections that wait for a request to be due.
#[derive(Debug, Default)]
struct Parked {
    /// By connection: how to wake it, if it waits, and whether it stands in the queue.
    places: Vec<(Option<Waker>, bool)>,
    queue: VecDeque<u32>,
}

impl Schedule {
    /// `rate` requests per second; with `poisson`, at random from this seed. None is due before `begin`.
    pub fn new(rate: f64, poisson: Option<u64>) -> Self {
        let far = Instant::now() + FAR;
        Self {
            course: Cell::new(Course { start: far, measured_from: far, end: None, limit: u64::MAX }),
            taken: RefCell::new(Arrivals::new(rate, poisson)),
            due: RefCell::new(Arrivals::new(rate, poisson)),
            parked: RefCell::default(),
        }
    }

    /// Sets the times.
    pub fn begin(&self, course: Course) {
        self.course.set(course);
    }

    /// No request after those due by now.
    pub fn cut(&self, now: Instant) {
        let course = self.course.get();
        self.course.set(Course { end: Some(course.end.map_or(now, |end| end.min(now))), ..course });
    }

    /// Takes the next request if it is due: its intended time.
    pub fn take(&self, now: Instant) -> Option<Instant> {
        let course = self.course.get();
        let mut next = self.taken.borrow_mut();
        let time = next.time(&course).filter(|time| *time <= now)?;
        next.step(&course);
        Some(time)
    }

    /// Requests due by `now` that nobody has taken.
    pub fn waiting(&self, now: Instant) -> u64 {
        let mut due = self.due.borrow_mut();
        due.pass(&self.course.get(), now);
        due.number.saturating_sub(self.taken.borrow().number)
    }

    /// Nobody takes what was due by `then` any more; says how many of those belong to the measure.
    pub fn give_up(&self, then: Instant) -> u64 {
        self.taken.borrow_mut().pass(&self.course.get(), then)
    }

    /// Whether every request there is has been taken.
    pub fn is_exhausted(&self) -> bool {
        self.taken.borrow().time(&self.course.get()).is_none()
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
        if self.taken.borrow().time(&self.course.get()).is_some_and(|time| time <= now) {
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

    /// This connection cannot take anything for a while; if it was woken to, another one is.
    pub fn leave(&self, connection: u32) {
        if let Some((waker, _)) = self.parked.borrow_mut().places.get_mut(connection as usize) {
            *waker = None;
        }
        self.wake(self.waiting(Instant::now()));
    }

    /// Wakes connections as requests become due, until all have been.
    ///
    /// # Errors
    /// When there is no timer to be had.
    pub async fn pace(self: Rc<Self>, runtime: Rc<Runtime>) -> io::Result<()> {
        let alarm = Alarm::new(&runtime)?;
        loop {
            let now = Instant::now();
            self.wake(self.waiting(now));
            // Who has room takes the rest without being woken; who waits was woken just now.
            let Some(next) = self.due.borrow().time(&self.course.get()) else { return Ok(()) };
            alarm.after(next.saturating_duration_since(now).max(LEAST_WAIT)).await?;
        }
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

impl Arrivals {
    fn new(rate: f64, poisson: Option<u64>) -> Self {
        let mut this = Self { gap: 1e9 / rate, random: poisson.map(Random::new), number: 0, measured: 0, at: 0.0 };
        if let Some(random) = &this.random {
            this.at = random_gap(random, this.gap);
        }
        this
    }

    /// When the next request is due; `None` when there is none any more.
    fn time(&self, course: &Course) -> Option<Instant> {
        let time = course.start + Duration::from_nanos(self.at as u64);
        (self.measured < course.limit && course.end.is_none_or(|end| time < end)).then_some(time)
    }

    /// Passes over everything due by `then`; says how much of it is measured.
    fn pass(&mut self, course: &Course, then: Instant) -> u64 {
        let before = self.measured;
        self.leap(course, then);
        while self.time(course).is_some_and(|time| time <= then) {
            self.step(course);
        }
        self.measured - before
    }

    /// Most of the way at once, where one request is like the next: a million offered each second would else take a tenth of the core
    /// that is to offer them.
    fn leap(&mut self, course: &Course, then: Instant) {
        let Some(time) = self.time(course).filter(|time| *time >= course.measured_from && self.random.is_none()) else {
            return;
        };
        let until = course.end.map_or(then, |end| end.min(then));
        let gaps = until.saturating_duration_since(time).as_nanos() as f64 / self.gap;
        // One less than there is room for, as the times are rounded.
        let count = (gaps as u64).saturating_sub(1).min(course.limit - self.measured);
        self.number += count;
        self.measured += count;
        self.at = self.number as f64 * self.gap;
    }

    fn step(&mut self, course: &Course) {
        let time = course.start + Duration::from_nanos(self.at as u64);
        self.measured += u64::from(time >= course.measured_from);
        self.number += 1;
        self.at = match &self.random {
            // Not a sum: its rounding would add up.
            None => self.number as f64 * self.gap,
            Some(random) => self.at + random_gap(random, self.gap),
        };
    }
}

/// Exponentially distributed, as the gaps between independent arrivals are.
fn random_gap(random: &Random, mean: f64) -> f64 {
    -mean * (1.0 - random.unit()).ln()
}

/// Above 20,000 requests per second several leave at a time: a wake-up for each would cost more than the requests do.
const LEAST_WAIT: Duration = Duration::from_micros(50);
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(rate: f64, poisson: Option<u64>, start: Instant, seconds: f64, limit: u64) -> Schedule {
        let schedule = Schedule::new(rate, poisson);
        assert_eq!(schedule.take(Instant::now()), None, "none before the beginning");
        let end = Some(start + Duration::from_secs_f64(seconds));
        schedule.begin(Course { start, measured_from: start, end, limit });
        schedule
    }

    #[test]
    fn requests_are_due_at_their_times_and_once() {
        let start = Instant::now();
        let schedule = begun(1000.0, None, start, 10.0, 5);
        let at = |millis: u64| start + Duration::from_millis(millis);
        assert_eq!(schedule.take(at(0)), Some(start));
        assert_eq!(schedule.take(at(0)), None, "the second is due after a millisecond");
        assert_eq!(schedule.waiting(at(2)), 2);
        // A stall: all that came due meanwhile keep their own times.
        assert_eq!(schedule.take(at(500)), Some(at(1)));
        assert_eq!(schedule.take(at(500)), Some(at(2)));
        assert_eq!((schedule.waiting(at(500)), schedule.is_exhausted()), (2, false));
        schedule.cut(at(4));
        assert_eq!((schedule.take(at(500)), schedule.take(at(500))), (Some(at(3)), None));
        assert_eq!((schedule.waiting(at(900)), schedule.is_exhausted()), (1, true));
    }

    #[test]
    fn a_run_has_exactly_its_requests() {
        for (rate, seconds, expected) in [(0.1, 100.0, 10), (3.0, 10.0, 30), (1000.0, 1.0, 1000), (7.7, 10.0, 77)] {
            let start = Instant::now();
            let schedule = begun(rate, None, start, seconds, u64::MAX);
            let later = start + Duration::from_secs(1000);
            assert_eq!(schedule.waiting(later), expected, "{rate}/s");
            assert_eq!(std::iter::from_fn(|| schedule.take(later)).count() as u64, expected);
            assert!(schedule.is_exhausted() && schedule.waiting(later) == 0);
        }
    }

    #[test]
    fn nothing_is_leapt_over_or_counted_twice() {
        let start = Instant::now();
        let at = |micros: u64| start + Duration::from_micros(micros);
        let begun = |end: Option<u64>, limit: u64| {
            let schedule = Schedule::new(1e6, None);
            schedule.begin(Course { start, measured_from: at(1000), end: end.map(at), limit });
            schedule
        };
        // One a microsecond: those of the first millisecond are the warm-up's.
        let schedule = begun(None, u64::MAX);
        assert_eq!(schedule.waiting(at(5000)), 5001);
        assert_eq!((schedule.give_up(at(999)), schedule.waiting(at(5000))), (0, 4001));
        assert_eq!(schedule.give_up(at(2000)), 1001);
        assert_eq!((schedule.take(at(5000)), schedule.take(at(2001))), (Some(at(2001)), None));
        assert_eq!((schedule.give_up(at(4999)), schedule.waiting(at(5000))), (2998, 1));
        let ended = begun(Some(3000), u64::MAX);
        assert_eq!((ended.give_up(at(9000)), ended.waiting(at(9000)), ended.is_exhausted()), (2000, 0, true));
        let limited = begun(None, 700);
        assert_eq!((limited.give_up(at(9000)), limited.waiting(at(9000)), limited.is_exhausted()), (700, 0, true));
    }

    #[test]
    fn the_warm_up_is_beside_the_limit() {
        let start = Instant::now();
        let schedule = Schedule::new(100.0, None);
        let measured_from = start + Duration::from_millis(95);
        schedule.begin(Course { start, measured_from, end: None, limit: 7 });
        assert_eq!(schedule.waiting(start + Duration::from_secs(9)), 10 + 7);
    }

    #[test]
    fn random_arrivals_have_the_rate_and_the_spread_of_chance() {
        let start = Instant::now();
        let schedule = begun(1000.0, Some(5), start, 20.0, u64::MAX);
        let later = start + Duration::from_secs(30);
        let waiting = schedule.waiting(later);
        let times: Vec<Instant> = std::iter::from_fn(|| schedule.take(later)).collect();
        assert_eq!(times.len() as u64, waiting, "who takes and who looks ahead see the same times");
        // 20,000 expected, standard deviation 141; of the gaps a share of 1/e is longer than the mean.
        assert!((19_400..20_600).contains(&times.len()), "{}", times.len());
        let long = times.windows(2).filter(|pair| pair[1] - pair[0] > Duration::from_millis(1)).count();
        let share = long as f64 / times.len() as f64;
        assert!((0.35..0.39).contains(&share), "{share}");
    }
}

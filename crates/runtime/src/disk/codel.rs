//! When a queue is a bad one: by the delay that even its luckiest job has had, not by its length.
//!
//! CoDel (Nichols and Jacobson, "Controlling queue delay", ACM Queue 10(5), 2012; RFC 8289), in the form that suits requests
//! (Maurer, "Fail at scale", ACM Queue 13(8), 2015): a burst makes a long queue that soon is short again; a queue whose least
//! delay over a whole interval is above the target is standing. From then on what has waited for twice the target is refused,
//! and so is whoever comes when the queue holds more than can be done within the target. The latter goes on
//! until nobody had to be refused for ten intervals: under a load that goes on the queue would only fill again, and all of that
//! filling would be refused late. Where the queue runs empty, less was let in than could be done: then refusals are no reason to
//! go on. Pure: times go in, a verdict comes out.

/// The state of one queue. Times are in microseconds of any monotonic clock.
#[derive(Debug)]
pub(crate) struct Codel {
    target: u64,
    interval_end: u64,
    least_delay: u64,
    /// Jobs begun in this interval, and what may wait, by the last one.
    begun: u64,
    room: usize,
    is_standing: bool,
    /// For so many intervals to come newcomers are let in as if it were, and whether one was refused in this one.
    wary: u32,
    has_refused: bool,
    /// At some moment of this interval nothing waited.
    ran_empty: bool,
    /// How often the queue has become a standing one.
    pub(crate) incidents: u64,
}

impl Codel {
    pub(crate) fn new(target: u64) -> Self {
        let target = target.max(1);
        Self {
            target,
            interval_end: 0,
            least_delay: 0,
            begun: 0,
            room: usize::MAX,
            is_standing: false,
            wary: 0,
            has_refused: false,
            ran_empty: false,
            incidents: 0,
        }
    }

    /// A job leaves the queue after `delay`, while the oldest has waited for `oldest`: when others go first it is the oldest
    /// whose delay tells whether the queue drains. Says whether the job is to be refused because it has waited too long.
    pub(crate) fn leaves(&mut self, now: u64, delay: u64, oldest: u64) -> bool {
        let longest = delay.max(oldest);
        if now >= self.interval_end {
            self.close_interval(now);
            self.least_delay = longest;
        }
        self.least_delay = self.least_delay.min(longest);
        let is_late = self.is_late(delay);
        self.begun += u64::from(!is_late);
        is_late
    }

    /// Whether the queue is a standing one: the oldest do not go first then.
    pub(crate) fn is_standing(&self) -> bool {
        self.is_standing
    }

    /// Whether a job that has waited so long is to be refused.
    pub(crate) fn is_late(&self, delay: u64) -> bool {
        self.is_standing && delay > self.target * 2
    }

    /// Forgets what is too long ago to tell anything, and says whether there was any; to be called when somebody comes and nobody
    /// waits.
    pub(crate) fn forget(&mut self, now: u64) -> bool {
        let is_past = self.wary > 0 && now >= self.interval_end + self.interval();
        if is_past {
            self.close_interval(now);
            self.least_delay = 0;
        }
        is_past
    }

    /// Whether one more may wait behind `waiting` others; otherwise it is refused.
    pub(crate) fn admits(&mut self, waiting: usize) -> bool {
        let admits = self.wary == 0 || waiting < self.room;
        self.has_refused |= !admits;
        admits
    }

    /// Whether newcomers are counted, and the next may be refused.
    pub(crate) fn is_wary(&self) -> bool {
        self.wary > 0
    }

    /// Nothing waits any more: whatever stood is gone.
    pub(crate) fn is_empty(&mut self, now: u64) {
        if now >= self.interval_end && self.wary > 0 {
            self.close_interval(now);
        }
        self.least_delay = 0;
        self.is_standing = false;
        self.ran_empty = true;
    }

    fn close_interval(&mut self, now: u64) {
        let interval = self.interval();
        // After a pause nothing is known about the time since the last job.
        let is_recent = now < self.interval_end + interval;
        let was_standing = self.is_standing;
        self.is_standing = is_recent && self.least_delay > self.target;
        let (has_refused, ran_empty) = (std::mem::take(&mut self.has_refused), std::mem::take(&mut self.ran_empty));
        self.wary = match self.is_standing || (has_refused && !ran_empty) {
            _ if !is_recent => 0,
            true => WARY_INTERVALS,
            false => self.wary.saturating_sub(1),
        };
        self.incidents += u64::from(self.is_standing && !was_standing);
        // What was done in an interval, as much of it as can be done within the target; unless there was not enough to do.
        let room = usize::try_from(self.begun * self.target / interval).unwrap_or(usize::MAX).max(LEAST_ROOM);
        self.room = if ran_empty { room.max(self.room.saturating_mul(2)) } else { room };
        self.begun = 0;
        self.interval_end = now + interval;
    }

    fn interval(&self) -> u64 {
        (self.target * 5).min(USUAL_INTERVAL).max(self.target * 2).max(LEAST_INTERVAL)
    }
}

/// Long enough to tell a burst from a standing queue, and, unless the target itself is longer, short enough to notice it soon.
const LEAST_INTERVAL: u64 = 100_000;
const USUAL_INTERVAL: u64 = 1_000_000;
/// A second at least, twenty with the server's default target of a second.
const WARY_INTERVALS: u32 = 10;
/// A few may always wait: a queue that is empty when a helper is free would waste the disk.
const LEAST_ROOM: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: u64 = 20_000;

    /// A queue of which one job leaves each millisecond after `delay`, from `from` for `millis`.
    fn run(codel: &mut Codel, from: u64, millis: u64, delay: u64) -> usize {
        (0..millis).filter(|at| codel.leaves(from + at * 1000, delay, delay)).count()
    }

    #[test]
    fn a_burst_is_no_overload() {
        let mut codel = Codel::new(TARGET);
        assert_eq!(run(&mut codel, 1_000_000, 50, 1_000), 0);
        assert_eq!(run(&mut codel, 1_050_000, 40, 90_000), 0, "long delays, but not for long");
        assert_eq!(run(&mut codel, 1_090_000, 300, 1_000), 0);
        assert_eq!((codel.is_standing(), codel.incidents), (false, 0));
        assert!(codel.admits(1_000_000));
    }

    #[test]
    fn a_standing_queue_refuses_the_late_and_the_newcomer() {
        let mut codel = Codel::new(TARGET);
        run(&mut codel, 1_000_000, 250, 30_000);
        assert!(codel.is_standing());
        assert!(codel.leaves(1_250_000, 40_001, 0) && !codel.leaves(1_250_001, 40_000, 0));
        // A hundred jobs in 100 ms, so twenty in 20 ms.
        assert!(codel.admits(15) && !codel.admits(25));
        assert_eq!(codel.incidents, 1);
    }

    #[test]
    fn newest_first_hides_no_standing_queue() {
        let mut codel = Codel::new(TARGET);
        (0..250).for_each(|at| assert!(!codel.leaves(1_000_000 + at * 1000, 500, 900_000)));
        assert!(codel.is_standing());
    }

    #[test]
    fn one_lucky_job_in_an_interval_ends_it() {
        let mut codel = Codel::new(TARGET);
        run(&mut codel, 1_000_000, 250, 50_000);
        codel.leaves(1_260_000, 1_000, 1_000);
        run(&mut codel, 1_300_000, 2, 30_000);
        assert!(!codel.is_standing() && codel.is_wary());
    }

    #[test]
    fn newcomers_are_counted_until_nobody_was_refused_for_a_second() {
        let mut codel = Codel::new(TARGET);
        run(&mut codel, 1_000_000, 250, 50_000);
        for round in 1..=3 {
            run(&mut codel, 250_000 + round * 1_000_000, 950, 1_000);
            assert!(!codel.is_standing() && codel.admits(15) && !codel.admits(25), "{round}");
        }
        run(&mut codel, 4_200_000, 1_150, 1_000);
        assert!(codel.admits(10_000) && !codel.is_wary());
        // A queue nobody comes to is forgotten at once.
        run(&mut codel, 6_000_000, 250, 50_000);
        run(&mut codel, 7_000_000, 1, 0);
        assert!(codel.admits(10_000));
    }

    #[test]
    fn bursts_of_a_light_load_end_it() {
        let mut codel = Codel::new(TARGET);
        run(&mut codel, 1_000_000, 250, 50_000);
        // Six at a time, done at once: whatever is refused of them, it is not for long.
        let refused = |codel: &mut Codel, from: u64| {
            let refused = (0..6).filter(|waiting| !codel.admits(*waiting)).count();
            codel.leaves(from, 1_000, 1_000);
            codel.is_empty(from + 2_000);
            refused
        };
        let rounds: Vec<usize> = (0..30).map(|round| refused(&mut codel, 1_260_000 + round * 100_000)).collect();
        assert!(rounds[4..].iter().all(|refused| *refused == 0), "{rounds:?}");
        assert!(!codel.is_wary());
    }

    #[test]
    fn a_pause_is_the_end_of_it() {
        let mut codel = Codel::new(TARGET);
        run(&mut codel, 1_000_000, 250, 50_000);
        assert!(codel.is_standing() && !codel.admits(25));
        assert!(!codel.forget(1_300_000));
        assert!(codel.is_standing() && !codel.admits(25), "not yet");
        assert!(codel.forget(70_000_000));
        assert!(!codel.is_standing() && !codel.is_wary() && codel.admits(25));
    }

    #[test]
    fn a_queue_that_runs_empty_is_a_good_one() {
        let mut codel = Codel::new(TARGET);
        run(&mut codel, 1_000_000, 250, 50_000);
        codel.is_empty(1_260_000);
        codel.is_empty(1_310_000);
        assert!(!codel.is_standing());
    }

    #[test]
    fn after_a_hang_who_waited_is_served() {
        let mut codel = Codel::new(TARGET);
        run(&mut codel, 1_000_000, 250, 50_000);
        // Ten seconds without a job, then those that have waited all that time.
        assert_eq!(run(&mut codel, 11_000_000, 90, 10_000_000), 0);
    }
}

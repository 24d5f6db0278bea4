//! The watch over the loops: one that does not come out of a turn is found and named.
//!
//! A thread of its own looks at every loop's count of turns. It judges by what it has seen, not by the clock: a machine that
//! stands still for a second shows it one look, not twenty. A thread that wants to run and is not let is slow, not stuck: only
//! what computes or sleeps in the middle of a turn is reported. Cost: a wake-up and a few loads, twenty times a second.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use amped_runtime::Meter;
use amped_runtime::stack::{self, Stack};

use super::Readings;
use super::herald::Herald;

/// A worker that is stuck, and what with.
#[derive(Debug)]
pub struct Incident {
    /// The worker's place.
    pub worker: usize,
    /// How long at least.
    pub lasted: Duration,
    doing: Doing,
    /// Where it is, as addresses, and in the functions' names once they have been looked up.
    pub(super) stack: Stack,
    pub(super) names: Vec<String>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It turns, or waits as it should.
    Fine,
    /// It is in one turn for 100 ms: to be said, once.
    Report,
    /// For a second: nobody should wait for it any longer.
    Stuck,
}

/// What a thread is doing, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// It runs, or would if it were let.
    Computing,
    /// It sleeps, with a signal able to wake it or without.
    Sleeping,
}

/// What has been seen of one loop.
#[derive(Debug, Default)]
struct Sight {
    turn: Option<u64>,
    /// Looks in a row that saw the same turn, and the processor time at the first of them.
    looks: u32,
    used_before: Duration,
    verdict: Option<Verdict>,
}

/// Watches for ever, and says on standard error what it finds. `stuck` is told of a worker that nobody should wait for any
/// longer, once for each incident, and answers whether it has passed that on: else it is said. `alive` is called twice a second.
pub fn run(readings: &Arc<[Readings]>, mut stuck: impl FnMut(&Incident) -> bool, mut alive: impl FnMut()) -> ! {
    let mut sights: Vec<Sight> = readings.iter().map(|_| Sight::default()).collect();
    let mut looks = 0;
    let mut herald = Herald::start();
    loop {
        std::thread::sleep(INTERVAL);
        for (worker, (reading, sight)) in readings.iter().zip(&mut sights).enumerate() {
            let meter: &Meter = &reading.meter;
            let verdict = sight.look(meter.turn(), || of_thread(meter.thread()));
            if verdict == Verdict::Fine {
                continue;
            }
            let stack = stack::of(meter.thread(), PATIENCE);
            // It may have come out of it while it was asked.
            if meter.turn() != sight.turn {
                continue;
            }
            let doing = of_thread(meter.thread()).map_or(Doing::Computing, |(doing, _)| doing);
            let incident = Incident { worker, lasted: INTERVAL * (sight.looks - 1), doing, stack, names: Vec::new() };
            match verdict {
                Verdict::Stuck => {
                    let incident = herald.name(incident);
                    if !stuck(&incident) {
                        herald.say(incident);
                    }
                }
                _ => herald.say(incident),
            }
        }
        looks = (looks + 1) % LOOKS_PER_SIGN;
        if looks == 0 {
            alive();
        }
    }
}

impl Sight {
    /// Judges by one more look; `thread` is asked only where the turn is the one that was seen before.
    fn look(&mut self, turn: Option<u64>, thread: impl FnOnce() -> Option<(Doing, Duration)>) -> Verdict {
        let same = turn.is_some() && turn == self.turn;
        if !same {
            *self = Self { turn, ..Self::default() };
        }
        if turn.is_none() {
            return Verdict::Fine;
        }
        // A turn that has just begun need not cost a look at the thread, which is a file of /proc.
        self.looks += 1;
        if self.looks == 1 {
            return Verdict::Fine;
        }
        let Some((doing, used)) = thread() else { return Verdict::Fine };
        if self.looks == 2 {
            self.used_before = used;
        }
        let lasted = INTERVAL * (self.looks - 1);
        // What it had of the processor in that time; a fifth means that others want it too.
        let is_at_it = doing == Doing::Sleeping || (used - self.used_before) * 5 >= lasted - INTERVAL;
        let (verdict, before) = match self.verdict {
            None if lasted >= REPORT => (Verdict::Report, None),
            Some(Verdict::Report) if lasted >= STUCK => (Verdict::Stuck, Some(Verdict::Report)),
            _ => return Verdict::Fine,
        };
        if !is_at_it {
            return Verdict::Fine;
        }
        debug_assert_eq!(self.verdict, before);
        self.verdict = Some(verdict);
        verdict
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.doing {
            Doing::Computing => "computing",
            Doing::Sleeping => "asleep",
        };
        write!(formatter, "worker {} is in one turn for {} ms, {doing}", self.worker, self.lasted.as_millis())?;
        if self.stack.is_empty() {
            return write!(formatter, "; it does not say where");
        }
        if self.names.is_empty() {
            return write!(formatter, "; to look up where would take too long");
        }
        self.names.iter().take(MAX_LINES).try_for_each(|name| write!(formatter, "\n    in {name}"))
    }
}

/// What a thread of this process is doing, and the processor time it has had; `None` when it is gone or starts or stops.
fn of_thread(thread: i32) -> Option<(Doing, Duration)> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // proc_pid_stat(5): the name may hold anything, so count from its end; 3 is the state, 14 and 15 are processor time.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let doing = match fields.next()? {
        "R" => Doing::Computing,
        "S" | "D" => Doing::Sleeping,
        _ => return None,
    };
    let mut ticks = fields.skip(10).map(|field| field.parse::<u64>().ok());
    let used = ticks.next()?? + ticks.next()??;
    Some((doing, Duration::from_millis(used * 1000 / TICKS_PER_SECOND)))
}

const INTERVAL: Duration = Duration::from_millis(50);
const REPORT: Duration = Duration::from_millis(100);
const STUCK: Duration = Duration::from_secs(1);
const LOOKS_PER_SIGN: u32 = 10;
/// How long a stuck thread has to say where it is.
const PATIENCE: Duration = Duration::from_millis(50);
const MAX_LINES: usize = 24;
/// USER_HZ, which is 100 wherever Linux runs (time(7)).
const TICKS_PER_SECOND: u64 = 100;

/// An incident to try with: the calling thread, as another one finds it.
#[cfg(test)]
pub(super) fn of_this_thread() -> Incident {
    stack::listen().expect("a handler");
    let asked = stack::thread();
    let asking = std::thread::spawn(move || stack::of(asked, Duration::from_secs(10)));
    while !asking.is_finished() {
        std::thread::yield_now();
    }
    let stack = asking.join().expect("no panic");
    Incident { worker: 0, lasted: REPORT, doing: Doing::Computing, stack, names: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks in a row at one turn, of a thread that has `percent` of a processor; at which of them something was said.
    fn verdicts(doing: Doing, percent: u32, looks: u32) -> Vec<(u32, Verdict)> {
        let mut sight = Sight::default();
        let judged =
            (0..looks).map(|look| (look, sight.look(Some(7), || Some((doing, INTERVAL * look * percent / 100)))));
        judged.filter(|(_, verdict)| *verdict != Verdict::Fine).collect()
    }

    #[test]
    fn a_turn_that_does_not_end_is_said_once_and_then_given_up() {
        let expected = [(2, Verdict::Report), (20, Verdict::Stuck)];
        assert_eq!(verdicts(Doing::Computing, 100, 100), expected);
        assert_eq!(verdicts(Doing::Computing, 50, 100), expected);
        assert_eq!(verdicts(Doing::Sleeping, 0, 100), expected);
    }

    #[test]
    fn a_thread_that_is_not_let_is_not_stuck() {
        let mut sight = Sight::default();
        let computing = || Some((Doing::Computing, Duration::ZERO));
        assert!((0..100).all(|_| sight.look(Some(7), computing) != Verdict::Stuck));
    }

    #[test]
    fn turns_that_end_are_fine_however_many() {
        let mut sight = Sight::default();
        let asked = || -> Option<(Doing, Duration)> { panic!("no need to look at the thread") };
        assert!((0..100).all(|turn| sight.look(Some(turn), asked) == Verdict::Fine));
        assert!((0..100).all(|_| sight.look(None, asked) == Verdict::Fine));
        // A wait in between, and it counts from the beginning.
        let mut sight = Sight::default();
        for look in 0..100 {
            let turn = (look % 3 != 0).then_some(7);
            assert_eq!(sight.look(turn, || Some((Doing::Sleeping, Duration::ZERO))), Verdict::Fine);
        }
    }

    #[test]
    fn this_thread_computes() {
        let (doing, used) = of_thread(stack::thread()).expect("it is there");
        assert_eq!(doing, Doing::Computing);
        assert!(used < Duration::from_secs(3600));
        assert_eq!(of_thread(i32::MAX), None);
    }
}

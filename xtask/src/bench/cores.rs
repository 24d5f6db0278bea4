//! Where a virtual machine's cores are: beside each other or not, which changes every few seconds.
//!
//! A server and its load on two cores hand each other every packet. While the host runs the cores beside one cache, a line of
//! memory goes there and back in 90 to 150 ns, otherwise in 400 to 480, and the two do a fifth less, though either core by itself
//! is as fast as before (its own loops, its own caches, a system call). So what is measured in turns is measured while the cores
//! are together: else it is a matter of luck which turns are slow.

use std::io::Result;
use std::sync::atomic::{AtomicU32, Ordering::Acquire, Ordering::Release};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Waits for the cores to be together, but not for ever.
#[derive(Debug)]
pub struct Cores {
    patience: Duration,
    /// Measures taken, and those of them while the cores were apart.
    taken: u32,
    apart: u32,
}

impl Cores {
    /// All waiting and repeating together takes so long at most; after that everything counts as it comes.
    pub fn new(patience: Duration) -> Self {
        Self { patience, taken: 0, apart: 0 }
    }

    /// Measures while the cores are together, and once more if they have parted meanwhile.
    ///
    /// # Errors
    /// Those of the measure.
    pub fn together<T>(&mut self, mut measure: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            self.wait();
            let began = Instant::now();
            let measured = measure()?;
            let parted = are_apart();
            if !parted || self.patience.is_zero() {
                self.taken += 1;
                self.apart += u32::from(parted);
                return Ok(measured);
            }
            self.patience = self.patience.saturating_sub(began.elapsed());
        }
    }

    /// For the report: what was measured while the cores were apart. `None` when nothing was.
    pub fn note(&self) -> Option<String> {
        let Self { taken, apart, .. } = self;
        (*apart > 0).then(|| {
            format!("{apart} of {taken} turns were measured while the host ran the two cores apart (a cache line there and back in more than {NEAR:?}): such turns are slower by a fifth")
        })
    }

    fn wait(&mut self) {
        while !self.patience.is_zero() && are_apart() {
            let began = Instant::now();
            thread::sleep(Duration::from_millis(300));
            self.patience = self.patience.saturating_sub(began.elapsed());
        }
    }
}

/// Whether the server's core and the load's are further from each other than those that share a cache; not where there is one only.
fn are_apart() -> bool {
    round_trip().is_some_and(|time| time > NEAR)
}

/// How long a line of memory takes from one core to the other and back. `None` where this process has not got both.
fn round_trip() -> Option<Duration> {
    let [server, load] = [super::SERVER_CORE, super::LOAD_CORE].map(|core| core.parse::<usize>().ok());
    let (server, load) = (server?, load?);
    // Two on one core would take a time slice for each throw.
    let ours = sched_getaffinity(None).ok()?;
    if !ours.is_set(server) || !ours.is_set(load) {
        return None;
    }
    let ball = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| play(&ball, load, 1));
        scope.spawn(|| play(&ball, server, 0)).join().ok()
    })
}

/// Throws the ball back whenever it comes: even throws are one side's, odd ones the other's. Says how long there and back takes.
fn play(ball: &AtomicU32, core: usize, side: u32) -> Duration {
    let mut set = CpuSet::new();
    set.set(core);
    // If this cannot be, the figure is of other cores: of this machine all the same.
    let _ = sched_setaffinity(None, &set);
    let (mut began, mut fastest) = (Instant::now(), Duration::MAX);
    for trip in 0..TRIPS {
        while ball.load(Acquire) != trip * 2 + side {
            std::hint::spin_loop();
        }
        // After the first throw both are there.
        if trip % A_RALLY == 1 {
            fastest = if trip == 1 { fastest } else { fastest.min(began.elapsed()) };
            began = Instant::now();
        }
        ball.store(trip * 2 + side + 1, Release);
    }
    fastest / A_RALLY
}

/// For the cores to be together, in a scenario.
pub const PATIENCE: Duration = Duration::from_secs(300);
const TRIPS: u32 = 20_000;
/// Trips that are timed together. The fastest count: a player may be put aside between two throws, by the server that goes on.
const A_RALLY: u32 = 100;
/// Between those that share a cache and those that do not, of the processors known to us.
const NEAR: Duration = Duration::from_nanos(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_its_time_there_and_back() {
        if let Some(time) = round_trip() {
            assert!(time > Duration::from_nanos(10) && time < Duration::from_millis(20), "{time:?}");
        }
    }

    #[test]
    fn patience_ends() {
        let mut cores = Cores::new(Duration::ZERO);
        let mut measured = 0;
        for turn in 1..=3 {
            let one = || -> Result<u32> {
                measured += 1;
                Ok(measured)
            };
            assert_eq!(cores.together(one).unwrap(), turn);
        }
        assert_eq!(cores.taken, 3, "nothing is repeated without patience");
    }
}

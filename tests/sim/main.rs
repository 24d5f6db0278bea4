//! The whole worker over a simulated kernel, by seeds: docs/simulation.md.
//!
//! `cargo xtask sim --seed N` replays one, `cargo xtask sim --seeds N` runs many; both are this program with a word in its
//! environment, so that a seed means the same everywhere.

mod client;
mod crowd;
mod model;
mod response;
mod scenario;
mod site;
mod stage;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use amped::config::choice::DiskMode;
use amped_runtime::disk::Place;
use amped_runtime::sim::Faults;
use scenario::Scenario;
use stage::Outcome;

/// As many seeds as can be run whenever something changes; `AMPED_SIM_SEEDS=FROM..TO` runs others.
#[test]
fn seeds() {
    let (from, to) = std::env::var("AMPED_SIM_SEEDS").map_or((0, SEEDS), |range| {
        let (from, to) = range.split_once("..").expect("FROM..TO");
        (from.parse().expect("a number"), to.parse().expect("a number"))
    });
    let next = AtomicU64::new(from);
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let found: Vec<(u64, Outcome)> = std::thread::scope(|scope| {
        let work = || {
            let mut outcomes = Vec::new();
            loop {
                let seed = next.fetch_add(1, Relaxed);
                if seed >= to {
                    return outcomes;
                }
                if seed.is_multiple_of(1000) && seed > from {
                    eprintln!("seed {seed}, {:.0} s", began.elapsed().as_secs_f64());
                }
                let outcome = alone(seed, false);
                if !outcome.faults.is_empty() {
                    eprintln!("seed {seed}: {:#?}", outcome.faults);
                }
                outcomes.push((seed, outcome));
            }
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("seeds do not panic")).collect()
    });
    let mut answers = std::collections::BTreeMap::<u16, u64>::new();
    let events: u64 = found.iter().map(|(_, outcome)| outcome.digest.1).sum();
    found
        .iter()
        .flat_map(|(_, outcome)| &outcome.answers)
        .for_each(|(status, count)| *answers.entry(*status).or_default() += count);
    eprintln!("{} seeds, {events} events, answers {answers:?}, {:.1} s", found.len(), began.elapsed().as_secs_f64());
    let mut bad: Vec<u64> =
        found.iter().filter(|(_, outcome)| !outcome.faults.is_empty()).map(|(seed, _)| *seed).collect();
    bad.sort_unstable();
    assert!(bad.is_empty(), "{} seeds found something: {bad:?}; replay one with `cargo xtask sim --seed N`", bad.len());
    assert!(found.len() as u64 == to - from && answers.get(&200).is_some_and(|count| *count > 0));
}

/// `AMPED_SIM_SEED=N` tells everything that happens in one.
#[test]
fn one_seed_is_one_story() {
    let told = std::env::var("AMPED_SIM_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = told.map_or((0..8).collect(), |seed| vec![seed]);
    for seed in seeds {
        let (first, again) = (alone(seed, told.is_some()), alone(seed, false));
        assert_eq!(first.digest, again.digest, "seed {seed} does not replay");
        if told.is_some() {
            eprintln!("seed {seed}: digest {:016x}, {} events, {:?}", first.digest.0, first.digest.1, first.answers);
        }
        assert!(first.faults.is_empty(), "seed {seed}: {:#?}", first.faults);
    }
    let two = [alone(1, false), alone(2, false)];
    assert_ne!(two[0].digest, two[1].digest, "seeds differ");
}

/// Found by seed 1871: of a remote file that the loop sends by itself the version was asked for once a window, so a download during
/// which it was written anew ended whole, and was a mixture.
#[test]
fn a_remote_file_that_the_loop_sends_itself_is_one_version() {
    let scene = |seed| {
        let mut scenario = Scenario::new(seed);
        (scenario.plan.disk, scenario.place, scenario.files) = (DiskMode::Inline, Place::Remote, (1, 3, false));
        (scenario.excuses.overload, scenario.excuses.waits) = (true, true);
        (scenario.faults, scenario.change_every) = (Faults { send_buffer: 4000, ..Faults::none() }, 20_000_000);
        (seed, scenario)
    };
    play((0..16).map(scene));
}

/// Found by seeds 63864, 65648 and 72909: a small file that is written into twice within a tick of its file system's clock, and read
/// between, bears one stamp, and half of each was served.
#[test]
fn what_is_written_twice_in_a_tick_is_not_torn() {
    let scene = |seed| {
        let mut scenario = Scenario::new(seed);
        (scenario.plan.disk, scenario.place, scenario.files) = (DiskMode::Amped, Place::Own, (3, 0, false));
        scenario.plan.revalidate = std::time::Duration::ZERO;
        (scenario.excuses.overload, scenario.excuses.waits, scenario.excuses.disk_errors) = (true, true, true);
        scenario.faults = Faults { race: 100_000, disk_time: (500_000, 2_000_000), ..Faults::none() };
        scenario.change_every = 5_000_000;
        (seed, scenario)
    };
    play((0..64).map(scene));
}

/// Found by seeds 84873 and 89408: the loop was put aside between the moment a helper had read a window and the moment it was sent, and
/// neither the turn's time nor one that was taken after the helper's last question told that this was long ago.
#[test]
fn a_window_that_waited_for_a_late_loop_is_asked_for() {
    let scene = |seed| {
        let mut scenario = Scenario::new(seed);
        (scenario.plan.disk, scenario.place, scenario.files) = (DiskMode::Amped, Place::Own, (1, 3, false));
        (scenario.plan.helpers, scenario.plan.shared_jobs) = (2, false);
        (scenario.excuses.overload, scenario.excuses.waits) = (true, false);
        // Helpers that are at work still after that, so that what was taken from memory may be on its way back.
        let disk_time = if seed % 2 == 0 { (20_000, 2_000_000) } else { (40_000_000, 400_000_000) };
        scenario.faults = Faults {
            stall: 100_000,
            stall_time: 200_000_000,
            evict: 200_000,
            reread: 500_000,
            disk_time,
            ..Faults::none()
        };
        (seed, scenario)
    };
    // Calm seeds have clients that excuse nothing.
    play((0..256).filter(|seed| !Scenario::new(*seed).is_calm).map(scene));
}

/// Nothing is found in any of these, and in more than half somebody is answered.
fn play(scenes: impl Iterator<Item = (u64, Scenario)>) {
    let play =
        |(seed, scenario)| std::thread::spawn(move || stage::play(seed, scenario, false)).join().expect("no panic");
    let outcomes: Vec<Outcome> = scenes.map(play).collect();
    let faults: Vec<&String> = outcomes.iter().flat_map(|outcome| &outcome.faults).collect();
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(outcomes.iter().filter(|outcome| outcome.answers.contains_key(&200)).count() > outcomes.len() / 2);
}

/// On a thread of its own, which has no memory of other seeds.
fn alone(seed: u64, tells: bool) -> Outcome {
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let run = move || catch_unwind(AssertUnwindSafe(|| stage::run(seed, tells)));
    let outcome = thread.spawn(run).expect("a thread").join().expect("its panics are caught");
    outcome.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()));
        let fault = format!("panic: {}", words.unwrap_or_default());
        Outcome { digest: (0, 0), faults: vec![fault], answers: Default::default() }
    })
}

const SEEDS: u64 = 256;

//! Service inversion: does a request that memory can answer wait behind those that need the disk?
//! The page cache is limited to 300 MB, the disk to 1,000 reads a second, 256 connections ask for files of which most are not
//! in memory; beside them a probe of 4 connections asks for one file that is. The probe is measured alone first.

use std::io::Result;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cgroup::{Scarce, drop_caches};
use super::cores::{Cores, PATIENCE};
use super::load::{Load, Outcome};
use super::peers::Role;
use super::report::{Report, count, median, millis, ratio};
use super::server::{Running, Site};
use super::{Bench, SERVER_CORE, Server, corpus, machine};

/// Runs it, or says why this machine cannot.
///
/// # Errors
/// The load tool failed.
pub fn run(bench: &Bench) -> Result<Option<Report>> {
    let root = corpus::tail()?;
    let site = Site { size: corpus::tail_size(&root, HOT)?, root, cache: Some("64MB"), tail: None };
    if let Err(error) = Scarce::new(MEMORY, READS, &site.root) {
        println!("cold cannot run here: {error}");
        return Ok(None);
    }
    let mut notes = vec![GOAL.to_owned()];
    let servers = bench.servers.iter().filter(|server| server.role != Role::Null);
    let mut rows: Vec<Row> = servers.map(|server| Row::new(server)).collect();
    let mut pauses = Vec::new();
    let mut cores = Cores::new(if bench.options.quick { Duration::ZERO } else { PATIENCE });
    for round in 0..bench.options.rounds {
        pauses.extend(machine::longest_pause(SERVER_CORE, PAUSE_SECONDS));
        for row in &mut rows {
            // When the cores part, phases of one server are no longer of one machine; and the state of a drowned disk is that of its age, so
            // all of it is measured again.
            match cores.together(|| measure(bench, row.server, &site, round + 1)) {
                Ok(sample) => row.samples.push(sample),
                Err(error) => notes.push(format!("{}, round {}: {error}", row.server.name, round + 1)),
            }
        }
        println!("cold: round {} of {}", round + 1, bench.options.rounds);
    }
    if let Some(longest) = pauses.into_iter().reduce(f64::max) {
        let longest = millis(longest);
        notes.push(format!(
            "alone on the same core, a program that only reads the clock was put aside for up to {longest}"
        ));
    }
    notes.extend(cores.note());
    for row in &rows {
        if let Some(turn) = row.longest_turn() {
            notes.push(format!("the longest turn of {} was of {}", row.server.name, turn.doing));
        }
    }
    Ok(Some(report(&rows, notes)))
}

struct Row {
    server: &'static Server,
    samples: Vec<Sample>,
}

struct Sample {
    /// The probe with an idle disk, the probe beside the others, the others.
    alone: Outcome,
    beside: Outcome,
    mixed: Outcome,
    /// What making the others' load took of the load's core, which the probe's client had for itself before.
    shared: f64,
    longest_turn: Option<Turn>,
}

/// What amped says of its longest turn: how long it took, how much of that the processor worked for it, how often it was taken away, how
/// often the loop slept (once or twice may be its wait for events just before), and what it was doing. The rest of a turn that was neither
/// preempted nor blocked is another guest's.
#[derive(Clone, Debug, PartialEq)]
struct Turn {
    took_ms: f64,
    worked_ms: f64,
    preempted: u64,
    blocked: u64,
    doing: String,
}

impl Row {
    fn new(server: &'static Server) -> Self {
        Self { server, samples: Vec::new() }
    }

    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }

    /// The worst of all rounds.
    fn longest_turn(&self) -> Option<&Turn> {
        let turns = self.samples.iter().filter_map(|sample| sample.longest_turn.as_ref());
        turns.max_by(|a, b| a.took_ms.total_cmp(&b.took_ms))
    }
}

fn measure(bench: &Bench, server: &'static Server, site: &Site, round: u32) -> Result<Sample> {
    let scarce = Scarce::new(MEMORY, READS, &site.root)?;
    let running = Running::start(bench, server, site, Some(&scarce))?;
    let hot = format!("/{}/{HOT}.html", HOT / 1000);
    running.expect(&hot, site.size)?;
    let probe =
        |seconds| Load { connections: 4, seconds, script: "plain", script_args: Vec::new(), url: running.url(&hot) };
    let seconds = bench.options.seconds;
    // The others need a while before the popular files are in memory again: until then all is disk.
    let long = seconds * 2;
    drop_caches()?;
    probe(1).run()?;
    let alone = probe(seconds).run()?;
    let mixed = Load {
        connections: 256,
        seconds: LEAD + long + 1,
        script: "tail",
        script_args: vec!["10".into(), (round * 7919 + 17).to_string()],
        url: running.url("/"),
    };
    let mixed = mixed.start()?;
    sleep(Duration::from_secs(u64::from(LEAD)));
    let (began, cpu_before) = (Instant::now(), mixed.cpu_seconds());
    let beside = probe(long).run()?;
    let shared = (mixed.cpu_seconds() - cpu_before) / began.elapsed().as_secs_f64();
    let mixed = mixed.wait()?;
    let said = running.stop();
    Ok(Sample { alone, beside, mixed, shared, longest_turn: longest_turn(&said) })
}

/// From amped's closing summary: `longest turn 1.234 ms (0.567 ms on the processor, 3 times preempted; ...`.
fn longest_turn(said: &str) -> Option<Turn> {
    let (_, after) = said.rsplit_once("longest turn ")?;
    let (took, after) = after.split_once(" ms (")?;
    let (worked, after) = after.split_once(" ms on the processor, ")?;
    let (preempted, after) = after.split_once(" times preempted, ")?;
    let (blocked, after) = after.split_once(" times blocked; ")?;
    let doing = after.split(')').next()?.to_owned();
    Some(Turn {
        took_ms: took.parse().ok()?,
        worked_ms: worked.parse().ok()?,
        preempted: preempted.parse().ok()?,
        blocked: blocked.parse().ok()?,
        doing,
    })
}

fn report(rows: &[Row], notes: Vec<String>) -> Report {
    let peers = rows.iter().filter(|row| row.server.role == Role::Peer);
    let mixed = |row: &Row| row.median(|sample| sample.mixed.per_second());
    let best = peers.map(mixed).reduce(f64::max);
    let cells = |row: &Row| {
        let alone = row.median(|sample| sample.alone.per_second());
        let beside = row.median(|sample| sample.beside.per_second());
        let errors: u64 = row.samples.iter().map(|one| one.alone.errors + one.beside.errors + one.mixed.errors).sum();
        vec![
            row.server.name.to_owned(),
            count(alone),
            millis(row.median(|sample| sample.alone.p99_ms)),
            count(beside),
            millis(row.median(|sample| sample.beside.p50_ms)),
            millis(row.median(|sample| sample.beside.p99_ms)),
            ratio(beside, Some(alone)),
            format!("{:.0}%", row.median(|sample| sample.shared) * 100.0),
            count(mixed(row)),
            millis(row.median(|sample| sample.mixed.p50_ms)),
            ratio(mixed(row), best),
            errors.to_string(),
            row.longest_turn().map_or("–".into(), |turn| millis(turn.took_ms)),
            row.longest_turn().map_or("–".into(), |turn| {
                format!("{}, {}, {}", millis(turn.worked_ms), turn.preempted, turn.blocked)
            }),
        ]
    };
    Report {
        scenario: "cold".into(),
        about: "200,000 files, page cache limited to 300 MB, disk to 1,000 reads/s, nothing cached at first. 256 connections ask for \
                10% uniform and 90% popular files (mixed); beside them 4 connections ask for one file in memory (probe), \
                first with an idle disk (alone). The probe beside them takes two rounds' length. amped's cache: 64 MB."
            .into(),
        columns: vec![
            "server",
            "alone/s",
            "alone p99",
            "probe/s",
            "probe p50",
            "probe p99",
            "probe ÷ alone",
            "load's core shared",
            "mixed/s",
            "mixed p50",
            "mixed ÷ best",
            "errors",
            "longest turn",
            "on the processor, preempted, blocked",
        ],
        rows: rows.iter().filter(|row| !row.samples.is_empty()).map(cells).collect(),
        notes,
        in_turns: false,
    }
}

const GOAL: &str =
    "goal: probe p99 at most 2 ms, probe ÷ alone at least 0.9, mixed at least the best peer's, longest turn below 5 ms";
/// Page cache included.
const MEMORY: u64 = 300 << 20;
const READS: u32 = 1000;
/// Not among the popular files, so that only the probe keeps it warm.
const HOT: u32 = 77_777;
/// Seconds of every round in which the machine itself is watched.
const PAUSE_SECONDS: u64 = 4;
/// Seconds that the others have the disk before the probe begins.
const LEAD: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_longest_turn_counts() {
        let said = "longest turn 9.0 ms (8.0 ms on the processor, 0 times preempted, 0 times blocked; 1 tasks)\nclosing\n120 requests, \
                    longest turn 1.234 ms (0.5 ms on the processor, 3 times preempted, 1 times blocked; 2 tasks; accept: 0.1 ms)\n";
        assert_eq!(
            longest_turn(said),
            Some(Turn {
                took_ms: 1.234,
                worked_ms: 0.5,
                preempted: 3,
                blocked: 1,
                doing: "2 tasks; accept: 0.1 ms".into()
            })
        );
        assert_eq!(longest_turn("nothing"), None);
    }
}

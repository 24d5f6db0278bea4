//! The scenarios that measure what a request costs: all servers run at once, one is loaded at a time, in turns.

use std::io::{Error, Result};
use std::time::Duration;

use super::cores::{Cores, PATIENCE};
use super::load::{Load, Outcome, paced};
use super::peers::Role;
use super::report::{Report, count, median, megabytes, millis, ratio};
use super::server::{Running, Site};
use super::{Bench, corpus, machine};

/// What is asked for, and how.
struct Scenario {
    name: &'static str,
    about: &'static str,
    goal: &'static str,
    connections: u32,
    load: With,
    files: Files,
    /// The null server answers anything with a body of so many bytes: for the tail what one has in the mean, from as many places in
    /// memory. Not where a body that is copied, as it does, costs more than one that is sent from a file.
    null: Option<u64>,
    /// See `Site::cache`.
    cache: Option<&'static str>,
    compare: Compare,
}

/// What makes the load.
#[derive(Clone, Copy, PartialEq)]
enum With {
    /// wrk by this script: as fast as it can.
    Wrk(&'static str),
    /// curl, each connection at the same pace whoever serves it.
    Paced,
}

/// What the ratios are of, per CPU-second.
#[derive(Clone, Copy)]
enum Compare {
    Requests,
    /// Where a round ends within many requests.
    Bytes,
}

#[derive(Clone, Copy)]
enum Files {
    /// One of the plain files.
    One(&'static str, u64),
    /// The tail, this percentage uniform.
    Tail(u32),
}

/// Runs one of them.
///
/// # Errors
/// The load tool failed. A server that does not start, or does not serve the file, is left out with a note.
pub fn run(bench: &Bench, name: &str) -> Result<Option<Report>> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.ok_or_else(|| Error::other(format!("no scenario {name}")))?;
    let (site, path) = site(scenario)?;
    let _ports = (scenario.load == With::Wrk("close")).then(machine::Ports::widen);
    let mut notes = vec![scenario.goal.to_owned()];
    let mut contestants = Vec::new();
    for server in &bench.servers {
        let site = match (server.role, scenario.null) {
            (Role::Null, None) => continue,
            (Role::Null, Some(size)) => Site { size, ..site.clone() },
            _ => site.clone(),
        };
        match Contestant::start(bench, server, &site, &path) {
            Ok(contestant) => contestants.push(contestant),
            Err(error) => notes.push(format!("{} left out: {error}", server.name)),
        }
    }
    notes.extend(rounds(bench, scenario, &site, &path, &mut contestants)?);
    if let Files::Tail(_) = scenario.files {
        let cache =
            bench.options.cache.as_deref().or(scenario.cache).unwrap_or("an eighth of the memory, as by default");
        notes.push(format!("amped's memory for files: {cache}"));
        let read: f64 = contestants.iter().flat_map(|one| &one.samples).map(|sample| sample.megabytes_from_disk).sum();
        notes.push(format!("read from the disk by all servers in all rounds: {} MB", count(read)));
    }
    Ok(Some(report(scenario, contestants, notes)))
}

/// The folder, and the path to ask for (the tail's script chooses its own).
fn site(scenario: &Scenario) -> Result<(Site, String)> {
    let (root, file, size, tail) = match scenario.files {
        Files::One(file, size) => (corpus::plain()?, format!("/{file}"), size, None),
        Files::Tail(uniform) => {
            let root = corpus::tail()?;
            let size = corpus::tail_size(&root, 0)?;
            (root, "/0/0.html".into(), size, Some(uniform))
        }
    };
    let site = Site { root, cache: scenario.cache, size, tail };
    Ok((site, file))
}

struct Contestant {
    server: &'static super::Server,
    running: Running,
    samples: Vec<Sample>,
}

/// One round of one server.
struct Sample {
    per_second: f64,
    per_cpu_second: f64,
    megabytes_per_cpu_second: f64,
    /// What is compared, by the second of the server's core, whoever had it.
    per_core_second: f64,
    /// The same by the second of all cores, the load's among them.
    per_machine_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    errors: u64,
    megabytes_from_disk: f64,
}

impl Contestant {
    fn start(bench: &Bench, server: &'static super::Server, site: &Site, path: &str) -> Result<Self> {
        let running = Running::start(bench, server, site, None)?;
        running.expect(path, site.size)?;
        Ok(Self { server, running, samples: Vec::new() })
    }

    fn round(&self, scenario: &Scenario, path: &str, seconds: u32, number: u32) -> Result<Sample> {
        let family = self.running.family();
        let (before, from_disk) = (family.cpu_seconds(), machine::megabytes_from_disk());
        let busy = || [super::SERVER_CORE, machine::ALL_CORES].map(machine::busy_seconds);
        let busy_before = busy();
        let outcome = self.load(scenario, path, seconds, number)?;
        let [core, all] = busy();
        let [core, all] = [core - busy_before[0], all - busy_before[1]].map(|seconds| seconds.max(0.01));
        // A clock tick at least: a server that did nothing is not infinitely fast.
        let used = (family.cpu_seconds() - before).max(0.01);
        let answered = match scenario.compare {
            Compare::Requests => outcome.requests as f64,
            Compare::Bytes => outcome.bytes as f64 / 1e6,
        };
        Ok(Sample {
            per_core_second: answered / core,
            per_machine_second: answered / all,
            per_second: outcome.per_second(),
            per_cpu_second: outcome.requests as f64 / used,
            megabytes_per_cpu_second: outcome.bytes as f64 / 1e6 / used,
            p50_ms: outcome.p50_ms,
            p99_ms: outcome.p99_ms,
            errors: outcome.errors,
            megabytes_from_disk: machine::megabytes_from_disk() - from_disk,
        })
    }

    fn load(&self, scenario: &Scenario, path: &str, seconds: u32, number: u32) -> Result<Outcome> {
        self.load_files(scenario, scenario.files, path, seconds, number)
    }

    /// One load of a second, or where caches have to fill one of all files, long enough for each of 200,000 to be asked for some times at
    /// 50,000 requests a second, and then one as it will be measured.
    fn warm_up(&self, scenario: &Scenario, path: &str, seconds: u32) -> Result<()> {
        if let Files::Tail(_) = scenario.files {
            self.load_files(scenario, Files::Tail(100), path, seconds * 4, 0)?;
            self.load(scenario, path, seconds, 0)?;
        } else {
            self.load(scenario, path, 1, 0)?;
        }
        Ok(())
    }

    fn load_files(&self, scenario: &Scenario, files: Files, path: &str, seconds: u32, number: u32) -> Result<Outcome> {
        let (connections, url) = (scenario.connections, self.running.url(path));
        let With::Wrk(script) = scenario.load else { return paced(connections, seconds, &url) };
        let script_args = match files {
            Files::One(..) => Vec::new(),
            // Every round asks for other files, and asks every server for the same.
            Files::Tail(uniform) => vec![uniform.to_string(), (number * 7919 + 17).to_string()],
        };
        Load { connections, seconds, script, script_args, url }.run()
    }

    fn median(&self, figure: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(figure))
    }

    /// How far apart the ends of the middle half of all turns are, against the median.
    fn spread(&self) -> f64 {
        let mut figures: Vec<f64> = self.samples.iter().map(|sample| sample.per_cpu_second).collect();
        figures.sort_by(f64::total_cmp);
        let (low, high) = (figures[figures.len() / 4], figures[figures.len() - 1 - figures.len() / 4]);
        (high - low) / median(figures)
    }

    /// The median of what this one achieved against the other, turn by turn: each turn is compared with the other's a few seconds
    /// apart, so that what slows the machine down for longer than that does not count.
    fn beside(&self, other: &Self, cost: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().zip(&other.samples).map(|(own, other)| cost(own) / cost(other)))
    }

    fn errors(&self) -> u64 {
        self.samples.iter().map(|sample| sample.errors).sum()
    }
}

/// A warm-up each, then the rounds, cut into turns of a second, each beginning with
/// another server. Says so if the cores were not together.
fn rounds(
    bench: &Bench,
    scenario: &Scenario,
    site: &Site,
    path: &str,
    contestants: &mut [Contestant],
) -> Result<Option<String>> {
    // Some machines page out what nobody has read for a minute, however much memory is free (DAMON): once is not enough.
    let warm_up_files = || match scenario.files {
        Files::One(..) => Ok(()),
        Files::Tail(_) => corpus::read_all(&site.root),
    };
    warm_up_files()?;
    for contestant in contestants.iter_mut() {
        contestant.warm_up(scenario, path, bench.options.seconds)?;
    }
    let mut cores = Cores::new(if bench.options.quick { Duration::ZERO } else { PATIENCE });
    for turn in 0..bench.options.rounds * bench.options.seconds {
        warm_up_files()?;
        for place in 0..contestants.len() {
            let at = (place + turn as usize) % contestants.len();
            let sample = cores.together(|| contestants[at].round(scenario, path, 1, turn + 1))?;
            contestants[at].samples.push(sample);
        }
        if (turn + 1).is_multiple_of(bench.options.seconds) {
            println!("{}: round {} of {}", scenario.name, (turn + 1) / bench.options.seconds, bench.options.rounds);
        }
    }
    Ok(cores.note())
}

fn report(scenario: &Scenario, contestants: Vec<Contestant>, notes: Vec<String>) -> Report {
    let cost: fn(&Sample) -> f64 = match scenario.compare {
        Compare::Requests => |sample| sample.per_cpu_second,
        Compare::Bytes => |sample| sample.megabytes_per_cpu_second,
    };
    let of = |name: &str| contestants.iter().find(|one| one.server.name == name);
    // A peer that answers errors is shown, but beating it proves nothing.
    let sound = |one: &&Contestant| one.server.role == Role::Peer && one.errors() == 0;
    let best = contestants.iter().filter(sound).max_by(|one, other| one.median(cost).total_cmp(&other.median(cost)));
    let against = |one: &Contestant, other: Option<&Contestant>, cost: fn(&Sample) -> f64| {
        ratio(other.map_or(0.0, |other| one.beside(other, cost)), other.map(|_| 1.0))
    };
    let row = |one: &Contestant| {
        let server = one.server;
        vec![
            server.name.to_owned(),
            count(one.median(|sample| sample.per_second)),
            count(one.median(|sample| sample.per_cpu_second)),
            format!("{:.0}%", one.spread() * 100.0),
            count(one.median(|sample| sample.megabytes_per_cpu_second)),
            millis(one.median(|sample| sample.p50_ms)),
            millis(one.median(|sample| sample.p99_ms)),
            one.errors().to_string(),
            megabytes(one.running.family().peak_bytes()),
            against(one, server.null().and_then(of), cost),
            against(one, of("nginx"), cost),
            against(one, best, cost),
            against(one, best, |sample| sample.per_core_second),
            against(one, best, |sample| sample.per_machine_second),
            against(one, server.before().and_then(|name| of(&name)), cost),
        ]
    };
    let is_before = |one: &Contestant| one.server.role == Role::Before;
    let columns = if contestants.iter().any(is_before) { COLUMNS } else { &COLUMNS[..COLUMNS.len() - 1] };
    let row = |one: &Contestant| row(one).into_iter().take(columns.len()).collect();
    Report {
        scenario: scenario.name.to_owned(),
        about: scenario.about.to_owned(),
        columns: columns.to_vec(),
        rows: contestants.iter().map(row).collect(),
        notes,
        in_turns: true,
    }
}

/// The last only where there is a binary from before.
const COLUMNS: &[&str] = &[
    "server",
    "requests/s",
    "per CPU-s",
    "spread",
    "MB per CPU-s",
    "p50",
    "p99",
    "errors",
    "peak MB",
    "÷ null",
    "÷ nginx",
    "÷ best peer",
    "by core",
    "by machine",
    "÷ before",
];
/// See `corpus::tail`.
const TAIL_MEAN: u64 = 9_000;

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "hot",
        about: "One file of 1 KB, 64 keep-alive connections.",
        goal: "goal: 0.90 of null on the same driver, 1.5 × nginx, 1.15 × the best peer; auto the better of uring and epoll-edge",
        connections: 64,
        load: With::Wrk("plain"),
        files: Files::One("1k.html", 1024),
        null: Some(1024),
        cache: Some("64MB"),
        compare: Compare::Requests,
    },
    Scenario {
        name: "hot4k",
        about: "One file of 4.5 KB, 64 keep-alive connections.",
        goal: "goal: the best peer",
        connections: 64,
        load: With::Wrk("plain"),
        files: Files::One("4k5.html", 4608),
        null: Some(4608),
        cache: Some("64MB"),
        compare: Compare::Requests,
    },
    Scenario {
        name: "pipeline",
        about: "One file of 100 B, 64 connections, 16 requests in one write.",
        goal: "goal: 5 × the best peer",
        connections: 64,
        load: With::Wrk("pipeline"),
        files: Files::One("100.html", 100),
        null: Some(100),
        cache: Some("64MB"),
        compare: Compare::Requests,
    },
    Scenario {
        name: "close",
        about: "One file of 100 B, a connection per request, 64 at a time.",
        goal: "goal: the best peer",
        connections: 64,
        load: With::Wrk("close"),
        files: Files::One("100.html", 100),
        null: Some(100),
        cache: Some("64MB"),
        compare: Compare::Requests,
    },
    Scenario {
        name: "medium",
        about: "One file of 64 KB, 64 keep-alive connections.",
        goal: "goal: the best peer",
        connections: 64,
        load: With::Wrk("plain"),
        files: Files::One("64k.bin", 64 * 1024),
        null: Some(64 * 1024),
        cache: Some("64MB"),
        compare: Compare::Bytes,
    },
    Scenario {
        name: "large",
        about: "One file of 100 MB, 4 keep-alive connections.",
        goal: "goal: the best peer in bytes per CPU-second",
        connections: 4,
        load: With::Wrk("plain"),
        files: Files::One("100m.bin", 100 * 1024 * 1024),
        null: None,
        cache: Some("64MB"),
        compare: Compare::Bytes,
    },
    Scenario {
        name: "paced",
        about: "One file of 100 MB, 4 clients that take 200 MiB a second each: every server sends at the same rate.",
        goal: "goal: the best peer in bytes per CPU-second",
        connections: 4,
        load: With::Paced,
        files: Files::One("100m.bin", 100 * 1024 * 1024),
        null: None,
        cache: Some("64MB"),
        compare: Compare::Bytes,
    },
    Scenario {
        name: "tail10",
        about: "200,000 files in the page cache (median 4.5 KB, mean 9 KB), 64 keep-alive connections, 10% of requests uniform \
                over all, 90% over 2,000 popular ones.",
        goal: "goal: 1.5 × the best peer, no error (a peer with errors is not counted as the best)",
        connections: 64,
        load: With::Wrk("tail"),
        files: Files::Tail(10),
        null: Some(TAIL_MEAN),
        cache: None,
        compare: Compare::Requests,
    },
    Scenario {
        name: "tail100",
        about: "200,000 files in the page cache (median 4.5 KB, mean 9 KB), 64 keep-alive connections, all requests \
                uniform.",
        goal: "goal: 1.1 × the best peer, no error (a peer with errors is not counted as the best)",
        connections: 64,
        load: With::Wrk("tail"),
        files: Files::Tail(100),
        null: Some(TAIL_MEAN),
        cache: None,
        compare: Compare::Requests,
    },
];

//! Slow clients: ten thousand that send a head, or a body, a byte at a time, or read at a modem's pace. What does a normal client beside them see,
//! and what does each of them cost? Ten thousand clients keep the machine busy as well, so the same normal client also asks another server on
//! the same core that has nothing else to do: what that one sees is the machine's.

use std::io::Result;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Lab;
use super::figure::Figure;
use super::measure::{Subject, from_many_addresses};
use super::plot::{Axis, Line, Plot};
use crate::bench::corpus;
use crate::bench::report::{count, median, millis};
use crate::bench::server::Running;

/// Runs it.
///
/// # Errors
/// The files could not be made.
pub fn run(lab: &Lab) -> Result<Figure> {
    let root = corpus::home()?.join("slow");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("small"), [b'x'; 512])?;
    std::fs::write(root.join("large"), vec![b'x'; 1 << 20])?;
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    let (mut high, mut said) = (Vec::new(), Vec::new());
    for subject in subjects(lab) {
        let mut points = Vec::new();
        for (at, kind) in KINDS.iter().enumerate() {
            match beside(lab, &subject, kind, &root) {
                Ok(seen) => {
                    points.push((at as f64 + 1.0, seen.beside / seen.elsewhere));
                    if subject.name().starts_with("amped") || kind.name == "readers" {
                        said.push(format!(
                            "{}, {}: {:.2} and {:.2} times, {} bytes each",
                            subject.name(),
                            kind.name,
                            seen.beside / seen.elsewhere,
                            seen.beside / seen.alone,
                            count(seen.bytes_each)
                        ));
                    }
                    rows.push(vec![
                        format!("{}, {}", kind.name, subject.name()),
                        millis(seen.alone),
                        millis(seen.beside),
                        millis(seen.elsewhere),
                        format!("{:.2}", seen.beside / seen.alone),
                        format!("{:.2}", seen.beside / seen.elsewhere),
                        count(seen.failures),
                        count(seen.bytes_each),
                        format!("{:.0}%", seen.busy * 100.0),
                        count(seen.given_up),
                    ]);
                }
                Err(error) => notes.push(format!("{}, {}: {error}", kind.name, subject.name())),
            }
            println!("slow: {}, {}", kind.name, subject.name());
        }
        high.push(Line { name: subject.name().into(), points });
    }
    Ok(Figure {
        title: "Slow clients".into(),
        about: format!(
            "{CLIENTS} clients at a time. Heads: a request of about 60 bytes, a byte a second, again and again: it is never whole \
             within the 10 s that servers give it. Bodies: a head at once, a body of 2,000 bytes likewise. Readers: 1 MB at 28.8 kbit/s. A normal client beside them asks 200 times a \
             second for 512 bytes, first alone, then beside them, in turn with another server on the same core that serves nobody else (amped); the middle ones of {} runs. Memory: growth of the server's proportional memory for each \
             slow client. The load generator shares the normal client's core and lets it go first (SCHED_FIFO).",
            lab.pick(ONE_RUN, RUNS)
        ),
        shows: format!(
            "A normal client's 99th percentile beside the slow ones, by what another server's client sees meanwhile and by that alone; the \
             server's memory: {}.",
            said.join("; ")
        ),
        plots: vec![Plot {
            title: "The 99th percentile, by another server's".into(),
            x: Axis::linear("1 heads, 2 bodies, 3 readers"),
            y: Axis::log("times"),
            lines: high,
        }],
        columns: [
            "slow clients, server",
            "p99 alone",
            "p99 beside",
            "elsewhere",
            "by alone",
            "by elsewhere",
            "failed",
            "bytes each",
            "busy",
            "given up",
        ]
        .map(String::from)
        .into(),
        rows,
        notes,
    })
}

fn subjects(lab: &Lab) -> Vec<Subject> {
    let mut subjects = vec![named("uring"), Subject::Peer("nginx")];
    if !lab.quick {
        subjects.extend([named("epoll-edge"), Subject::Peer("lighttpd")]);
    }
    subjects
}

fn named(driver: &str) -> Subject {
    Subject::amped(&format!("amped {driver}"), &format!("driver = \"{driver}\"\nworkers = 1\n"))
}

struct Kind {
    name: &'static str,
    file: &'static str,
    words: &'static str,
}

struct Seen {
    alone: f64,
    beside: f64,
    /// The same client's, of another server meanwhile.
    elsewhere: f64,
    failures: f64,
    bytes_each: f64,
    /// The part of a core that the server used.
    busy: f64,
    /// Slow requests that had no answer 200.
    given_up: f64,
}

fn beside(lab: &Lab, subject: &Subject, kind: &Kind, root: &Path) -> Result<Seen> {
    let running = subject.serve(lab, root, "64MB", None)?;
    let other = Subject::amped("the other", "workers = 1\n").serve(lab, root, "64MB", None)?;
    let time = lab.pick("3s", "6s");
    let normal = |of: &Running| format!("{} -c 1 --rate 200 -d {time} --timeout 20s", of.url("/small"));
    for server in [&running, &other] {
        lab.load(&format!("{} -c 1 --rate 200 -d 500ms", server.url("/small")))?;
    }
    let probes = lab.pick(ONE_RUN, RUNS);
    let alone = lab.probe(&normal(&running), probes)?;
    let family = running.family();
    let memory = family.proportional_bytes();
    let slow = lab.start_load(&format!(
        "{} -c {CLIENTS} {} -d 10m --timeout 60s{}",
        running.url(kind.file),
        kind.words,
        from_many_addresses()
    ))?;
    // They are all there, and in the middle of it.
    std::thread::sleep(Duration::from_secs(SETTLING));
    let grown = family.proportional_bytes().saturating_sub(memory);
    let (began, processor) = (Instant::now(), family.cpu_seconds());
    let (mut errors, mut beside, mut elsewhere) = (alone.errors(), Vec::new(), Vec::new());
    for _ in 0..probes {
        for (server, seen) in [(&running, &mut beside), (&other, &mut elsewhere)] {
            let answers = lab.probe(&normal(server), 1)?;
            errors += answers.errors();
            seen.push(answers.latency_ms("p99"));
        }
    }
    let busy = (family.cpu_seconds() - processor) / began.elapsed().as_secs_f64();
    let slow = slow.interrupt()?;
    Ok(Seen {
        alone: alone.latency_ms("p99"),
        beside: median(beside),
        elsewhere: median(elsewhere),
        failures: errors,
        bytes_each: grown as f64 / f64::from(CLIENTS),
        busy,
        given_up: slow.errors(),
    })
}

const KINDS: [Kind; 3] = [
    Kind { name: "heads", file: "/small", words: "--trickle 1s" },
    Kind { name: "bodies", file: "/small", words: "--body 2000 --trickle 1s" },
    Kind { name: "readers", file: "/large", words: "--modem 28.8k" },
];
const CLIENTS: u32 = 10_000;
const ONE_RUN: usize = 1;
const RUNS: usize = 3;
/// Connecting takes a few seconds, and after it the clients are spread over their requests.
const SETTLING: u64 = 9;

//! Slow clients: ten thousand that send a head, or a body, a byte at a time, or read at a modem's pace. What does a normal client beside them see,
//! and what does each of them cost?

use std::io::Result;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Lab;
use super::figure::Figure;
use super::measure::{Subject, from_many_addresses};
use super::plot::{Axis, Line, Plot};
use crate::bench::corpus;
use crate::bench::report::{count, millis};

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
                    points.push((at as f64 + 1.0, seen.beside / seen.alone));
                    if subject.name().starts_with("amped") || kind.name == "readers" {
                        said.push(format!(
                            "{}, {}: {:.2} times, {} bytes each",
                            subject.name(),
                            kind.name,
                            seen.beside / seen.alone,
                            count(seen.bytes_each)
                        ));
                    }
                    rows.push(vec![
                        format!("{}, {}", kind.name, subject.name()),
                        millis(seen.alone),
                        millis(seen.beside),
                        format!("{:.2}", seen.beside / seen.alone),
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
             second for 512 bytes, first alone; the middle one of {} runs. It asks from the server's core, which has little to do, and goes first there (SCHED_FIFO): the slow clients' generator \
             fills its own. Memory: growth of the server's proportional memory for each slow client.",
            lab.pick(ONE_RUN, RUNS)
        ),
        shows: format!(
            "A normal client's 99th percentile beside the slow ones, by that alone; the server's memory: {}.",
            said.join("; ")
        ),
        plots: vec![Plot {
            title: "The 99th percentile, by that alone".into(),
            x: Axis::linear("1 heads, 2 bodies, 3 readers"),
            y: Axis::log("times"),
            lines: high,
        }],
        columns: [
            "slow clients, server",
            "p99 alone",
            "p99 beside",
            "by alone",
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
    failures: f64,
    bytes_each: f64,
    /// The part of a core that the server used.
    busy: f64,
    /// Slow requests that had no answer 200.
    given_up: f64,
}

fn beside(lab: &Lab, subject: &Subject, kind: &Kind, root: &Path) -> Result<Seen> {
    let running = subject.serve(lab, root, "64MB", None)?;
    let time = lab.pick("3s", "6s");
    let normal = |time: &str| format!("{} -c 1 --rate 200 -d {time} --timeout 20s", running.url("/small"));
    let probes = lab.pick(ONE_RUN, RUNS);
    lab.load(&normal("500ms"))?;
    let alone = lab.probe_beside_server(&normal(time), probes)?;
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
    let beside = lab.probe_beside_server(&normal(time), probes)?;
    let busy = (family.cpu_seconds() - processor) / began.elapsed().as_secs_f64();
    let slow = slow.interrupt()?;
    Ok(Seen {
        alone: alone.latency_ms("p99"),
        beside: beside.latency_ms("p99"),
        failures: alone.errors() + beside.errors(),
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

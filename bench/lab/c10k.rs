//! The C10K page's own tests. One: how many 512-byte files a second, a connection each? Two: thousands of modems that download at once: what does each
//! cost in memory, does any starve, and what does a fast client see meanwhile?

use std::io::Result;

use super::Lab;
use super::figure::Figure;
use super::measure::{DRIVERS, Subject, from_many_addresses, per_cpu_second};
use super::plot::{Axis, Line, Plot};
use crate::bench::corpus;
use crate::bench::report::{count, median, millis};

/// Runs it.
///
/// # Errors
/// The files could not be made.
pub fn run(lab: &Lab) -> Result<Figure> {
    let root = corpus::home()?.join("c10k");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("512"), [b'x'; 512])?;
    std::fs::write(root.join("28k"), vec![b'x'; 28_800])?;
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    let mut short = Vec::new();
    let drivers = DRIVERS.map(Subject::driver).into_iter();
    for subject in drivers.chain(PEERS.map(Subject::Peer)) {
        match each_its_own(lab, &subject, &root) {
            Ok((per_second, per_cpu, errors)) => {
                short.push((subject.name().to_owned(), per_cpu));
                rows.push(vec![
                    format!("512 bytes, {}", subject.name()),
                    count(per_second),
                    count(per_cpu),
                    count(errors),
                    "–".into(),
                    "–".into(),
                    "–".into(),
                    "–".into(),
                ]);
            }
            Err(error) => notes.push(format!("512 bytes, {}: {error}", subject.name())),
        }
        println!("c10k: 512 bytes, {}", subject.name());
    }
    let mut lines = Vec::new();
    let mut memory = Vec::new();
    let mut modem_servers = vec![Subject::driver("uring"), Subject::Peer("nginx")];
    if !lab.quick {
        modem_servers.extend(["epoll-edge", "poll"].map(Subject::driver));
        modem_servers.extend(["lighttpd", "h2o"].map(Subject::Peer));
    }
    for subject in modem_servers {
        let mut points = Vec::new();
        let mut each = Vec::new();
        for clients in lab.pick(vec![10_000], vec![1_000, 10_000, 19_000]) {
            match modems(lab, &subject, &root, clients) {
                Ok(seen) => {
                    points.push((f64::from(clients), seen.fast_p99));
                    each.push((f64::from(clients), seen.bytes_each));
                    rows.push(vec![
                        format!("{clients} modems, {}", subject.name()),
                        count(seen.per_second),
                        count(seen.per_cpu),
                        count(seen.errors),
                        millis(seen.p50),
                        millis(seen.max),
                        count(seen.bytes_each),
                        millis(seen.fast_p99),
                    ]);
                }
                Err(error) => notes.push(format!("{clients} modems, {}: {error}", subject.name())),
            }
        }
        println!("c10k: modems, {}", subject.name());
        lines.push(Line { name: subject.name().into(), points });
        memory.push(Line { name: subject.name().into(), points: each });
    }
    short.sort_by(|a, b| b.1.total_cmp(&a.1));
    let short: Vec<_> = short.iter().map(|(name, figure)| format!("{name} {}", count(*figure))).collect();
    let last = |lines: &[Line], digits: fn(f64) -> String| {
        let said = lines.iter().filter_map(|line| Some(format!("{} {}", line.name, digits(line.points.last()?.1))));
        said.collect::<Vec<_>>().join(", ")
    };
    Ok(Figure {
        title: "The C10K page's two tests".into(),
        about: "Test one: 512 bytes, a connection for each request, 64 at a time. Test two: clients at 28.8 kbit/s with small receive buffers, all \
                downloading 28,800 bytes (8 s each), 0.95 of them at any time, and one fast client that asks 100 times a second, from the server's core: the modems' generator fills its own. Memory: growth of the \
                server's proportional memory for each modem."
            .into(),
        shows: format!(
            "512-byte files per second of processor time, a connection each: {}. With the most modems, bytes of memory for each: {}; the fast client's 99th percentile: {}.",
            short.join(", "),
            last(&memory, count),
            last(&lines, millis),
        ),
        plots: vec![
            Plot { title: "A fast client's 99th percentile".into(), x: Axis::linear("modems"), y: Axis::log("ms"), lines },
            Plot { title: "Memory for each modem".into(), x: Axis::linear("modems"), y: Axis::linear("bytes"), lines: memory },
        ],
        columns: ["test", "requests/s", "per CPU-s", "errors", "download p50", "download max", "bytes each", "fast p99"]
            .map(String::from)
            .into(),
        rows,
        notes,
    })
}

/// Test one.
fn each_its_own(lab: &Lab, subject: &Subject, root: &std::path::Path) -> Result<(f64, f64, f64)> {
    let running = subject.serve(lab, root, "64MB", None)?;
    let words = format!("{} --close -c 64 -d {}", running.url("/512"), lab.pick("1s", "3s"));
    let rounds: Result<Vec<_>> = (0..3).map(|_| per_cpu_second(lab, &running, &words)).collect();
    let rounds = rounds?;
    let errors = rounds.iter().map(|(_, answers)| answers.errors()).sum();
    let per_second = median(rounds.iter().map(|(_, answers)| answers.per_second()));
    Ok((per_second, median(rounds.iter().map(|(figure, _)| *figure)), errors))
}

struct Seen {
    per_second: f64,
    per_cpu: f64,
    errors: f64,
    p50: f64,
    max: f64,
    bytes_each: f64,
    fast_p99: f64,
}

/// Test two.
fn modems(lab: &Lab, subject: &Subject, root: &std::path::Path, clients: u32) -> Result<Seen> {
    let running = subject.serve(lab, root, "64MB", None)?;
    let fast = |time: &str| {
        lab.probe_beside_server(&format!("{} -c 1 --rate 100 -d {time} --timeout 20s", running.url("/512")), 1)
    };
    fast("500ms")?;
    let family = running.family();
    let (memory, processor) = (family.proportional_bytes(), family.cpu_seconds());
    let time = lab.pick(16, 30);
    // Each begins at a time of its own, as people do: in a closed loop all would ask again in the same moment, every eight seconds.
    let rate = f64::from(clients) / (DOWNLOAD as f64 * 1.05);
    let load = lab.start_load(&format!(
        "{} -c {clients} --modem 28.8k --rate {rate:.0} -d {time}s --timeout 60s{}",
        running.url("/28k"),
        from_many_addresses()
    ))?;
    // By then as many download as will.
    std::thread::sleep(std::time::Duration::from_secs(DOWNLOAD + 1));
    let fast = fast(lab.pick("5s", "14s"))?;
    let grown = family.proportional_bytes().saturating_sub(memory);
    let answers = load.wait()?;
    let used = (family.cpu_seconds() - processor).max(0.01);
    Ok(Seen {
        // Not by the time until the last has its file.
        per_second: answers.requests() / f64::from(time),
        per_cpu: answers.requests() / used,
        errors: answers.errors() + fast.errors(),
        p50: answers.figure("/service_ms/p50"),
        max: answers.figure("/service_ms/max"),
        bytes_each: grown as f64 / f64::from(clients),
        fast_p99: fast.latency_ms("p99"),
    })
}

/// Seconds that a modem takes for its file.
const DOWNLOAD: u64 = 8;
const PEERS: [&str; 3] = ["nginx", "lighttpd", "h2o"];

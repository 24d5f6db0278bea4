//! Service inversion: what does a file in memory wait while others need the disk? The share of requests that miss grows from
//! nought to a half; a probe asks for one file that is always in memory. Both loops are open: a request's time counts from
//! when it was due, so a server that stands still is seen.

use std::io::Result;

use super::Lab;
use super::figure::Figure;
use super::measure::{Files, Subject, architectures};
use super::plot::{Axis, Line, Plot};
use crate::bench::cgroup::{Scarce, drop_caches};
use crate::bench::report::{count, millis};

/// Runs it.
///
/// # Errors
/// No control groups here, or the files could not be made.
pub fn run(lab: &Lab) -> Result<Figure> {
    let files = Files::tail()?;
    let shares = lab.pick(vec![0, 50], vec![0, 1, 5, 10, 25, 50]);
    let mut notes = Vec::new();
    let (mut middle, mut high) = (Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for subject in architectures() {
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        for &share in &shares {
            match measure(lab, &subject, &files, share) {
                Ok(point) => {
                    p50.push((f64::from(share), point.p50));
                    p99.push((f64::from(share), point.p99));
                    rows.push(vec![
                        subject.name().to_owned(),
                        format!("{share}%"),
                        millis(point.p50),
                        millis(point.p99),
                        count(point.probes),
                        count(point.others),
                        count(point.errors),
                    ]);
                }
                Err(error) => notes.push(format!("{}, {share}%: {error}", subject.name())),
            }
        }
        println!("inversion: {}", subject.name());
        middle.push(Line { name: subject.name().into(), points: p50 });
        high.push(Line { name: subject.name().into(), points: p99 });
    }
    let worst = |line: &Line| line.points.iter().map(|point| point.1).fold(0.0, f64::max);
    let said: Vec<_> = high.iter().map(|line| format!("{} {}", line.name, millis(worst(line)))).collect();
    Ok(Figure {
        title: "Service inversion".into(),
        about: format!(
            "A probe of 4 connections asks {PROBE} times a second for one file in memory, 48 other connections ask {OTHERS} times a \
             second for 100 popular files and, by a growing share, for any of 200,000. Memory {} MB, disk {READS} reads/s, one \
             core, latencies from the intended time; the middle one of {PROBES} probes.",
            MEMORY >> 20
        ),
        shows: format!("The probe's 99th percentile at its worst: {}.", said.join(", ")),
        plots: vec![plot("The probe's 99th percentile", high), plot("The probe's median", middle)],
        columns: ["server", "share of misses", "p50", "p99", "probe/s", "others/s", "errors"].map(String::from).into(),
        rows,
        notes,
    })
}

fn plot(title: &str, lines: Vec<Line>) -> Plot {
    let (x, y) = (Axis::linear("requests for any of 200,000 files, %"), Axis::log("ms"));
    Plot { title: title.into(), x, y, lines }
}

struct Point {
    p50: f64,
    p99: f64,
    probes: f64,
    others: f64,
    errors: f64,
}

fn measure(lab: &Lab, subject: &Subject, files: &Files, share: u32) -> Result<Point> {
    let scarce = Scarce::new(MEMORY, READS, files.root())?;
    drop_caches()?;
    files.fill_memory(100, &scarce)?;
    let running = subject.serve(lab, files.root(), "32MB", Some(&scarce))?;
    let list = files.list(200_000)?;
    let (rest, time) = (100 - share, lab.pick(2, 5));
    let mix = if share == 0 { "100%:100".into() } else { format!("{rest}%:100,{share}%:all") };
    let url = running.url("/");
    lab.load(&format!("{} -c 4 -d 500ms --rate {PROBE}", running.url(files.first())))?;
    let others = lab.start_load(&format!(
        "{url} -c 48 -d {}s --rate {OTHERS} --urls {} --mix {mix} --timeout {}",
        PROBES as u32 * time + 4,
        list.display(),
        lab.pick("5s", "20s")
    ))?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let probe = format!("{} -c 4 -d {time}s --rate {PROBE} --timeout 20s", running.url(files.first()));
    let probe = lab.probe(&probe, PROBES)?;
    // What is still under way is waited for, up to the time-out: those are not this experiment's answers.
    let others = others.interrupt()?;
    Ok(Point {
        p50: probe.latency_ms("p50"),
        p99: probe.latency_ms("p99"),
        probes: probe.per_second(),
        others: others.per_second(),
        errors: probe.errors() + others.errors(),
    })
}

const PROBES: usize = 3;
const PROBE: u32 = 500;
const OTHERS: u32 = 3000;
/// Page cache included.
const MEMORY: u64 = 180 << 20;
const READS: u32 = 1000;

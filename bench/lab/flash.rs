//! Flash's figure (Pai, Druschel and Zwaenepoel 1999, figures 9 and 10): throughput against the size of the data set, from all in memory to ten
//! times the memory, for MP, MT, SPED and AMPED from one code base, and two peers of today beside them.
//! Popularity by Zipf's law, as in the paper's traces. Memory starts with the most popular files, and is left to what the load makes of it.

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
    let sizes = lab.pick(vec![2_000, 200_000], vec![2_000, 10_000, 40_000, 200_000]);
    // All answer everything, as the paper's did: a refusal costs nothing, and SPED's loop, which is late all the time, would refuse up to a
    // tenth of its requests.
    let subjects: Vec<_> =
        architectures().into_iter().map(|subject| subject.with("[overload]\nloop_delay = \"1h\"\n")).collect();
    let mut notes = Vec::new();
    let mut lines: Vec<Line> =
        subjects.iter().map(|subject| Line { name: subject.name().into(), points: vec![] }).collect();
    let mut rows = Vec::new();
    for &size in &sizes {
        let megabytes = files.bytes(size)? as f64 / 1e6;
        let mut points: Vec<Vec<Point>> = subjects.iter().map(|_| Vec::new()).collect();
        // Where all is in memory the machine's own changes of speed are all there is to see of small differences: servers take turns.
        for _ in 0..if size > IN_MEMORY { 1 } else { lab.pick(1, 3) } {
            for (subject, points) in subjects.iter().zip(&mut points) {
                match measure(lab, subject, &files, size) {
                    Ok(point) => points.push(point),
                    Err(error) => notes.push(format!("{}, {size} files: {error}", subject.name())),
                }
            }
        }
        for ((subject, line), mut points) in subjects.iter().zip(&mut lines).zip(points) {
            points.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
            let Some(point) = points.get(points.len() / 2) else { continue };
            line.points.push((megabytes, point.per_second));
            rows.push(vec![
                subject.name().to_owned(),
                count(megabytes),
                count(point.per_second),
                format!("{:.2}", point.reads_each),
                millis(point.p50),
                millis(point.p99),
                count(point.errors),
            ]);
        }
        println!("flash: {size} files");
    }
    Ok(Figure {
        title: "Throughput and the size of the data set".into(),
        about: format!(
            "48 keep-alive connections, a closed loop, files by Zipf's law (0.8), memory limited to {} MB, the disk to {READS} \
             reads/s, one core. amped's cache: {CACHE}; MP and MT have 64 processes or threads. Where all is in memory: the middle one of {} runs, taken in turn. Beyond it: {} s after as \
             many reads as it takes for memory to hold what the load leaves there.",
            MEMORY >> 20,
            lab.pick(1, 3),
            lab.pick(5, 20)
        ),
        shows: shows(&lines),
        plots: vec![Plot {
            title: "Requests per second".into(),
            x: Axis::log("data set, MB"),
            y: Axis::log("requests/s"),
            lines,
        }],
        columns: ["server", "data set, MB", "requests/s", "reads each", "p50", "p99", "errors"]
            .map(String::from)
            .into(),
        rows,
        notes,
    })
}

struct Point {
    per_second: f64,
    /// Reads of the disk for each request.
    reads_each: f64,
    p50: f64,
    p99: f64,
    errors: f64,
}

fn measure(lab: &Lab, subject: &Subject, files: &Files, size: usize) -> Result<Point> {
    let scarce = Scarce::new(MEMORY, READS, files.root())?;
    drop_caches()?;
    // What fits, and a little more: the rest would only push it out again.
    files.fill_memory(size.min(IN_MEMORY), &scarce)?;
    let running = subject.serve(lab, files.root(), CACHE, Some(&scarce))?;
    let list = files.list(size)?;
    let words = |time: &str, seed: u32| {
        format!("{} -c 48 -d {time} --urls {} --zipf 0.8 --seed {seed} --timeout 30s", running.url("/"), list.display())
    };
    // What the server keeps and what the kernel keeps must have settled. It never does quite: the reads that a request costs go up and down by half
    // over tens of thousands of reads, as folders and inodes leave memory and come back. So the disk is fast and the measure long: with
    // 100,000 reads two runs differed by 2% at most, with 8,000 of a slow disk by up to three times.
    scarce.limit_reads(0)?;
    for seed in 100..if size > IN_MEMORY { 120 } else { 101 } {
        lab.load(&words("2s", seed))?;
        if scarce.reads()? > SETTLED {
            break;
        }
    }
    scarce.limit_reads(READS)?;
    lab.load(&words("1s", 7))?;
    let before = scarce.reads()?;
    let time = if size > IN_MEMORY { lab.pick("5s", "20s") } else { lab.pick("3s", "5s") };
    let answers = lab.load(&words(time, 8))?;
    Ok(Point {
        per_second: answers.good() / answers.figure("/seconds").max(0.001),
        reads_each: (scarce.reads()? - before) as f64 / answers.good().max(1.0),
        p50: answers.latency_ms("p50"),
        p99: answers.latency_ms("p99"),
        errors: answers.errors(),
    })
}

/// AMPED beside the best other architecture at every size, and where each other one is worst off.
fn shows(lines: &[Line]) -> String {
    let Some(amped) = lines.iter().find(|line| line.name == "AMPED") else { return "AMPED was not measured.".into() };
    let ours = |x: f64| amped.points.iter().find(|point| point.0 == x).map(|point| point.1);
    let worst = |line: &Line| {
        let ratios = line.points.iter().filter_map(|point| Some((point.1 / ours(point.0)?, point.0)));
        ratios.min_by(|a, b| a.0.total_cmp(&b.0))
    };
    let others = lines.iter().filter(|line| line.name != "AMPED");
    let said: Vec<_> = others
        .filter_map(|line| {
            let (ratio, x) = worst(line)?;
            Some(format!("{} {ratio:.2} of it (at {x:.0} MB)", line.name))
        })
        .collect();
    let least = amped.points.iter().filter_map(|point| {
        let others = lines.iter().filter(|line| ["MP", "MT", "SPED"].contains(&line.name.as_str()));
        let best = others
            .flat_map(|line| &line.points)
            .filter(|other| other.0 == point.0)
            .map(|other| other.1)
            .reduce(f64::max)?;
        Some((point.1 / best, point.0))
    });
    let least = least.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(String::new(), |(ratio, x)| {
        format!("AMPED has at least {ratio:.2} times the best other architecture's throughput (at {x:.0} MB). ")
    });
    format!("{least}At their worst against AMPED the others reach: {}.", said.join(", "))
}

/// Reads before what is measured.
const SETTLED: u64 = 60_000;
/// Page cache included.
const MEMORY: u64 = 180 << 20;
const READS: u32 = 10_000;
/// The head of the distribution. More would be a second copy of what the page cache holds, in memory that is short: with 32 MB a request
/// beyond memory cost 0.81 to 0.88 reads, with none 0.41 (half of it for entries whose directory blocks had gone when they
/// were due to be confirmed: with a confirmation a minute instead of one a second, 16 MB cost 0.81 instead of 1.38).
const CACHE: &str = "8MB";
/// About as many files as the memory holds besides the server.
const IN_MEMORY: usize = 12_000;

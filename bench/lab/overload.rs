//! Overload: what is served, and how fast, when more is asked for than can be done? An open loop offers from half to eight times what the
//! server can do; a closed loop cannot overload anything. Three resources run out: the loop, with files in memory; the loop again, with a
//! connection for each request (`overload`); the disk, while a probe asks for a file in memory (`drowned`).

use std::io::Result;
use std::time::{Duration, Instant};

use super::Lab;
use super::figure::Figure;
use super::measure::{Answers, Files, Subject};
use super::plot::{Axis, Line, Plot};
use crate::bench::cgroup::{Scarce, drop_caches};
use crate::bench::cores::Cores;
use crate::bench::corpus;
use crate::bench::report::{count, median, millis};
use crate::bench::server::Running;
use crate::bench::spindles::Spindles;

/// Runs it for the loop, with and without a connection for each request.
///
/// # Errors
/// The files could not be made.
pub fn run(lab: &Lab) -> Result<Figure> {
    let about = format!(
        "Capacity: a closed loop. Then an open loop offers 0.5 to 8 times as much, and at last a tenth, for the latency without load; the offers take turns while the host runs both cores beside one cache (what parted is repeated), and the middle ones of {} \
         runs are shown ({} with new connections, {} of the peers). `{}`: 100 files in memory, 32 keep-alive connections (who answers all that come waits for as many as there are, by Little's law: with 64 each waits twice as long), heads as long as a browser's ({} bytes); amped also writes an access log, to /dev/null: without it \
         the generator's core is full before amped's is. `{}`: the same files with short heads and without a log, a connection each, 64 at a time for the capacity, then 256. {FROM_SENDING}",
        lab.pick(1, ROUNDS),
        lab.pick(1, ROUNDS / 3),
        lab.pick(1, ROUNDS_OF_PEERS),
        Resource::Memory.name(),
        BROWSER.len(),
        Resource::Connections.name(),
    );
    figure(lab, "Overload", about, &[Resource::Memory, Resource::Connections])
}

/// Runs it for the disk.
///
/// # Errors
/// No control groups here, or the files could not be made.
pub fn of_the_disk(lab: &Lab) -> Result<Figure> {
    let about = format!(
        "Capacity: a closed loop of 16 connections. Then an open loop offers 0.5 to 8 times as much, and at last a tenth, for the latency without load: what is in memory is by then what it was under \
         load. Any of 200,000 files with {} MB of memory and a disk of {ARMS} arms that take {A_READ:?} for a read, 1,000 connections, while a probe asks 500 times a second for a file in memory; amped with 4 \
         helpers and `disk_delay = \"10ms\"`. {FROM_SENDING}",
        MEMORY >> 20
    );
    figure(lab, "A drowned disk", about, &[Resource::Disk])
}

fn figure(lab: &Lab, title: &str, about: String, resources: &[Resource]) -> Result<Figure> {
    let files = Files::tail()?;
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    let mut plots = Vec::new();
    let mut said = Vec::new();
    for resource in resources {
        let mut lines = Vec::new();
        for subject in subjects(lab, resource) {
            match measure(lab, resource, &subject, &files) {
                Ok((points, note)) => {
                    notes.extend(note.map(|note| format!("{}, {}: {note}", resource.name(), subject.name())));
                    rows.extend(points.iter().map(|point| point.row(resource, &subject)));
                    if subject.name() == "amped" {
                        said.push(judgement(resource, &points));
                    }
                    let goodput = points.iter().filter(|point| point.offered >= STEPS[0]);
                    let goodput = goodput.map(|point| (point.offered, point.goodput)).collect();
                    lines.push(Line { name: subject.name().into(), points: goodput });
                }
                Err(error) => notes.push(format!("{}, {}: {error}", resource.name(), subject.name())),
            }
            println!("overload: {}, {}", resource.name(), subject.name());
        }
        plots.push(Plot {
            title: format!("Answers 200 a second: {}", resource.name()),
            x: Axis::log("offered, of what it can do"),
            y: Axis::linear("answers/s"),
            lines,
        });
    }
    Ok(Figure {
        title: title.into(),
        about,
        shows: said.join(" "),
        plots,
        columns: [
            "what runs out, server",
            "offered",
            "offered/s",
            "answered/s",
            "200/s",
            "p50",
            "p99",
            "refused/s",
            "refused p50",
            "failed",
            "hit's p99",
            "busy",
        ]
        .map(String::from)
        .into(),
        rows,
        notes,
    })
}

fn subjects(lab: &Lab, resource: &Resource) -> Vec<Subject> {
    let log = if matches!(resource, Resource::Memory) { LOGGING } else { "" };
    let amped = Subject::amped("amped", &format!("{log}{AMPED}"));
    let peers = lab.pick(&[][..], &["nginx", "lighttpd"]);
    let peers = peers.iter().map(|name| Subject::Peer(name));
    std::iter::once(amped).chain(peers).collect()
}

/// What there is too little of.
enum Resource {
    Memory,
    Connections,
    Disk,
}

impl Resource {
    fn name(&self) -> &'static str {
        match self {
            Self::Memory => "the loop",
            Self::Connections => "the loop, new connections",
            Self::Disk => "the disk",
        }
    }

    /// Words for amped-lab, by whether it is to find the capacity.
    fn words(&self, closed: bool) -> String {
        match (self, closed) {
            (Self::Memory, _) => {
                let fields = BROWSER.lines().map(|line| format!(" --header {line}"));
                format!("-c 32 --mix 100%:100{}", fields.collect::<String>())
            }
            (Self::Connections, true) => "-c 64 --close --mix 100%:100".into(),
            (Self::Connections, false) => "-c 256 --close --mix 100%:100".into(),
            (Self::Disk, true) => "-c 16 --uniform".into(),
            (Self::Disk, false) => "-c 1000 --uniform".into(),
        }
    }
}

/// What was seen with one offer.
#[derive(Default)]
struct Point {
    /// Times the capacity.
    offered: f64,
    rate: f64,
    answered: f64,
    goodput: f64,
    p50: f64,
    p99: f64,
    refused: f64,
    refused_p50: f64,
    /// Requests without an answer, most of them never sent: no connection was free for as long as anybody waits.
    failed: f64,
    /// The probe's 99th percentile, where there is one.
    hit: Option<f64>,
    /// The part of a core that the server used.
    busy: f64,
}

impl Point {
    /// `seconds` is for how long requests were due; the last of them are answered later.
    fn new((offered, rate): (f64, f64), seconds: f64, answers: &Answers, hit: Option<f64>, busy: f64) -> Self {
        let refused = answers.figure("/errors/status");
        Self {
            offered,
            rate,
            answered: answers.requests() / seconds,
            goodput: answers.good() / seconds,
            p50: answers.figure("/service_ms/p50"),
            p99: answers.figure("/service_ms/p99"),
            refused: refused / seconds,
            refused_p50: answers.figure("/refused_ms/p50"),
            failed: answers.errors() - refused,
            hit,
            busy,
        }
    }

    /// The middle ones of what was seen with the same offer.
    fn middle(points: &[Self]) -> Self {
        let middle = |of: fn(&Self) -> f64| median(points.iter().map(of));
        Self {
            offered: middle(|point| point.offered),
            rate: middle(|point| point.rate),
            answered: middle(|point| point.answered),
            goodput: middle(|point| point.goodput),
            p50: middle(|point| point.p50),
            p99: middle(|point| point.p99),
            refused: middle(|point| point.refused),
            refused_p50: middle(|point| point.refused_p50),
            failed: middle(|point| point.failed),
            hit: points[0].hit.map(|_| middle(|point| point.hit.unwrap_or(0.0))),
            busy: middle(|point| point.busy),
        }
    }

    fn row(&self, resource: &Resource, subject: &Subject) -> Vec<String> {
        let some = |is_there: bool, text: String| if is_there { text } else { "–".into() };
        vec![
            format!("{}, {}", resource.name(), subject.name()),
            format!("{} ×", self.offered),
            count(self.rate),
            count(self.answered),
            count(self.goodput),
            some(self.answered > 0.0, millis(self.p50)),
            some(self.answered > 0.0, millis(self.p99)),
            count(self.refused),
            some(self.refused > 0.0, millis(self.refused_p50)),
            count(self.failed),
            self.hit.map_or_else(|| "–".into(), millis),
            format!("{:.0}%", self.busy * 100.0),
        ]
    }
}

/// What the points say of the promise.
fn judgement(resource: &Resource, points: &[Point]) -> String {
    let Some((alone, loaded)) = points.split_last() else { return String::new() };
    let Some(last) = loaded.last() else { return String::new() };
    let peak = points.iter().map(|point| point.goodput).fold(0.0, f64::max);
    let worst = |of: fn(&Point) -> f64| loaded.iter().map(of).fold(0.0, f64::max);
    let mut said = format!(
        "amped, {}: at {} times the capacity {:.2} of its best rate of answers 200; their 99th percentile {} at its worst, {} at {} times, {} without load",
        resource.name(),
        last.offered,
        last.goodput / peak.max(1.0),
        millis(worst(|point| point.p99)),
        millis(loaded[0].p99),
        loaded[0].offered,
        millis(alone.p99),
    );
    if last.refused > 0.0 {
        said.push_str(&format!("; a refusal's median at its worst {}", millis(worst(|point| point.refused_p50))));
    }
    if last.hit.is_some() {
        said.push_str(&format!(
            "; a hit's 99th percentile at its worst {}",
            millis(worst(|point| point.hit.unwrap_or(0.0)))
        ));
    }
    said + "."
}

/// What was seen with each offer, and what is to be said of how.
fn measure(lab: &Lab, resource: &Resource, subject: &Subject, files: &Files) -> Result<(Vec<Point>, Option<String>)> {
    let list = files.list(200_000)?;
    let list = format!("--urls {}", list.display());
    match resource {
        Resource::Memory | Resource::Connections => {
            let running = subject.serve(lab, &corpus::tail()?, "64MB", None)?;
            // The machine is faster at some times than at others: the offers take turns, short ones.
            let rounds = match (subject.name(), resource) {
                ("amped", Resource::Memory) => ROUNDS,
                ("amped", _) => ROUNDS / 3,
                _ => ROUNDS_OF_PEERS,
            };
            steps(lab, &running, resource, &list, lab.pick((1, 4), (rounds, 2)), None)
        }
        Resource::Disk => {
            let spindles = Spindles::mount(files.root(), ARMS)?;
            let files = files.at(spindles.path());
            let scarce = Scarce::of_memory(MEMORY)?;
            drop_caches()?;
            // As after hours: memory is full, and every file that comes in drives another out.
            files.fill_memory(30_000, &scarce)?;
            spindles.take(A_READ);
            let running = subject.serve(lab, files.root(), "32MB", Some(&scarce))?;
            let hot = running.url(files.first());
            // A few hundred answers a second: in ten seconds chance alone makes a tenth.
            steps(lab, &running, resource, &list, (1, lab.pick(4, 30)), Some(&hot))
        }
    }
}

fn steps(
    lab: &Lab,
    running: &Running,
    resource: &Resource,
    list: &str,
    (rounds, time): (usize, u32),
    hot: Option<&str>,
) -> Result<(Vec<Point>, Option<String>)> {
    let url = running.url("/");
    // The disk's is not known before memory holds what it holds after minutes: files and folders at random.
    let warm_up = if hot.is_some() { lab.pick(20, 90) } else { 2 };
    let closed = resource.words(true);
    let closed = format!("{url} {list} {closed} -d {time}s --warm-up {warm_up}s --timeout 30s");
    // Where the disk is the limit, the cores are not.
    let mut cores = Cores::new(if hot.is_some() { Duration::ZERO } else { lab.pick(Duration::ZERO, PATIENCE) });
    let closed = cores.together(|| lab.load(&closed))?;
    let capacity = closed.good() / closed.figure("/seconds").max(0.001);
    let offers = [lab.pick(&[1.0, 8.0][..], &STEPS), &[UNLOADED]].concat();
    let mut seen: Vec<Vec<Point>> = offers.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        let mut turns: Vec<_> = offers.iter().zip(&mut seen).collect();
        // There and back, or the greatest offer would always come last.
        if round % 2 == 1 {
            turns.reverse();
        }
        for (offered, points) in turns {
            let rate = (offered * capacity).max(1.0).round();
            let words = format!("{url} {list} {}", resource.words(false));
            points.push(cores.together(|| offer(lab, running, &words, (*offered, rate), time, hot))?);
        }
    }
    let note = if hot.is_some() { None } else { cores.note() };
    Ok((seen.iter().map(|points| Point::middle(points)).collect(), note))
}

/// Offers so much for so many seconds, and sees what comes of it.
fn offer(
    lab: &Lab,
    running: &Running,
    words: &str,
    (offered, rate): (f64, f64),
    time: u32,
    hot: Option<&str>,
) -> Result<Point> {
    let (settling, patience) = if hot.is_some() { (3, 2) } else { (1, 1) };
    let load =
        lab.start_load(&format!("{words} -d {time}s --warm-up {settling}s --rate {rate} --timeout {patience}s"))?;
    std::thread::sleep(Duration::from_millis(settling * 1000 + 500));
    let (family, began) = (running.family(), Instant::now());
    let processor = family.cpu_seconds();
    let hit = match hot {
        Some(hot) => {
            let probe = lab.probe(&format!("{hot} -c 4 --rate 500 -d {}s --timeout 20s", time - 2), 1)?;
            Some(probe.latency_ms("p99"))
        }
        None => {
            std::thread::sleep(Duration::from_secs(u64::from(time) - 1));
            None
        }
    };
    let busy = (family.cpu_seconds() - processor) / began.elapsed().as_secs_f64();
    let point = match load.wait() {
        Ok(answers) => Point::new((offered, rate), f64::from(time), &answers, hit, busy),
        Err(error) if error.to_string().contains("no request was answered") => {
            let failed = rate * f64::from(time);
            Point { offered, rate, failed, hit, busy, ..Point::default() }
        }
        Err(error) => return Err(error),
    };
    // What an overload has left behind is gone: connections, queues.
    std::thread::sleep(Duration::from_secs(1));
    Ok(point)
}

/// One for each arm: where latency is what counts, nothing is to wait inside the disk (docs/overload.md).
const AMPED: &str = "workers = 1\nhelpers = 4\n[overload]\ndisk_delay = \"10ms\"\n";
const LOGGING: &str = "access_log = \"/dev/null\"\n";
/// What a browser sends beside the first line and Host, a field a line; without spaces, which divide amped-lab's words here.
const BROWSER: &str = "\
User-Agent:Mozilla/5.0(X11;Linux-x86_64;rv:128.0)Gecko/20100101,Firefox/128.0
Accept:text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8
Accept-Language:de,en-US;q=0.7,en;q=0.3
Accept-Encoding:gzip,deflate,br,zstd
Referer:http://127.0.0.1/a/page/of/this/site.html
Cookie:session=0123456789abcdef0123456789abcdef0123456789abcdef;theme=dark;consent=necessary%2Cstatistics
Upgrade-Insecure-Requests:1
Sec-Fetch-Dest:document
Sec-Fetch-Mode:navigate
Sec-Fetch-Site:same-origin
Sec-Fetch-User:?1";
const FROM_SENDING: &str = "Latencies count from sending: what waited for a connection inside the load generator is the generator's. It has one core as \
                            the server has; what it did send is in the table, and what the server was busy with it.";
const UNLOADED: f64 = 0.1;
const STEPS: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
const ROUNDS: usize = 9;
const ROUNDS_OF_PEERS: usize = 1;
/// For the cores to be together, with each server.
const PATIENCE: Duration = Duration::from_secs(300);
const ARMS: u32 = 4;
const A_READ: Duration = Duration::from_millis(4);
/// Page cache included.
const MEMORY: u64 = 180 << 20;

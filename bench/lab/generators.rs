//! Two load generators and one server: do amped-lab and wrk see the same, and what does each spend on a request?

use std::io::{Error, Result};

use super::Lab;
use super::figure::Figure;
use super::measure::Subject;
use super::plot::{Axis, Line, Plot};
use crate::bench::corpus;
use crate::bench::load::Load;
use crate::bench::report::{count, median, millis};

/// Runs it.
///
/// # Errors
/// nginx or wrk did not start, or gave no result.
pub fn run(lab: &Lab) -> Result<Figure> {
    let running = Subject::Peer("nginx").serve(lab, &corpus::plain()?, "64MB", None)?;
    let url = running.url("/1k.html");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // In turn, so that each pair of them finds the machine at about the same speed.
    for _ in 0..lab.pick(5, 15) {
        theirs.push(wrk(&url)?);
        ours.push(amped_lab(lab, &url)?);
    }
    let ratio = |of: fn(&Seen) -> f64| median(ours.iter().zip(&theirs).map(|(ours, theirs)| of(ours) / of(theirs)));
    let row = |name: &str, all: &[Seen]| {
        let middle = |of: fn(&Seen) -> f64| median(all.iter().map(of));
        let errors = all.iter().map(|seen| seen.errors).sum();
        vec![
            name.to_owned(),
            count(middle(|seen| seen.per_second)),
            millis(middle(|seen| seen.p50)),
            millis(middle(|seen| seen.p99)),
            count(middle(|seen| seen.per_cpu)),
            count(errors),
        ]
    };
    let rates = |all: &[Seen]| all.iter().zip(1..).map(|(seen, at)| (f64::from(at), seen.per_second)).collect();
    let columns = ["generator", "requests/s", "p50", "p99", "requests per CPU-s of the generator", "errors"];
    Ok(Figure {
        title: "Two load generators".into(),
        about: format!(
            "wrk and amped-lab ask the same nginx for 1 KB on {CONNECTIONS} keep-alive connections, a closed loop, {SECONDS} s each in turn, {} times; \
             medians. Ratios are the medians of the pairs'.",
            ours.len()
        ),
        shows: format!(
            "amped-lab by wrk: {:.2} of its requests per second, {:.2} of its median latency, {:.2} of its requests per second of the \
             generator's processor time.",
            ratio(|seen| seen.per_second),
            ratio(|seen| seen.p50),
            ratio(|seen| seen.per_cpu),
        ),
        plots: vec![Plot {
            title: "Requests per second".into(),
            x: Axis::linear("turn"),
            y: Axis::linear("requests/s"),
            lines: vec![
                Line { name: "wrk".into(), points: rates(&theirs) },
                Line { name: "amped-lab".into(), points: rates(&ours) },
            ],
        }],
        columns: columns.map(String::from).into(),
        rows: vec![row("wrk", &theirs), row("amped-lab", &ours)],
        notes: Vec::new(),
    })
}

struct Seen {
    per_second: f64,
    p50: f64,
    p99: f64,
    per_cpu: f64,
    errors: f64,
}

fn wrk(url: &str) -> Result<Seen> {
    let before = children_cpu_seconds()?;
    let load = Load {
        connections: CONNECTIONS,
        seconds: SECONDS,
        script: "plain",
        script_args: Vec::new(),
        url: url.to_owned(),
    };
    let seen = load.run()?;
    let used = children_cpu_seconds()? - before;
    Ok(Seen {
        per_second: seen.per_second(),
        p50: seen.p50_ms,
        p99: seen.p99_ms,
        per_cpu: seen.requests as f64 / used.max(0.01),
        errors: seen.errors as f64,
    })
}

fn amped_lab(lab: &Lab, url: &str) -> Result<Seen> {
    let before = children_cpu_seconds()?;
    let seen = lab.load(&format!("{url} -c {CONNECTIONS} -d {SECONDS}s"))?;
    let used = children_cpu_seconds()? - before;
    Ok(Seen {
        per_second: seen.per_second(),
        p50: seen.latency_ms("p50"),
        p99: seen.latency_ms("p99"),
        per_cpu: seen.requests() / used.max(0.01),
        errors: seen.errors(),
    })
}

/// Processor time of the children that have ended: cutime and cstime of proc_pid_stat(5), in clock ticks.
fn children_cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(") ").map(|(_, fields)| fields).unwrap_or_default();
    let ticks: Vec<f64> = fields.split(' ').skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    match ticks[..] {
        [user, system] => Ok((user + system) / rustix::param::clock_ticks_per_second() as f64),
        _ => Err(Error::other("/proc/self/stat has no times")),
    }
}

const CONNECTIONS: u32 = 64;
const SECONDS: u32 = 2;

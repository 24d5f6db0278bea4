//! What do idle connections cost the busy ones? Banga, Mogul and Druschel asked it of select in 1998 ("Better operating system
//! features for faster network servers"), and Provos and Lever of poll, /dev/poll and realtime signals in 2000 ("Scalable network I/O in Linux").
//! 64 busy connections, and a crowd that never asks again; the price of a request, driver by driver.

use std::io::{Error, Result};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Lab;
use super::figure::Figure;
use super::measure::{DRIVERS, Load, Subject, from_many_addresses, per_cpu_second};
use super::plot::{Axis, Line, Plot};
use crate::bench::corpus;
use crate::bench::report::{count, median};
use crate::bench::server::Running;

/// Runs it.
///
/// # Errors
/// No driver could be measured.
pub fn run(lab: &Lab) -> Result<Figure> {
    let crowds = lab.pick(vec![19_000], vec![1_000, 2_000, 5_000, 10_000, 15_000, 19_000]);
    let root = corpus::plain()?;
    let mut notes = Vec::new();
    let (mut lines, mut rows) = (Vec::new(), Vec::new());
    // A thread for each connection has no idle crowd.
    for driver in DRIVERS.into_iter().filter(|driver| *driver != "blocking") {
        let (mut points, mut alone) = (vec![(0.0, 100.0)], Vec::new());
        for &crowd in &crowds {
            match measure(lab, &Subject::driver(driver), &root, crowd) {
                Ok(seen) => {
                    points.push((crowd as f64, 100.0 * seen.kept));
                    alone.push(seen.alone);
                }
                Err(error) => notes.push(format!("{driver}, {crowd} idle: {error}")),
            }
        }
        println!("idle: {driver}");
        let kept = |crowd: &usize| {
            let point = points.iter().find(|point: &&(f64, f64)| point.0 == *crowd as f64);
            point.map_or("–".into(), |point| format!("{:.0}%", point.1))
        };
        let mut row = vec![driver.to_owned(), count(median(alone))];
        row.extend(crowds.iter().map(kept));
        rows.push(row);
        lines.push(Line { name: driver.into(), points });
    }
    let most = crowds.last().copied().unwrap_or_default();
    let lost: Vec<_> = lines
        .iter()
        .filter_map(|line| {
            line.points
                .last()
                .filter(|point| point.0 == most as f64)
                .map(|point| format!("{} {:.0}%", line.name, 100.0 - point.1))
        })
        .collect();
    let mut columns = vec!["driver".to_owned(), "per CPU-s alone".into()];
    columns.extend(crowds.iter().map(|crowd| format!("{crowd} idle")));
    Ok(Figure {
        title: "The cost of idle connections".into(),
        about: format!(
            "64 busy keep-alive connections ask for 1 KB beside a crowd that has asked once and stays. What is kept of the requests per second of the \
             server's processor time that a second server of the same driver reaches without a crowd, in turns with it: the middle one of {ROUNDS} ratios."
        ),
        shows: format!(
            "From none to {most} idle connections the price of a request grows so that this is lost: {}.",
            lost.join(", ")
        ),
        plots: vec![Plot {
            title: "Requests per second of processor time".into(),
            x: Axis::linear("idle connections"),
            y: Axis::linear("% of those without"),
            lines,
        }],
        columns,
        rows,
        notes,
    })
}

struct Seen {
    /// Requests per second of processor time beside the crowd, by those without one.
    kept: f64,
    alone: f64,
}

fn measure(lab: &Lab, subject: &Subject, root: &std::path::Path, crowd: usize) -> Result<Seen> {
    let running = subject.serve(lab, root, "64MB", None)?;
    let other = subject.serve(lab, root, "64MB", None)?;
    let idle = gather(lab, &running, crowd)?;
    let words = |of: &Running, time: &str| format!("{} -c 64 -d {time}", of.url("/1k.html"));
    let (mut kept, mut alone) = (Vec::new(), Vec::new());
    for server in [&running, &other] {
        lab.load(&words(server, "500ms"))?;
    }
    for _ in 0..ROUNDS {
        // The machine's own pace changes by a fifth from minute to minute.
        let round = |server: &Running| per_cpu_second(lab, server, &words(server, lab.pick("1s", "2s")));
        let (beside, without) = (round(&running)?.0, round(&other)?.0);
        kept.push(beside / without);
        alone.push(without);
    }
    let gone = idle.interrupt()?.figure("/idle/connections/closed_while_idle");
    if gone > 0.0 {
        return Err(Error::other(format!("{gone} of the crowd were closed meanwhile")));
    }
    Ok(Seen { kept: median(kept), alone: median(alone) })
}

/// Lets a crowd connect and ask once; then it only stays.
fn gather(lab: &Lab, running: &Running, crowd: usize) -> Result<Load> {
    // Each asks at a random moment of the first hour at the latest: practically never.
    let sources = from_many_addresses();
    let words = format!("{} -c 0 --idle {crowd} --idle-every 1h -d 10m{sources}", running.url("/1k.html"));
    let load = lab.start_load(&words)?;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", running.pid())).map_or(0, Iterator::count);
    let started = Instant::now();
    while descriptors() < crowd {
        if started.elapsed() > Duration::from_secs(60) {
            let there = descriptors();
            load.interrupt().map(drop)?;
            return Err(Error::other(format!("after a minute the server has {there} descriptors")));
        }
        sleep(Duration::from_millis(100));
    }
    sleep(Duration::from_millis(500));
    Ok(load)
}

const ROUNDS: usize = 3;

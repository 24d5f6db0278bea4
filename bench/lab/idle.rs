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
    let crowds = lab.pick(vec![0, 19_000], vec![0, 1_000, 2_000, 5_000, 10_000, 15_000, 19_000]);
    let root = corpus::plain()?;
    let mut notes = Vec::new();
    let mut lines = Vec::new();
    // A thread for each connection has no idle crowd.
    for driver in DRIVERS.into_iter().filter(|driver| *driver != "blocking") {
        let mut points = Vec::new();
        for &crowd in &crowds {
            match measure(lab, &Subject::driver(driver), &root, crowd) {
                Ok(figure) => points.push((crowd as f64, figure)),
                Err(error) => notes.push(format!("{driver}, {crowd} idle: {error}")),
            }
        }
        println!("idle: {driver}");
        lines.push(Line { name: driver.into(), points });
    }
    let rows = lines.iter().map(|line| {
        let cell = |crowd: &usize| line.points.iter().find(|point| point.0 == *crowd as f64);
        let mut row = vec![line.name.clone()];
        row.extend(crowds.iter().map(|crowd| cell(crowd).map_or("–".into(), |point| count(point.1))));
        row.push(loss(line).map_or("–".into(), |loss| format!("{:.0}%", loss * 100.0)));
        row
    });
    let rows = rows.collect();
    let most = crowds.last().copied().unwrap_or_default();
    let lost: Vec<_> =
        lines.iter().filter_map(|line| Some(format!("{} {:.0}%", line.name, loss(line)? * 100.0))).collect();
    let mut columns = vec!["driver".to_owned()];
    columns.extend(crowds.iter().map(|crowd| format!("{crowd} idle")));
    columns.push("lost".into());
    Ok(Figure {
        title: "The cost of idle connections".into(),
        about: format!(
            "64 busy keep-alive connections ask for 1 KB beside a crowd that has asked once and stays. Requests per second of the \
             server's processor time, medians of {ROUNDS} rounds on the same server."
        ),
        shows: format!(
            "From none to {most} idle connections the price of a request grows so that this is lost: {}.",
            lost.join(", ")
        ),
        plots: vec![Plot {
            title: "Requests per second of processor time".into(),
            x: Axis::linear("idle connections"),
            y: Axis::linear("requests per CPU-second"),
            lines,
        }],
        columns,
        rows,
        notes,
    })
}

/// The share of the first point that the last one lacks.
fn loss(line: &Line) -> Option<f64> {
    let (first, last) = (line.points.first()?, line.points.last()?);
    (line.points.len() > 1).then(|| 1.0 - last.1 / first.1)
}

fn measure(lab: &Lab, subject: &Subject, root: &std::path::Path, crowd: usize) -> Result<f64> {
    let running = subject.serve(lab, root, "64MB", None)?;
    let idle = if crowd > 0 { Some(gather(lab, &running, crowd)?) } else { None };
    let words = |time: &str| format!("{} -c 64 -d {time}", running.url("/1k.html"));
    lab.load(&words("500ms"))?;
    let rounds: Result<Vec<f64>> =
        (0..ROUNDS).map(|_| Ok(per_cpu_second(lab, &running, &words(lab.pick("1s", "3s")))?.0)).collect();
    if let Some(idle) = idle {
        let answers = idle.interrupt()?;
        let gone = answers.figure("/idle/connections/closed_while_idle");
        if gone > 0.0 {
            return Err(Error::other(format!("{gone} of the crowd were closed meanwhile")));
        }
    }
    Ok(median(rounds?))
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

//! Pipelining and flushing: 1 to 64 requests in one write. A server that writes each answer by itself pays a system call and a
//! segment for each; one that gathers pays once. What Nagle's algorithm would add is seen on a server that leaves it on.

use std::io::Result;

use super::Lab;
use super::figure::Figure;
use super::measure::{Subject, per_cpu_second};
use super::plot::{Axis, Line, Plot};
use crate::bench::corpus;
use crate::bench::report::{count, median, millis};

/// Runs it.
///
/// # Errors
/// The files could not be made.
pub fn run(lab: &Lab) -> Result<Figure> {
    let root = corpus::plain()?;
    let depths = lab.pick(vec![1, 8, 64], vec![1, 2, 4, 8, 16, 32, 64]);
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    let mut lines = Vec::new();
    let amped = ["epoll-edge", "uring"].map(Subject::driver).into_iter();
    let peers = ["nginx", "lighttpd", "h2o"].map(Subject::Peer).into_iter();
    // One loop that answers a constant, in three ways: the difference is the way and nothing else.
    let ways = [
        ("null, one gathered send", "--send gathered"),
        ("null, a send each", "--send each"),
        ("null, head and body", "--send halves"),
        ("null, the same with Nagle", "--send halves --nagle on"),
    ];
    let nulls = ways.map(|(name, words)| Subject::Null { name, words });
    for subject in amped.chain(peers).chain(nulls) {
        let mut points = Vec::new();
        let measured = subject.serve(lab, &root, "64MB", None).and_then(|running| {
            for &depth in &depths {
                let words =
                    format!("{} -c 16 --pipeline {depth} -d {}", running.url("/100.html"), lab.pick("1s", "2s"));
                let rounds: Result<Vec<_>> = (0..3).map(|_| per_cpu_second(lab, &running, &words)).collect();
                let rounds = rounds?;
                let cost = median(rounds.iter().map(|(figure, _)| *figure));
                let p50 = median(rounds.iter().map(|(_, answers)| answers.latency_ms("p50")));
                let errors = rounds.iter().map(|(_, answers)| answers.errors()).sum();
                points.push((f64::from(depth), cost));
                rows.push(vec![subject.name().to_owned(), depth.to_string(), count(cost), millis(p50), count(errors)]);
            }
            Ok(())
        });
        if let Err(error) = measured {
            notes.push(format!("{}: {error}", subject.name()));
        }
        println!("pipelining: {}", subject.name());
        lines.push(Line { name: subject.name().into(), points });
    }
    let waits = |name: &str| rows.iter().find(|row: &&Vec<String>| row[0] == name).map_or("–", |row| &row[3]);
    let nagle = format!(
        "A head and a body in two sends take {} at depth 1, with Nagle's algorithm {}.",
        waits(ways[2].0),
        waits(ways[3].0)
    );
    let gain = |line: &Line| Some(line.points.last()?.1 / line.points.first()?.1);
    let said: Vec<_> = lines.iter().filter_map(|line| Some(format!("{} {:.1}", line.name, gain(line)?))).collect();
    let most = depths.last().copied().unwrap_or_default();
    Ok(Figure {
        title: "Pipelining".into(),
        about: "16 connections, 100-byte files, up to 64 requests under way on each. Requests per second of the server's processor time, \
                medians of three rounds."
            .into(),
        shows: format!("With {most} requests under way instead of 1 a second of processor time serves this many times the requests: {}. {nagle}", said.join(", ")),
        plots: vec![Plot {
            title: "Requests per second of processor time".into(),
            x: Axis::log("requests under way on each connection"),
            y: Axis::log("requests per CPU-second"),
            lines,
        }],
        columns: ["server", "under way", "per CPU-s", "p50", "errors"].map(String::from).into(),
        rows,
        notes,
    })
}

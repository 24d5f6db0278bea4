//! System calls per request, driver by driver, counted by strace: the figure behind the others.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Lab;
use super::figure::Figure;
use super::measure::{DRIVERS, Files, Subject};
use super::plot::{Axis, Line, Plot};
use crate::bench::corpus;

/// Runs it.
///
/// # Errors
/// The files could not be made.
pub fn run(lab: &Lab) -> Result<Figure> {
    let files = Files::tail()?;
    let list = files.list(20_000)?;
    let scenarios = [
        ("one keep-alive connection", corpus::plain()?, "/1k.html", "-c 1".to_owned()),
        ("64 keep-alive connections", corpus::plain()?, "/1k.html", "-c 64".to_owned()),
        ("16 pipelined", corpus::plain()?, "/100.html", "-c 16 --pipeline 16".to_owned()),
        ("a connection each", corpus::plain()?, "/100.html", "-c 16 --close".to_owned()),
        ("64 KB", corpus::plain()?, "/64k.bin", "-c 16".to_owned()),
        ("not in amped's cache", files.root().to_path_buf(), "/", format!("-c 16 --urls {}", list.display())),
    ];
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    let mut lines = Vec::new();
    let drivers = DRIVERS.map(Subject::driver).into_iter();
    for subject in drivers.chain(["nginx", "lighttpd", "h2o"].map(Subject::Peer)) {
        let mut row = vec![subject.name().to_owned()];
        let mut points = Vec::new();
        for (at, (name, root, path, words)) in scenarios.iter().enumerate() {
            match counted(lab, &subject, root, path, words) {
                Ok(calls) => {
                    row.push(calls.say());
                    points.push((at as f64 + 1.0, calls.total));
                }
                Err(error) => {
                    row.push("–".into());
                    notes.push(format!("{}, {name}: {error}", subject.name()));
                }
            }
        }
        println!("calls: {}", subject.name());
        rows.push(row);
        lines.push(Line { name: subject.name().into(), points });
    }
    let keep_alive = |line: &Line| line.points.iter().find(|point| point.0 == 2.0).map(|point| point.1);
    let said: Vec<_> =
        lines.iter().filter_map(|line| Some(format!("{} {:.2}", line.name, keep_alive(line)?))).collect();
    let mut columns = vec!["server".to_owned()];
    columns.extend(scenarios.iter().map(|(name, ..)| (*name).to_owned()));
    Ok(Figure {
        title: "System calls per request".into(),
        about: "Counted by strace over a second of load (which slows the server, so a turn finds less to do at once than at full speed); \
                the three most frequent calls after the sum."
            .into(),
        shows: format!("System calls per request on 64 keep-alive connections: {}.", said.join(", ")),
        plots: vec![Plot {
            title: "System calls per request, by column of the table".into(),
            x: Axis::linear("column"),
            y: Axis::log("calls per request"),
            lines,
        }],
        columns,
        rows,
        notes,
    })
}

/// Calls per request, the most frequent first.
struct Calls {
    total: f64,
    each: Vec<(String, f64)>,
}

impl Calls {
    fn say(&self) -> String {
        let each = self.each.iter().take(3).filter(|(_, count)| *count >= 0.01);
        let each: Vec<_> = each.map(|(name, count)| format!("{name} {count:.2}")).collect();
        format!("{:.2}: {}", self.total, each.join(", "))
    }
}

fn counted(lab: &Lab, subject: &Subject, root: &std::path::Path, path: &str, words: &str) -> Result<Calls> {
    // No memory cache where its absence is the question.
    let cache = if path == "/" { "0" } else { "64MB" };
    let running = subject.serve(lab, root, cache, None)?;
    let url = running.url(path);
    lab.load(&format!("{url} {words} -d 300ms"))?;
    let summary = corpus::home()?.join("lab-strace");
    let mut strace = Command::new("strace");
    strace.args(["-c", "-f", "-q", "-o"]).arg(&summary);
    for pid in running.family().processes() {
        strace.args(["-p", &pid.to_string()]);
    }
    let mut strace = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let answers = lab.load(&format!("{url} {words} -d 1s"));
    if let Some(pid) = rustix::process::Pid::from_raw(strace.id() as i32) {
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    }
    strace.wait()?;
    let requests = answers?.requests().max(1.0);
    let counts = parse(&std::fs::read_to_string(summary)?);
    if counts.is_empty() {
        return Err(Error::other("strace counted nothing"));
    }
    let mut each: Vec<(String, f64)> =
        counts.into_iter().map(|(name, count)| (name, count as f64 / requests)).collect();
    each.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(Calls { total: each.iter().map(|(_, count)| count).sum(), each })
}

/// `% time seconds usecs/call calls [errors] syscall`
fn parse(summary: &str) -> BTreeMap<String, u64> {
    let rows = summary.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.last().filter(|name| **name != "total")?;
        let calls = fields.get(3)?.parse().ok()?;
        (5..=6).contains(&fields.len()).then(|| ((*name).to_owned(), calls))
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read() {
        let summary = "% time     seconds  usecs/call     calls    errors syscall\n\
                       ------ ----------- ----------- --------- --------- ----------------\n \
                       60.00    0.000300           3       100           recvfrom\n \
                       40.00    0.000200           2       101         1 sendto\n\
                       ------ ----------- ----------- --------- --------- ----------------\n\
                       100.00    0.000500           2       201         1 total\n";
        let calls = parse(summary);
        assert_eq!(calls.into_iter().collect::<Vec<_>>(), [("recvfrom".into(), 100), ("sendto".into(), 101)]);
    }
}

//! The soak: every kind of client at once for twenty minutes, while files are replaced, logs rotated and the configuration reloaded every few
//! seconds. Is memory flat after the warm-up, do descriptors stay, does anything fail?

use std::fs;
use std::io::Result;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Lab;
use super::figure::Figure;
use super::measure::{Answers, Files, Load};
use super::plot::{Axis, Line, Plot};
use super::supervised::{Size, Supervised};
use crate::bench::report::count;

/// Runs it.
///
/// # Errors
/// The server did not start, or an event failed: a reload, a replaced file that was not seen.
pub fn run(lab: &Lab) -> Result<Figure> {
    let files = Files::tail()?;
    let list = files.list(200_000)?;
    let root = files.root().to_owned();
    let server = Supervised::start(
        lab,
        "lab-soak",
        Box::new(move |folder, port, round| configuration(&root, folder, port, round)),
        |folder| {
            let site = folder.join("site");
            fs::create_dir_all(&site)?;
            fs::write(site.join("large"), vec![b'x'; 10 << 20])?;
            fs::write(site.join("picture"), vec![b'x'; 28_800])?;
            fs::write(site.join("changing"), "x")
        },
    )?;
    let list = format!("--urls {}", list.display());
    let minutes = lab.pick(1, 20);
    let clients: Vec<Result<(&Kind, Load)>> = KINDS
        .iter()
        .map(|kind| {
            let words = kind.words.replace("LIST", &list);
            Ok((kind, lab.start_load(&format!("{} {words} -d 2h", server.running.url(kind.path)))?))
        })
        .collect();
    let clients = clients.into_iter().collect::<Result<Vec<_>>>()?;
    let samples = events(&server, Duration::from_secs(60 * minutes));
    let answers: Result<Vec<(&Kind, Answers)>> =
        clients.into_iter().map(|(kind, load)| Ok((kind, load.interrupt()?))).collect();
    Ok(figure(minutes, &samples?, &answers?))
}

struct Sample {
    minute: f64,
    size: Size,
}

/// Every few seconds something an operator or a publisher does once an hour, and a look at the process.
fn events(server: &Supervised, length: Duration) -> Result<Vec<Sample>> {
    let (start, mut samples) = (Instant::now(), Vec::new());
    let site = server.folder.join("site");
    for round in 1.. {
        let began = Instant::now();
        server.reload(round)?;
        server.running.expect("/round", 1 + round as u64)?;
        fs::rename(server.folder.join("access.log"), server.folder.join("access.log.1"))?;
        let supervisor = Pid::from_raw(server.running.pid() as i32).expect("its own child");
        kill_process(supervisor, Signal::USR1)?;
        fs::write(site.join("new"), "x".repeat(1 + round))?;
        fs::rename(site.join("new"), site.join("changing"))?;
        // The revalidation time, and what a busy machine adds to it.
        sleep(Duration::from_secs(2));
        server.running.expect("/site/changing", 1 + round as u64)?;
        samples.push(Sample { minute: start.elapsed().as_secs_f64() / 60.0, size: server.size()? });
        if start.elapsed() >= length {
            break;
        }
        sleep(EVERY.saturating_sub(began.elapsed()));
    }
    Ok(samples)
}

fn figure(minutes: u64, samples: &[Sample], answers: &[(&Kind, Answers)]) -> Figure {
    let sum = |pointers: [&str; 2]| {
        let each =
            answers.iter().map(|(_, answers)| pointers.map(|pointer| answers.figure(pointer)).iter().sum::<f64>());
        each.sum::<f64>()
    };
    let (all, failed) = (sum(["/requests", "/idle/requests"]), sum(["/errors/total", "/idle/errors/total"]));
    // Caches fill in the first third; the rest is compared with itself.
    let settled = &samples[samples.len() / 3..];
    let (early, late) = settled.split_at(settled.len() / 2);
    let mean = |samples: &[Sample], of: fn(&Size) -> f64| {
        samples.iter().map(|sample| of(&sample.size)).sum::<f64>() / samples.len().max(1) as f64
    };
    let megabytes = |size: &Size| size.kilobytes as f64 / 1024.0;
    let descriptors = |size: &Size| size.descriptors as f64;
    let points = |of: fn(&Size) -> f64| samples.iter().map(|sample| (sample.minute, of(&sample.size))).collect();
    Figure {
        title: "A soak".into(),
        about: format!(
            "{minutes} minutes, one worker, a cache of 64 MB, 200,000 files, an access log. Every {} s the configuration is changed and reloaded, the log \
             rotated, and a file replaced, which must be served new within two seconds. The clients are in the table.",
            EVERY.as_secs()
        ),
        shows: format!(
            "{:.1} million requests, {} failed. Resident memory, after the first third: {:.1} MB on average in the first half of the rest, {:.1} MB in \
             the second; descriptors {:.0} and {:.0}. {} reloads, log rotations and replaced files.",
            all / 1e6,
            count(failed),
            mean(early, megabytes),
            mean(late, megabytes),
            mean(early, descriptors),
            mean(late, descriptors),
            samples.len(),
        ),
        plots: vec![
            Plot {
                title: "Resident memory".into(),
                x: Axis::linear("minutes"),
                y: Axis::linear("MB"),
                lines: vec![Line { name: "server process".into(), points: points(megabytes) }],
            },
            Plot {
                title: "Descriptors".into(),
                x: Axis::linear("minutes"),
                y: Axis::linear("open"),
                lines: vec![Line { name: "server process".into(), points: points(descriptors) }],
            },
        ],
        columns: ["clients", "requests", "answered/s", "failed", "kinds of failure"].map(String::from).into(),
        rows: answers.iter().map(|(kind, answers)| kind.row(answers)).collect(),
        notes: Vec::new(),
    }
}

struct Kind {
    name: &'static str,
    path: &'static str,
    /// Words for amped-lab; LIST stands for the files.
    words: &'static str,
}

impl Kind {
    fn row(&self, answers: &Answers) -> Vec<String> {
        let kinds = ["connect", "reset", "closed", "timeout", "bad_answer", "short_body", "status"];
        let seen: Vec<String> = kinds
            .iter()
            .map(|kind| (kind, answers.figure(&format!("/errors/{kind}"))))
            .filter(|(_, figure)| *figure > 0.0)
            .map(|(kind, figure)| format!("{kind} {}", count(figure)))
            .collect();
        vec![
            self.name.into(),
            count(answers.requests() + answers.figure("/idle/requests")),
            count(answers.per_second()),
            count(answers.errors() + answers.figure("/idle/errors/total")),
            if seen.is_empty() { "–".into() } else { seen.join(", ") },
        ]
    }
}

fn configuration(root: &Path, folder: &Path, port: u16, round: usize) -> String {
    let (log, site, body) = (folder.join("access.log"), folder.join("site"), "x".repeat(1 + round));
    format!(
        "listen = \"127.0.0.1:{port}\"\nworkers = 1\ncache = \"64MB\"\naccess_log = {log:?}\n\n[limits]\nmax_connections = 19000\n\n\
         [[sites]]\nroot = {root:?}\n\n[[sites.routes]]\nmatch = \"/site/*\"\nroot = {site:?}\n\n[[sites.routes]]\nmatch = \"/round\"\n\
         status = 200\nbody = \"{body}\"\n"
    )
}

const EVERY: Duration = Duration::from_secs(10);
const KINDS: [Kind; 9] = [
    Kind { name: "browsers of the tail", path: "/", words: "-c 64 --rate 16k LIST --mix 90%:2000,10%:all" },
    Kind { name: "pipelines", path: "/", words: "-c 4 -p 8 --rate 1500 LIST --mix 100%:500" },
    Kind { name: "a connection for each request", path: "/", words: "-c 16 --close --rate 200 LIST --uniform" },
    Kind { name: "downloads of 10 MB", path: "/site/large", words: "-c 2 --rate 4" },
    Kind { name: "readers of what changes", path: "/site/changing", words: "-c 2 --rate 50" },
    Kind { name: "names that are not there", path: "/none", words: "-c 2 --rate 50 --expect-status 404" },
    Kind { name: "an idle crowd", path: "/round", words: "-c 0 --idle 2000 --idle-every 30s" },
    Kind { name: "modems", path: "/site/picture", words: "-c 200 --modem 28.8k --timeout 60s" },
    Kind { name: "heads a byte at a time", path: "/round", words: "-c 100 --trickle 100ms --timeout 30s" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_told_from_the_next() {
        let text = configuration(Path::new("/srv"), Path::new("/run"), 80, 2);
        assert!(text.contains("body = \"xxx\"") && text.contains("access_log = \"/run/access.log\""), "{text}");
    }
}

//! What do restarts cost those who are being served? An open loop asks all the time while the configuration is reloaded, the binary
//! upgraded and the server process killed, again and again. Nobody may be refused; and but for what a killed process was answering,
//! nobody may fail.

use std::io::{Error, Result};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::Lab;
use super::figure::Figure;
use super::measure::Answers;
use super::plot::{Axis, Line, Plot};
use super::supervised::{Size, Supervised};
use crate::bench::client::Client;
use crate::bench::corpus;
use crate::bench::report::{median, millis};

/// Runs it.
///
/// # Errors
/// The server did not start, refused a reload or an upgrade, or did not come back.
pub fn run(lab: &Lab) -> Result<Figure> {
    let root = corpus::plain()?;
    let server = Supervised::start(
        lab,
        "lab-restarts",
        Box::new(move |_, port, round| configuration(&root, port, round)),
        |_| Ok(()),
    )?;
    let mut notes = Vec::new();
    let quiet = bother(&server, lab, lab.pick(3, 10), |_| {
        sleep(Duration::from_secs(1));
        Ok(Duration::ZERO)
    })?;
    let (reloads, upgrades, kills) = (lab.pick(100, 1000), lab.pick(5, 20), lab.pick(3, 20));
    let (mut early, mut late) = (None, None);
    let reloaded = bother(&server, lab, reloads, |round| {
        // Not from the first on: memory that is needed once is needed.
        if round == reloads / 10 {
            early = Some(server.size()?);
        }
        sleep(Duration::from_millis(10));
        let taken = reload(&server, round)?;
        if round + 1 == reloads {
            late = Some(server.size()?);
        }
        Ok(taken)
    })?;
    if let (Some(early), Some(late)) = (early, late) {
        notes.push(format!("the server process, after a tenth of the reloads: {early}; after all: {late}"));
    }
    let before = Size::of(server.running.pid())?;
    let upgraded = bother(&server, lab, upgrades, |_| {
        sleep(Duration::from_secs(1));
        timed(|| server.tell("upgrade").map(drop))
    })?;
    let after = Size::of(server.running.pid())?;
    notes.push(format!("the supervisor, before the upgrades: {before}; after: {after}"));
    let killed = bother(&server, lab, kills, |_| {
        // After ten seconds of service a crash is the first one again, and is not waited for.
        sleep(Duration::from_secs(11));
        kill(&server)
    })?;
    notes.push(
        "reload, upgrade: until the command has returned. kill -9: until somebody who connects just then is answered"
            .into(),
    );
    notes.push(
        "the load's figures are of all the time: a connection that waits in the kernel's queue is late, not refused"
            .into(),
    );
    let phases = [("nothing", &quiet), ("reload", &reloaded), ("upgrade", &upgraded), ("kill -9", &killed)];
    let say = |phase: &Phase| {
        format!("median {}, worst {}", millis(median(phase.times.iter().copied())), millis(phase.worst()))
    };
    Ok(Figure {
        title: "Restarts under load".into(),
        about: format!(
            "One worker serves 1 KB to {CONNECTIONS} connections, {RATE} requests a second in an open loop, while something happens again and again."
        ),
        shows: format!(
            "{} requests failed during {reloads} reloads ({}) and {} during {upgrades} upgrades ({}). After each of {kills} kill -9 a newcomer \
             was answered in: {}; {} connections were refused, {} requests failed with the connection that their process had.",
            whole(reloaded.answers.errors()),
            say(&reloaded),
            whole(upgraded.answers.errors()),
            say(&upgraded),
            say(&killed),
            whole(killed.refused()),
            whole(killed.answers.errors() - killed.refused()),
        ),
        plots: vec![Plot {
            title: "How long it takes".into(),
            x: Axis::linear("percent of them within"),
            y: Axis::log("ms"),
            lines: phases
                .iter()
                .skip(1)
                .map(|(name, phase)| Line { name: (*name).into(), points: phase.curve() })
                .collect(),
        }],
        columns: [
            "what happens",
            "times",
            "median",
            "worst",
            "requests",
            "failed",
            "refused",
            "connections made",
            "load's p99",
            "load's longest",
        ]
        .map(String::from)
        .to_vec(),
        rows: phases.iter().map(|(name, phase)| phase.row(name)).collect(),
        notes,
    })
}

/// Something that happened again and again, and what the load had of it.
struct Phase {
    /// In milliseconds.
    times: Vec<f64>,
    answers: Answers,
}

/// Lets it happen so many times under load.
fn bother(
    server: &Supervised,
    lab: &Lab,
    times: usize,
    mut happen: impl FnMut(usize) -> Result<Duration>,
) -> Result<Phase> {
    let url = server.running.url("/1k.html");
    let load = lab.start_load(&format!("{url} -c {CONNECTIONS} --rate {RATE} --warm-up 500ms -d 1h"))?;
    sleep(Duration::from_millis(1500));
    let taken: Result<Vec<Duration>> = (0..times).map(&mut happen).collect();
    sleep(Duration::from_secs(1));
    let answers = load.interrupt()?;
    Ok(Phase { times: taken?.iter().map(|taken| taken.as_secs_f64() * 1e3).collect(), answers })
}

fn reload(server: &Supervised, round: usize) -> Result<Duration> {
    let taken = timed(|| server.reload(round))?;
    server.running.expect("/round", 1 + round as u64)?;
    Ok(taken)
}

fn kill(server: &Supervised) -> Result<Duration> {
    let victim = server.server()?;
    timed(|| {
        kill_process(victim, Signal::KILL)?;
        let start = Instant::now();
        while !Client::connect(server.running.port)
            .and_then(|mut client| client.get("/1k.html"))
            .is_ok_and(|answer| answer.status == 200)
        {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(Error::other("nobody has answered for 10 s"));
            }
        }
        Ok(())
    })
}

impl Phase {
    fn worst(&self) -> f64 {
        self.times.iter().copied().fold(0.0, f64::max)
    }

    fn refused(&self) -> f64 {
        self.answers.figure("/errors/connect")
    }

    /// From the shortest to the longest.
    fn curve(&self) -> Vec<(f64, f64)> {
        let mut times = self.times.clone();
        times.sort_by(f64::total_cmp);
        let share = 100.0 / times.len() as f64;
        times.into_iter().enumerate().map(|(at, time)| ((at + 1) as f64 * share, time)).collect()
    }

    fn row(&self, name: &str) -> Vec<String> {
        let answers = &self.answers;
        vec![
            name.into(),
            self.times.len().to_string(),
            millis(median(self.times.iter().copied())),
            millis(self.worst()),
            whole(answers.requests()),
            whole(answers.errors()),
            whole(self.refused()),
            whole(answers.figure("/connections/made")),
            millis(answers.latency_ms("p99")),
            millis(answers.latency_ms("max")),
        ]
    }
}

/// A site of the round: `/round` is one byte longer each time.
fn configuration(root: &Path, port: u16, round: usize) -> String {
    let body = "x".repeat(1 + round);
    format!(
        "listen = \"127.0.0.1:{port}\"\nworkers = 1\n\n[[sites]]\nroot = {root:?}\n\n[[sites.routes]]\nmatch = \"/round\"\nstatus = 200\n\
         body = \"{body}\"\n"
    )
}

fn whole(figure: f64) -> String {
    format!("{figure:.0}")
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

const CONNECTIONS: usize = 64;
/// Far below what one worker can do: what waits, waits for the restart and not for the server.
const RATE: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_told_from_the_next() {
        let text = configuration(Path::new("/srv"), 80, 2);
        assert!(text.contains("body = \"xxx\"") && text.contains("root = \"/srv\""), "{text}");
    }
}

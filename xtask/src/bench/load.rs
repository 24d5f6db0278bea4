//! The load, on the second core: wrk as fast as it can, its result read from the line that bench/scenarios/report.lua writes; or curl
//! at a pace.

use std::io::{Error, Result};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::meter::Family;
use super::report::median;
use crate::root;

/// One run of wrk to come.
pub struct Load {
    pub connections: u32,
    pub seconds: u32,
    /// A file of bench/scenarios/, without its ending.
    pub script: &'static str,
    pub script_args: Vec<String>,
    pub url: String,
}

impl Load {
    pub fn start(&self) -> Result<Running> {
        let script = root().join("bench/scenarios").join(self.script).with_extension("lua");
        let child = Command::new("taskset")
            .args(["-c", super::LOAD_CORE, "wrk", "-t1", "--timeout", "60s"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .arg("-s")
            .arg(script)
            .arg(&self.url)
            .arg("--")
            .args(&self.script_args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Running { child })
    }

    pub fn run(&self) -> Result<Outcome> {
        self.start()?.wait()
    }
}

pub struct Running {
    child: Child,
}

impl Running {
    /// Seconds of processor time it has taken so far.
    pub fn cpu_seconds(&self) -> f64 {
        Family::of(self.child.id()).cpu_seconds()
    }

    pub fn wait(self) -> Result<Outcome> {
        let output = self.child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        Outcome::parse(&text).ok_or_else(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            Error::other(format!("wrk gave no result:\n{text}{error}"))
        })
    }
}

/// So many clients that fetch a file of 100 MiB twice a second, each at 200 MiB/s, by curl's own limit. Who takes all that a server can
/// send is served faster by one server than by another, and on a loopback the faster one does more of the kernel's work, which the
/// client's core does otherwise: only at the same rate are their costs those of the same work.
pub fn paced(clients: u32, seconds: u32, url: &str) -> Result<Outcome> {
    let client = || {
        let mut curl = Command::new("taskset");
        curl.args(["-c", super::LOAD_CORE, "curl", "--silent", "--limit-rate", "200M", "--write-out"]);
        curl.arg("%{http_code} %{size_download} %{time_total} %{exitcode}\\n");
        for _ in 0..2 * seconds {
            curl.args(["-o", "/dev/null", url]);
        }
        curl.stdout(Stdio::piped()).spawn()
    };
    let began = Instant::now();
    let children: Vec<Child> = (0..clients).map(|_| client()).collect::<Result<_>>()?;
    let outputs: Vec<_> = children.into_iter().map(Child::wait_with_output).collect::<Result<_>>()?;
    let elapsed = began.elapsed().as_secs_f64();
    let text: String = outputs.iter().map(|output| String::from_utf8_lossy(&output.stdout)).collect();
    let outcome = Outcome { seconds: elapsed, ..Outcome::of_transfers(&text) };
    let wanted = u64::from(clients * 2 * seconds);
    match outcome.requests == wanted {
        true => Ok(outcome),
        false => Err(Error::other(format!("curl told of {} transfers, not {wanted}", outcome.requests))),
    }
}

/// What one run of the load saw.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    pub requests: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Statuses from 400 on, which are among the requests.
    pub refused: u64,
    /// These and all socket errors.
    pub errors: u64,
}

impl Outcome {
    /// Requests that got what they asked for.
    pub fn per_second(&self) -> f64 {
        self.requests.saturating_sub(self.refused) as f64 / self.seconds
    }

    /// Lines of status, bytes, seconds and curl's exit code, one for each transfer.
    fn of_transfers(text: &str) -> Self {
        let mut outcome = Self::default();
        let mut times = Vec::new();
        for line in text.lines() {
            let fields: Vec<f64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            let &[status, bytes, seconds, exit] = &fields[..] else { continue };
            outcome.requests += 1;
            outcome.bytes += bytes as u64;
            outcome.refused += u64::from(status >= 400.0);
            outcome.errors += u64::from(status != 200.0 || exit != 0.0);
            times.push(seconds * 1e3);
        }
        times.sort_by(f64::total_cmp);
        outcome.p50_ms = median(times.iter().copied());
        outcome.p99_ms = times.last().copied().unwrap_or(0.0);
        outcome
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("result "))?;
        let mut outcome = Self::default();
        for pair in line.split(' ') {
            let (name, value) = pair.split_once('=')?;
            let value: u64 = value.parse().ok()?;
            let millis = value as f64 / 1000.0;
            match name {
                "requests" => outcome.requests = value,
                "bytes" => outcome.bytes = value,
                "micros" => outcome.seconds = millis / 1000.0,
                "p50" => outcome.p50_ms = millis,
                "p99" => outcome.p99_ms = millis,
                "status" => outcome.refused = value,
                _ => outcome.errors += value,
            }
        }
        outcome.errors += outcome.refused;
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_are_added_up() {
        let outcome = Outcome::of_transfers("200 1000 0.5 0\n200 1000 0.6 18\n503 10 0.001 0\n000 5 0.7 7\n");
        assert_eq!((outcome.requests, outcome.bytes, outcome.refused, outcome.errors), (4, 2015, 1, 3));
        assert_eq!((outcome.p50_ms, outcome.p99_ms), (550.0, 700.0));
    }

    #[test]
    fn a_result_line_is_read() {
        let text = "Running 4s test\n\nresult requests=1000 bytes=5000 micros=2000000 p50=1500 p99=9000 \
                    status=1 connect=2 read=3 write=4 timeout=5\n";
        let outcome = Outcome::parse(text).unwrap();
        assert_eq!((outcome.requests, outcome.refused, outcome.errors), (1000, 1, 15));
        assert_eq!((outcome.per_second(), outcome.p50_ms, outcome.p99_ms), (499.5, 1.5, 9.0));
    }
}

//! The command line: what was typed. What it means is decided in `plan`.
//!
//! Exit codes: 0 done, 1 failed or an assertion does not hold, 2 bad usage.

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use amped_runtime::driver::Kind;
use clap::{Parser, ValueEnum};

use crate::assertion::Assertion;
use crate::catalogue::Mix;
use crate::fleet;
use crate::live::Live;
use crate::load::Event;
use crate::plan::Plan;
use crate::quantity::{parse_bits, parse_count, parse_duration, parse_positive, parse_rate, parse_size};
use crate::report::hdr::HdrFile;
use crate::report::{self, Summary};
use crate::target;

/// A load generator for HTTP/1.1 servers.
///
/// Without --rate a closed loop: each connection asks again as soon as it is answered. With --rate an open loop: requests are
/// due at fixed times whatever the server does, and latencies count from those times.
#[derive(Clone, Debug, Parser)]
#[command(name = "amped-lab", version, about)]
pub struct Arguments {
    /// What to ask: `http://HOST:PORT/PATH`; with --urls, --folder or --log only the server counts
    #[arg(value_name = "URL")]
    pub url: String,

    /// Connections that load the server
    #[arg(short, long, value_name = "N", default_value = "64", value_parser = parse_count)]
    pub connections: u64,
    /// How long to measure: 10s, 2m [default: 10s, or until --requests are done]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// End after so many requests
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_positive)]
    pub requests: Option<u64>,
    /// Load before the measure begins, not counted
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub warm_up: Duration,

    /// Open loop: requests per second, from all connections together: 2000, 50k, 0.5
    #[arg(short, long, value_name = "PER SECOND", value_parser = parse_rate, help_heading = "Shape")]
    pub rate: Option<f64>,
    /// Requests of an open loop come at random (Poisson arrivals) instead of evenly spaced
    #[arg(long, requires = "rate", help_heading = "Shape")]
    pub poisson: bool,
    /// Requests under way on each connection at a time
    #[arg(short, long, value_name = "DEPTH", default_value = "1", value_parser = parse_positive, help_heading = "Shape")]
    pub pipeline: u64,
    /// Churn: close each connection after so many requests and make a new one
    #[arg(long, value_name = "N", value_parser = parse_positive, help_heading = "Shape")]
    pub requests_per_connection: Option<u64>,
    /// A connection for each request, no keep-alive: --requests-per-connection 1
    #[arg(long, conflicts_with = "requests_per_connection", help_heading = "Shape")]
    pub close: bool,
    /// Connections beside the load that ask only now and then
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_count, help_heading = "Shape")]
    pub idle: u64,
    /// How often each of those asks
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Shape")]
    pub idle_every: Duration,
    /// Modem clients: read so many bits per second, with a small receive buffer: 28.8k, 56k
    #[arg(long, value_name = "BITS/S", value_parser = parse_bits, help_heading = "Shape")]
    pub modem: Option<u64>,
    /// Slow senders: send requests one byte at a time, so long apart; with --body the body, after the head at once
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Shape")]
    pub trickle: Option<Duration>,
    /// The kernel's receive buffer of each connection (SO_RCVBUF) [default: the kernel's choice; 8KiB with --modem]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Shape")]
    pub receive_buffer: Option<usize>,

    /// A file of paths or URLs, one a line
    #[arg(long, value_name = "FILE", conflicts_with_all = ["folder", "log"], help_heading = "What to ask")]
    pub urls: Option<PathBuf>,
    /// The files below this folder, which the server serves at its root
    #[arg(long, value_name = "DIR", help_heading = "What to ask")]
    pub folder: Option<PathBuf>,
    /// Replay the GETs of a log in the common or combined format, in order; with --folder only those of files in it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["zipf", "uniform", "mix"], help_heading = "What to ask")]
    pub log: Option<PathBuf>,
    /// Choose by Zipf's law with this exponent (a folder's files in random order, a list's as they stand)
    #[arg(long, value_name = "S", value_parser = parse_exponent, conflicts_with_all = ["uniform", "mix"], help_heading = "What to ask")]
    pub zipf: Option<f64>,
    /// Choose all with the same probability [default: one after the other]
    #[arg(long, conflicts_with = "mix", help_heading = "What to ask")]
    pub uniform: bool,
    /// Choose by weights: '90%:2000,10%:all' asks 90% uniformly of the first 2,000, 10% uniformly of all
    #[arg(long, value_name = "WEIGHT:FIRST,…", value_parser = Mix::parse, help_heading = "What to ask")]
    pub mix: Option<Mix>,
    /// Where random choices begin
    #[arg(long, value_name = "N", default_value = "1", help_heading = "What to ask")]
    pub seed: u64,
    /// GET or HEAD
    #[arg(long, value_name = "METHOD", default_value = "GET", ignore_case = true, help_heading = "What to ask")]
    pub method: Method,
    /// Send a body of so many bytes with each request
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "What to ask")]
    pub body: Option<usize>,
    /// One more field, 'Name: value'; may be repeated
    #[arg(long, value_name = "FIELD", help_heading = "What to ask")]
    pub header: Vec<String>,
    /// The Host field [default: the URL's]
    #[arg(long, value_name = "NAME", help_heading = "What to ask")]
    pub host: Option<String>,

    /// Give up a request when nothing has come for so long, or with --rate when no connection was free for so long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "How")]
    pub timeout: Duration,
    /// Any other status is an error [default: 4xx and 5xx are]
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..=999), help_heading = "How")]
    pub expect_status: Option<u16>,
    /// Processes to spread the load over [default: as many as the limit on descriptors requires]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256), help_heading = "How")]
    pub processes: Option<u16>,
    /// Addresses to connect from; may be repeated [default: the kernel's choice; on loopback more when ports run out]
    #[arg(long, value_name = "ADDR", help_heading = "How")]
    pub source: Vec<IpAddr>,
    /// How the loop waits for the kernel
    #[arg(long, value_name = "NAME", default_value = "auto", value_parser = parse_driver, help_heading = "How")]
    pub driver: DriverChoice,

    /// The report as one JSON object, on standard output
    #[arg(long, help_heading = "Results")]
    pub json: bool,
    /// Write all latencies: *.hlog in the HdrHistogram log format (one line a second), else its percentile table
    #[arg(long, value_name = "FILE", help_heading = "Results")]
    pub hdr: Option<PathBuf>,
    /// Exit with 1 unless this holds: 'p99<2ms', 'errors==0', 'rate>=1000'; may be repeated
    #[arg(long = "assert", value_name = "CONDITION", value_parser = Assertion::parse, help_heading = "Results")]
    pub assertions: Vec<Assertion>,
    /// No progress on standard error
    #[arg(short, long, help_heading = "Results")]
    pub quiet: bool,

    /// Internal: this is worker I of N of a run
    #[arg(long, value_name = "I/N", hide = true, value_parser = parse_share)]
    pub worker: Option<(u16, u16)>,
}

/// The methods that can be repeated without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
}

/// A driver that was asked for; `None` is `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriverChoice(pub Option<Kind>);

/// Reads the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = if arguments.worker.is_some() { work(&arguments) } else { execute(&arguments) };
    let (code, message) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(End::Failed(message)) => (1, message),
        Err(End::Usage(message)) => (2, message),
    };
    // Not `eprintln!`: a closed standard error must not change the exit code.
    let _ = writeln!(std::io::stderr(), "amped-lab: {message}");
    ExitCode::from(code)
}

/// How a run ends badly.
enum End {
    /// It could not be done, or did not meet what was asserted.
    Failed(String),
    /// It was not asked for rightly.
    Usage(String),
}

fn work(arguments: &Arguments) -> Result<(), End> {
    let plan = Plan::new(arguments).map_err(End::Usage)?;
    plan.make_room();
    fleet::work(plan).map_err(End::Failed)
}

fn execute(arguments: &Arguments) -> Result<(), End> {
    let plan = Plan::new(arguments).map_err(End::Usage)?;
    target::check_reachable(plan.address).map_err(End::Failed)?;
    if plan.processes() == 1 {
        plan.make_room();
    }
    let mut hdr = arguments.hdr.as_deref().map(HdrFile::create).transpose().map_err(End::Usage)?;
    let mut live = Live::new(arguments.quiet, &plan);
    let mut summary = Summary::new(arguments, &plan);
    let outcome = fleet::run(plan, |event| {
        live.show(event);
        if let Event::Interval(interval) = event {
            if let Some(hdr) = &mut hdr {
                hdr.interval(interval)?;
            }
            summary.add(interval);
        }
        Ok(())
    });
    live.end();
    outcome.map_err(End::Failed)?;
    if let Some(hdr) = hdr {
        hdr.finish(&summary).map_err(End::Failed)?;
    }
    let report = if arguments.json { report::json(&summary, &arguments.assertions) } else { report::text(&summary) };
    let _ = writeln!(std::io::stdout(), "{report}");
    let checks = arguments.assertions.iter().map(|assertion| assertion.check(&summary));
    let failed: Vec<String> = checks.filter_map(Result::err).collect();
    if !failed.is_empty() {
        return Err(End::Failed(format!("does not hold: {}", failed.join("; "))));
    }
    // Answers that are still coming are slow, and no failure; and who sends a byte at a time is there to try a server's patience.
    let counts = &summary.total.main.counts;
    let is_silent = counts.unfinished > 0 && counts.received == 0;
    if arguments.trickle.is_none() && summary.answers() == 0 && (summary.errors() > 0 || is_silent) {
        return Err(End::Failed("no request was answered".into()));
    }
    Ok(())
}

fn parse_exponent(typed: &str) -> Result<f64, String> {
    match typed.parse() {
        Ok(exponent @ 0.0..=10.0) => Ok(exponent),
        _ => Err("expected an exponent from 0 to 10; web servers see 0.6 to 1.1".into()),
    }
}

fn parse_driver(typed: &str) -> Result<DriverChoice, String> {
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == typed);
    match known {
        None if typed != "auto" => {
            let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            Err(format!("no driver `{typed}`: auto, {}", names.join(", ")))
        }
        choice => Ok(DriverChoice(choice)),
    }
}

fn parse_share(typed: &str) -> Result<(u16, u16), String> {
    let share = typed.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
    share.filter(|(index, of)| index < of).ok_or_else(|| "expected I/N".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}

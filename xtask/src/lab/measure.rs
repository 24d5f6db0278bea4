//! What experiments are made of: a server under test, a run of amped-lab, lists of files, and a memory that is filled first.

use std::fmt::Write as _;
use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::Lab;
use crate::bench::cgroup::Scarce;
use crate::bench::peers::{self, Place};
use crate::bench::server::Running;
use crate::bench::{LOAD_CORE, SERVER_CORE, corpus};

/// A server to be compared.
#[derive(Clone)]
pub enum Subject {
    /// amped, under a name for the plot, with these lines in its configuration.
    Amped { name: String, lines: String },
    /// A peer of the bench.
    Peer(&'static str),
    /// The null server, with options.
    Null { name: &'static str, words: &'static str },
}

impl Subject {
    pub fn amped(name: &str, lines: &str) -> Self {
        Self::Amped { name: name.into(), lines: lines.into() }
    }

    /// amped on a driver, one worker.
    pub fn driver(name: &str) -> Self {
        if name == "blocking" {
            // A thread for each connection: as many as the busiest load of the experiments has.
            return Self::amped(name, "architecture = \"mt\"\nworkers = 80\n");
        }
        Self::amped(name, &format!("driver = \"{name}\"\nworkers = 1\n"))
    }

    /// The same with more lines in its configuration, if it is amped.
    pub fn with(mut self, more: &str) -> Self {
        if let Self::Amped { lines, .. } = &mut self {
            lines.push_str(more);
        }
        self
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Amped { name, .. } => name,
            Self::Peer(name) | Self::Null { name, .. } => name,
        }
    }

    /// Serves a folder.
    ///
    /// # Errors
    /// It did not start; the message has its own words.
    pub fn serve(&self, lab: &Lab, root: &Path, cache: &'static str, scarce: Option<&Scarce>) -> Result<Running> {
        let folder = self.name().replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
        Running::launch(&format!("lab-{folder}"), scarce, |run, port| match self {
            Self::Peer(name) => {
                let server = peers::chosen(&[(*name).into()])?.remove(0);
                let place =
                    Place { port, root: root.into(), run: run.into(), cache: Some(cache.into()), size: 0, tail: None };
                server.command(&place, &Default::default())
            }
            Self::Null { words, .. } => {
                let mut command = Command::new(&lab.null);
                command.args(["--driver", "epoll", "--size", "100", "--port", &port.to_string()]);
                command.args(words.split_whitespace());
                Ok(command)
            }
            Self::Amped { lines, .. } => {
                let config = run.join("amped.toml");
                // More than descriptors allow: a crowd of 19,000 is to stay, and not to be reaped for being 85% of all there may be.
                let text = format!(
                    "listen = \"127.0.0.1:{port}\"\ncache = \"{cache}\"\n{lines}\n[limits]\nidle_timeout = \"1h\"\n\
                     max_connections = 23000\n\n[[sites]]\nroot = {root:?}\n"
                );
                fs::write(&config, text)?;
                let mut command = Command::new(&lab.amped);
                command.arg("run").arg("--no-supervisor").arg("-c").arg(config);
                Ok(command)
            }
        })
    }
}

/// The drivers, in the order of the C10K page.
pub const DRIVERS: [&str; 8] =
    ["select", "poll", "epoll-level", "epoll-edge", "sigio", "portable", "uring", "blocking"];

/// The architectures of the Flash paper and two peers: one core, room for 64 connections at a time.
pub fn architectures() -> Vec<Subject> {
    vec![
        Subject::amped("MP", "architecture = \"mp\"\nworkers = 64\n"),
        Subject::amped("MT", "architecture = \"mt\"\nworkers = 64\n"),
        Subject::amped("SPED", "architecture = \"sped\"\n"),
        Subject::amped("AMPED", "architecture = \"amped\"\n"),
        Subject::Peer("nginx"),
        Subject::Peer("lighttpd"),
    ]
}

/// A run of amped-lab under way.
pub struct Load {
    child: Child,
}

/// The report of one.
pub struct Answers {
    report: Value,
}

impl Lab {
    /// Runs amped-lab with these words (separated by spaces), and reads its report.
    ///
    /// # Errors
    /// It failed: its own words.
    pub fn load(&self, words: &str) -> Result<Answers> {
        self.start_load(words)?.wait()
    }

    /// The same for a probe beside another load: ahead of everybody on its core (SCHED_FIFO, where that is allowed), or it would
    /// measure how long the other load generator keeps the core. The middle one of `times` runs, by its 99th percentile: a shared machine
    /// stands still for tens of milliseconds now and then.
    ///
    /// # Errors
    /// It failed: its own words.
    pub fn probe(&self, words: &str, times: usize) -> Result<Answers> {
        self.probe_from(LOAD_CORE, words, times)
    }

    /// A probe on the server's core, for a load that fills its own: there even the kernel keeps whoever goes first waiting, for the
    /// packets of a core go through one queue (`ksoftirqd`, in slices of milliseconds).
    ///
    /// # Errors
    /// It failed: its own words.
    pub fn probe_beside_server(&self, words: &str, times: usize) -> Result<Answers> {
        self.probe_from(SERVER_CORE, words, times)
    }

    fn probe_from(&self, core: &str, words: &str, times: usize) -> Result<Answers> {
        let first = Command::new("chrt").args(["--fifo", "1", "true"]).status().is_ok_and(|status| status.success());
        let before: &[&str] = if first { &["chrt", "--fifo", "1"] } else { &[] };
        let mut runs = Vec::new();
        for _ in 0..times {
            runs.push(self.start(core, before, words)?.wait()?);
        }
        runs.sort_by(|a, b| a.latency_ms("p99").total_cmp(&b.latency_ms("p99")));
        Ok(runs.swap_remove(times / 2))
    }

    pub fn start_load(&self, words: &str) -> Result<Load> {
        self.start(LOAD_CORE, &[], words)
    }

    fn start(&self, core: &str, before: &[&str], words: &str) -> Result<Load> {
        let child = Command::new("taskset")
            .args(["-c", core])
            .args(before)
            .args(["setpriv", "--pdeathsig", "TERM"])
            .arg(&self.load)
            .args(words.split_whitespace())
            .args(["--json", "--quiet"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Load { child })
    }
}

impl Load {
    pub fn wait(self) -> Result<Answers> {
        let output = self.child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        if !output.status.success() {
            return Err(Error::other(format!("amped-lab: {said}")));
        }
        let report = serde_json::from_slice(&output.stdout)
            .map_err(|error| Error::other(format!("amped-lab's report: {error}; {said}")))?;
        Ok(Answers { report })
    }

    /// Ends it before its time; its report is still read.
    pub fn interrupt(self) -> Result<Answers> {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        }
        self.wait()
    }
}

impl Answers {
    /// A figure of the report by its JSON pointer; 0 where there is none.
    pub fn figure(&self, pointer: &str) -> f64 {
        self.report.pointer(pointer).and_then(Value::as_f64).unwrap_or(0.0)
    }

    pub fn requests(&self) -> f64 {
        self.figure("/requests")
    }

    pub fn per_second(&self) -> f64 {
        self.figure("/rates/requests_per_second")
    }

    /// Answers that were no refusals, in all.
    pub fn good(&self) -> f64 {
        self.requests() - self.figure("/errors/status")
    }

    pub fn errors(&self) -> f64 {
        self.figure("/errors/total")
    }

    /// A latency: `p50`, `p99`, `max`.
    pub fn latency_ms(&self, which: &str) -> f64 {
        self.figure(&format!("/latency_ms/{which}"))
    }
}

/// Words for a crowd's load: from eight addresses, since the kernel's search for a free port takes milliseconds once half of
/// an address's ports are in use.
pub fn from_many_addresses() -> String {
    (1..=8).map(|last| format!(" --source 127.0.1.{last}")).collect()
}

/// Requests per second of the server's processor time during a load.
///
/// # Errors
/// The load failed.
pub fn per_cpu_second(lab: &Lab, running: &Running, words: &str) -> Result<(f64, Answers)> {
    let family = running.family();
    let before = family.cpu_seconds();
    let answers = lab.load(words)?;
    let used = (family.cpu_seconds() - before).max(0.01);
    Ok((answers.requests() / used, answers))
}

/// The tail's files in a random order (the most popular first, for Zipf's law): their paths, written as a list.
pub struct Files {
    root: PathBuf,
    paths: Vec<String>,
}

impl Files {
    /// # Errors
    /// The files could not be made.
    pub fn tail() -> Result<Self> {
        let root = corpus::tail()?;
        let mut numbers: Vec<u32> = (0..200_000).collect();
        // Fisher and Yates, with Lehmer's numbers: the same order everywhere.
        let mut random = 1999_u64;
        for at in (1..numbers.len()).rev() {
            random = random * 16807 % 2_147_483_647;
            numbers.swap(at, (random % (at as u64 + 1)) as usize);
        }
        let paths = numbers.into_iter().map(|number| format!("/{}/{number}.html", number / 1000)).collect();
        Ok(Self { root, paths })
    }

    /// The same files in another place.
    pub fn at(&self, root: &Path) -> Self {
        Self { root: root.into(), paths: self.paths.clone() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn first(&self) -> &str {
        &self.paths[0]
    }

    /// The first `count` as a file for `--urls`.
    pub fn list(&self, count: usize) -> Result<PathBuf> {
        let list = corpus::home()?.join(format!("lab-{count}.urls"));
        fs::write(&list, self.paths[..count].join("\n"))?;
        Ok(list)
    }

    /// Bytes of the first `count`.
    pub fn bytes(&self, count: usize) -> Result<u64> {
        let sizes = self.paths[..count].iter().map(|path| Ok(fs::metadata(self.root.join(&path[1..]))?.len()));
        sizes.sum()
    }

    /// Reads the first `count` inside the memory group, the most popular last, without the disk's limit: what a server
    /// would have in memory after hours is there at once.
    ///
    /// # Errors
    /// The shell failed.
    pub fn fill_memory(&self, count: usize, scarce: &Scarce) -> Result<()> {
        let mut names = String::new();
        for path in self.paths[..count].iter().rev() {
            let _ = writeln!(names, "{}", &path[1..]);
        }
        let list = corpus::home()?.join("lab-fill");
        fs::write(&list, names)?;
        let script = format!("{} && cd \"$1\" && xargs cat < \"$2\" > /dev/null", scarce.enter_memory());
        let status = Command::new("sh").args(["-c", &script, "sh"]).arg(&self.root).arg(&list).status()?;
        if status.success() { Ok(()) } else { Err(Error::other(format!("reading the files: {status}"))) }
    }
}

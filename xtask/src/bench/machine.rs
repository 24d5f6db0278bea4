//! The machine's facts for the head of a report, and the settings of it that a run needs.

use std::fs;
use std::io::Result;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::peers::{Role, Server};
use crate::{install, root};

/// Processor, kernel, versions and commit, as Markdown lines.
pub fn facts(servers: &[&Server], congestion: Option<&str>) -> String {
    let usual = || fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    let mut lines = vec![
        format!("- processor: {}, {} cores", processor(), cores()),
        format!("- kernel: Linux {}, congestion control {}", kernel(), congestion.unwrap_or(&usual()).trim()),
        format!("- commit: {}", commit()),
    ];
    for server in servers.iter().filter(|server| server.role == Role::Peer) {
        lines.push(format!("- {}: {}", server.name, version(server)));
    }
    lines.join("\n")
}

/// `YYYY-MM-DD`.
pub fn today() -> String {
    said(Command::new("date").arg("+%F"))
}

/// A sentence for the report when somebody else uses the machine: its figures then compare within a table at best.
pub fn busy() -> Option<String> {
    let (total, idle) = processor_ticks()?;
    std::thread::sleep(Duration::from_millis(500));
    let (total_now, idle_now) = processor_ticks()?;
    let used = 1.0 - (idle_now - idle) as f64 / (total_now - total).max(1) as f64;
    (used > 0.1).then(|| {
        let percent = used * 100.0;
        format!("the machine was {percent:.0}% busy before the run: other work slowed every row")
    })
}

/// The longest time for which a program that only reads the clock is put aside on a core, in milliseconds: what no server can
/// do better than.
pub fn longest_pause(core: &str, seconds: u64) -> Option<f64> {
    let core = core.parse().ok()?;
    let watch = move || {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set).ok()?;
        let end = Instant::now() + Duration::from_secs(seconds);
        let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
        while last < end {
            let now = Instant::now();
            longest = longest.max(now - last);
            last = now;
        }
        Some(longest.as_secs_f64() * 1e3)
    };
    // A thread of its own: the affinity ends with it.
    std::thread::spawn(watch).join().ok()?
}

/// What the machine has read from its disks since it was started: proc_vmstat(5), pgpgin. 0 where it does not tell.
pub fn megabytes_from_disk() -> f64 {
    let text = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let kilobytes = text.lines().find_map(|line| line.strip_prefix("pgpgin ")?.trim().parse::<f64>().ok());
    kilobytes.unwrap_or_default() / 1e3
}

/// As many descriptors as allowed, for the bench and for every server it starts.
pub fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// More local ports for a connection per request. The old range comes back on drop.
pub struct Ports {
    before: String,
}

impl Ports {
    /// `None` where it may not be changed: then connects may fail, and the errors column says so.
    pub fn widen() -> Option<Self> {
        let before = fs::read_to_string(PORTS).ok()?;
        fs::write(PORTS, "10240 65535").ok()?;
        Some(Self { before })
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        let _ = fs::write(PORTS, &self.before);
    }
}

/// `busy_seconds` of all cores together.
pub const ALL_CORES: &str = "";

/// Seconds for which a core has not been idle so far, interrupts included: those that come while nothing runs are nobody's time.
pub fn busy_seconds(core: &str) -> f64 {
    let ticks = || {
        let text = fs::read_to_string("/proc/stat").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cpu{core} ")))?;
        let times: Vec<u64> = line.split_whitespace().map_while(|time| time.parse().ok()).collect();
        // User, nice and system; irq and softirq: proc_stat(5).
        Some([0, 1, 2, 5, 6].iter().filter_map(|at| times.get(*at)).sum::<u64>())
    };
    ticks().unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// All ticks of all cores so far, and the idle ones: proc_stat(5).
fn processor_ticks() -> Option<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // Idle and waiting for the disk.
    Some((ticks.iter().sum(), ticks.get(3)? + ticks.get(4)?))
}

fn processor() -> String {
    let facts = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = facts.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':'])).to_owned()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// The version without the builder's suffix.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().split('-').next().unwrap_or_default().to_owned()
}

fn commit() -> String {
    let git = |args: &[&str]| said(Command::new("git").args(args).current_dir(root()));
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let note = if changed.is_empty() { "" } else { ", with changes" };
    format!("{}{note}", git(&["rev-parse", "--short", "HEAD"]))
}

/// The first word of what it says about itself that has a digit and a dot in it.
fn version(server: &Server) -> String {
    let program = server.need.and_then(|need| install::find(need.program));
    let words = program.map(|program| said(Command::new(program).args(server.version))).unwrap_or_default();
    let number = |word: &&str| word.contains('.') && word.contains(|letter: char| letter.is_ascii_digit());
    words.split_whitespace().find(number).unwrap_or("unknown").to_owned()
}

fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return String::new();
    };
    // nginx gives its version on standard error.
    let words = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&words).trim().to_owned()
}

const PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

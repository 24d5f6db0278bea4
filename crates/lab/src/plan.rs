//! What a run is to do, as meant: checked, complete, and divisible among processes.
//!
//! Everything that can be wrong is found here, before the first connection, and said with what to type instead.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use amped_runtime::driver::{self, Kind};

use crate::catalogue::{Catalogue, Picker, Shape};
use crate::cli::{Arguments, DriverChoice, Method};
use crate::random::Random;
use crate::sources::{list_folder, read_list, read_log};
use crate::target::Url;

/// A run, or one process's share of it.
#[derive(Debug)]
pub struct Plan {
    /// Where to connect to.
    pub address: SocketAddr,
    /// What is asked.
    pub catalogue: Catalogue,
    /// In which order.
    pub picker: Picker,
    /// Whether the requests are HEADs.
    pub to_head: bool,
    /// Connections of the load.
    pub connections: usize,
    /// Requests under way on each.
    pub pipeline: usize,
    /// Requests after which a connection is closed.
    pub per_connection: Option<u64>,
    /// Requests per second of an open loop.
    pub rate: Option<f64>,
    /// Whether they come at random.
    pub poisson: bool,
    /// How much later than the others' this process's first request is due.
    pub phase: Duration,
    /// Requests after which the run ends.
    pub limit: Option<u64>,
    /// The time after which it ends.
    pub duration: Option<Duration>,
    /// Load before that, not counted.
    pub warm_up: Duration,
    /// Connections that ask now and then.
    pub idle: usize,
    /// How often.
    pub idle_every: Duration,
    /// Bits per second a connection reads.
    pub modem: Option<u64>,
    /// The time between two bytes of a request.
    pub trickle: Option<Duration>,
    /// SO_RCVBUF.
    pub receive_buffer: Option<usize>,
    /// Addresses to connect from, in turn; none leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    /// The patience with a silent server.
    pub timeout: Duration,
    /// Bytes of each request's body.
    pub body: Option<usize>,
    /// The only status that is no error.
    pub expect_status: Option<u16>,
    /// The loop's driver.
    pub driver: Kind,
    /// This process, and how many there are.
    pub share: (u16, u16),
    /// Where random choices begin; each process has its own.
    pub seed: u64,
    /// What `describe` says of the targets, when they are more than the URL.
    targets: String,
}

impl Plan {
    /// Makes sense of the arguments; for a worker, its share of them.
    ///
    /// # Errors
    /// What is wrong and what to type instead.
    pub fn new(arguments: &Arguments) -> Result<Self, String> {
        let url = Url::parse(&arguments.url)?;
        let address = url.resolve()?;
        check_numbers(arguments)?;
        let fields = arguments.header.iter().map(|field| check_field(field)).collect::<Result<Vec<_>, _>>()?;
        let host = arguments.host.clone().unwrap_or_else(|| url.authority());
        check_value("--host", &host)?;
        let share = match arguments.worker {
            Some(share) => share,
            None => (0, processes(arguments, amped_runtime::descriptor_limit())?),
        };
        let seed = arguments.seed.wrapping_mul(1 << 16).wrapping_add(u64::from(share.0));
        let Targets { paths, description } = Targets::read(arguments, &url)?;
        if u32::try_from(paths.len()).is_err() {
            return Err(format!("{} targets are more than fit: the limit is 4 billion", paths.len()));
        }
        let method = if arguments.method == Method::Head { "HEAD" } else { "GET" };
        let body = arguments.body;
        let shape = Shape { method, host: &host, fields: &fields, body };
        let catalogue = Catalogue::new(paths.iter().map(String::as_str), &shape);
        let picker = match (&arguments.mix, arguments.zipf, arguments.uniform) {
            (Some(mix), ..) => Picker::mix(catalogue.len(), mix, seed)?,
            (None, Some(exponent), _) => Picker::zipf(catalogue.len(), exponent, seed),
            (None, None, true) => Picker::uniform(catalogue.len(), seed),
            (None, None, false) => Picker::in_turn(catalogue.len(), share.0.into(), share.1.into()),
        };
        let mut plan = Self {
            address,
            catalogue,
            picker,
            to_head: arguments.method == Method::Head,
            connections: arguments.connections as usize,
            pipeline: arguments.pipeline as usize,
            per_connection: if arguments.close { Some(1) } else { arguments.requests_per_connection },
            rate: arguments.rate,
            poisson: arguments.poisson,
            phase: Duration::ZERO,
            limit: arguments.requests,
            duration: arguments.duration.or_else(|| arguments.requests.is_none().then_some(DURATION)),
            warm_up: arguments.warm_up,
            idle: arguments.idle as usize,
            idle_every: arguments.idle_every,
            modem: arguments.modem,
            trickle: arguments.trickle,
            receive_buffer: arguments.receive_buffer.or(arguments.modem.map(|_| MODEM_BUFFER)),
            sources: arguments.source.clone(),
            timeout: arguments.timeout,
            body,
            expect_status: arguments.expect_status,
            driver: choose(arguments.driver)?,
            share,
            seed,
            targets: description,
        };
        if arguments.worker.is_some() {
            plan.take_share();
        }
        Ok(plan)
    }

    /// How many processes the run takes.
    pub fn processes(&self) -> u16 {
        self.share.1
    }

    /// Has the kernel's table of descriptors grown before threads would have to wait for it in the middle of a measure.
    pub fn make_room(&self) {
        // Without it the run is only less exact.
        let _ = amped_runtime::make_room_for_descriptors(self.connections + self.idle + SPARE_DESCRIPTORS);
    }

    /// The run in a few words.
    pub fn describe(&self) -> String {
        let loop_ = match self.rate {
            Some(rate) => format!("open loop at {rate}/s{}", if self.poisson { ", at random" } else { "" }),
            None => "closed loop".to_owned(),
        };
        let mut words = vec![loop_, format!("{} connections", self.connections)];
        match self.per_connection {
            Some(1) => words.push("one request each".into()),
            Some(count) => words.push(format!("{count} requests each")),
            None => {}
        }
        if self.pipeline > 1 {
            words.push(format!("{} pipelined", self.pipeline));
        }
        words.extend(self.modem.map(|rate| format!("modems of {} kbit/s", rate as f64 / 1000.0)));
        words.extend(self.body.map(|size| format!("{size} bytes of body")));
        words.extend(self.trickle.map(|pause| format!("a byte sent every {pause:?}")));
        if self.idle > 0 {
            words.push(format!("beside {} idle ones that ask every {:?}", self.idle, self.idle_every));
        }
        if !self.targets.is_empty() {
            words.push(self.targets.clone());
        }
        words.push(format!("driver {}", self.driver));
        if self.share.1 > 1 {
            words.push(format!("{} processes", self.share.1));
        }
        words.join(", ")
    }

    /// Divides everything that is counted by the number of processes.
    fn take_share(&mut self) {
        let (index, of) = (u64::from(self.share.0), u64::from(self.share.1));
        let part = |whole: u64| whole / of + u64::from(index < whole % of);
        let all = self.connections + self.idle;
        self.connections = part(self.connections as u64) as usize;
        self.idle = part(self.idle as u64) as usize;
        self.limit = self.limit.map(part);
        if let Some(rate) = &mut self.rate {
            // The processes' requests interleave instead of coming in bursts of `of`.
            self.phase = Duration::from_secs_f64(index as f64 / *rate);
            *rate /= of as f64;
        }
        if self.sources.is_empty() && all > PORTS_OF_ONE_ADDRESS && is_loopback(self.address) {
            self.sources = vec![loopback(index as u32 + 1)];
        }
    }
}

/// The n-th address of 127.0.0.0/8 after 127.0.0.1: all of them are this machine's.
pub fn loopback(number: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + number))
}

/// Whether the server is one that any address of 127.0.0.0/8 can connect to.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.is_ipv4() && address.ip().is_loopback()
}

/// What is asked, before it is prepared.
struct Targets {
    paths: Vec<String>,
    description: String,
}

impl Targets {
    fn read(arguments: &Arguments, url: &Url) -> Result<Self, String> {
        let mut paths = vec![url.path.clone()];
        let mut description = String::new();
        let has_many = arguments.urls.is_some() || arguments.folder.is_some() || arguments.log.is_some();
        if !has_many && (arguments.uniform || arguments.zipf.is_some() || arguments.mix.is_some()) {
            return Err("--zipf, --uniform and --mix choose among many: add --folder DIR or --urls FILE".into());
        }
        if let Some(file) = &arguments.urls {
            paths = read_list(file, url)?;
            description = format!("{} URLs", paths.len());
        }
        if let Some(folder) = &arguments.folder {
            paths = list_folder(folder)?;
            description = format!("{} files", paths.len());
            if arguments.zipf.is_some() {
                // Popularity must not follow the names. The same for all processes of a run.
                Random::new(arguments.seed).shuffle(&mut paths);
            }
        }
        if let Some(log) = &arguments.log {
            (paths, description) = replay(log, arguments.folder.is_some().then_some(paths))?;
        }
        match (&arguments.mix, arguments.zipf, arguments.uniform) {
            (Some(mix), ..) => description.push_str(&format!(" mixed {mix}")),
            (None, Some(exponent), _) => description.push_str(&format!(" by Zipf's law with {exponent}")),
            (None, None, true) => description.push_str(" uniformly"),
            (None, None, false) => {}
        }
        Ok(Self { paths, description })
    }
}

fn replay(log: &Path, files: Option<Vec<String>>) -> Result<(Vec<String>, String), String> {
    let (mut targets, mut skipped) = read_log(log)?;
    if let Some(files) = files {
        let files: std::collections::HashSet<String> = files.into_iter().collect();
        let all = targets.len();
        targets.retain(|target| files.contains(target.split('?').next().unwrap_or_default()));
        skipped += all - targets.len();
        if targets.is_empty() {
            return Err(format!("none of the files that {} asks for is in the folder", log.display()));
        }
    }
    let description = format!("{} requests of a log ({skipped} lines left out)", targets.len());
    Ok((targets, description))
}

fn check_numbers(arguments: &Arguments) -> Result<(), String> {
    let Arguments { connections, idle, .. } = arguments;
    if *connections + *idle == 0 {
        return Err("there is nobody to ask: --connections 0 needs --idle N".into());
    }
    if *connections + *idle > MAX_CONNECTIONS {
        return Err(format!("{} connections are too many: the limit is {MAX_CONNECTIONS}", connections + idle));
    }
    if *connections == 0 && (arguments.requests.is_some() || arguments.rate.is_some()) {
        return Err("--requests and --rate are for the load: give it --connections".into());
    }
    if arguments.pipeline > MAX_PIPELINE {
        return Err(format!("--pipeline {}: the limit is {MAX_PIPELINE}", arguments.pipeline));
    }
    for (name, time) in [("--timeout", arguments.timeout), ("--idle-every", arguments.idle_every)] {
        if time < LEAST_TIME || time > MOST_TIME {
            return Err(format!("{name} {time:?}: from 1ms to 24h"));
        }
    }
    if arguments.trickle.is_some_and(|pause| pause < LEAST_TIME || pause >= arguments.timeout) {
        return Err("--trickle: from 1ms to less than --timeout".into());
    }
    if arguments.body.is_some_and(|size| size > MAX_BODY) {
        return Err("--body: up to 1MiB".into());
    }
    let (duration, warm_up) = (arguments.duration.unwrap_or(DURATION), arguments.warm_up);
    if duration < LEAST_TIME || duration > MOST_TIME || warm_up > MOST_TIME {
        return Err(format!("--duration {duration:?}, --warm-up {warm_up:?}: from 1ms to 24h"));
    }
    Ok(())
}

/// The processes that the connections need.
fn processes(arguments: &Arguments, descriptors: usize) -> Result<u16, String> {
    let connections = (arguments.connections + arguments.idle) as usize;
    let available = descriptors.saturating_sub(SPARE_DESCRIPTORS).max(1);
    let needed = connections.div_ceil(available).max(1);
    let processes = arguments.processes.map_or(needed, usize::from);
    let limit = format!("a process may have {descriptors} descriptors open here");
    if processes < needed {
        return Err(format!(
            "{connections} connections do not fit into --processes {processes}: {limit}; \
             leave --processes out to have {needed}, or raise `ulimit -n`"
        ));
    }
    if processes > 256 {
        return Err(format!("{connections} connections would take {needed} processes: {limit}: raise `ulimit -n`"));
    }
    if processes > connections {
        return Err(format!("--processes {processes} are more than there are connections ({connections})"));
    }
    if arguments.connections > 0 && (arguments.connections as usize) < processes && arguments.rate.is_some() {
        return Err(format!("--rate with {processes} processes needs at least {processes} --connections"));
    }
    if arguments.requests.is_some_and(|requests| requests < processes as u64) {
        return Err(format!("--processes {processes} are more than there are --requests"));
    }
    Ok(processes as u16)
}

fn choose(choice: DriverChoice) -> Result<Kind, String> {
    let asked = match choice.0 {
        None if driver::probe(Kind::Uring).is_ok() => return Ok(Kind::Uring),
        None => Kind::EpollEdge,
        Some(kind) => kind,
    };
    match driver::probe(asked) {
        Ok(()) => Ok(asked),
        Err(error) => Err(format!("the driver {asked} does not work here ({error}): leave --driver out")),
    }
}

fn check_field(typed: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("--header '{typed}': {why}");
    let (name, value) = typed.split_once(':').ok_or_else(|| wrong("write 'Name: value'"))?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(wrong("that is no field name"));
    }
    for (taken, instead) in [
        ("host", "write --host NAME"),
        ("connection", "write --close or --requests-per-connection N"),
        ("content-length", "write --body BYTES"),
        ("transfer-encoding", "write --body BYTES; bodies have a length"),
    ] {
        if name.eq_ignore_ascii_case(taken) {
            return Err(wrong(instead));
        }
    }
    check_value("--header", value)?;
    Ok(format!("{name}: {}", value.trim()))
}

fn check_value(option: &str, value: &str) -> Result<(), String> {
    match value.chars().find(|character| character.is_control() && *character != '\t') {
        Some(odd) => Err(format!("{option}: {odd:?} cannot stand in a field")),
        None => Ok(()),
    }
}

const DURATION: Duration = Duration::from_secs(10);
/// A modem's window; the kernel doubles it. With 4 KiB the window often closes, and the rate differs by a third from second to
/// second.
const MODEM_BUFFER: usize = 8192;
/// For the loop, standard streams, files; and for connections that are being closed while others are made.
const SPARE_DESCRIPTORS: usize = 64;
/// Towards one destination, with Linux's usual range of 28,232 and room for what is being closed.
const PORTS_OF_ONE_ADDRESS: usize = 20_000;
const MAX_CONNECTIONS: u64 = 1_000_000;
/// What is sent before anything is read must fit into the sockets' buffers.
const MAX_PIPELINE: u64 = 1024;
/// The same bytes are copied for each request.
const MAX_BODY: usize = 1 << 20;
const LEAST_TIME: Duration = Duration::from_millis(1);
const MOST_TIME: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn arguments(more: &[&str]) -> Arguments {
        let line = ["amped-lab", "http://127.0.0.1:1/x"].iter().chain(more);
        Arguments::try_parse_from(line).unwrap_or_else(|error| panic!("{more:?}: {error}"))
    }

    fn plan(more: &[&str]) -> Result<Plan, String> {
        Plan::new(&arguments(more))
    }

    #[test]
    fn what_is_not_typed_is_what_everyone_wants() {
        let plan = plan(&[]).unwrap();
        assert_eq!((plan.connections, plan.pipeline, plan.rate, plan.limit), (64, 1, None, None));
        assert_eq!((plan.duration, plan.receive_buffer, plan.share), (Some(DURATION), None, (0, 1)));
        assert!(plan.describe().starts_with("closed loop, 64 connections, driver "), "{}", plan.describe());
        assert_eq!(super::Plan::new(&arguments(&["-n", "5"])).unwrap().duration, None);
        assert_eq!(super::Plan::new(&arguments(&["--modem", "56k"])).unwrap().receive_buffer, Some(8192));
        assert_eq!(super::Plan::new(&arguments(&["--close"])).unwrap().per_connection, Some(1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (more, word) in [
            (&["-c", "0"][..], "--idle"),
            (&["-c", "0", "--idle", "5", "-n", "9"], "--connections"),
            (&["-c", "2000000"], "too many"),
            (&["--pipeline", "5000"], "1024"),
            (&["--timeout", "0s"], "1ms"),
            (&["--duration", "48h"], "24h"),
            (&["--zipf", "1"], "--folder"),
            (&["--uniform"], "--folder"),
            (&["--mix", "9:1,1:all"], "--folder"),
            (&["--trickle", "11s"], "--timeout"),
            (&["--header", "nothing"], "Name: value"),
            (&["--header", "a b: c"], "no field name"),
            (&["--header", "Host: x"], "--host"),
            (&["--header", "a: b\r\nc: d"], "cannot stand"),
            (&["--header", "Connection: close"], "--close"),
            (&["--host", "a\nb"], "cannot stand"),
            (&["-c", "3", "--processes", "4"], "more than there are connections"),
            (&["-n", "3", "--processes", "4"], "more than there are --requests"),
            (&["--urls", "/nowhere/at/all"], "cannot read"),
            (&["--folder", "/nowhere/at/all"], "cannot list"),
            (&["--log", "/nowhere/at/all"], "cannot read"),
        ] {
            let error = plan(more).err().unwrap_or_else(|| panic!("{more:?} was taken"));
            assert!(error.contains(word), "{more:?}: {error}");
        }
    }

    #[test]
    fn descriptors_decide_how_many_processes() {
        let asked = |more: &[&str]| processes(&arguments(more), 20_000);
        assert_eq!(asked(&["-c", "19936"]), Ok(1));
        assert_eq!(asked(&["-c", "19937"]), Ok(2));
        assert_eq!(asked(&["--idle", "50k"]), Ok(3));
        assert_eq!(asked(&["--processes", "4"]), Ok(4));
        let error = asked(&["-c", "30k", "--processes", "1"]).unwrap_err();
        assert!(error.contains("20000 descriptors") && error.contains("have 2"), "{error}");
    }

    #[test]
    fn shares_add_up() {
        let typed = ["-c", "65", "--idle", "30001", "-n", "1000", "--rate", "100", "--worker"];
        let shares: Vec<Plan> =
            ["0/3", "1/3", "2/3"].iter().map(|share| plan(&[&typed[..], &[share]].concat()).unwrap()).collect();
        assert_eq!(shares.iter().map(|share| share.connections).collect::<Vec<_>>(), [22, 22, 21]);
        assert_eq!(shares.iter().map(|share| share.idle).sum::<usize>(), 30_001);
        assert_eq!(shares.iter().map(|share| share.limit.unwrap()).sum::<u64>(), 1000);
        assert!((shares.iter().map(|share| share.rate.unwrap()).sum::<f64>() - 100.0).abs() < 1e-9);
        assert_eq!(shares[1].phase, Duration::from_millis(10));
        let sources: Vec<String> = shares.iter().map(|share| share.sources[0].to_string()).collect();
        assert_eq!(sources, ["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
    }

    #[test]
    fn a_log_over_a_folder_asks_for_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(folder.path().join("a"), "x").unwrap();
        let line = |path: &str| format!("h - - [t] \"GET {path} HTTP/1.1\" 200 1\n");
        std::fs::write(log.path(), line("/a?x") + &line("/b") + &line("/a")).unwrap();
        let (folder, log) = (folder.path().to_str().unwrap(), log.path().to_str().unwrap());
        assert_eq!(plan(&["--log", log]).unwrap().catalogue.len(), 3);
        let plan = plan(&["--log", log, "--folder", folder]).unwrap();
        assert_eq!(plan.catalogue.len(), 2);
        assert!(plan.describe().contains("1 lines left out"), "{}", plan.describe());
    }
}

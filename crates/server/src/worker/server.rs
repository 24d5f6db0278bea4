//! One server process: everything that workers share is made, the workers are started, watched over, and ended.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use amped_runtime::disk::Helpers;
use amped_runtime::net::Listener;

use super::{Chosen, Readings, Shared, choose, run};
use crate::answer::error_page::ErrorPages;
use crate::answer::files::{Roots, Shelf};
use crate::config::plan::Plan;
use crate::observe::access_log::Writer;
use crate::observe::counters::Counters;
use crate::route::Router;

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    chosen: Chosen,
    addresses: Vec<std::net::SocketAddr>,
    threads: Vec<JoinHandle<()>>,
    readings: Arc<[Readings]>,
}

impl Server {
    /// Binds, opens what is served, and starts the workers. On return connections are accepted.
    ///
    /// # Errors
    /// In words: an address in use, a folder that cannot be opened, an error page that is not there.
    pub fn start(mut plan: Plan) -> Result<Self, String> {
        let max_connections = plan.limits.max_connections.unwrap_or_else(default_max_connections);
        // Without room the kernel makes it later, when a loop has to wait for it: slower, not wrong.
        let _ = amped_runtime::make_room_for_descriptors(max_connections + RESERVED_DESCRIPTORS);
        let chosen = choose(plan.driver);
        let (addresses, sockets) = bind(&mut plan)?;
        let plan = Arc::new(plan);
        let shared = Arc::new(Shared {
            router: Arc::new(Router::new(&plan)),
            roots: Arc::new(Roots::open(&plan)?),
            shelf: Arc::new(Shelf::new(plan.cache_bytes)),
            error_pages: Arc::new(ErrorPages::load(&plan)?),
            helpers: Helpers::new(plan.helpers, plan.helper_queue),
            seats: (0..plan.workers).map(|_| Arc::default()).collect(),
            log: Writer::start(&plan.access_log)?,
            driver: chosen.kind,
            max_connections,
            plan,
        });
        let (threads, readings) = start_workers(&shared, sockets)?;
        Ok(Self { shared, chosen, addresses, threads, readings: readings.into() })
    }

    /// Where it listens; ports that were asked for as 0 are filled in.
    pub fn addresses(&self) -> &[std::net::SocketAddr] {
        &self.addresses
    }

    /// The start-up line: what an operator wants to know before anything else.
    pub fn describe(&self) -> String {
        let Shared { plan, roots, .. } = &*self.shared;
        let mounts: Vec<String> = roots.iter().map(|root| root.mount().to_string()).collect();
        let (workers, driver) = (plan.workers, self.chosen.kind);
        let cache = plan.cache_bytes as f64 / 1e6;
        format!(
            "amped {}: driver {driver} ({}), {workers} worker{}, cache {cache:.0} MB, disk {} ({})",
            env!("CARGO_PKG_VERSION"),
            self.chosen.reason,
            if workers == 1 { "" } else { "s" },
            plan.disk.name(),
            mounts.first().map_or("no folder", String::as_str),
        )
    }

    /// What the workers let others read.
    pub fn status(&self) -> Status {
        Status { shared: Arc::clone(&self.shared), readings: Arc::clone(&self.readings) }
    }

    /// Has the access log's file opened anew.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.shared.log {
            log.reopen();
        }
    }

    /// Finishes what is being sent, ends, and says what there was.
    pub fn stop(self) -> String {
        self.shared.seats.iter().for_each(|seat| seat.drain());
        for thread in self.threads {
            // A worker that panicked has said so; the others' work is finished all the same.
            let _ = thread.join();
        }
        let closing = Status { shared: Arc::clone(&self.shared), readings: self.readings }.closing_line();
        // Whoever else still holds what is shared (a view of the numbers, a late job) does not write lines.
        if let Some(log) = &self.shared.log {
            log.finish();
        }
        closing
    }
}

/// A view of the running server's numbers.
#[derive(Clone, Debug)]
pub struct Status {
    shared: Arc<Shared>,
    readings: Arc<[Readings]>,
}

impl Status {
    /// Everything there is to know, as JSON.
    pub fn json(&self) -> serde_json::Value {
        let counters = self.sums();
        let helpers = self.shared.helpers.stats();
        let turns: Vec<_> = self.readings.iter().map(|reading| turns(&reading.meter)).collect();
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "driver": self.shared.driver.name(),
            "connections": self.shared.seats.iter().map(|seat| seat.connections()).sum::<usize>(),
            "counters": counters.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "cache": {
                "bytes": self.shared.shelf.used(),
                "budget": self.shared.plan.cache_bytes,
                "entries": self.shared.shelf.entries(),
            },
            "helpers": {
                "threads": helpers.threads, "busy": helpers.busy, "stuck": helpers.stuck, "queued": helpers.queued,
                "ran": helpers.ran, "refused": helpers.refused, "dropped": helpers.dropped,
                "delay_us": helpers.delay.as_micros() as u64,
                "longest_delay_us": helpers.longest_delay.as_micros() as u64,
            },
            "turns": turns,
        })
    }

    /// One line for the end of the log.
    fn closing_line(&self) -> String {
        let sums = self.sums();
        let sum = |wanted: &str| sums.iter().find(|(name, _)| *name == wanted).map_or(0, |(_, sum)| *sum);
        let worst = self.readings.iter().filter_map(|reading| reading.meter.worst()).max_by_key(|worst| worst.took);
        let longest = worst.map_or("no turn".to_owned(), |worst| {
            let [took, worked, step] = [worst.took, worst.processor, worst.step.1].map(|time| time.as_secs_f64() * 1e3);
            format!(
                "longest turn {took:.3} ms ({worked:.3} ms on the processor, {} times preempted; {} tasks; {}: {step:.3} ms)",
                worst.preempted, worst.tasks, worst.step.0
            )
        });
        format!("served {} requests, {} bytes; {longest}", sum("requests"), sum("bytes_sent"))
    }

    fn sums(&self) -> Vec<(&'static str, u64)> {
        let mut sums = Counters::sums(self.readings.iter().map(|reading| &*reading.counters));
        // Dropped on a loop, or later for want of room on the disk: lost all the same.
        let lost = self.shared.log.as_ref().map_or(0, Writer::lost);
        sums.iter_mut().filter(|(name, _)| *name == "log_lines_dropped").for_each(|(_, sum)| *sum += lost);
        sums
    }
}

fn turns(meter: &amped_runtime::Meter) -> serde_json::Value {
    let worst = meter.worst().map(|worst| {
        serde_json::json!({
            "us": worst.took.as_micros() as u64,
            "processor_us": worst.processor.as_micros() as u64,
            "blocked": worst.blocked,
            "preempted": worst.preempted,
            "tasks": worst.tasks,
            "slowest_step": worst.step.0,
            "slowest_step_us": worst.step.1.as_micros() as u64,
        })
    });
    let histogram: Vec<_> = meter.histogram().filter(|(_, count)| *count > 0).collect();
    serde_json::json!({ "longest": worst, "below_us": histogram })
}

/// A socket per worker for every address. A port of 0 is chosen once and then shared.
fn bind(plan: &mut Plan) -> Result<(Vec<std::net::SocketAddr>, Vec<Vec<OwnedFd>>), String> {
    let mut sockets: Vec<Vec<OwnedFd>> = (0..plan.workers).map(|_| Vec::new()).collect();
    for address in &mut plan.listen {
        Listener::is_free(*address).map_err(|error| explain(*address, &error))?;
        for worker in &mut sockets {
            let socket = Listener::bind(*address).map_err(|error| explain(*address, &error))?;
            Listener::defer(&socket).map_err(|error| explain(*address, &error))?;
            *address = Listener::address_of(&socket).map_err(|error| explain(*address, &error))?;
            worker.push(socket);
        }
    }
    Ok((plan.listen.clone(), sockets))
}

fn explain(address: std::net::SocketAddr, error: &std::io::Error) -> String {
    let hint = match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program listens there: choose another port with --listen",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them (CAP_NET_BIND_SERVICE)",
        std::io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    };
    format!("cannot listen on {address}: {error}{hint}")
}

type Started = (Vec<JoinHandle<()>>, Vec<Readings>);

fn start_workers(shared: &Arc<Shared>, sockets: Vec<Vec<OwnedFd>>) -> Result<Started, String> {
    let (report, reports) = channel();
    let mut threads = Vec::new();
    for (place, sockets) in sockets.into_iter().enumerate() {
        let (shared, report) = (Arc::clone(shared), report.clone());
        let thread = std::thread::Builder::new().name(format!("amped-worker-{place}"));
        let body = move || run(&shared, place, sockets, |ready| drop(report.send(ready)));
        threads.push(thread.spawn(body).map_err(|error| format!("cannot start a worker: {error}"))?);
    }
    drop(report);
    let readings = reports.iter().take(threads.len()).collect::<Result<Vec<_>, _>>()?;
    Ok((threads, readings))
}

/// What the descriptor limit leaves for connections: some are for files, helpers and the rest of the process.
fn default_max_connections() -> usize {
    amped_runtime::descriptor_limit().saturating_sub(RESERVED_DESCRIPTORS).max(RESERVED_DESCRIPTORS)
}

const RESERVED_DESCRIPTORS: usize = 1280;

//! One server process: everything that workers share is made, the workers are started, watched over, and ended.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use amped_runtime::disk::Helpers;
use amped_runtime::net::Listener;

use super::confine::{self, Confined};
use super::{Chosen, Readings, Shared, choose, run};
use crate::answer::error_page::ErrorPages;
use crate::answer::files::{Roots, Shelf};
use crate::config::plan::{Architecture, Plan};
use crate::converse;
use crate::observe::access_log::Writer;
use crate::observe::counters::Counters;
use crate::observe::{admin, report};
use crate::overload::Clients;
use crate::route::Router;

/// What there must be before the first thread: sockets that listen, open folders, error pages.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    chosen: Chosen,
    sockets: Vec<Vec<OwnedFd>>,
    router: Arc<Router>,
    roots: Arc<Roots>,
    error_pages: Arc<ErrorPages>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// What all workers listen on, where they share it.
    sockets: Vec<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
    readings: Arc<[Readings]>,
    confined: Confined,
}

impl Prepared {
    /// Binds, and opens what is served. No thread is started, and connections wait in the kernel's queue.
    ///
    /// # Errors
    /// In words: an address in use, a folder that cannot be opened, an error page that is not there.
    pub fn new(mut plan: Plan) -> Result<Self, String> {
        if plan.architecture != Architecture::Mp {
            // Without room the kernel makes it later, when a loop has to wait for it: slower, not wrong. A process that serves
            // one connection needs none.
            let _ = amped_runtime::make_room_for_descriptors(max_connections(&plan) + RESERVED_DESCRIPTORS);
        }
        let chosen = choose(plan.driver);
        let sockets = bind(&mut plan)?;
        confine::check(&plan)?;
        let (roots, error_pages) = (Arc::new(Roots::open(&plan)?), Arc::new(ErrorPages::load(&plan)?));
        Ok(Self { chosen, sockets, router: Arc::new(Router::new(&plan)), roots, error_pages, plan })
    }

    /// What is to be served and how; ports that were asked for as 0 are filled in.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[std::net::SocketAddr] {
        &self.plan.listen
    }

    /// The start-up line: what an operator wants to know before anything else.
    pub fn describe(&self) -> String {
        let Self { plan, roots, chosen, .. } = self;
        let mounts: Vec<String> = roots.iter().map(|root| root.mount().to_string()).collect();
        let cache = plan.cache_bytes as f64 / 1e6;
        let each = match plan.architecture {
            Architecture::Mt => "thread",
            Architecture::Mp => "process",
            _ => "worker",
        };
        let plural = match (plan.workers, plan.architecture) {
            (1, _) => "",
            (_, Architecture::Mp) => "es",
            _ => "s",
        };
        format!(
            "amped {}: driver {} ({}), architecture {}, {} {each}{plural}, cache {cache:.0} MB, disk {} ({})",
            env!("CARGO_PKG_VERSION"),
            chosen.kind,
            chosen.reason,
            plan.architecture.name(),
            plan.workers,
            plan.disk.name(),
            mounts.first().map_or("no folder", String::as_str),
        )
    }

    /// This process's part of it, when each worker is a process: one worker, and its share of the cache.
    pub fn one_process(mut self) -> Self {
        self.plan.cache_bytes /= self.plan.workers as u64;
        self.plan.workers = 1;
        self
    }

    /// Refuses connections from now on, also where others listen on the same sockets.
    pub fn refuse(&self) {
        refuse(self.sockets.iter().flatten());
    }

    /// Starts the workers. On return connections are accepted.
    ///
    /// # Errors
    /// In words: no thread to be had, a log that cannot be opened.
    pub fn start(mut self) -> Result<Server, String> {
        converse::watch_panics();
        let sockets = match self.plan.architecture {
            Architecture::Mt => self.sockets.split_off(self.plan.workers).into_iter().flatten().collect(),
            _ => Vec::new(),
        };
        let confined = confine::confine(&self.plan)?;
        let plan = Arc::new(self.plan);
        let shared = Arc::new(Shared {
            router: self.router,
            roots: self.roots,
            shelf: Arc::new(Shelf::new(plan.cache_bytes)),
            error_pages: self.error_pages,
            helpers: Helpers::with_target(plan.helpers, plan.helper_queue, plan.overload.disk_delay),
            seats: (0..plan.workers).map(|_| Arc::default()).collect(),
            log: Writer::start(&plan.access_log)?,
            driver: self.chosen.kind,
            max_connections: max_connections(&plan),
            clients: Clients::new(&plan.clients),
            plan,
        });
        let (threads, readings) = start_workers(&shared, self.sockets)?;
        Ok(Server { shared, sockets, threads, readings: readings.into(), confined })
    }
}

impl Server {
    /// What the workers let others read.
    pub fn status(&self) -> Status {
        let confined = self.confined.clone();
        Status { shared: Arc::clone(&self.shared), readings: Arc::clone(&self.readings), confined }
    }

    /// What the process gave up before it served.
    pub fn confined(&self) -> &Confined {
        &self.confined
    }

    /// Has the access log's file opened anew.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.shared.log {
            log.reopen();
        }
    }

    /// Finishes what is being sent, ends, and says what there was.
    pub fn stop(self) -> String {
        // Each worker closes its own sockets, but shared ones are open until the last has.
        refuse(&self.sockets);
        self.shared.seats.iter().for_each(|seat| seat.drain());
        for thread in self.threads {
            // A worker that panicked has said so; the others' work is finished all the same.
            let _ = thread.join();
        }
        let Self { shared, readings, confined, .. } = self;
        let closing = Status { shared: Arc::clone(&shared), readings, confined }.closing_line();
        // Whoever else still holds what is shared (a view of the numbers, a late job) does not write lines.
        if let Some(log) = &shared.log {
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
    confined: Confined,
}

impl Status {
    /// Everything there is to know, as JSON.
    pub fn json(&self) -> serde_json::Value {
        let counters = self.sums();
        let helpers = self.shared.helpers.stats();
        let turns: Vec<_> = self.readings.iter().map(|reading| turns(&reading.meter)).collect();
        let connections = self.shared.seats.iter().map(|seat| seat.connections()).sum::<usize>();
        let all = || self.readings.iter().map(|reading| &*reading.counters);
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "architecture": self.shared.plan.architecture.name(),
            "driver": self.shared.driver.name(),
            "workers": self.shared.plan.workers,
            "draining": self.is_draining(),
            "confined": self.confined.json(),
            "connections": connections,
            "states": report::states(all(), connections as u64),
            "sites": report::sites(all()),
            "latency": report::latency(all()),
            "top": report::top(all()),
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
                "late": helpers.late, "no_room": helpers.no_room, "standing": helpers.standing,
                "incidents": helpers.incidents, "replaced": helpers.replaced, "panicked": helpers.panicked,
                "delays": report::doublings(&helpers.delays),
                "delay_micros": helpers.total_delay.as_micros() as u64,
            },
            "turns": turns,
            "signal_queue_overflows": self.readings.iter().map(|reading| reading.meter.overflows()).sum::<u64>(),
        })
    }

    /// Whether the server finishes what it has and wants nothing new.
    pub fn is_draining(&self) -> bool {
        self.shared.seats.iter().any(|seat| seat.is_draining())
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

impl admin::Source for Status {
    fn status(&self) -> serde_json::Value {
        self.json()
    }

    fn is_ready(&self) -> bool {
        !self.is_draining()
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
    serde_json::json!({ "longest": worst, "below_us": histogram, "micros": meter.total().as_micros() as u64 })
}

/// For every worker a socket for every address. A port of 0 is chosen once and then shared.
fn bind(plan: &mut Plan) -> Result<Vec<Vec<OwnedFd>>, String> {
    // Threads that serve one connection at a time share one queue, as processes do: a queue of its own would wait for its thread.
    let queues = if plan.serves_one_by_one() { 1 } else { plan.workers };
    let mut sockets: Vec<Vec<OwnedFd>> = (0..queues).map(|_| Vec::new()).collect();
    for address in &mut plan.listen {
        let at = *address;
        let failed = |error: std::io::Error| explain(at, &error);
        Listener::is_free(at).map_err(failed)?;
        for worker in &mut sockets {
            let socket = Listener::bind(*address).map_err(failed)?;
            Listener::defer(&socket).map_err(failed)?;
            Listener::watch_peers(&socket, plan.limits.dead_peer_timeout).map_err(failed)?;
            *address = Listener::address_of(&socket).map_err(failed)?;
            worker.push(socket);
        }
    }
    if plan.architecture == Architecture::Mt {
        let shared = |_| sockets[0].iter().map(OwnedFd::try_clone).collect::<Result<Vec<_>, _>>();
        // One more than there are threads: for `Server::stop`.
        let clones = (0..plan.workers).map(shared).collect::<Result<Vec<_>, _>>();
        sockets.extend(clones.map_err(|error| format!("cannot share a listening socket: {error}"))?);
    }
    Ok(sockets)
}

fn refuse<'a>(sockets: impl IntoIterator<Item = &'a OwnedFd>) {
    // One that does not listen any more refuses already.
    sockets.into_iter().for_each(|socket| drop(Listener::refuse(socket)));
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

/// As the plan says, or what the descriptor limit leaves: some are for files, helpers and the rest of the process.
fn max_connections(plan: &Plan) -> usize {
    let left = || amped_runtime::descriptor_limit().saturating_sub(RESERVED_DESCRIPTORS).max(RESERVED_DESCRIPTORS);
    plan.limits.max_connections.unwrap_or_else(left)
}

const RESERVED_DESCRIPTORS: usize = 1280;

//! One server process: everything that workers share is made, the workers are started, watched over, and ended.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use amped_runtime::disk::{Helpers, Watches};
use amped_runtime::net::Listener;
use amped_runtime::{keep_code_in_memory, process, warn};

use super::confine::{self, Confined};
use super::sockets::Sockets;
use super::{Change, Chosen, Readings, Served, Shared, choose, run};
use crate::answer::error_page::ErrorPages;
use crate::answer::files::{Roots, Shelf};
use crate::config::plan::{Architecture, DiskMode, Limits, Plan};
use crate::converse;
use crate::observe::access_log::Writer;
use crate::observe::counters::Counters;
use crate::observe::{admin, report};
use crate::overload::Clients;
use crate::overload::memory::Memory;
use crate::route::Router;

/// What there must be before the first thread: sockets that listen, open folders, error pages.
#[derive(Debug)]
pub struct Prepared {
    chosen: Chosen,
    sockets: Sockets,
    addresses: Vec<SocketAddr>,
    served: Served,
    /// Why its own code may leave memory.
    code: Option<std::io::Error>,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// What all workers listen on, where they share it.
    sockets: Vec<OwnedFd>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    readings: Arc<[Readings]>,
    confined: Confined,
    /// One at a time goes over to another plan, or to other folders.
    exchanges: Mutex<()>,
}

impl Served {
    /// Opens what the plan serves, beside what is served already. Waits for the disk.
    ///
    /// # Errors
    /// In words: a folder that cannot be opened, an error page that is not there.
    fn open(plan: Plan, before: Option<&Self>) -> Result<Self, String> {
        let roots = Roots::open(&plan, before.map(|before| (&*before.plan, &*before.roots)))?;
        let error_pages = ErrorPages::load(&plan)?;
        let router = Arc::new(Router::new(&plan));
        Ok(Self { router, roots: Arc::new(roots), error_pages: Arc::new(error_pages), plan: Arc::new(plan) })
    }
}

impl Prepared {
    /// Opens what is served. No thread is started, and connections wait in the kernel's queue.
    ///
    /// # Errors
    /// In words: a folder that cannot be opened, an error page that is not there.
    pub fn new(plan: Plan, sockets: Sockets) -> Result<Self, String> {
        if plan.architecture != Architecture::Mp {
            // Without room the kernel makes it later, when a loop has to wait for it: slower, not wrong. A process that serves
            // one connection needs none.
            let _ = amped_runtime::make_room_for_descriptors(max_connections(&plan) + RESERVED_DESCRIPTORS);
        }
        confine::check(&plan)?;
        sockets.reset(plan.limits.dead_peer_timeout)?;
        let (chosen, addresses) = (choose(plan.driver), sockets.addresses());
        let code = keep_code_in_memory().err();
        Ok(Self { chosen, sockets, addresses, served: Served::open(plan, None)?, code })
    }

    /// What is to be served and how.
    pub fn plan(&self) -> &Plan {
        &self.served.plan
    }

    /// Where it listens; ports that were asked for as 0 are filled in.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The start-up line: what an operator wants to know before anything else.
    pub fn describe(&self) -> String {
        let Self { served: Served { plan, roots, .. }, chosen, .. } = self;
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
        let code = self.code.as_ref().map_or(String::new(), |error| {
            format!(
                "; {error}: where memory is short its own code may have to be read from the disk again, unless more of it may be locked \
                 (`ulimit -l`, LimitMEMLOCK= in a unit)"
            )
        });
        format!(
            "amped {}: driver {} ({}), architecture {}, {} {each}{plural}, cache {cache:.0} MB, disk {} ({}){code}",
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
        let plan = Arc::make_mut(&mut self.served.plan);
        plan.cache_bytes /= plan.workers as u64;
        plan.workers = 1;
        self
    }

    /// Refuses connections from now on, also where others listen on the same sockets.
    pub fn refuse(&self) {
        self.sockets.refuse();
    }

    /// Starts the workers. On return connections are accepted.
    ///
    /// # Errors
    /// In words: no thread to be had, a log that cannot be opened.
    pub fn start(self) -> Result<Server, String> {
        converse::watch_panics();
        let plan = Arc::clone(&self.served.plan);
        let mut theirs = self.sockets.for_workers(&plan)?;
        let sockets = theirs.split_off(plan.workers.min(theirs.len())).into_iter().flatten().collect();
        // A sandbox shuts what says it.
        let (memory, watches) = (Memory::new(), watches(&plan));
        let confined = confine::confine(&plan)?;
        let shared = Arc::new(Shared {
            served: Mutex::new(Arc::new(self.served)),
            changes: (0..plan.workers).map(|_| Mutex::default()).collect(),
            shelf: Arc::new(Shelf::new(plan.cache_bytes, open_files())),
            helpers: Helpers::with_target(plan.helpers, plan.helper_queue, plan.overload.disk_delay),
            disk_use: Arc::default(),
            watcher: watches.and_then(|watches| or_said(watches.start())),
            seats: (0..plan.workers).map(|_| Arc::default()).collect(),
            log: Writer::start(&plan.access_log)?,
            driver: self.chosen.kind,
            max_connections: max_connections(&plan),
            clients: Clients::new(&plan.clients),
            memory,
            plan,
        });
        let (threads, readings) = start_workers(&shared, theirs)?;
        let (threads, readings) = (Mutex::new(threads), readings.into());
        Ok(Server { shared, sockets, threads, readings, confined, exchanges: Mutex::default() })
    }
}

/// Folders are watched, if that is wanted and can be had. With the other ways to the disk it would be of no use.
fn watches(plan: &Plan) -> Option<Watches> {
    let is_wanted = plan.watch_folders && plan.disk == DiskMode::Amped && !plan.serves_one_by_one();
    is_wanted.then(Watches::open).and_then(or_said)
}

/// The server can do without watches.
fn or_said<T>(outcome: io::Result<T>) -> Option<T> {
    let say = |error: &io::Error| warn!("amped: folders are not watched ({error}), their files are looked at instead");
    outcome.inspect_err(say).ok()
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

    /// Whether a reload may exchange one plan for the other in the running process: nothing differs that threads, memory or open
    /// files were made for at the start.
    pub fn can_exchange(now: &Plan, next: &Plan) -> bool {
        let mut same = now.clone();
        // What a request looks up anew each time. A key that is not named here waits for another process.
        same.listen.clone_from(&next.listen);
        same.sites.clone_from(&next.sites);
        same.overload_body.clone_from(&next.overload_body);
        let Limits { max_connections, dead_peer_timeout, .. } = now.limits;
        same.limits = Limits { max_connections, dead_peer_timeout, ..next.limits.clone() };
        (same.disk, same.revalidate, same.retry_after) = (next.disk, next.revalidate, next.retry_after);
        same == *next && !now.serves_one_by_one() && confine::leaves_open(now, next)
    }

    /// Serves by another plan from now on, one that `can_exchange` allows. Connections stay, and requests under way end as they
    /// began; what memory holds stays where its route does. `addresses` are all that are listened on; those that are not among
    /// them are left once their queues are empty. Waits for the disk and for every worker; one that is stuck takes over when it comes
    /// out of its turn, and this is said.
    ///
    /// # Errors
    /// In words, and then nothing has changed: a folder that cannot be opened, an error page that is not there.
    pub fn exchange(&self, plan: Plan, addresses: &[SocketAddr], added: Sockets) -> Result<(), String> {
        let _alone = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        added.reset(plan.limits.dead_peer_timeout)?;
        self.take_over(plan, Some(addresses), added)
    }

    /// Opens all folders anew, since paths lead to others now. What memory holds stays where the folder is the same.
    ///
    /// # Errors
    /// As `exchange`; or threads that serve one connection each would have to be told.
    pub fn renew(&self) -> Result<(), String> {
        let _alone = self.exchanges.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan::clone(&self.served().plan);
        if plan.serves_one_by_one() {
            return Err("whoever serves one connection at a time opens no other folders".into());
        }
        self.take_over(plan, None, Sockets::default())
    }

    fn take_over(&self, plan: Plan, addresses: Option<&[SocketAddr]>, added: Sockets) -> Result<(), String> {
        let before = Arc::clone(&self.served());
        let served = Arc::new(Served::open(plan, Some(&before))?);
        let theirs = added.for_workers(&served.plan)?;
        *self.served() = Arc::clone(&served);
        let (sender, done) = channel();
        let seats = self.shared.seats.iter().zip(&self.shared.changes).zip(theirs);
        // Who drains looks at nothing new.
        for ((seat, changes), added) in seats.filter(|((seat, _), _)| !seat.is_draining()) {
            let (served, _done) = (Arc::clone(&served), sender.clone());
            let change = Change { served, addresses: addresses.map(<[_]>::to_vec), added, _done };
            changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
            seat.nudge();
        }
        drop(sender);
        if let Err(RecvTimeoutError::Timeout) = done.recv_timeout(PATIENCE) {
            // The others serve by it already, so to call it refused would be wrong.
            warn!("amped: a worker is stuck; it takes over what has changed when it comes out of its turn");
        }
        if let Some(watcher) = &self.shared.watcher {
            watcher.watches().retain(served.roots.iter());
        }
        Ok(())
    }

    fn served(&self) -> MutexGuard<'_, Arc<Served>> {
        self.shared.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is served now, by which folders.
    pub fn folders(&self) -> (Arc<Plan>, Arc<Roots>) {
        let served = self.served();
        (Arc::clone(&served.plan), Arc::clone(&served.roots))
    }

    /// What the workers let others read, one by one.
    pub fn readings(&self) -> &Arc<[Readings]> {
        &self.readings
    }

    /// Has the access log's file opened anew.
    pub fn reopen_log(&self) {
        if let Some(log) = &self.shared.log {
            log.reopen();
        }
    }

    /// Finishes what is being sent, ends, and says what there was. `gently`: idle connections are given a second for one more
    /// request, since another process accepts what comes meanwhile.
    pub fn stop(&self, gently: bool) -> String {
        // Each worker closes its own sockets, but shared ones are open until the last has.
        if !gently {
            refuse(&self.sockets);
        }
        self.shared.seats.iter().for_each(|seat| seat.drain(gently));
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A worker that panicked has said so; the others' work is finished all the same.
            let _ = thread.join();
        }
        let closing = self.status().closing_line();
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
            "watched_folders": self.shared.watcher.as_ref().map_or(0, |watcher| watcher.watches().count()),
            "memory": { "used": self.shared.memory.used(), "limit": self.shared.memory.limit() },
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
                "longest turn {took:.3} ms ({worked:.3} ms on the processor, {} times preempted, {} times blocked; {} tasks; {}: {step:.3} ms; {:.3} s after the start)",
                worst.preempted, worst.blocked, worst.tasks, worst.step.0, worst.after.as_secs_f64()
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
            "after_ms": worst.after.as_millis() as u64,
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

fn refuse<'a>(sockets: impl IntoIterator<Item = &'a OwnedFd>) {
    // One that does not listen any more refuses already.
    sockets.into_iter().for_each(|socket| drop(Listener::refuse(socket)));
}

type Started = (Vec<JoinHandle<()>>, Vec<Readings>);

fn start_workers(shared: &Arc<Shared>, sockets: Vec<Vec<OwnedFd>>) -> Result<Started, String> {
    let (report, reports) = channel();
    let mut threads = Vec::new();
    for (place, sockets) in sockets.into_iter().enumerate() {
        let (shared, report) = (Arc::clone(shared), report.clone());
        let body = move || {
            if let Err(error) = run(&shared, place, sockets, |ready| drop(report.send(ready))) {
                process::give_up(&format!("worker {place} has lost its driver: {error}"));
            }
        };
        let thread = process::vital_thread(&format!("amped-worker-{place}"), body);
        threads.push(thread.map_err(|error| format!("cannot start a worker: {error}"))?);
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

/// Large files that stay open; fewer where there are few descriptors.
fn open_files() -> usize {
    MOST_OPEN_FILES.min(amped_runtime::descriptor_limit() / 4)
}

const RESERVED_DESCRIPTORS: usize = 1280;
const MOST_OPEN_FILES: usize = 1024;
/// How long a worker may take until it looks at a new plan: a turn, which is to be less than a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

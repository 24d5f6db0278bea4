//! A worker: one thread with a loop, its listeners, and its view of the plan.
//!
//! Everything that waits for the disk at start (folders, error pages) has happened before a worker begins.

mod accepting;
mod choose;
pub mod confine;
pub mod folders;
pub mod heartbeat;
mod herald;
pub mod server;
pub mod sockets;
mod watch;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amped_runtime::disk::{Helpers, Watcher};
use amped_runtime::{Meter, Runtime, driver};

use self::accepting::Accepting;
pub use self::choose::{Chosen, choose};
use crate::answer::Answers;
use crate::answer::error_page::ErrorPages;
use crate::answer::files::{Files, Roots, Shelf, Usage};
use crate::config::plan::Plan;
use crate::converse::Context;
use crate::listen::{self, Reception, Seat, seat::Call};
use crate::observe::access_log::Writer;
use crate::observe::counters::Counters;
use crate::overload::memory::Memory;
use crate::overload::{Clients, Gate};
use crate::route::Router;

/// What all workers of a process share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration as it was at the start: what a reload cannot change.
    pub plan: Arc<Plan>,
    /// What is served now.
    pub served: Mutex<Arc<Served>>,
    /// What each worker is to take over, and has not yet.
    pub changes: Vec<Mutex<Vec<Change>>>,
    /// The memory cache.
    pub shelf: Arc<Shelf>,
    /// The disk's helpers.
    pub helpers: Helpers,
    /// What is known of the disk's use.
    pub disk_use: Arc<Usage>,
    /// The folders of which the kernel tells changes, if it does.
    pub watcher: Option<Watcher>,
    /// The workers as they see each other.
    pub seats: Arc<[Arc<Seat>]>,
    /// The access log's writer.
    pub log: Option<Writer>,
    /// The driver of all loops.
    pub driver: driver::Kind,
    /// Connections at one time.
    pub max_connections: usize,
    /// What one client may have, if that is limited.
    pub clients: Option<Arc<Clients>>,
    /// What memory there is.
    pub memory: Memory,
}

/// What is served, by one plan: a reload makes another one of these.
#[derive(Debug)]
pub struct Served {
    /// The configuration.
    pub plan: Arc<Plan>,
    /// The routes.
    pub router: Arc<Router>,
    /// The open folders.
    pub roots: Arc<Roots>,
    /// The error pages.
    pub error_pages: Arc<ErrorPages>,
}

/// What a worker is to take over.
#[derive(Debug)]
pub struct Change {
    served: Arc<Served>,
    /// Where it listens from now on, if that is to change.
    addresses: Option<Vec<SocketAddr>>,
    /// New sockets.
    added: Vec<OwnedFd>,
    /// Is dropped when it has been done.
    _done: Sender<()>,
}

/// What one worker lets others read.
#[derive(Debug)]
pub struct Readings {
    /// What it has counted.
    pub counters: Arc<Counters>,
    /// Its turns.
    pub meter: Arc<Meter>,
}

/// Runs a worker on this thread until it has drained; `ready` is told once, when it accepts or why it cannot.
///
/// # Errors
/// The driver has failed: connections are lost, and more will be.
pub fn run(
    shared: &Arc<Shared>,
    place: usize,
    sockets: Vec<OwnedFd>,
    ready: impl FnOnce(Result<Readings, String>),
) -> io::Result<()> {
    let runtime = match Runtime::new(shared.driver) {
        Ok(runtime) => runtime,
        Err(error) => {
            ready(Err(format!("driver {}: {error}", shared.driver)));
            return Ok(());
        }
    };
    let counters = Arc::new(Counters::default());
    let context = context(shared, &runtime, &counters);
    let reception = Rc::new(Reception {
        seats: Arc::clone(&shared.seats),
        place,
        max_connections: shared.max_connections,
        max_descriptors: amped_runtime::descriptor_limit(),
        short_until: Cell::default(),
    });
    ready(Ok(Readings { counters, meter: Arc::clone(runtime.meter()) }));
    runtime.run(work(Arc::clone(shared), context, reception, sockets))
}

fn context(shared: &Arc<Shared>, runtime: &Rc<Runtime>, counters: &Arc<Counters>) -> Rc<Context> {
    let served = Arc::clone(&shared.served.lock().unwrap_or_else(PoisonError::into_inner));
    let gate = Rc::new(Gate::new(&served.plan.overload, counters));
    let answers = answers(shared, &served, runtime, &gate, counters);
    let log = shared.log.as_ref().map(|writer| writer.log(counters));
    let context = Context::new(answers, shared.helpers.clone(), Arc::clone(counters), log, shared.clients.clone());
    let (asked, looking) = (Rc::downgrade(&context), Rc::downgrade(&context));
    runtime.on_arrivals(
        move || asked.upgrade().is_some_and(|context| context.answers().files().is_worth_foreseeing()),
        move |arrivals| {
            if let Some(context) = looking.upgrade() {
                context.answers().files().foresee(arrivals.iter());
            }
        },
    );
    context
}

/// Whoever answers next goes by the same `gate`: what is too much does not change with a plan.
fn answers(
    shared: &Shared,
    served: &Served,
    runtime: &Rc<Runtime>,
    gate: &Rc<Gate>,
    counters: &Arc<Counters>,
) -> Rc<Answers> {
    let files = Files::new(
        runtime,
        &served.plan,
        (&served.roots, &shared.shelf, &shared.helpers, &shared.disk_use),
        shared.watcher.as_ref().map(Watcher::watches),
        gate,
        counters,
    );
    let (plan, router) = (Arc::clone(&served.plan), Arc::clone(&served.router));
    Answers::new(plan, router, files, Arc::clone(&served.error_pages))
}

async fn work(shared: Arc<Shared>, context: Rc<Context>, reception: Rc<Reception>, sockets: Vec<OwnedFd>) {
    let accepting = Rc::new(Accepting::new(&context, &reception));
    accepting.start(sockets);
    if !context.answers().plan().serves_one_by_one() {
        let watch = watch::watch(Rc::clone(&context), Rc::clone(&reception), Rc::clone(&accepting), shared.memory);
        context.runtime().spawn_vital(watch);
    }
    flush_log(&context);
    let seat = &reception.seats[reception.place];
    let gently = loop {
        match seat.call().await {
            Call::Handed(sockets) => {
                sockets.into_iter().for_each(|socket| listen::welcome(socket, &context, seat));
            }
            Call::News => {
                let mine = &shared.changes[reception.place];
                let changes = std::mem::take(&mut *mine.lock().unwrap_or_else(PoisonError::into_inner));
                for change in changes {
                    context.exchange(answers(
                        &shared,
                        &change.served,
                        context.runtime(),
                        &context.gate,
                        &context.counters,
                    ));
                    if let Some(addresses) = &change.addresses {
                        accepting.only(addresses);
                    }
                    accepting.start(change.added);
                }
            }
            Call::Drain { gently } => break gently,
        }
    };
    accepting.stop().await;
    context.drain();
    if gently {
        let end = context.runtime().clock().now() + GRACE;
        while seat.connections() > 0 && context.runtime().clock().now() < end {
            context.runtime().sleep(DRAIN_INTERVAL).await;
        }
    }
    context.runtime().end_idle();
    wait_for_guests(&context, seat).await;
    if let Some(log) = &context.log {
        log.flush();
    }
}

fn flush_log(context: &Rc<Context>) {
    if context.log.is_none() {
        return;
    }
    let context = Rc::clone(context);
    let runtime = Rc::clone(context.runtime());
    runtime.spawn(async move {
        loop {
            context.runtime().sleep(LOG_INTERVAL).await;
            if let Some(log) = &context.log {
                log.flush();
            }
        }
    });
}

/// Answers under way may go on until the drain's time is over.
async fn wait_for_guests(context: &Context, seat: &Seat) {
    let runtime = context.runtime();
    let end = runtime.clock().now() + context.limits().drain_timeout;
    while seat.connections() > 0 && runtime.clock().now() < end {
        runtime.sleep(DRAIN_INTERVAL).await;
        runtime.end_idle();
    }
}

const LOG_INTERVAL: Duration = Duration::from_millis(500);
/// Whoever is about to send another request on a connection does so within this time, and is told that it is the last: a close
/// that crosses a request on its way looks like a failure (RFC 9112, 9.5).
const GRACE: Duration = Duration::from_secs(1);
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

//! A worker: one thread with a loop, its listeners, and its view of the plan.
//!
//! Everything that waits for the disk at start (folders, error pages) has happened before a worker begins.

mod choose;
pub mod confine;
pub mod server;
mod watch;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use amped_runtime::disk::Helpers;
use amped_runtime::net::Listener;
use amped_runtime::{Meter, Runtime, driver};

pub use self::choose::{Chosen, choose};
use crate::answer::Answers;
use crate::answer::error_page::ErrorPages;
use crate::answer::files::{Files, Roots, Shelf};
use crate::config::plan::Plan;
use crate::converse::Context;
use crate::listen::{self, Reception, Seat, seat::Call};
use crate::observe::access_log::Writer;
use crate::observe::counters::Counters;
use crate::overload::Clients;
use crate::route::Router;

/// What all workers of a process share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub plan: Arc<Plan>,
    /// The routes.
    pub router: Arc<Router>,
    /// The open folders.
    pub roots: Arc<Roots>,
    /// The memory cache.
    pub shelf: Arc<Shelf>,
    /// The error pages.
    pub error_pages: Arc<ErrorPages>,
    /// The disk's helpers.
    pub helpers: Helpers,
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
pub fn run(shared: &Arc<Shared>, place: usize, sockets: Vec<OwnedFd>, ready: impl FnOnce(Result<Readings, String>)) {
    let runtime = match Runtime::new(shared.driver) {
        Ok(runtime) => runtime,
        Err(error) => return ready(Err(format!("driver {}: {error}", shared.driver))),
    };
    let counters = Arc::new(Counters::default());
    let context = context(shared, &runtime, &counters);
    let reception =
        Rc::new(Reception { seats: Arc::clone(&shared.seats), place, max_connections: shared.max_connections });
    ready(Ok(Readings { counters, meter: Arc::clone(runtime.meter()) }));
    let work = work(context, reception, sockets);
    if let Err(error) = runtime.run(work) {
        eprintln!("amped: worker {place}: {error}");
    }
}

fn context(shared: &Arc<Shared>, runtime: &Rc<Runtime>, counters: &Arc<Counters>) -> Rc<Context> {
    let disk = (&shared.roots, &shared.shelf, &shared.helpers);
    let files = Files::new(runtime, &shared.plan, disk, counters);
    let (plan, router) = (Arc::clone(&shared.plan), Arc::clone(&shared.router));
    let answers = Answers::new(plan, router, files, Arc::clone(&shared.error_pages));
    let log = shared.log.as_ref().map(|writer| writer.log(counters));
    Context::new(answers, shared.helpers.clone(), Arc::clone(counters), log, shared.clients.clone())
}

async fn work(context: Rc<Context>, reception: Rc<Reception>, sockets: Vec<OwnedFd>) {
    let accepting = Rc::new(Accepting::default());
    accepting.start(sockets, &context, &reception);
    flush_log(&context);
    let seat = &reception.seats[reception.place];
    while let Call::Handed(sockets) = seat.call().await {
        for socket in sockets {
            listen::welcome(socket, &context, seat);
        }
    }
    accepting.stop();
    context.drain();
    wait_for_guests(&context, seat).await;
    if let Some(log) = &context.log {
        log.flush();
    }
}

/// The listening tasks, which end when the worker drains.
#[derive(Debug, Default)]
struct Accepting {
    stopped: std::cell::Cell<bool>,
    wakers: std::cell::RefCell<Vec<std::task::Waker>>,
}

impl Accepting {
    fn start(self: &Rc<Self>, sockets: Vec<OwnedFd>, context: &Rc<Context>, reception: &Rc<Reception>) {
        let listener = |socket| Listener::new(context.runtime(), socket);
        let complain = |error| eprintln!("amped: a listening socket: {error}");
        let listeners = sockets.into_iter().map(listener).filter_map(|made| made.map_err(complain).ok());
        let of_its_own = || (Rc::clone(context), Rc::clone(reception));
        if context.answers.plan().serves_one_by_one() {
            let (context, reception) = of_its_own();
            return self.spawn(&context.clone(), listen::receive_one_by_one(listeners.collect(), context, reception));
        }
        let listeners: Vec<_> = listeners.map(Rc::new).collect();
        for listener in &listeners {
            let (context, reception) = of_its_own();
            self.spawn(&context.clone(), listen::receive(Rc::clone(listener), context, reception));
        }
        let (context, reception) = of_its_own();
        self.spawn(&context.clone(), watch::watch(context, reception, listeners));
    }

    fn spawn(self: &Rc<Self>, context: &Context, receive: impl Future<Output = ()> + 'static) {
        let this = Rc::clone(self);
        context.runtime().spawn_vital(async move {
            let mut receive = std::pin::pin!(receive);
            std::future::poll_fn(|task| {
                if this.stopped.get() {
                    return std::task::Poll::Ready(());
                }
                let mut wakers = this.wakers.borrow_mut();
                if !wakers.iter().any(|waker| waker.will_wake(task.waker())) {
                    wakers.push(task.waker().clone());
                }
                drop(wakers);
                receive.as_mut().poll(task)
            })
            .await;
        });
    }

    fn stop(&self) {
        self.stopped.set(true);
        self.wakers.take().into_iter().for_each(std::task::Waker::wake);
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
const DRAIN_INTERVAL: Duration = Duration::from_millis(10);

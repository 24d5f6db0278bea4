//! The watch of a worker: ten times a second it measures what there is too much of, and tells the gate.
//!
//! Costs a wake-up, a system call per listener and a walk over the seats each time; nothing is measured per request.

use std::rc::{Rc, Weak};
use std::time::Duration;

use amped_runtime::net::Listener;

use super::accepting::Accepting;
#[cfg(debug_assertions)]
use crate::answer::faults;
use crate::converse::Context;
use crate::listen::Reception;
use crate::overload::backlog::Backlog;
use crate::overload::memory::Memory;
use crate::overload::{Pressure, Step};

/// A listener's queue; a listener that has been let go of has none.
type Queue = (Weak<Listener>, Backlog);

/// Watches until the task is dropped, whatever is listened on by then.
pub async fn watch(context: Rc<Context>, reception: Rc<Reception>, accepting: Rc<Accepting>, memory: Memory) {
    let mut queues: Vec<Queue> = Vec::new();
    let (mut pressure, mut accepted, mut panics) = (Pressure::default(), context.counters.accepted.get(), 0);
    for look in 0u64.. {
        context.runtime().sleep(INTERVAL).await;
        #[cfg(debug_assertions)]
        faults::in_the_watch();
        let runtime = context.runtime();
        if look % MEMORY_EVERY == 0 {
            pressure.memory = memory.pressure();
        }
        let connections: usize = reception.seats.iter().map(|seat| seat.connections()).sum();
        pressure.connections = connections as f32 / reception.max_connections.max(1) as f32;
        pressure.lag = runtime.meter().lag();
        let step = context.gate.feel(pressure, runtime.clock().ticks());
        if step >= Step::Reap && context.gate.reaps() {
            let ours = reception.seats[reception.place].connections();
            context.reap((ours / REAPED_PART).max(REAPED_LEAST));
        }
        queues.retain(|(listener, _)| listener.strong_count() > 0);
        for listener in &*accepting.listeners() {
            if !queues.iter().any(|(known, _)| std::ptr::eq(known.as_ptr(), Rc::as_ptr(listener))) {
                queues.push((Rc::downgrade(listener), Backlog::new(Listener::BACKLOG)));
            }
        }
        let now = context.counters.accepted.get();
        keep_queues_short(&context, &mut queues, (now - accepted) as usize);
        accepted = now;
        context.counters.panics.add(runtime.panics() - panics);
        panics = runtime.panics();
    }
}

fn keep_queues_short(context: &Context, queues: &mut [Queue], accepted: usize) {
    let aim = context.answers().plan().overload.loop_delay;
    let per_look = INTERVAL.as_secs_f32() / aim.as_secs_f32();
    let was_short = queues.iter().any(|(_, backlog)| backlog.is_short());
    for (listener, backlog) in &mut *queues {
        let Some(listener) = listener.upgrade() else { continue };
        let Ok(waiting) = listener.waiting() else { continue };
        if waiting > 0 {
            // The kernel tells one who waits, and that may have been a process that is stuck, or gone and not yet taken apart.
            listener.look_again();
        }
        if let Some(limit) = backlog.look(waiting, accepted, per_look) {
            // Where the kernel does not take it the queue stays as long as it is.
            let _ = listener.let_wait(limit);
        }
    }
    let is_short = queues.iter().any(|(_, backlog)| backlog.is_short());
    context.gate.keep_queue_short(is_short);
    if is_short && !was_short {
        context.counters.accept_pauses.add(1);
    }
}

const INTERVAL: Duration = Duration::from_millis(100);
/// Memory is looked at once a second.
const MEMORY_EVERY: u64 = 10;
/// How many of a worker's connections are reaped at a time.
const REAPED_PART: usize = 32;
const REAPED_LEAST: usize = 32;

//! What the kernel's scheduler is told of a helper.

/// Where a loop and helpers share a core, the loop goes first: its next request may be one that memory can answer. Measured with
/// one core for all and a drowned disk: the hits' 99th percentile on io_uring fell from 1.4 to 0.8 ms. A longer time slice for
/// helpers (sched_setattr(2), Linux 6.12), which would let a loop that wakes in at once, changed nothing that could be measured.
pub(super) fn yield_to_loops() {
    // SAFETY: no pointers involved; 0 names the calling thread (setpriority(2), "C library/kernel differences").
    // A process that is nicer already stays as it is.
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    // SCHED_BATCH (sched(7)): when such a thread wakes, the one that runs is not put aside for it.
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is valid for the call; 0 names the calling thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

/// A tenth of a loop's share of a contended core (sched(7)), each: they go on, and ten of them have half of it.
const NICE: libc::c_int = 10;

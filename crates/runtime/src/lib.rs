//! amped-runtime: amped's event loop, sockets and disk.
//!
//! All of amped's unsafe code and all of its system calls are here. One loop per thread, tasks that are not `Send`, operations
//! that own their memory until the kernel has finished with it, and helpers for whatever can block.
//!
//! ```text
//! runtime    the loop: a turn, and what is measured of it        executor  tasks, run queue, wakes from other threads
//! driver     selectors and io_uring behind one enum              timer     a wheel of lazy deadlines
//! net        listener, stream                                    buffer    pooled chunks in, shared pieces out
//! disk       what never waits, helpers for what does             clock     one read per turn
//! alarm      a wait that is exact to microseconds                meter     how long turns take
//! descriptors  their table has its final size from the start
//! interrupt  a thread that blocks, woken by another              process   fork, signals, children
//! channel    messages and descriptors between processes          stack     what a stuck thread is doing
//! confine    rights that are given up before serving              sim       a world in place of the kernel (feature `sim`)
//! stderr     lines for people, which nothing depends on       code      the program itself, kept in memory
//! memory     lines that will be needed soon
//! ```

/// Ends the function it stands in with what this thread's simulation says, if the thread is in one. Without the feature `sim`
/// it is nothing at all.
macro_rules! simulated {
    ($question:expr) => {
        #[cfg(feature = "sim")]
        if let Some(told) = crate::sim::ask($question) {
            return told;
        }
    };
}

pub mod channel;
pub mod confine;
pub mod disk;
pub mod driver;
pub mod net;
pub mod process;
#[cfg(feature = "sim")]
pub mod sim;
pub mod stack;

mod alarm;
mod buffer;
mod clock;
mod code;
mod descriptors;
mod executor;
mod interrupt;
mod memory;
mod meter;
mod runtime;
mod stderr;
mod timer;

pub use alarm::Alarm;
pub use buffer::{Chunk, SendQueue};
pub use clock::{Clock, read as read_clock, wall_time};
pub use code::keep_code_in_memory;
pub use descriptors::{descriptor_limit, make_room_for_descriptors};
pub use driver::Arrivals;
pub use executor::yield_now;
pub use memory::{prefetch, prefetch_run};
pub use meter::{Meter, Worst};
pub use runtime::{Runtime, Sleep};
pub use stderr::{Priority, say_line};

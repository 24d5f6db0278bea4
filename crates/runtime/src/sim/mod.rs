//! The simulation: sockets, disk, helpers and clocks of one thread, all from one seed (the feature `sim` only).
//!
//! Everything above the system calls runs as it is: the loop, `driver::readiness`, the helpers' queues, the server. What is
//! replaced is the kernel: each system call of this crate asks the thread's `World` first (`simulated!`), and a release build
//! does not contain the question. Descriptors are real ones, of empty files without a name, so that their owners need not know,
//! and who forgets to close one is found out.
//!
//! Time is virtual: it passes by a few microseconds with each call, and jumps to the next event where the loop waits.

mod connection;
mod descriptors;
mod events;
mod faults;
mod files;
mod helper;
mod listening;
mod network;
mod random;
mod wall;
mod world;

use std::cell::RefCell;

pub(crate) use self::events::wait;
pub use self::faults::Faults;
pub use self::files::{Change, MEDDLER, Version};
pub use self::helper::end_helpers;
pub use self::network::{Line, Received};
pub use self::random::Random;
pub use self::world::{Crowd, World};

thread_local! {
    static WORLD: RefCell<Option<Box<World>>> = const { RefCell::new(None) };
}

/// Makes `world` the one that this thread's system calls go to while `run` runs; gives it back afterwards.
///
/// # Panics
/// When the thread is in a simulation already.
pub fn within<T>(world: World, run: impl FnOnce() -> T) -> (World, T) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            // After a panic: what is left of the world may ask it something while it is dropped.
            let world = WORLD.with_borrow_mut(Option::take);
            drop(world);
        }
    }
    let before = WORLD.replace(Some(Box::new(world)));
    assert!(before.is_none(), "a thread simulates one world");
    let leave = Leave;
    let result = run();
    let world = WORLD.take().expect("nobody else takes it");
    drop(leave);
    (*world, result)
}

/// Asks this thread's world, if it is in one.
pub fn ask<T>(question: impl FnOnce(&mut World) -> T) -> Option<T> {
    WORLD.with_borrow_mut(|world| world.as_deref_mut().map(question))
}

//! The disk: what memory can answer at once, and helpers for the rest.
//!
//! `now` never waits: it opens and reads what the kernel holds in memory, on mounts where that is known to work (`mount`), and
//! says `WouldBlock` otherwise. `helpers` are a bounded pool of threads that may wait for anything. Nothing else in amped touches
//! a file.

mod codel;
mod held;
mod helpers;
mod job;
mod line;
mod mount;
mod now;
mod pause;
mod priority;
mod proven;
mod root;
mod watch;

pub use held::Held;
#[cfg(feature = "sim")]
pub(crate) use helpers::Pool;
pub use helpers::{Class, Helpers, Stats};
pub use job::{Job, Refused};
#[cfg(feature = "sim")]
pub(crate) use line::Waiting;
pub use mount::{Ability, Mount};
pub use now::{is_resident, read_now, read_resident};
pub use pause::pause;
pub use proven::UNIT;
pub use root::{FileKind, Place, Root, Stamp, Standing, Symlinks, read_at, stamp};
pub use watch::{Mark, Watch, Watcher, Watches};

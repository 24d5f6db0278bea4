//! What the tests stand on: the real binary, raw sockets, folders to serve.
//!
//! Every test of the server is run on every driver: `on_every_driver!(name)` makes `name::epoll_edge`, `name::poll`, … of a
//! function `name(driver)`, and `blocking::name::mt` and `mp`. Where a driver does not work, the server says so and serves with
//! another, and the test holds it to that.
//!
//! What does not apply where a thread or a process serves one connection at a time, and why:
//!
//! - `on_every_loop!`, neither mt nor mp: tests of the helpers, which these do not have, and tests with more connections at one
//!   time than the pool has threads or processes;
//! - `on_every_thread!`, mt but not mp: tests that look at the memory and the descriptors of the process, at one cache for all (also
//!   when it is seen that a file has changed), at what one log has lost, or at connections turned away (with mp they wait).
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses its own part of the harness")]

mod browser;
mod client;
mod folder;
mod said;
mod server;
pub mod stall;
pub mod supervised;

pub use browser::Browser;
pub use client::{Answer, Client, get};
pub use folder::{Folder, pattern};
pub use server::{Driver, Server, binary, binary_as_nobody, copy_of_binary, is_root};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Makes a test of each function for every driver of event loops.
macro_rules! on_every_loop {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use crate::harness::Driver;
            #[test]
            fn epoll_edge() {
                super::$name(Driver::EpollEdge);
            }
            #[test]
            fn poll() {
                super::$name(Driver::Poll);
            }
            #[test]
            fn epoll_level() {
                super::$name(Driver::EpollLevel);
            }
            #[test]
            fn portable() {
                super::$name(Driver::Portable);
            }
            #[test]
            fn select() {
                super::$name(Driver::Select);
            }
            #[test]
            fn sigio() {
                super::$name(Driver::Sigio);
            }
            #[test]
            fn uring() {
                super::$name(Driver::Uring);
            }
        }
    )+};
}
pub(crate) use on_every_loop;

/// The same, and a test with a pool of threads.
macro_rules! on_every_thread {
    ($($name:ident),+ $(,)?) => {
        crate::harness::on_every_loop!($($name),+);
        mod threads {$(
            mod $name {
                #[test]
                fn mt() {
                    crate::$name(crate::harness::Driver::Mt);
                }
            }
        )+}
    };
}
pub(crate) use on_every_thread;

/// The same, and tests with a pool of threads and with one of processes.
macro_rules! on_every_driver {
    ($($name:ident),+ $(,)?) => {
        crate::harness::on_every_loop!($($name),+);
        mod blocking {$(
            mod $name {
                #[test]
                fn mt() {
                    crate::$name(crate::harness::Driver::Mt);
                }
                #[test]
                fn mp() {
                    crate::$name(crate::harness::Driver::Mp);
                }
            }
        )+}
    };
}
pub(crate) use on_every_driver;

/// Waits until `condition` holds; panics with `what` when it does not within `PATIENCE`.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that it is over when dropped, also by a panic: threads of a scope that nobody told would never let it end.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long anything may take before it counts as never: machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

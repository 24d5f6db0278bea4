//! What the tests stand on: the real binary, raw sockets, folders to serve.
//!
//! Every test of the server is run on every driver: `on_every_driver!(name)` makes `name::epoll_edge`, `name::poll` and
//! `name::uring` of a function `name(driver)`. Where a driver does not work, the server says so and serves with another,
//! and the test holds it to that.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test file uses its own part of the harness")]

mod client;
mod folder;
mod server;
pub mod stall;

pub use client::{Answer, Client, get};
pub use folder::{Folder, pattern};
pub use server::{Driver, Server, binary, is_root};

use std::time::{Duration, Instant};

/// Makes a test of each function for every driver.
macro_rules! on_every_driver {
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
            fn uring() {
                super::$name(Driver::Uring);
            }
            #[test]
            fn mt() {
                super::$name(Driver::Mt);
            }
            #[test]
            fn mp() {
                super::$name(Driver::Mp);
            }
        }
    )+};
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

/// How long anything may take before it counts as never: machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

//! Faults on request, for the tests of what outlives them: a panic, a crash, an endless loop, a request that costs a known time.
//!
//! In debug builds only, and there only when the environment says `AMPED_TEST_FAULTS=1`: a release has no such paths. With
//! `AMPED_TEST_FAULTS_AT_START=FOLDER` files in that folder say how a server process fails to start.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use amped_runtime::yield_now;
use amped_wire::status::Status;

use super::Answer;
use super::reply::{Body, Reply};

/// Does what a path below `/.amped-test/` asks for; `None` for every other path, and when nobody has allowed it.
///
/// - `panic`: panics where the request is looked up;
/// - `panic-later`: panics while the answer is awaited;
/// - `panic-sending`: panics where the answer is put together, which is the conversation's own affair;
/// - `abort`: ends the process;
/// - `lose-worker`: panics in a task that a worker cannot do without;
/// - `spin`: never returns, and lets nobody else on this loop go on;
/// - `burn/N…`: keeps the loop busy for N microseconds, then goes on as if nothing had been asked for.
pub fn strike(path: &[u8]) -> Option<Answer> {
    let fault = path.strip_prefix(b"/.amped-test/").filter(|_| are_allowed())?;
    match fault {
        b"panic" => panic!("a test asked for it"),
        b"panic-later" => {
            return Some(Answer::Pending(Box::pin(async {
                yield_now().await;
                panic!("a test asked for it, later")
            })));
        }
        b"panic-sending" => {
            // A range that lies outside of its memory.
            let body = Body::Shared(Arc::from([]), 0..7);
            return Some(Answer::Ready(Reply { body, ..Reply::own(Status::OK, b"\r\n".to_vec()) }));
        }
        b"abort" => std::process::abort(),
        b"lose-worker" => LOSES_WORKER.store(true, Relaxed),
        b"spin" => endless_loop(),
        _ => {}
    }
    let digits = fault.strip_prefix(b"burn/")?.split(|byte| *byte == b'/').next()?;
    let micros = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
    None
}

/// Before a server process does anything: a file `start` ends it, `hang` holds it while it is there.
pub fn at_start() {
    let Some(folder) = std::env::var_os("AMPED_TEST_FAULTS_AT_START").map(PathBuf::from) else { return };
    if folder.join("start").exists() {
        std::process::exit(3);
    }
    while folder.join("hang").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// In a task that no worker can do without: panics if that was asked for.
pub fn in_the_watch() {
    assert!(!LOSES_WORKER.swap(false, Relaxed), "a test asked for it");
}

/// A function of its own, so that a stack has its name.
#[inline(never)]
fn endless_loop() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Whether a path is one that costs time: it is admitted like what memory cannot answer.
pub fn is_costly(path: &[u8]) -> bool {
    path.starts_with(b"/.amped-test/burn/") && are_allowed()
}

static LOSES_WORKER: AtomicBool = AtomicBool::new(false);

fn are_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| std::env::var_os("AMPED_TEST_FAULTS").is_some_and(|value| value == "1"))
}

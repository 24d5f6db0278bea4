//! Faults on request, for the tests of what outlives them: a panic, an endless loop, a request that costs a known time.
//!
//! In debug builds only, and there only when the environment says `AMPED_TEST_FAULTS=1`: a release has no such paths.

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
        b"spin" => loop {
            std::hint::spin_loop();
        },
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

/// Whether a path is one that costs time: it is admitted like what memory cannot answer.
pub fn is_costly(path: &[u8]) -> bool {
    path.starts_with(b"/.amped-test/burn/") && are_allowed()
}

fn are_allowed() -> bool {
    static ALLOWED: OnceLock<bool> = OnceLock::new();
    *ALLOWED.get_or_init(|| std::env::var_os("AMPED_TEST_FAULTS").is_some_and(|value| value == "1"))
}

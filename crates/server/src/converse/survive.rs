//! A panic in one request is that request's alone: it is answered 500, its connection ends, the worker lives on.
//!
//! What a conversation shares with others is behind `RefCell`s and locks whose guards an unwinding lets go of, and what the
//! kernel still writes to belongs to the driver, which keeps it until the last completion: so there is nothing to repair.
//! Costs two stores to a thread's own memory per guarded step; a panic costs one line of the log, ten a second at most.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amped_runtime::warn;

thread_local! {
    /// A panic on this thread will be caught and told of by `guard`'s caller.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

/// A step that panicked: where, and what it said.
#[derive(Debug)]
pub struct Panicked {
    place: String,
    /// Where RUST_BACKTRACE asks for it. Its names are looked up when it is shown, which is what takes time.
    trace: Option<Backtrace>,
}

/// Has panics of guarded steps noted instead of printed, from now on and in the whole process; all others as before.
pub fn watch() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| if GUARDED.get() { note(panic) } else { before(panic) }));
    });
}

fn note(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let place = format!("{place}: {}", message(panic.payload()));
    let trace = Some(Backtrace::capture()).filter(|trace| trace.status() == BacktraceStatus::Captured);
    LAST.set(Some(Panicked { place, trace }));
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

/// Runs a step that may panic, on a loop or wherever else others must go on.
///
/// # Errors
/// What is known of the panic. Whatever the step was about must be given up then.
pub fn guard<T>(step: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outside = GUARDED.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(step));
    GUARDED.set(outside);
    let unknown = || Panicked { place: "an unknown place".into(), trace: None };
    outcome.map_err(|_| LAST.take().unwrap_or_else(unknown))
}

impl Panicked {
    /// Says in the log what panicked and what became of it, unless that has been said too often in this second.
    pub fn log(&self, what: &[u8], outcome: &str) {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        if may_say(&SAID, second) {
            let what = what[..what.len().min(MAX_SHOWN)].escape_ascii();
            let trace = self.trace.as_ref().map(|trace| format!("\n{trace}")).unwrap_or_default();
            warn!("amped: {what} panicked at {}; {outcome}{trace}", self.place);
        }
    }
}

/// Counts a line of this second, and says whether there may be another. Two that race may both be the tenth.
fn may_say(said: &AtomicU64, second: u64) -> bool {
    let before = said.load(Relaxed);
    let count = if before >> 8 == second { before & 0xff } else { 0 };
    if count < LINES_A_SECOND {
        said.store(second << 8 | (count + 1), Relaxed);
    }
    count < LINES_A_SECOND
}

/// The second of the last line, and how many lines it has had (the low byte).
static SAID: AtomicU64 = AtomicU64::new(0);
/// A panic that any client can cause must not become a flood of lines: the counter has them all.
const LINES_A_SECOND: u64 = 10;
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_panic_is_caught_with_its_place() {
        watch();
        let panicked = guard(|| -> u8 { panic!("number {}", 7) }).expect_err("it panicked");
        assert!(panicked.place.contains("survive.rs:") && panicked.place.contains(": number 7"), "{panicked:?}");
        assert_eq!(guard(|| 5).expect("no panic"), 5);
        let odd = guard(|| std::panic::panic_any(5u8)).expect_err("it panicked");
        assert!(odd.place.contains("(no text)"), "{odd:?}");
    }

    #[test]
    fn guards_may_be_nested() {
        watch();
        let outer = guard(|| guard(|| panic!("inner")).expect_err("it panicked").place);
        assert!(outer.expect("the outer step went on").contains("inner"));
        assert!(!GUARDED.get());
    }

    #[test]
    fn ten_lines_a_second_and_no_more() {
        let said = AtomicU64::new(0);
        assert_eq!((0..100).filter(|_| may_say(&said, 1_700_000_000)).count(), 10);
        assert!(may_say(&said, 1_700_000_001));
    }
}

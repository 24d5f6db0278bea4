//! What another thread of this process is doing: its stack, taken while it runs, for one that is stuck.
//!
//! A signal has the thread walk its own stack and leave bare addresses in memory that is there already; names are looked up
//! afterwards, by the thread that asked. signal-safety(7) allows neither allocation nor a lock in the handler: the walk makes
//! none, since the unwinder's tables were set up by `listen` and glibc finds them without a lock (`_dl_find_object`, 2.35). Where
//! an older one takes its lock, a thread that is stuck inside the loader does not answer, which `of` outwaits. Nobody asks a
//! thread that is not stuck.

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// Who has been asked; 0 when nobody is, or once the answer is complete.
static ASKED: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);
static FRAMES: [AtomicUsize; MAX_FRAMES] = [const { AtomicUsize::new(0) }; MAX_FRAMES];

/// The kernel's number of the calling thread.
pub fn thread() -> i32 {
    rustix::thread::gettid().as_raw_pid()
}

/// Lets the threads of this process be asked.
///
/// # Errors
/// None expected: the signal can be caught.
pub fn listen() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut outcome = 0;
    ONCE.call_once(|| {
        // The unwinder's first walk sets it up, with locks and memory.
        let mut frames = 0;
        backtrace::trace(|_| {
            frames += 1;
            frames < MAX_FRAMES
        });
        // SAFETY: an all-zero sigaction is a valid one; the handler keeps to what the file's head says.
        outcome = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = answer as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigaction(signal(), &action, std::ptr::null_mut())
        };
    });
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where a thread is: addresses in the functions it is in.
#[derive(Clone, Debug, Default)]
pub struct Stack(Vec<usize>);

/// Where a thread of this process is; empty when it does not answer within `patience`: it may be asleep in the kernel where no
/// signal reaches it (state D of ps(1)). To be called after `listen`.
pub fn of(thread: i32, patience: Duration) -> Stack {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    COUNT.store(0, Relaxed);
    ASKED.store(thread, Release);
    // SAFETY: takes numbers only, and none of another process is meant. A thread that is no more makes it fail.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
    let end = Instant::now() + patience;
    while sent == 0 && ASKED.load(Acquire) != 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_micros(200));
    }
    // Whoever answers later than this finds that nobody asks.
    if ASKED.swap(0, Acquire) != 0 {
        return Stack::default();
    }
    let count = COUNT.load(Relaxed).min(MAX_FRAMES);
    Stack(FRAMES[..count].iter().map(|frame| frame.load(Relaxed)).collect())
}

impl Stack {
    /// The thread did not say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The functions, innermost first. Reads the program's debugging information from the disk: where files took all memory and
    /// the disk was short, the thread that did so slept for 12 of 115 s.
    pub fn names(&self) -> Vec<String> {
        names(&self.0)
    }
}

extern "C" fn answer(_: libc::c_int) {
    // SAFETY: errno is this thread's own, and whoever was interrupted may be about to read it.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: no pointers involved.
    let own = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    if ASKED.load(Acquire) == own {
        let mut count = 0;
        let walk = |frame: &backtrace::Frame| {
            FRAMES[count].store(frame.ip() as usize, Relaxed);
            count += 1;
            count < MAX_FRAMES
        };
        // SAFETY: not synchronised with other walks, of which there are none: one thread is asked at a time, and a panic's own
        // walk shares nothing with this one but the unwinder, which any number of threads may use.
        unsafe { backtrace::trace_unsynchronized(walk) };
        COUNT.store(count, Relaxed);
        // Only the one that asked for this answer is still there to read it.
        let _ = ASKED.compare_exchange(own, 0, Release, Relaxed);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Names with their places, without the handler's own frames and without what all threads begin with.
fn names(frames: &[usize]) -> Vec<String> {
    let mut names = Vec::new();
    for &frame in frames {
        let mut known = false;
        // An address of a call is that of the instruction after it; the lookup itself goes one back.
        backtrace::resolve(frame as *mut c_void, |symbol| {
            let Some(name) = symbol.name() else { return };
            let place = symbol.filename().and_then(|file| file.file_name()).zip(symbol.lineno());
            let place = place.map(|(file, line)| format!(" ({}:{line})", file.to_string_lossy())).unwrap_or_default();
            let name = format!("{name:#}");
            // What a generic function is made for fills lines and tells little.
            let short = name.find('<').filter(|at| *at > 0).map_or(&*name, |at| name[..at].trim_end_matches(':'));
            names.push(format!("{short}{place}"));
            known = true;
        });
        if !known {
            names.push(format!("{frame:#x}"));
        }
    }
    // The handler and what it called come first, and then the frame that the kernel made, whose name is not known.
    let own = |name: &String| name.contains("answer (stack.rs") || name.contains("stack::answer");
    let begin = names.iter().take(OWN_FRAMES).rposition(own).map_or(0, |last| last + 1);
    let is_made = |name: &&String| name.starts_with("0x") || name.contains("restore_rt");
    let begin = begin + names[begin..].iter().take(1).filter(is_made).count();
    let end = names.iter().position(|name| name.contains("__rust_begin_short_backtrace")).unwrap_or(names.len());
    names.drain(..end.max(begin)).skip(begin).collect()
}

/// Of the signals that are anybody's (signal(7)), one that neither `driver::sigio` nor the threads' library uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 12
}

const MAX_FRAMES: usize = 64;
/// The handler is among these.
const OWN_FRAMES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[inline(never)]
    fn turn_in_circles(stop: &AtomicBool) -> u64 {
        let mut turns: u64 = 0;
        while !stop.load(Relaxed) {
            turns = std::hint::black_box(turns.wrapping_add(1));
        }
        turns
    }

    #[test]
    fn a_thread_that_turns_in_circles_is_seen_doing_so() {
        listen().expect("a handler");
        let (stop, number) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
        let (stopped, own) = (Arc::clone(&stop), Arc::clone(&number));
        let circling = std::thread::spawn(move || {
            own.store(thread(), Relaxed);
            turn_in_circles(&stopped)
        });
        while number.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        let stack = of(number.load(Relaxed), Duration::from_secs(10)).names();
        stop.store(true, Relaxed);
        circling.join().expect("no panic");
        // Innermost first, and nothing of the walk itself.
        assert!(stack.iter().take(3).any(|name| name.contains("turn_in_circles")), "{stack:#?}");
        assert!(!stack.iter().any(|name| name.contains("answer") || name.contains("0x")), "{stack:#?}");
        // Nobody is there any more.
        assert!(of(i32::MAX, Duration::from_millis(10)).is_empty());
    }
}

//! A thread that blocks in a system call, and how another thread ends that call.
//!
//! Only a signal ends a call that blocks, and two lessons of the man pages decide the rest. pause(2): a signal that comes just
//! before the call is lost, so it is sent again until the call has ended. signal(7): under SA_RESTART only a few calls still
//! end with EINTR, socket calls with a time limit (SO_RCVTIMEO) among them, so a late signal disturbs no read of a file.
//! SIGURG is ignored by default and nobody sends it to a server, which makes it free to use.

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// One thread's sleep in its own calls, as the others see it.
#[derive(Debug, Default)]
pub(crate) struct Sleeper {
    /// The count of sleeps, and in the lower half the kernel's number of the thread that sleeps; 0 there while it is awake.
    sleep: AtomicU64,
    /// That number, asked for once.
    thread: AtomicI32,
}

impl Sleeper {
    /// Makes `call`, which blocks, unless something has come that `is_wanted` tells of. What comes later ends it with EINTR.
    pub(crate) fn sleep<T>(&self, is_wanted: impl FnOnce() -> bool, call: impl FnOnce() -> T) -> Option<T> {
        if self.thread.load(Relaxed) == 0 {
            self.thread.store(rustix::thread::gettid().as_raw_pid(), Relaxed);
        }
        let sleep = (self.sleep.load(Relaxed) >> 32).wrapping_add(1) << 32;
        // Either this thread sees what has come, or whoever brought it sees that this thread sleeps: both are SeqCst.
        self.sleep.store(sleep | u64::from(self.thread.load(Relaxed) as u32), SeqCst);
        let result = (!is_wanted()).then(call);
        self.sleep.store(sleep, SeqCst);
        result
    }

    /// Ends the sleep that is under way, if one is. Whatever it is to see must be there already.
    pub(crate) fn interrupt(&self) {
        let sleep = self.sleep.load(SeqCst);
        let thread = sleep as u32;
        let mut pause = FIRST_PAUSE;
        while thread != 0 && self.sleep.load(SeqCst) == sleep {
            // SAFETY: takes numbers only. A thread that is no more would make it fail, and none of another process is meant.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGURG) };
            thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// Makes SIGURG end this thread's blocking calls, and do nothing else.
pub(crate) fn listen() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    static ONCE: Once = Once::new();
    let mut outcome = 0;
    ONCE.call_once(|| {
        // SAFETY: an all-zero sigaction is a valid one; the handler touches nothing, so it may run at any time.
        outcome = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGURG, &action, std::ptr::null_mut())
        };
    });
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the set is made before it is used, and belongs to this call; only this thread's mask changes.
    let blocked = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGURG);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut())
    };
    if blocked == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(blocked)) }
}

/// Between two signals: about what a thread takes to wake up, and what is short for a rare loss.
const FIRST_PAUSE: Duration = Duration::from_micros(20);
const LAST_PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    /// Thousands of interruptions at all distances from the beginning of a call: none is lost, or this would hang.
    #[test]
    fn no_interruption_is_lost() {
        let (reader, _writer) = std::os::unix::net::UnixStream::pair().expect("two sockets");
        reader.set_read_timeout(Some(Duration::from_secs(3600))).expect("an option");
        let (sleeper, wanted) = (Arc::new(Sleeper::default()), Arc::new(AtomicBool::new(false)));
        let (sleepers, wishes) = (Arc::clone(&sleeper), Arc::clone(&wanted));
        let thread = thread::spawn(move || {
            listen().expect("a handler");
            for _ in 0..ROUNDS {
                while !wishes.swap(false, SeqCst) {
                    let mut byte = [0];
                    let call = || crate::net::socket::recv_waiting(reader.as_fd(), &mut byte);
                    if let Some(ended) = sleepers.sleep(|| wishes.load(SeqCst), call) {
                        assert_eq!(ended.expect_err("nobody sends").kind(), io::ErrorKind::Interrupted);
                    }
                }
            }
        });
        for round in 0..ROUNDS {
            wanted.store(true, SeqCst);
            sleeper.interrupt();
            while wanted.load(SeqCst) {
                thread::yield_now();
            }
            for _ in 0..round % 400 {
                std::hint::spin_loop();
            }
        }
        thread.join().expect("no panic");
    }

    const ROUNDS: usize = 5000;
}

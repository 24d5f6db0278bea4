//! Realtime signals, as Linux 2.4 offered them before epoll: O_ASYNC with F_SETSIG (fcntl(2)).
//!
//! Each change of a socket queues a signal with its descriptor's number, to this thread alone (F_OWNER_TID: helper threads
//! never see one); here they are blocked and read by the batch from a signalfd(2). The lessons of the man page:
//! - The queue is bounded (RLIMIT_SIGPENDING, for all processes of a user together). When it is full the kernel sends a plain
//!   SIGIO, of which one fits always. It says that signals were lost, so everything is looked at, and the overflow is counted.
//! - A signal tells a change, not a state, and it stays queued when its descriptor is closed and the number given to another.
//!   So a signal only says where to look; what is there, one poll(2) for the batch says. A stale one costs a look, or is
//!   recognised (`late_events`) when nobody has the number.
//! - What changed before O_ASYNC was on has told nobody, so a descriptor is looked at once after it is armed.
//! - Not everything can signal: eventfd(2) cannot, nor a second descriptor of a socket, since the kernel keeps one number for
//!   both. These are polled, beside the signalfd.
//!
//! Cost: four calls when a connection first waits and one at its close, none per request, three per wait. And each signal wakes
//! every thread of the process that sleeps on a signalfd, for the kernel to find that it is not theirs (signalfd_notify).

use std::cell::Cell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::poll::{self, Poll};
use super::selector::Event;
use super::slots::Token;
use super::source::Flags;

/// The queue's reading end, and who is behind each number.
#[derive(Debug)]
pub(crate) struct Sigio {
    queue: OwnedFd,
    /// By descriptor.
    places: Vec<Place>,
    /// The descriptors to look at, each once.
    listed: Vec<RawFd>,
    entries: Vec<libc::pollfd>,
    /// Those that cannot signal.
    rest: Poll,
    /// How often the queue was full.
    pub(crate) overflows: u64,
    // Last, so that nothing is unblocked before `drop` has emptied the queue.
    _blocked: Blocked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Of the present user of this number, or of its last.
    token: Option<Token>,
    care: Care,
    /// Somebody waits for room.
    writes: bool,
    listed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Care {
    #[default]
    None,
    Signals,
    Polled,
}

impl Sigio {
    pub(crate) fn new() -> io::Result<Self> {
        let blocked = Blocked::new()?;
        // SAFETY: the set is valid for the call.
        let queue = unsafe { libc::signalfd(-1, &signals(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        check(queue)?;
        // SAFETY: signalfd returned a descriptor that nobody else owns.
        let queue = unsafe { OwnedFd::from_raw_fd(queue) };
        let (places, listed, entries) = Default::default();
        Ok(Self { queue, places, listed, entries, rest: Poll::default(), overflows: 0, _blocked: blocked })
    }

    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, token: Token, known: Flags, interest: Flags) -> io::Result<()> {
        let number = fd.as_raw_fd();
        if number as usize >= self.places.len() {
            self.places.resize(number as usize + 1, Place::default());
        }
        let place = &mut self.places[number as usize];
        if place.care == Care::None {
            place.care = if have_it_signal(number)? { Care::Signals } else { Care::Polled };
            place.token = Some(token);
            place.writes = false;
            if place.care == Care::Signals && !place.listed {
                place.listed = true;
                self.listed.push(number);
            }
        }
        debug_assert_eq!(place.token, Some(token));
        if place.care == Care::Polled {
            return self.rest.arm(fd, token, known, interest);
        }
        place.writes |= interest.has(Flags::ARMED_WRITE);
        Ok(())
    }

    pub(crate) fn deregister(&mut self, fd: RawFd, token: Token) {
        let Some(place) = self.places.get_mut(fd as usize) else { return };
        match place.care {
            Care::None => {}
            Care::Polled => self.rest.deregister(token),
            // A duplicate may keep the socket open, which must not signal in this descriptor's name.
            Care::Signals => silence(fd),
        }
        place.care = Care::None;
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        self.look(events)?;
        let timeout = if events.is_empty() { timeout } else { Some(Duration::ZERO) };
        if self.rest.wait_beside(self.queue.as_raw_fd(), timeout, events)? {
            self.collect(events)?;
            self.look(events)?;
        }
        Ok(())
    }

    /// Takes signals off the queue and lists what they name.
    fn collect(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let overflows = self.overflows;
        loop {
            let mut batch = [const { MaybeUninit::<libc::signalfd_siginfo>::uninit() }; SIGNALS_PER_READ];
            let Some(count) = read_signals(&self.queue, &mut batch)? else { break };
            for signal in &batch[..count] {
                // SAFETY: the kernel has written `count` of them.
                let signal = unsafe { signal.assume_init_ref() };
                if signal.ssi_signo == libc::SIGIO as u32 {
                    self.overflows += 1;
                } else if signal.ssi_code > 0 {
                    self.list(signal.ssi_fd, events);
                }
            }
            // One batch is enough for a turn, unless the queue must be emptied to be of use again.
            if count < SIGNALS_PER_READ || self.overflows == overflows {
                break;
            }
        }
        if self.overflows > overflows {
            for fd in 0..self.places.len() {
                if self.places[fd].care == Care::Signals {
                    self.list(fd as RawFd, events);
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, fd: RawFd, events: &mut Vec<Event>) {
        let Some(place) = self.places.get_mut(fd as usize) else { return };
        match (place.care, place.token) {
            (Care::Signals, _) if !place.listed => {
                place.listed = true;
                self.listed.push(fd);
            }
            // Reported in the name of the past, so that it is counted with other late events.
            (Care::None, Some(token)) => events.push(Event { token, ready: Flags::NONE }),
            _ => {}
        }
    }

    /// Asks poll(2) about everything listed and reports what it says.
    fn look(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        self.entries.clear();
        for &fd in &self.listed {
            let place = &self.places[fd as usize];
            if place.care == Care::Signals {
                let room = if place.writes { libc::POLLOUT } else { 0 };
                self.entries.push(libc::pollfd { fd, events: libc::POLLIN | libc::POLLRDHUP | room, revents: 0 });
            }
        }
        if !self.entries.is_empty() {
            // SAFETY: pointer and length describe `entries`.
            check(unsafe { libc::poll(self.entries.as_mut_ptr(), self.entries.len() as libc::nfds_t, 0) })?;
        }
        for fd in self.listed.drain(..) {
            self.places[fd as usize].listed = false;
        }
        for entry in self.entries.iter().filter(|entry| entry.revents != 0) {
            let place = &mut self.places[entry.fd as usize];
            let Some(token) = place.token else { continue };
            let ready = poll::ready(entry.revents);
            place.writes &= !ready.has(Flags::WRITABLE);
            events.push(Event { token, ready });
        }
        Ok(())
    }
}

impl Drop for Sigio {
    fn drop(&mut self) {
        // Unblocked, one such signal would end the process: none may be queued or come any more.
        for (fd, place) in self.places.iter().enumerate() {
            if place.care == Care::Signals {
                silence(fd as RawFd);
            }
        }
        let mut batch = [const { MaybeUninit::uninit() }; SIGNALS_PER_READ];
        while read_signals(&self.queue, &mut batch).is_ok_and(|count| count.is_some()) {}
    }
}

/// Has a descriptor's changes signalled to this thread; says whether it can be.
fn have_it_signal(fd: RawFd) -> io::Result<bool> {
    // SAFETY: no pointers involved.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    if flags & libc::O_ASYNC != 0 {
        return Ok(false); // It shares a description that signals for another descriptor already.
    }
    // SAFETY: no pointers involved.
    check(unsafe { libc::fcntl(fd, F_SETSIG, signal()) })?;
    // SAFETY: no pointers involved.
    let owner = Owner { kind: F_OWNER_TID, pid: unsafe { libc::gettid() } };
    // SAFETY: `owner` is valid for the call.
    check(unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) })?;
    // Not F_SETFL, which takes O_ASYNC without a word from what cannot signal.
    // SAFETY: the ioctl reads an int.
    match check(unsafe { libc::ioctl(fd, libc::FIOASYNC, std::ptr::from_ref(&ON)) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// After this no signal comes for the descriptor any more, though some may be queued.
fn silence(fd: RawFd) {
    // SAFETY: the ioctl reads an int. It cannot fail on an open descriptor that signals.
    unsafe { libc::ioctl(fd, libc::FIOASYNC, std::ptr::from_ref(&OFF)) };
}

/// Reads a batch; `None` when the queue is empty.
fn read_signals(
    queue: &OwnedFd,
    batch: &mut [MaybeUninit<libc::signalfd_siginfo>; SIGNALS_PER_READ],
) -> io::Result<Option<usize>> {
    // SAFETY: pointer and size describe `batch`, of which the kernel writes whole elements.
    let length = unsafe { libc::read(queue.as_raw_fd(), batch.as_mut_ptr().cast(), size_of_val(batch)) };
    if length >= 0 {
        return Ok(Some(length as usize / size_of::<libc::signalfd_siginfo>()));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        error => Err(error),
    }
}

/// This thread's signals are blocked while it lives. One a thread, since the queue is the thread's.
#[derive(Debug)]
struct Blocked {
    /// Which of them were not blocked before.
    ours: libc::sigset_t,
}

thread_local! {
    static TAKEN: Cell<bool> = const { Cell::new(false) };
}

impl Blocked {
    fn new() -> io::Result<Self> {
        if TAKEN.get() {
            return Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "this thread's signals are another loop's already",
            ));
        }
        let (mut ours, mut before) = (signals(), signals());
        // SAFETY: both sets are valid for the call.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &ours, &mut before) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        for signal in [signal(), libc::SIGIO] {
            // SAFETY: the sets and the signal's number are valid.
            unsafe {
                if libc::sigismember(&before, signal) == 1 {
                    libc::sigdelset(&mut ours, signal);
                }
            }
        }
        TAKEN.set(true);
        Ok(Self { ours })
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is valid for the call, and the loop never leaves its thread.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.ours, std::ptr::null_mut()) };
        TAKEN.set(false);
    }
}

/// The signal of a change, and the one of a full queue.
fn signals() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set, and the numbers are valid.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), signal());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGIO);
        set.assume_init()
    }
}

/// Some way into the range, whose beginning others like to use.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 10
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// struct f_owner_ex.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    pid: libc::pid_t,
}

const F_SETSIG: libc::c_int = 10;
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;
const ON: libc::c_int = 1;
const OFF: libc::c_int = 0;
/// 8 KB on the stack.
const SIGNALS_PER_READ: usize = 64;

//! The driver: every operation on a descriptor, whichever way this machine waits for them.
//!
//! Operations are completion-shaped: an operation owns its memory until its last completion. Readiness drivers try the system
//! call first and arm only on EAGAIN; the completion driver submits. Both live behind one enum: a predictable branch and no
//! generics above. Wakers are called while the driver is borrowed, which is sound because a wake only queues its task.

mod ahead;
mod blocking;
pub(crate) mod buffer_ring;
mod deadlines;
mod epoll;
mod epoll_level;
mod kind;
mod lookout;
mod operation;
mod poll;
mod portable;
mod readiness;
mod ring;
mod select;
mod selector;
mod sending;
mod sigio;
#[cfg(feature = "sim")]
mod sim;
mod slots;
mod source;
pub(crate) mod timer_fd;
mod traffic;
mod uring;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use self::ahead::Ahead;
use self::blocking::Blocking;
use self::deadlines::Deadlines;
use self::epoll::Epoll;
use self::epoll_level::EpollLevel;
pub use self::kind::Kind;
use self::portable::Portable;
use self::readiness::Readiness;
#[cfg(feature = "sim")]
pub(crate) use self::selector::Event as Report;
use self::selector::Selector;
use self::sigio::Sigio;
use self::slots::Slots;
pub use self::slots::Token;
#[cfg(feature = "sim")]
pub(crate) use self::source::Flags;
#[cfg(not(feature = "sim"))]
use self::source::Flags;
use self::source::{Source, wait};
use self::timer_fd::WakeTimer;
use self::uring::Uring;
use crate::buffer::{Chunk, Pool, SendQueue};
use crate::clock;

/// What has come for several connections in one turn and is about to be read by each.
#[derive(Debug)]
pub struct Arrivals<'a> {
    sources: &'a Slots<Source>,
    tokens: &'a [Token],
    /// Where their bytes are, unless the sources have them.
    ahead: Option<&'a Ahead>,
}

impl Arrivals<'_> {
    /// How many connections at most.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether nothing has come, or the driver does not know.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The bytes of each.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let sources = self.tokens.iter().filter_map(|token| self.sources.get(*token));
        sources.filter_map(|source| match self.ahead {
            Some(ahead) => ahead.bytes(source),
            None => source.traffic.arrived(),
        })
    }
}

/// Sets up a driver of this kind and gives it up again: whether it works here, and if not, why.
///
/// # Errors
/// What the kernel said. For io_uring that includes a live round trip, since a sandbox may allow the set-up and not the use.
pub fn probe(kind: Kind) -> io::Result<()> {
    Engine::new(kind).map(drop)
}

/// The sources, their deadlines, and the engine that serves them.
#[derive(Debug)]
pub(crate) struct Driver {
    // Field order is drop order: the engine (and with it the ring) before the sources whose memory it uses.
    engine: Engine,
    sources: Slots<Source>,
    deadlines: Deadlines,
    /// `None` where a wait has a timeout instead.
    timer: Option<WakeTimer>,
}

#[derive(Debug)]
enum Engine {
    Readiness(Readiness),
    Uring(Box<Uring>),
    Blocking(Blocking),
}

impl Engine {
    fn new(kind: Kind) -> io::Result<Self> {
        Ok(match kind {
            Kind::Uring => Self::Uring(Box::new(Uring::new()?)),
            Kind::EpollEdge => Self::over(Selector::Epoll(Epoll::new()?)),
            Kind::EpollLevel => Self::over(Selector::EpollLevel(EpollLevel::new()?)),
            Kind::Poll => Self::over(Selector::Poll(poll::Poll::default())),
            Kind::Select => Self::over(Selector::Select(Box::default())),
            Kind::Sigio => Self::over(Selector::Sigio(Box::new(Sigio::new()?))),
            Kind::Portable => Self::over(Selector::Portable(Box::new(Portable::new()?))),
            Kind::Blocking => Self::Blocking(Blocking::new()?),
            #[cfg(feature = "sim")]
            Kind::Sim => Self::over(Selector::Sim(sim::Sim::new()?)),
        })
    }

    fn over(selector: Selector) -> Self {
        Self::Readiness(Readiness::new(selector))
    }

    /// How many waits a turn may end because their time is up. Deadlines crowd: ten thousand clients that came together and send nothing
    /// are answered 408 and closed together, which takes 75 ms or more, and a request that came meanwhile waited for 60 to 160 ms
    /// (measured; 0.3 now). So few, because each leaves io_uring a send, a cancellation and two last completions, of which one call
    /// handles about 20 (IO_LOCAL_TW_DEFAULT_MAX, io_uring.c): with 32 a turn the request's own completion waited behind those.
    fn most_ended(&self) -> usize {
        match self {
            // A turn costs as much as the descriptors are many, so there are to be fewer of them.
            Self::Readiness(readiness) if readiness.selector.looks_at_all() => 64,
            Self::Readiness(_) | Self::Uring(_) | Self::Blocking(_) => 4,
        }
    }

    /// Whether one more descriptor that waits costs a wait nothing.
    fn reports_cheaply(&self) -> bool {
        match self {
            Self::Readiness(readiness) => matches!(readiness.selector, Selector::Epoll(_) | Selector::EpollLevel(_)),
            Self::Uring(_) => true,
            Self::Blocking(_) => false,
        }
    }
}

impl Driver {
    pub(crate) fn new(kind: Kind, now: u64) -> io::Result<Self> {
        let mut sources = Slots::default();
        let engine = Engine::new(kind)?;
        // Without a descriptor to spare the timeout does as well.
        let fd = engine.reports_cheaply().then(|| timer_fd::create().ok()).flatten();
        let timer = fd.map(|fd| WakeTimer::new(sources.insert(Source::new(fd))));
        Ok(Self { engine, sources, deadlines: Deadlines::new(now), timer })
    }

    /// Takes a non-blocking descriptor into care.
    pub(crate) fn attach(&mut self, fd: OwnedFd) -> Token {
        self.sources.insert(Source::new(fd))
    }

    /// The descriptor by which other threads end the loop's wait.
    pub(crate) fn attach_inbox(&mut self, fd: OwnedFd) -> Token {
        let token = self.attach(fd);
        if let Engine::Blocking(blocking) = &mut self.engine {
            blocking.inbox = Some(token);
        }
        token
    }

    pub(crate) fn attach_listener(&mut self, fd: OwnedFd) -> Token {
        let mut source = Source::new(fd);
        source.flags.set(Flags::LISTENER);
        if let Engine::Blocking(_) = self.engine {
            // Another thread may have put it into blocking mode: it must not be tried unasked.
            source.flags.clear(Flags::READABLE);
        }
        self.sources.insert(source)
    }

    /// A listener takes what has come, and no more: `accept` gives that, and then fails with `NotConnected`.
    pub(crate) fn stop_accepting(&mut self, token: Token) {
        let Some(source) = self.sources.get_mut(token) else { return };
        source.flags.set(Flags::LAST);
        source.wake_reader();
        self.accept_nothing(token);
    }

    /// Whether a listener was told to.
    pub(crate) fn is_stopped(&mut self, token: Token) -> bool {
        self.sources.get_mut(token).is_some_and(|source| source.flags.has(Flags::LAST))
    }

    /// Takes what has come to a listener without having been reported.
    pub(crate) fn look_again(&mut self, token: Token) {
        let Some(source) = self.sources.get_mut(token) else { return };
        // Blocking calls are not made unasked; whoever is woken for a connection of theirs looks for itself.
        if !matches!(self.engine, Engine::Blocking(_)) {
            source.flags.set(Flags::LOOK);
        }
        source.wake_reader();
    }

    /// The owner lets go. The descriptor is closed at once, or after its last completion.
    pub(crate) fn close(&mut self, token: Token) {
        let Some(source) = self.sources.get_mut(token) else { return };
        source.reader = None;
        source.writer = None;
        let now = match &mut self.engine {
            Engine::Readiness(readiness) => {
                readiness.forget(source, token);
                true
            }
            Engine::Uring(uring) => uring.close(source, token),
            Engine::Blocking(blocking) => {
                blocking.forget(source, token);
                true
            }
        };
        if now {
            self.sources.remove(token);
        }
    }

    pub(crate) fn accept(&mut self, token: Token, context: &mut Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let source = usable(&mut self.sources, token)?;
        if source.flags.has(Flags::LOOK) {
            match crate::net::socket::accept(source.fd.as_fd()) {
                Ok(connection) => return Poll::Ready(Ok(connection)),
                Err(_) => source.flags.clear(Flags::LOOK),
            }
        }
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.accept(source, token, context),
            Engine::Uring(uring) => uring.accept(source, token, context),
            Engine::Blocking(blocking) => blocking.accept(source, token, context),
        }
    }

    pub(crate) fn recv(&mut self, token: Token, pool: &Rc<Pool>, context: &mut Context<'_>) -> Poll<io::Result<Chunk>> {
        let source = usable(&mut self.sources, token)?;
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.recv(source, token, pool, usize::MAX, context),
            Engine::Uring(uring) => uring.recv(source, token, pool, context),
            Engine::Blocking(blocking) => blocking.recv(source, token, pool, context),
        }
    }

    /// `recv` of at most `limit` bytes, without anything being taken from the kernel ahead of the next call.
    pub(crate) fn recv_up_to(
        &mut self,
        token: Token,
        limit: usize,
        pool: &Rc<Pool>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Chunk>> {
        let source = usable(&mut self.sources, token)?;
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.recv(source, token, pool, limit, context),
            Engine::Uring(uring) => uring.recv_up_to(source, token, pool, limit, context),
            Engine::Blocking(blocking) => blocking.recv_up_to(source, token, pool, limit, context),
        }
    }

    pub(crate) fn readable(&mut self, token: Token, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let source = usable(&mut self.sources, token)?;
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.readable(source, token, context),
            Engine::Uring(uring) => uring.readable(source, token, context),
            Engine::Blocking(blocking) => blocking.readiness.readable(source, token, context),
        }
    }

    pub(crate) fn send(
        &mut self,
        token: Token,
        queue: &mut SendQueue,
        more: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let source = usable(&mut self.sources, token)?;
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.send(source, token, queue, more, context),
            Engine::Uring(uring) => uring.send(source, token, queue, more, context),
            Engine::Blocking(blocking) => blocking.send(source, token, queue, more, context),
        }
    }

    pub(crate) fn sent(&mut self, token: Token, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let source = usable(&mut self.sources, token)?;
        match &mut self.engine {
            Engine::Readiness(_) | Engine::Blocking(_) => Poll::Ready(Ok(())),
            Engine::Uring(uring) => uring.sent(source, context),
        }
    }

    /// Bytes that an operation holds and the kernel has not taken yet, also when the deadline has passed.
    pub(crate) fn in_flight(&mut self, token: Token) -> usize {
        match (&self.engine, self.sources.get_mut(token)) {
            (Engine::Uring(_), Some(source)) => Uring::in_flight(source),
            _ => 0,
        }
    }

    pub(crate) fn sendfile(
        &mut self,
        token: Token,
        file: BorrowedFd<'_>,
        window: (u64, usize),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let source = usable(&mut self.sources, token)?;
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.sendfile(source, token, file, window, context),
            Engine::Uring(uring) => uring.sendfile(source, token, file, window, context),
            Engine::Blocking(blocking) => blocking.sendfile(source, token, file, window, context),
        }
    }

    /// Waits until the socket takes bytes, or is broken.
    pub(crate) fn writable(&mut self, token: Token, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let source = usable(&mut self.sources, token)?;
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.writable(source, token, context),
            Engine::Uring(uring) => uring.writable(source, token, context),
            Engine::Blocking(blocking) => blocking.readiness.writable(source, token, context),
        }
    }

    /// A connect has been started and has not finished: the next wait for writability must ask the kernel.
    pub(crate) fn expect_not_writable(&mut self, token: Token) {
        if let Some(source) = self.sources.get_mut(token) {
            source.flags.clear(Flags::WRITABLE);
        }
    }

    /// A descriptor that is known to have nothing to read yet.
    pub(crate) fn expect_not_readable(&mut self, token: Token) {
        if let Some(source) = self.sources.get_mut(token) {
            source.flags.clear(Flags::READABLE);
        }
    }

    /// Waits until the connection is known to be dead; with `end`, also until the peer has finished sending.
    pub(crate) fn gone(&mut self, token: Token, end: bool, context: &mut Context<'_>) -> Poll<()> {
        let Some(source) = self.sources.get_mut(token) else { return Poll::Ready(()) };
        if source.flags.has(Flags::RESET | Flags::TIMED_OUT) || (end && source.flags.has(Flags::HANGUP)) {
            return Poll::Ready(());
        }
        wait(&mut source.reader, context.waker());
        // When the kernel cannot be asked, the connection is not known to be gone; the next operation will tell.
        let _ = match &mut self.engine {
            Engine::Readiness(readiness) => readiness.watch(source, token),
            Engine::Uring(uring) => uring.watch(source, token),
            Engine::Blocking(blocking) => blocking.watch(source, token),
        };
        Poll::Pending
    }

    /// Calls `with` on the descriptor: for the rare call that needs no waiting (shutdown, names, options).
    pub(crate) fn with_fd<T>(&mut self, token: Token, with: impl FnOnce(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        with(&self.sources.get_mut(token).ok_or_else(closed)?.fd)
    }

    /// Both waiters give up in `delay` milliseconds; `None` takes the deadline away. A store, nearly always.
    pub(crate) fn deadline_in(&mut self, token: Token, delay: Option<u32>) {
        let Some(source) = self.sources.get_mut(token) else { return };
        self.deadlines.set(source, token.index, delay);
    }

    /// Marks the deadline as one that a draining server may bring forward.
    pub(crate) fn mark_idle(&mut self, token: Token) {
        if let Some(source) = self.sources.get_mut(token) {
            source.flags.set(Flags::IDLE);
        }
    }

    /// Brings the deadlines of everything idle forward to now.
    pub(crate) fn end_idle(&mut self) {
        self.deadlines.end_idle(&mut self.sources);
    }

    /// Brings the deadlines of those forward that have idled longest: at most `count`, and of those only which have at most `left`
    /// milliseconds left. Says how many. Looks at every descriptor: not for every turn.
    pub(crate) fn end_longest_idle(&mut self, count: usize, left: u64) -> usize {
        self.deadlines.end_longest_idle(&mut self.sources, count, left)
    }

    /// Accepts what is there without waiting, and has nothing accepted meanwhile.
    pub(crate) fn accept_now(&mut self, token: Token) -> io::Result<OwnedFd> {
        self.accept_nothing(token);
        let source = usable(&mut self.sources, token)?;
        match traffic::accepted_before(source) {
            Some(connection) => Ok(connection),
            None => crate::net::socket::accept(source.fd.as_fd()),
        }
    }

    /// Leaves connections in the kernel's queue until somebody accepts again.
    pub(crate) fn accept_nothing(&mut self, token: Token) {
        if let (Engine::Uring(uring), Some(source)) = (&mut self.engine, self.sources.get_mut(token)) {
            uring.accept_nothing(source, token);
        }
    }

    /// A sleeper that wakes after `delay` milliseconds.
    pub(crate) fn sleep(&mut self, delay: u64) -> Token {
        self.deadlines.sleep(delay)
    }

    pub(crate) fn slept(&mut self, token: Token, context: &mut Context<'_>) -> Poll<()> {
        self.deadlines.slept(token, context)
    }

    pub(crate) fn forget_sleeper(&mut self, token: Token) {
        self.deadlines.forget_sleeper(token);
    }

    /// Waits for events until the next deadline, or not at all; the turn before it has `begun` then.
    pub(crate) fn wait(&mut self, at_once: bool, begun: Instant) -> io::Result<usize> {
        let timeout = match self.deadlines.next() {
            _ if at_once => Some(0),
            Some(delay) if delay > 0 && self.rings_in(delay, begun) => None,
            delay => delay,
        };
        let timeout = timeout.map(Duration::from_millis);
        match &mut self.engine {
            Engine::Readiness(readiness) => readiness.wait(&mut self.sources, timeout),
            Engine::Uring(uring) => uring.wait(&mut self.sources, timeout),
            Engine::Blocking(blocking) => blocking.wait(&mut self.sources, timeout),
        }
    }

    /// Sees to it that the timer rings `delay` milliseconds after the turn has `begun` or before, and is listened to; `false` when there is
    /// none that does.
    fn rings_in(&mut self, delay: u64, begun: Instant) -> bool {
        let Some(timer) = &mut self.timer else { return false };
        let Some(source) = self.sources.get_mut(timer.token) else { return false };
        let set = match timer.must_be_set(self.deadlines.now() + delay) {
            true => timer_fd::set(&source.fd, left_of(delay, begun)),
            false => Ok(()),
        };
        // Every time: io_uring notes a ring when it comes and tells in the next call, when the timer may have been set again, and that
        // ends its listening.
        let set = set.and_then(|()| match &mut self.engine {
            Engine::Readiness(readiness) => readiness.expect(source, timer.token),
            Engine::Uring(uring) => uring.expect(source, timer.token),
            Engine::Blocking(_) => Err(io::ErrorKind::Unsupported.into()),
        });
        if set.is_err() {
            timer.was_not_set();
        }
        set.is_ok()
    }

    /// What has come in this turn for connections that wait for it, `several` at least; a readiness driver receives it now.
    pub(crate) fn arrivals(&mut self, several: usize) -> Option<Arrivals<'_>> {
        let (tokens, ahead) = match &mut self.engine {
            Engine::Uring(uring) => (&uring.arrived[..], None),
            Engine::Readiness(readiness) => {
                readiness.receive_ahead(&mut self.sources, several);
                (&readiness.ahead.arrived[..], Some(&readiness.ahead))
            }
            Engine::Blocking(_) => return None,
        };
        (tokens.len() >= several).then_some(Arrivals { sources: &self.sources, tokens, ahead })
    }

    /// Lets what is due by `now` (ticks) come up, as much of it as a turn may end (`most_ended`).
    pub(crate) fn expire(&mut self, now: u64) {
        self.deadlines.expire(&mut self.sources, now, self.engine.most_ended());
        if let Some(timer) = &mut self.timer {
            timer.advance(now);
        }
    }

    /// Descriptors in care, those that wait for a final completion included; the driver's own timer is not among them.
    pub(crate) fn len(&self) -> usize {
        self.sources.len() - usize::from(self.timer.is_some())
    }

    /// Reports for descriptors that were closed meanwhile.
    pub(crate) fn late_events(&self) -> u64 {
        match &self.engine {
            Engine::Readiness(readiness) => readiness.late_events,
            Engine::Uring(uring) => uring.late_events,
            Engine::Blocking(blocking) => blocking.readiness.late_events,
        }
    }

    /// How often reports were lost and everything was looked at instead: the signal queue of `sigio` was full.
    pub(crate) fn overflows(&self) -> u64 {
        match &self.engine {
            Engine::Readiness(readiness) => readiness.selector.overflows(),
            Engine::Uring(_) | Engine::Blocking(_) => 0,
        }
    }

    /// Takes every waker: when the loop ends, tasks that wait for it must be let go.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        let sources = self.sources.iter_mut().flat_map(|source| [source.reader.take(), source.writer.take()]);
        sources.flatten().chain(self.deadlines.take_wakers()).collect()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.close(timer.token);
        }
        if let Engine::Uring(uring) = &mut self.engine
            && !uring.drain(&mut self.sources)
        {
            // The kernel may still write to what the sources own: rather lose the memory than let it be reused.
            std::mem::forget(std::mem::take(&mut self.sources));
        }
    }
}

/// What is left of `delay` milliseconds from `begun` on; not nothing, as that would mean never.
fn left_of(delay: u64, begun: Instant) -> Duration {
    let gone = clock::read().saturating_duration_since(begun);
    Duration::from_millis(delay).saturating_sub(gone).max(Duration::from_nanos(1))
}

/// The source, unless it is closed or its deadline has passed.
fn usable(sources: &mut Slots<Source>, token: Token) -> io::Result<&mut Source> {
    let source = sources.get_mut(token).ok_or_else(closed)?;
    if source.flags.has(Flags::TIMED_OUT) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(source)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the descriptor was closed")
}

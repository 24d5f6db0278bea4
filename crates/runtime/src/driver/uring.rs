//! io_uring: operations are submitted and completed, many per system call.
//!
//! Receives are multishot over a ring of shared buffers: an idle connection owns no memory here. The first receive on a
//! connection, and every send while no receive is armed, is an ordinary system call, since for a connection that serves one
//! request arming costs more than it saves. Sends are posted: the queue's memory belongs to the operation until its last completion.
//!
//! Files stay with the helpers: OPENAT2, STATX and SPLICE go to kernel threads anyway, and READ may sleep in the submission.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use io_uring::{cqueue, opcode, squeue, types};

use super::buffer_ring::{BufferRing, GROUP, RingChunk};
use super::operation::{Kind, PROOF, unpack, user_data};
use super::readiness::{accept_last, recv_now};
use super::ring::{Ring, is_final};
use super::sending::Sending;
use super::slots::{Slots, Token};
use super::source::{Flags, Source, wait};
use super::traffic::{accepted_before, take_error, watched};
use crate::buffer::{Chunk, Pool, SendQueue};
use crate::net::socket;

/// The ring, what it owns, and what it is busy with.
#[derive(Debug)]
pub(crate) struct Uring {
    // Field order is drop order: the ring closes before any memory that the kernel may still write is freed.
    ring: Ring,
    buffers: Rc<BufferRing>,
    /// Send operations kept for reuse. Boxed already: the kernel knows their addresses.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Sending>>,
    /// The reaped batch; completions are handled after the reap, never inside it.
    reaped: Vec<cqueue::Entry>,
    /// Who has received in this turn, each once.
    pub(crate) arrived: Vec<Token>,
    pub(crate) late_events: u64,
    /// Receives that ended because the buffer ring was dry.
    pub(crate) starved: u64,
}

impl Uring {
    /// Sets the ring up and proves it alive with a round trip, because a sandbox may allow the one and not the other.
    ///
    /// # Errors
    /// Whatever the kernel says; the caller falls back on any of it.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = Ring::new()?;
        let buffers = BufferRing::register(ring.instance())?;
        let mut this = Self {
            ring,
            buffers,
            spare: Vec::new(),
            reaped: Vec::new(),
            arrived: Vec::new(),
            late_events: 0,
            starved: 0,
        };
        this.prove_alive()?;
        Ok(this)
    }

    /// A multishot receive over a socket pair, the newest of what the driver relies on, and a poll, by which it hears of its inbox and its
    /// timer: one that is refused every time would be asked for without end.
    fn prove_alive(&mut self) -> io::Result<()> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        io::Write::write_all(&mut &theirs, b"alive")?;
        drop(theirs);
        let receive = opcode::RecvMulti::new(types::Fd(ours.as_raw_fd()), GROUP).build();
        self.push(receive.user_data(user_data(Kind::Receive, PROOF)))?;
        let poll = opcode::PollAdd::new(types::Fd(ours.as_raw_fd()), libc::POLLIN as u32).build();
        self.push(poll.user_data(user_data(Kind::Readable, PROOF)))?;
        let (mut received, mut left, mut refused) = (0, 2, None);
        for _ in 0..4 {
            self.ring.enter(Some(Duration::from_secs(1)), &mut self.reaped)?;
            for completion in mem::take(&mut self.reaped) {
                let result = completion.result();
                if result < 0 {
                    refused = Some(errno(-result));
                }
                if let Some(id) = cqueue::buffer_select(completion.flags()) {
                    drop(self.buffers.take(id, result.max(0) as usize));
                }
                if unpack(completion.user_data()).0 == Kind::Receive {
                    received += result;
                }
                left -= usize::from(is_final(&completion));
            }
            if left == 0 {
                let error = refused.or_else(|| (received != 5).then(|| errno(libc::EIO)));
                return error.map_or(Ok(()), Err);
            }
        }
        Err(io::Error::other("a receive or a poll through the ring did not come back"))
    }

    pub(crate) fn accept(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<OwnedFd>> {
        if let Some(connection) = accepted_before(source) {
            return Poll::Ready(Ok(connection));
        }
        if let Some(error) = take_error(source) {
            return Poll::Ready(Err(error));
        }
        if source.flags.has(Flags::LAST) {
            if !source.traffic.armed {
                return Poll::Ready(accept_last(source));
            }
            self.accept_nothing(source, token);
        } else if !source.traffic.armed {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let accept = opcode::AcceptMulti::new(fd(source)).flags(flags).build();
            self.submit(source, token, Kind::Accept, accept)?;
            source.traffic.armed = true;
        }
        wait(&mut source.reader, context.waker());
        Poll::Pending
    }

    /// Ends the multishot accept; its last completion says so. What it has accepted waits in the source.
    pub(crate) fn accept_nothing(&mut self, source: &mut Source, token: Token) {
        if source.traffic.armed && !source.flags.has(Flags::ARMED_WRITE) {
            let cancel = opcode::AsyncCancel::new(user_data(Kind::Accept, token)).build();
            // Without room for it the kernel goes on accepting, and the next call tries again.
            if self.push(cancel.user_data(user_data(Kind::Cancel, PROOF))).is_ok() {
                source.flags.set(Flags::ARMED_WRITE);
            }
        }
    }

    pub(crate) fn recv(
        &mut self,
        source: &mut Source,
        token: Token,
        pool: &Rc<Pool>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Chunk>> {
        if let Some(chunk) = source.traffic.first.take() {
            return Poll::Ready(Ok(Chunk::from_ring(chunk)));
        }
        if let Some(rest) = source.traffic.rest.take() {
            return Poll::Ready(Ok(Chunk::owned(rest.bytes)));
        }
        if let Some(error) = take_error(source) {
            return Poll::Ready(Err(error));
        }
        if source.flags.has(Flags::HANGUP) {
            return Poll::Ready(Ok(Chunk::end()));
        }
        if !source.traffic.armed {
            if let Some(received) = first_recv(source, pool, usize::MAX) {
                return Poll::Ready(received);
            }
            self.arm_recv(source, token)?;
        }
        wait(&mut source.reader, context.waker());
        Poll::Pending
    }

    /// A receive that takes no more than is asked for: the ordinary call, after a wait for readability. A receive through the
    /// ring would empty the kernel's buffer ahead of a slow reader.
    pub(crate) fn recv_up_to(
        &mut self,
        source: &mut Source,
        token: Token,
        pool: &Rc<Pool>,
        limit: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Chunk>> {
        if let Some(error) = take_error(source) {
            return Poll::Ready(Err(error));
        }
        if let Some(received) = first_recv(source, pool, limit) {
            return Poll::Ready(received);
        }
        if !source.flags.has(Flags::ARMED_READ) {
            let poll = opcode::PollAdd::new(fd(source), (libc::POLLIN | libc::POLLRDHUP) as u32).build();
            self.submit(source, token, Kind::Readable, poll)?;
            source.flags.set(Flags::ARMED_READ);
        }
        wait(&mut source.reader, context.waker());
        Poll::Pending
    }

    /// Has the peer's end reported: what it sends meanwhile is kept, up to a limit. Beyond that, and after its end, only a
    /// reset is looked out for.
    pub(crate) fn watch(&mut self, source: &mut Source, token: Token) -> io::Result<()> {
        let traffic = &source.traffic;
        let may_receive = traffic.rest.is_none() && traffic.first.is_none() && !source.flags.has(Flags::HANGUP);
        if traffic.armed || (traffic.watching && !may_receive) {
            return Ok(());
        }
        if may_receive {
            return self.arm_recv(source, token);
        }
        // No event is asked for: errors and ends are reported in any case. Multishot, because the peer's end, if it is there
        // already, would complete a single one at once, every time.
        let poll = opcode::PollAdd::new(fd(source), 0).multi(true).build();
        self.submit(source, token, Kind::Reset, poll)?;
        source.traffic.watching = true;
        Ok(())
    }

    fn arm_recv(&mut self, source: &mut Source, token: Token) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(fd(source), GROUP).build();
        self.submit(source, token, Kind::Receive, receive)?;
        source.traffic.armed = true;
        Ok(())
    }

    /// Waits until the descriptor is readable: for what is read elsewhere (the inbox's eventfd).
    pub(crate) fn readable(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if mem::take(&mut source.traffic.polling) && source.traffic.operations == 0 {
            return Poll::Ready(Ok(()));
        }
        self.expect(source, token)?;
        wait(&mut source.reader, context.waker());
        Poll::Pending
    }

    /// Has the wait end when a descriptor that is used for nothing else becomes readable.
    pub(crate) fn expect(&mut self, source: &mut Source, token: Token) -> io::Result<()> {
        if source.traffic.operations == 0 {
            let poll = opcode::PollAdd::new(fd(source), libc::POLLIN as u32).build();
            self.submit(source, token, Kind::Readable, poll)?;
        }
        Ok(())
    }

    /// Posts the queue: ready when it belongs to the operation (or has left already), pending while an earlier one is in flight.
    pub(crate) fn send(
        &mut self,
        source: &mut Source,
        token: Token,
        queue: &mut SendQueue,
        more: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.sent(source, context))?;
        if !source.traffic.armed {
            while !queue.is_empty() && source.flags.has(Flags::WRITABLE) {
                match socket::send(source.fd.as_fd(), queue, more) {
                    Ok(sent) => queue.advance(sent),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => source.flags.clear(Flags::WRITABLE),
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }
        if !queue.is_empty() {
            let mut sending = self.spare.pop().unwrap_or_default();
            mem::swap(&mut sending.queue, queue);
            sending.flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
            self.post(source, token, sending)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Bytes of a posted send that the kernel has not taken.
    pub(crate) fn in_flight(source: &Source) -> usize {
        source.traffic.sending.as_ref().map_or(0, |sending| sending.queue.len())
    }

    /// Waits until nothing is in flight towards the peer.
    pub(crate) fn sent(&mut self, source: &mut Source, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if source.traffic.sending.is_some() {
            wait(&mut source.writer, context.waker());
            return Poll::Pending;
        }
        if source.flags.has(Flags::RESET) {
            let error = source.traffic.error;
            return Poll::Ready(Err(errno(if error == 0 { libc::ECONNRESET } else { error })));
        }
        Poll::Ready(Ok(()))
    }

    /// Sends once from a file with the ordinary call: SPLICE in a ring always goes to a kernel thread.
    pub(crate) fn sendfile(
        &mut self,
        source: &mut Source,
        token: Token,
        file: BorrowedFd<'_>,
        (offset, length): (u64, usize),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.sent(source, context))?;
        if source.flags.has(Flags::WRITABLE) {
            match source.send_from(file, offset, length) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => source.flags.clear(Flags::WRITABLE),
                result => return Poll::Ready(result),
            }
        }
        self.await_writable(source, token, context)
    }

    /// Waits until the descriptor is writable.
    pub(crate) fn writable(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.sent(source, context))?;
        if source.flags.has(Flags::WRITABLE) {
            return Poll::Ready(Ok(()));
        }
        self.await_writable(source, token, context)
    }

    fn await_writable<T>(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if !source.traffic.polling {
            let poll = opcode::PollAdd::new(fd(source), libc::POLLOUT as u32).build();
            self.submit(source, token, Kind::Writable, poll)?;
            source.traffic.polling = true;
        }
        wait(&mut source.writer, context.waker());
        Poll::Pending
    }

    /// The owner has let go. Says whether the source may be dropped now; otherwise its operations are cancelled and the last
    /// completion will drop it.
    pub(crate) fn close(&mut self, source: &mut Source, token: Token) -> bool {
        source.flags.set(Flags::CLOSING);
        source.traffic.first = None;
        source.traffic.rest = None;
        if source.traffic.operations == 0 {
            return true;
        }
        // By its name the kernel finds an operation in a hash table; by its descriptor it looks at every one that waits, which
        // beside 19,000 idle connections costs more than the connection did.
        let traffic = &source.traffic;
        let only = match (traffic.operations, traffic.armed, traffic.watching) {
            (1, true, _) if source.flags.has(Flags::LISTENER) => Some(Kind::Accept),
            (1, true, _) => Some(Kind::Receive),
            (1, _, true) => Some(Kind::Reset),
            _ => None,
        };
        let cancel = match only {
            Some(kind) => opcode::AsyncCancel::new(user_data(kind, token)).build(),
            None => opcode::AsyncCancel2::new(types::CancelBuilder::fd(fd(source)).all()).build(),
        };
        // Without room for the cancellation, a shutdown ends the operations just as well, and more rudely.
        if self.push(cancel.user_data(user_data(Kind::Cancel, PROOF))).is_err() {
            let _ = rustix::net::shutdown(&source.fd, rustix::net::Shutdown::Both);
        }
        false
    }

    /// Submits what was prepared, waits at most `timeout` for completions, and then handles what came.
    pub(crate) fn wait(&mut self, slots: &mut Slots<Source>, timeout: Option<Duration>) -> io::Result<usize> {
        self.arrived.clear();
        self.ring.enter(timeout, &mut self.reaped)?;
        let mut reaped = mem::take(&mut self.reaped);
        let count = reaped.len();
        for completion in reaped.drain(..) {
            self.complete(slots, &completion);
        }
        self.reaped = reaped;
        Ok(count)
    }

    fn complete(&mut self, slots: &mut Slots<Source>, completion: &cqueue::Entry) {
        let (kind, token) = unpack(completion.user_data());
        let is_final = is_final(completion);
        if kind == Kind::Cancel {
            return;
        }
        let Some(source) = slots.get_mut(token) else {
            self.late_events += 1;
            return self.refuse(kind, completion);
        };
        if is_final {
            source.traffic.operations -= 1;
        }
        match kind {
            Kind::Accept => self.accepted(source, completion.result(), is_final),
            Kind::Receive => self.received(source, token, completion, is_final),
            Kind::Send => self.send_completed(source, token, completion.result()),
            Kind::Readable if source.flags.has(Flags::ARMED_READ) => {
                source.flags.clear(Flags::ARMED_READ);
                source.flags.set(Flags::READABLE);
                source.wake_reader();
            }
            Kind::Readable => {
                source.traffic.polling = true;
                source.wake_reader();
            }
            Kind::Writable => {
                source.traffic.polling = false;
                source.flags.set(Flags::WRITABLE);
                source.wake_writer();
            }
            Kind::Reset => watched(source, completion.result(), is_final),
            Kind::Cancel => unreachable!("handled above"),
        }
        if source.flags.has(Flags::CLOSING) && source.traffic.operations == 0 {
            slots.remove(token);
        }
    }

    /// A completion nobody is there for still carries a buffer or a descriptor.
    fn refuse(&mut self, kind: Kind, completion: &cqueue::Entry) {
        if let (Kind::Receive, Some(id)) = (kind, cqueue::buffer_select(completion.flags())) {
            drop(self.buffers.take(id, completion.result().max(0) as usize));
        }
        if kind == Kind::Accept && completion.result() >= 0 {
            drop(owned(completion.result()));
        }
    }

    fn accepted(&mut self, source: &mut Source, result: i32, is_final: bool) {
        source.traffic.armed = !is_final;
        if is_final {
            source.flags.clear(Flags::ARMED_WRITE);
        }
        if result >= 0 {
            let connection = owned(result);
            if !source.flags.has(Flags::CLOSING) {
                source.traffic.rest.get_or_insert_default().connections.push_back(connection);
            }
        } else if !matches!(-result, libc::ECANCELED | libc::ECONNABORTED) {
            source.traffic.error = -result;
        }
        source.wake_reader();
    }

    fn received(&mut self, source: &mut Source, token: Token, completion: &cqueue::Entry, is_final: bool) {
        source.traffic.armed = !is_final;
        let result = completion.result();
        if let Some(id) = cqueue::buffer_select(completion.flags()) {
            let chunk = self.buffers.take(id, result.max(0) as usize);
            if result > 0 && !source.flags.has(Flags::CLOSING) {
                self.keep(source, token, chunk, completion.user_data());
            }
        }
        match result {
            0 => source.flags.set(Flags::HANGUP),
            // Out of buffers: the next receive is an ordinary one.
            error if error == -libc::ENOBUFS => {
                self.starved += 1;
                source.flags.set(Flags::READABLE);
            }
            error if error == -libc::ECANCELED => source.flags.set(Flags::READABLE),
            error if error < 0 => {
                source.traffic.error = -error;
                source.flags.set(Flags::RESET);
                source.wake_writer();
            }
            // A multishot receive may end without a reason of its own.
            _ if is_final => source.flags.set(Flags::READABLE),
            _ => {}
        }
        source.wake_reader();
    }

    /// A chunk that a waiting task takes in this very turn stays in the ring's memory; any other is copied out, so that busy
    /// conversations cannot use the ring up, and a peer that sends faster than it is read is put on hold.
    fn keep(&mut self, source: &mut Source, token: Token, chunk: RingChunk, receive: u64) {
        let traffic = &mut source.traffic;
        if source.reader.is_some() && traffic.first.is_none() && traffic.rest.is_none() {
            traffic.first = Some(chunk);
            self.arrived.push(token);
            return;
        }
        let rest = traffic.rest.get_or_insert_default();
        if let Some(first) = traffic.first.take() {
            rest.bytes.extend_from_slice(first.bytes());
        }
        rest.bytes.extend_from_slice(chunk.bytes());
        if rest.bytes.len() >= MAX_AHEAD && traffic.armed {
            let cancel = opcode::AsyncCancel::new(receive).build();
            let _ = self.push(cancel.user_data(user_data(Kind::Cancel, PROOF)));
        }
    }

    fn send_completed(&mut self, source: &mut Source, token: Token, result: i32) {
        let Some(mut sending) = source.traffic.sending.take() else { return };
        // A cancellation names a socket, so it also meets the operations of another handle on it: those go on.
        let result = if result == -libc::ECANCELED && !source.flags.has(Flags::CLOSING) { 0 } else { result };
        if result < 0 {
            source.flags.set(Flags::RESET);
            source.traffic.error = -result;
            source.wake_both();
            return;
        }
        sending.queue.advance(result as usize);
        if !sending.queue.is_empty() && !source.flags.has(Flags::CLOSING) {
            if self.post(source, token, sending).is_err() {
                source.flags.set(Flags::RESET);
                source.wake_both();
            }
            return;
        }
        sending.queue.clear();
        if self.spare.len() < MAX_SPARE_SENDS {
            self.spare.push(sending);
        }
        source.wake_writer();
    }

    fn post(&mut self, source: &mut Source, token: Token, mut sending: Box<Sending>) -> io::Result<()> {
        let entry = sending.entry(fd(source));
        source.traffic.sending = Some(sending);
        let posted = self.submit(source, token, Kind::Send, entry);
        if posted.is_err() {
            source.traffic.sending = None;
        }
        posted
    }

    fn submit(&mut self, source: &mut Source, token: Token, kind: Kind, entry: squeue::Entry) -> io::Result<()> {
        self.push(entry.user_data(user_data(kind, token)))?;
        source.traffic.operations += 1;
        Ok(())
    }

    fn push(&mut self, entry: squeue::Entry) -> io::Result<()> {
        // SAFETY: every pointer in an entry leads to memory that its source (`Sending`) or the driver (`BufferRing`) keeps
        // until the final completion.
        unsafe { self.ring.push(&entry) }
    }

    /// Cancels everything and waits for the last completions. What does not come back within a second is leaked by the caller:
    /// the kernel may still write to it.
    pub(crate) fn drain(&mut self, slots: &mut Slots<Source>) -> bool {
        for _ in 0..MAX_DRAIN_ROUNDS {
            if self.ring.in_flight() == 0 {
                return true;
            }
            let before = self.ring.in_flight();
            if self.wait(slots, Some(Duration::from_millis(10))).is_err() {
                return false;
            }
            // Nearly all were cancelled when their owners let go.
            if self.ring.in_flight() >= before {
                self.ring.cancel_all();
            }
        }
        self.ring.in_flight() == 0
    }
}

/// The receive that is tried before anything is armed: `None` when it would wait.
fn first_recv(source: &mut Source, pool: &Rc<Pool>, limit: usize) -> Option<io::Result<Chunk>> {
    if !source.flags.has(Flags::READABLE) {
        return None;
    }
    match recv_now(source, pool, limit) {
        Ok((chunk, more)) => {
            if chunk.is_empty() {
                source.flags.set(Flags::HANGUP);
            }
            if !more {
                source.flags.clear(Flags::READABLE);
            }
            Some(Ok(chunk))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            source.flags.clear(Flags::READABLE);
            None
        }
        Err(error) => Some(Err(error)),
    }
}

fn fd(source: &Source) -> types::Fd {
    types::Fd(source.fd.as_raw_fd())
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// A descriptor that a completion has just handed over.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: an accept completed with this descriptor and each completion is seen once, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

const MAX_SPARE_SENDS: usize = 128;
/// Bytes a peer may be ahead of its conversation before its receive is put on hold.
const MAX_AHEAD: usize = 64 * 1024;
const MAX_DRAIN_ROUNDS: usize = 100;

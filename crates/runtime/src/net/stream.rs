//! A connection: receive, vectored send, send from a file, half-close, deadlines.
//!
//! Two words of memory beside the driver's slot. All operations give up with `TimedOut` when the deadline passes.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::buffer::{Chunk, SendQueue};
use crate::driver::Token;
use crate::net::{ConnectOptions, socket};
use crate::runtime::Runtime;

/// A connected socket. Dropping it closes the connection after what is in flight has been cancelled.
#[derive(Debug)]
pub struct Stream {
    runtime: Rc<Runtime>,
    token: Token,
}

impl Stream {
    pub(crate) fn new(runtime: &Rc<Runtime>, socket: OwnedFd) -> Self {
        let token = runtime.driver().attach(socket);
        Self { runtime: Rc::clone(runtime), token }
    }

    /// Takes a connected socket that was made elsewhere.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking.
    pub fn adopt(runtime: &Rc<Runtime>, socket: impl Into<OwnedFd>) -> io::Result<Self> {
        Ok(Self::new(runtime, socket::adopt(socket)?))
    }

    /// Connects to `address`.
    ///
    /// # Errors
    /// What connect(2) says, at once or later: refused, unreachable, timed out.
    pub async fn connect(runtime: &Rc<Runtime>, address: SocketAddr) -> io::Result<Self> {
        Self::connect_with(runtime, address, &ConnectOptions::default()).await
    }

    /// Connects to `address` from an address of the caller's choice, or with a small receive buffer.
    ///
    /// # Errors
    /// As `connect`; `TimedOut` when the patience ends; EADDRNOTAVAIL when the source is no address of this machine, or all its ports towards `address` are taken.
    pub async fn connect_with(
        runtime: &Rc<Runtime>,
        address: SocketAddr,
        options: &ConnectOptions,
    ) -> io::Result<Self> {
        let stream = Self::new(runtime, socket::connect(address, options)?);
        stream.driver().expect_not_writable(stream.token);
        if let Some(patience) = options.patience {
            stream.deadline_in(patience);
        }
        poll_fn(|context| stream.driver().writable(stream.token, context)).await?;
        let outcome = |fd: &OwnedFd| Ok(rustix::net::sockopt::socket_error(fd)?);
        let outcome = stream.driver().with_fd(stream.token, outcome)?;
        outcome?;
        Ok(stream)
    }

    /// What has arrived; an empty chunk when the peer has finished. No memory is held while waiting.
    ///
    /// # Errors
    /// ECONNRESET and its kin, `TimedOut` when the deadline passes.
    pub async fn recv(&self) -> io::Result<Chunk> {
        poll_fn(|context| self.poll_recv(context)).await
    }

    /// `recv`, for a task that waits for several things.
    pub fn poll_recv(&self, context: &mut Context<'_>) -> Poll<io::Result<Chunk>> {
        self.driver().recv(self.token, self.runtime.pool(), context)
    }

    /// What has arrived, at most `limit` bytes of it: what is not asked for stays in the kernel's buffer, so the peer feels
    /// a slow reader. Not to be mixed with `recv` on one stream, which may have taken more already.
    ///
    /// # Errors
    /// As `recv`.
    pub async fn recv_up_to(&self, limit: usize) -> io::Result<Chunk> {
        poll_fn(|context| self.poll_recv_up_to(limit, context)).await
    }

    /// `recv_up_to`, for a task that waits for several things.
    pub fn poll_recv_up_to(&self, limit: usize, context: &mut Context<'_>) -> Poll<io::Result<Chunk>> {
        self.driver().recv_up_to(self.token, limit, self.runtime.pool(), context)
    }

    /// Hands the queue over: on return it is empty, and its bytes are the kernel's or an operation's. One operation is in
    /// flight at a time, so a second send waits for the first.
    ///
    /// # Errors
    /// EPIPE, ECONNRESET; `TimedOut` when the deadline passes. Errors of what is in flight come with the next call.
    pub async fn send(&self, queue: &mut SendQueue) -> io::Result<()> {
        poll_fn(|context| self.poll_send(queue, false, context)).await
    }

    /// `send`, for a task that waits for several things. `more` promises that a send follows at once (MSG_MORE).
    pub fn poll_send(&self, queue: &mut SendQueue, more: bool, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if queue.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.driver().send(self.token, queue, more, context)
    }

    /// Waits until nothing is in flight any more, so that closing loses nothing.
    ///
    /// # Errors
    /// The error that ended what was in flight.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.driver().sent(self.token, context)
    }

    /// Bytes handed over that the kernel has not taken yet: to close now would lose them. Whatever the deadline says.
    pub fn in_flight(&self) -> usize {
        self.driver().in_flight(self.token)
    }

    /// Sends `length` bytes of `file` from `offset`, as many as fit; 0 means that the file ends there. The window must be in
    /// memory: this call would wait for the disk.
    ///
    /// # Errors
    /// As `send`; also EIO from the disk.
    pub fn poll_sendfile(
        &self,
        file: &File,
        offset: u64,
        length: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.driver().sendfile(self.token, file.as_fd(), (offset, length), context)
    }

    /// Waits until the socket takes bytes, if it is known to be full; an error is told by what is sent next.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        self.driver().writable(self.token, context).map(|_| ())
    }

    /// Lets the kernel queue as much as it likes for this peer (`deep`), or little: see `TCP_NOTSENT_LOWAT` in tcp(7).
    ///
    /// # Errors
    /// None expected on a TCP socket.
    pub fn queue_ahead(&self, deep: bool) -> io::Result<()> {
        self.driver().with_fd(self.token, |fd| socket::set_queue_ahead(fd.as_fd(), deep))
    }

    /// Waits until the connection is dead; with `end`, also until the peer has finished sending.
    pub fn poll_gone(&self, end: bool, context: &mut Context<'_>) -> Poll<()> {
        self.driver().gone(self.token, end, context)
    }

    /// Every operation gives up when `delay` has passed; counted from this turn, at most 20 days, rounded to milliseconds.
    pub fn deadline_in(&self, delay: Duration) {
        let delay = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        self.driver().deadline_in(self.token, Some(delay));
    }

    /// `deadline_in` for a connection that waits for its next request: `Runtime::end_idle` may bring it forward.
    pub fn idle_for(&self, delay: Duration) {
        self.deadline_in(delay);
        self.driver().mark_idle(self.token);
    }

    /// Takes the deadline away, also one that has passed.
    pub fn no_deadline(&self) {
        self.driver().deadline_in(self.token, None);
    }

    /// Sends FIN: the peer sees the end, and may still answer.
    ///
    /// # Errors
    /// ENOTCONN when the peer has reset the connection.
    pub fn shutdown_write(&self) -> io::Result<()> {
        self.driver().with_fd(self.token, |fd| socket::shutdown_write(fd.as_fd()))
    }

    /// Lets a close reset the connection: for a peer that must learn that its answer is not whole.
    ///
    /// # Errors
    /// None expected on a socket.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.driver().with_fd(self.token, |fd| socket::reset_on_close(fd.as_fd()))
    }

    /// Bytes that the kernel has taken and the peer has not acknowledged: what tells a slow reader from one that has stopped.
    ///
    /// # Errors
    /// None expected on a TCP socket.
    pub fn unacknowledged(&self) -> io::Result<usize> {
        self.driver().with_fd(self.token, |fd| socket::unacknowledged(fd.as_fd()))
    }

    /// The peer's address: a system call, so ask when it is needed.
    ///
    /// # Errors
    /// ENOTCONN when the connection is gone.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.driver().with_fd(self.token, |fd| socket::peer_address(fd.as_fd()))
    }

    /// The loop this stream belongs to.
    pub fn runtime(&self) -> &Rc<Runtime> {
        &self.runtime
    }

    fn driver(&self) -> std::cell::RefMut<'_, crate::driver::Driver> {
        self.runtime.driver()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.runtime.driver().close(self.token);
    }
}

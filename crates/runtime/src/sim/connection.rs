//! A connection as the server's kernel has it: what has come, what is to leave, what is reported of it.
//!
//! As in Linux: a close with unread bytes, and bytes for a closed socket, are answered with a reset, which takes with it what
//! has not arrived; a reset is an error once and an end from then on (tcp(7), RFC 9293).

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

use super::descriptors::Thing;
use super::events::{Event, Who};
use super::listening::ADDRESS;
use super::world::{World, fingerprint};
use crate::buffer::SendQueue;
use crate::driver::{Flags, Report, Token};
use crate::net::socket::MAX_VECTORS;

/// Both ends of a connection, and what is under way between them.
#[derive(Debug)]
pub(super) struct Connection {
    /// Whose it is.
    pub who: u32,
    pub address: IpAddr,
    /// The client's kernel has had its SYN answered.
    pub is_made: bool,
    pub server: Server,
    /// Towards the server: under way, and arrived.
    pub wire: VecDeque<(u64, Packet)>,
    pub inbox: VecDeque<u8>,
    pub fin: bool,
    pub reset: bool,
    is_told_of_reset: bool,
    /// Towards the client: in the server's kernel, and arrived.
    pub unsent: VecDeque<u8>,
    pub is_moving: bool,
    pub delivered: VecDeque<u8>,
    server_fin: bool,
    lingers_not: bool,
    pub client_end: bool,
    pub client_reset: bool,
    /// The client's socket is closed.
    pub client_gone: bool,
    /// The client's machine is gone: nothing comes from there any more, not even a reset.
    pub client_lost: bool,
    token: Option<Token>,
    asked: Flags,
    asked_for_end: bool,
    is_pending: bool,
}

/// Where the server's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// Not reported to the listener yet.
    Coming,
    Queued,
    Open,
    Closed,
}

/// What goes towards the server.
#[derive(Debug)]
pub(super) enum Packet {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

impl Connection {
    pub(super) fn new(who: u32, address: IpAddr) -> Self {
        Self {
            who,
            address,
            is_made: false,
            server: Server::Coming,
            wire: VecDeque::new(),
            inbox: VecDeque::new(),
            fin: false,
            reset: false,
            is_told_of_reset: false,
            unsent: VecDeque::new(),
            is_moving: false,
            delivered: VecDeque::new(),
            server_fin: false,
            lingers_not: false,
            client_end: false,
            client_reset: false,
            client_gone: false,
            client_lost: false,
            token: None,
            asked: Flags::NONE,
            asked_for_end: false,
            is_pending: false,
        }
    }

    /// What a report would say.
    fn ready(&self, send_buffer: u64) -> Flags {
        let mut ready = Flags::NONE;
        if self.asked.has(Flags::ARMED_READ) && (!self.inbox.is_empty() || self.fin) {
            ready.set(Flags::READABLE);
        }
        if self.asked_for_end && self.fin {
            ready.set(Flags::READABLE | Flags::HANGUP);
        }
        // The kernel reports room once a third of the buffer is free (sk_stream_is_writeable).
        if self.asked.has(Flags::ARMED_WRITE) && self.unsent.len() as u64 * 3 <= send_buffer * 2 {
            ready.set(Flags::WRITABLE);
        }
        if self.reset {
            ready.set(Flags::READABLE | Flags::WRITABLE | Flags::RESET);
        }
        ready
    }
}

impl World {
    fn open(&mut self, fd: RawFd) -> io::Result<usize> {
        self.call();
        match self.descriptors.get(fd) {
            Some(Thing::Connection(connection)) => Ok(connection),
            _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    /// recv(2).
    pub(crate) fn recv(&mut self, fd: RawFd, memory: &mut [u8]) -> io::Result<usize> {
        let at = self.open(fd)?;
        let connection = &mut self.connections[at];
        if connection.reset {
            return match std::mem::replace(&mut connection.is_told_of_reset, true) {
                true => Ok(0),
                false => Err(io::Error::from_raw_os_error(libc::ECONNRESET)),
            };
        }
        if connection.inbox.is_empty() {
            return if connection.fin { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        // Never less than there is: epoll(7) lets readers conclude from a short count that nothing is left.
        let count = connection.inbox.len().min(memory.len());
        memory[..count].copy_from_slice(&take(&mut connection.inbox, count));
        self.note("recv", at as u64, count as u64);
        Ok(count)
    }

    /// sendmsg(2).
    pub(crate) fn send(&mut self, fd: RawFd, queue: &mut SendQueue) -> io::Result<usize> {
        let at = self.open(fd)?;
        let mut room = self.room(at)?.min(queue.len() as u64);
        if room > 1 && self.random.chance(self.faults.short_write) {
            room = self.random.between(1, room);
        }
        let mut bytes = Vec::with_capacity(room as usize);
        for slice in queue.slices(MAX_VECTORS) {
            bytes.extend_from_slice(&slice[..slice.len().min(room as usize - bytes.len())]);
        }
        self.sent(at, &bytes);
        Ok(bytes.len())
    }

    /// sendfile(2).
    pub(crate) fn sendfile(&mut self, fd: RawFd, file: RawFd, offset: u64, length: usize) -> io::Result<usize> {
        let at = self.open(fd)?;
        let room = self.room(at)?.min(length as u64);
        let room =
            if room > 1 && self.random.chance(self.faults.short_write) { self.random.between(1, room) } else { room };
        let bytes = self.file_bytes(file, offset, room as usize)?;
        self.sent(at, &bytes);
        Ok(bytes.len())
    }

    /// poll(2) for POLLOUT.
    pub(crate) fn is_full(&mut self, fd: RawFd) -> bool {
        self.open(fd).is_ok_and(|at| {
            let connection = &self.connections[at];
            let gone = connection.reset || connection.server_fin;
            !gone && connection.unsent.len() as u64 >= self.faults.send_buffer
        })
    }

    /// What may be sent now.
    fn room(&mut self, at: usize) -> io::Result<u64> {
        let connection = &mut self.connections[at];
        if connection.reset {
            let is_told = std::mem::replace(&mut connection.is_told_of_reset, true);
            return Err(io::Error::from_raw_os_error(if is_told { libc::EPIPE } else { libc::ECONNRESET }));
        }
        if connection.server_fin {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        match self.faults.send_buffer.saturating_sub(connection.unsent.len() as u64) {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            room => Ok(room),
        }
    }

    fn sent(&mut self, at: usize, bytes: &[u8]) {
        self.connections[at].unsent.extend(bytes);
        self.note("send", at as u64, fingerprint(bytes));
        self.keep_moving(at);
    }

    /// shutdown(2), SHUT_WR.
    pub(crate) fn shutdown_write(&mut self, fd: RawFd) -> io::Result<()> {
        let at = self.open(fd)?;
        if self.connections[at].reset {
            return Err(io::Error::from_raw_os_error(libc::ENOTCONN));
        }
        self.note("shutdown", at as u64, 0);
        self.connections[at].server_fin = true;
        self.keep_moving(at);
        Ok(())
    }

    /// SO_LINGER with a time of zero.
    pub(crate) fn reset_on_close(&mut self, fd: RawFd) -> io::Result<()> {
        let at = self.open(fd)?;
        self.connections[at].lingers_not = true;
        Ok(())
    }

    /// SIOCOUTQ.
    pub(crate) fn unacknowledged(&mut self, fd: RawFd) -> io::Result<usize> {
        let at = self.open(fd)?;
        Ok(self.connections[at].unsent.len())
    }

    /// getsockname(2) of a listener, getpeername(2) of a connection.
    pub(crate) fn address(&mut self, fd: RawFd) -> io::Result<SocketAddr> {
        match self.descriptors.get(fd) {
            Some(Thing::Listener) => Ok(ADDRESS),
            Some(Thing::Connection(at)) if !self.connections[at].reset => {
                Ok(SocketAddr::new(self.connections[at].address, 1024))
            }
            _ => Err(io::Error::from_raw_os_error(libc::ENOTCONN)),
        }
    }

    /// An option that changes nothing here.
    pub(crate) fn set_option(&mut self, fd: RawFd) -> io::Result<()> {
        self.open(fd).map(drop)
    }

    /// The selector is asked for reports.
    pub(crate) fn arm(&mut self, fd: RawFd, token: Token, interest: Flags, knows_end: bool) {
        self.call();
        match self.descriptors.get(fd) {
            Some(Thing::Listener) => self.arm_listener(token),
            Some(Thing::Connection(at)) => {
                let by_edge = self.by_edge;
                let connection = &mut self.connections[at];
                // An edge that is asked for already comes when it comes; a new request is answered at once (epoll_ctl(2)).
                let is_new = connection.token.is_none() || connection.asked.only(interest) != interest;
                connection.token = Some(token);
                connection.asked.set(interest);
                connection.asked_for_end = by_edge || !knows_end;
                if is_new || !by_edge {
                    self.touch(at);
                }
            }
            // The inbox: no other thread is here to leave something in it.
            _ => {}
        }
    }

    /// The readiness of a connection may have changed.
    pub(super) fn touch(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.token.is_some() && !connection.is_pending {
            connection.is_pending = true;
            self.events.pending.push(Who::Connection(at));
        }
    }

    pub(super) fn connection_report(&mut self, at: usize) -> Option<Report> {
        let by_edge = self.by_edge;
        let is_spurious = self.random.chance(self.faults.spurious);
        let connection = &mut self.connections[at];
        connection.is_pending = false;
        let token = connection.token?;
        let mut ready = connection.ready(self.faults.send_buffer);
        if is_spurious && connection.asked.has(Flags::ARMED_READ) {
            ready.set(Flags::READABLE);
        }
        if ready == Flags::NONE {
            return None;
        }
        if !by_edge {
            (connection.asked, connection.asked_for_end) = (Flags::NONE, false);
        }
        Some(Report { token, ready })
    }

    /// A descriptor leaves the loop's care, and is closed next.
    pub(crate) fn deregister(&mut self, fd: RawFd) {
        match self.descriptors.closed(fd) {
            Some(Thing::Listener) => self.listener_closed(),
            Some(Thing::Connection(at)) => self.server_closes(at),
            _ => {}
        }
    }

    /// Connections that were accepted and dropped.
    pub(super) fn look_for_closed(&mut self) {
        for fd in std::mem::take(&mut self.fresh) {
            if self.descriptors.get(fd).is_some() && self.descriptors.is_closed(fd) {
                self.deregister(fd);
            }
        }
    }

    pub(super) fn server_closes(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        let token = connection.token.take();
        let is_abrupt = connection.lingers_not || !connection.inbox.is_empty();
        connection.server = Server::Closed;
        self.note("close", at as u64, is_abrupt.into());
        if let Some(token) = token.filter(|_| self.random.chance(self.faults.late_report)) {
            self.late.push(token);
        }
        if is_abrupt {
            return self.reset_client(at);
        }
        self.connections[at].server_fin = true;
        self.keep_moving(at);
    }

    pub(super) fn segment_arrives(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        let Some((_, packet)) = connection.wire.pop_front() else { return };
        match (packet, connection.server) {
            (Packet::Reset, _) => {
                connection.reset = true;
                connection.inbox.clear();
                connection.unsent.clear();
                self.note("client resets", at as u64, 0);
            }
            (Packet::Bytes(_), Server::Closed) => return self.reset_client(at),
            (Packet::Fin, Server::Closed) => return,
            (Packet::Bytes(bytes), _) => connection.inbox.extend(bytes),
            (Packet::Fin, _) => connection.fin = true,
        }
        self.offer(at);
        self.touch(at);
    }

    /// Bytes, or the end, are on their way to the client.
    pub(super) fn keep_moving(&mut self, at: usize) {
        let connection = &self.connections[at];
        let has_room = (connection.delivered.len() as u64) < self.faults.client_buffer;
        let has_any = !connection.unsent.is_empty() && has_room;
        let has_end = connection.unsent.is_empty() && connection.server_fin && !connection.client_end;
        if (has_any || has_end) && !connection.is_moving && !connection.client_lost && !connection.reset {
            self.connections[at].is_moving = true;
            let time = self.now + self.latency();
            self.at(time, Event::Transit(at));
        }
    }

    pub(super) fn transit(&mut self, at: usize) {
        let segment = self.random.between(1, (self.faults.segment * 10).max(20_000));
        let connection = &mut self.connections[at];
        connection.is_moving = false;
        if connection.client_lost || connection.reset {
            return;
        }
        if connection.client_gone {
            if !connection.unsent.is_empty() {
                // Bytes for a closed socket.
                connection.unsent.clear();
                connection.reset = true;
                self.touch(at);
            }
            return;
        }
        let room = self.faults.client_buffer.saturating_sub(connection.delivered.len() as u64);
        let count = (connection.unsent.len() as u64).min(room).min(segment) as usize;
        connection.delivered.extend(&take(&mut connection.unsent, count));
        let is_end = connection.unsent.is_empty() && connection.server_fin;
        connection.client_end |= is_end;
        let who = connection.who;
        if count > 0 {
            self.touch(at);
        }
        self.note("arrives", at as u64, count as u64);
        self.act(who);
        self.keep_moving(at);
    }

    /// The client will hear of a reset.
    pub(super) fn reset_client(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        connection.unsent.clear();
        // The server's end is no more, whatever it was.
        connection.reset = true;
        let time = self.now + self.latency();
        self.at(time, Event::Reset(at));
    }

    pub(super) fn reset_arrives(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.client_gone || connection.client_reset {
            return;
        }
        connection.client_reset = true;
        if self.faults.reset_loses_data {
            connection.delivered.clear();
        }
        let who = connection.who;
        self.note("reset arrives", at as u64, 0);
        self.act(who);
    }

    pub(super) fn latency(&mut self) -> u64 {
        let (least, most) = self.faults.latency;
        self.random.between(least, most)
    }
}

/// The first bytes of a queue, taken by the slice and not one by one.
pub(super) fn take(queue: &mut VecDeque<u8>, count: usize) -> Vec<u8> {
    let (front, back) = queue.as_slices();
    let split = count.min(front.len());
    let bytes = [&front[..split], &back[..count - split]].concat();
    queue.drain(..count);
    bytes
}

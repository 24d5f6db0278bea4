//! The listener of a world: a queue of connections that the server has not accepted.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::connection::Server;
use super::descriptors::Thing;
use super::events::{Event, Who};
use super::wall::SECOND;
use super::world::World;
use crate::driver::{Flags, Report, Token};

/// The one address that is listened on.
#[derive(Debug)]
pub(super) struct Listening {
    fd: RawFd,
    queue: VecDeque<usize>,
    limit: usize,
    longest: usize,
    /// The kernel begins no connection (SO_ATTACH_FILTER).
    is_shut: bool,
    token: Option<Token>,
    is_asked: bool,
    is_pending: bool,
}

/// What the server is reached by.
pub(super) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

impl World {
    /// A socket that listens, with room for `limit` connections.
    ///
    /// # Panics
    /// When there is no descriptor for it.
    pub fn listen(&mut self, limit: usize) -> OwnedFd {
        let fd = self.give(Thing::Listener, usize::MAX).expect("a descriptor of this process");
        let (token, is_asked, is_pending) = (None, false, false);
        self.listening = Some(Listening {
            fd: fd.as_raw_fd(),
            queue: VecDeque::new(),
            limit,
            longest: 0,
            is_shut: false,
            token,
            is_asked,
            is_pending,
        });
        fd
    }

    /// The most connections that have waited, and how many might have.
    pub fn longest_queue(&self) -> (usize, usize) {
        self.listening.as_ref().map_or((0, 0), |listening| (listening.longest, listening.limit))
    }

    /// As another process that has the socket too: no connection is begun there from now on.
    pub fn leave_listener(&mut self) {
        if let Some(listening) = &mut self.listening {
            listening.is_shut = true;
        }
        self.note("left", 0, 0);
    }

    /// How many had connected, after or before the listener was left, and were reset when it was closed.
    pub fn lost_connections(&self) -> usize {
        self.lost
    }

    pub(super) fn knock(&mut self, connection: usize, attempt: u32) {
        if self.connections[connection].client_gone {
            return;
        }
        let Some(listening) = &self.listening else {
            return self.refuse(connection);
        };
        if listening.is_shut || listening.queue.len() >= listening.limit {
            // Ignored, and repeated: after one second, two, four (tcp(7), tcp_syn_retries).
            self.note("syn ignored", connection as u64, attempt.into());
            if attempt < 5 {
                return self.at(self.now + (SECOND << attempt), Event::Knock(connection, attempt + 1));
            }
            return self.refuse(connection);
        }
        self.connections[connection].is_made = true;
        self.act(self.connections[connection].who);
        if self.faults.defer_accept {
            self.at(self.now + SECOND, Event::Overdue(connection));
        } else {
            self.offer(connection);
        }
    }

    /// The connection goes into the queue, if it is not there.
    pub(super) fn offer(&mut self, connection: usize) {
        if !self.connections[connection].is_made || self.connections[connection].server != Server::Coming {
            return;
        }
        let Some(listening) = &mut self.listening else { return self.lose(connection) };
        self.connections[connection].server = Server::Queued;
        listening.queue.push_back(connection);
        listening.longest = listening.longest.max(listening.queue.len());
        self.touch_listener();
    }

    /// accept4(2).
    pub(crate) fn accept(&mut self, fd: RawFd) -> io::Result<OwnedFd> {
        self.call();
        if self.random.chance(self.faults.accept_error) {
            let error = self.random.pick(&[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM]);
            self.note("no accept", error as u64, 0);
            return Err(io::Error::from_raw_os_error(error));
        }
        let Some(listening) = self.listening.as_ref().filter(|listening| listening.fd == fd) else {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        };
        let Some(&connection) = listening.queue.front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let socket = self.give(Thing::Connection(connection), self.faults.descriptors)?;
        if let Some(listening) = &mut self.listening {
            listening.queue.pop_front();
        }
        self.fresh.push(socket.as_raw_fd());
        self.connections[connection].server = Server::Open;
        self.note("accept", connection as u64, 0);
        if self.connections[connection].reset && self.random.chance(500_000) {
            // The peer gave up while it was queued.
            self.connections[connection].server = Server::Closed;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(socket)
    }

    pub(crate) fn accept_queue(&mut self) -> io::Result<usize> {
        Ok(self.listening.as_ref().map_or(0, |listening| listening.queue.len()))
    }

    /// listen(2) once more.
    pub(crate) fn let_wait(&mut self, connections: usize) -> io::Result<()> {
        self.note("backlog", connections as u64, 0);
        if let Some(listening) = &mut self.listening {
            listening.limit = connections;
        }
        Ok(())
    }

    pub(crate) fn ignore_newcomers(&mut self, fd: RawFd, ignore: bool) -> io::Result<()> {
        let listening = self.listening.as_mut().filter(|listening| listening.fd == fd);
        listening.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?.is_shut = ignore;
        self.note("filter", ignore.into(), 0);
        Ok(())
    }

    pub(crate) fn has_filter(&self, fd: RawFd) -> io::Result<bool> {
        Ok(self.listening.as_ref().is_some_and(|listening| listening.fd == fd && listening.is_shut))
    }

    pub(super) fn arm_listener(&mut self, token: Token) {
        if let Some(listening) = &mut self.listening {
            listening.token = Some(token);
            if !listening.queue.is_empty() && (!self.by_edge || !listening.is_asked) {
                listening.is_asked = true;
                return self.touch_listener();
            }
            listening.is_asked = true;
        }
    }

    pub(super) fn touch_listener(&mut self) {
        if let Some(listening) = self.listening.as_mut().filter(|listening| listening.is_asked && !listening.is_pending)
        {
            listening.is_pending = true;
            self.events.pending.push(Who::Listener);
        }
    }

    pub(super) fn listener_report(&mut self) -> Option<Report> {
        let by_edge = self.by_edge;
        let listening = self.listening.as_mut()?;
        listening.is_pending = false;
        let token = listening.token.filter(|_| listening.is_asked && !listening.queue.is_empty())?;
        listening.is_asked = by_edge;
        Some(Report { token, ready: Flags::READABLE })
    }

    /// The listener is closed: who waits is refused.
    pub(super) fn listener_closed(&mut self) {
        let Some(listening) = self.listening.take() else { return };
        self.note("listener closed", listening.queue.len() as u64, 0);
        listening.queue.into_iter().for_each(|connection| self.lose(connection));
    }

    /// Refuses one that has connected already.
    fn lose(&mut self, connection: usize) {
        // Who has left does not miss anything.
        self.lost += usize::from(!self.connections[connection].client_gone);
        self.refuse(connection);
    }

    fn refuse(&mut self, connection: usize) {
        self.connections[connection].server = Server::Closed;
        self.reset_client(connection);
    }
}

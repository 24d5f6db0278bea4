//! The network as clients see it: what the crowd does with its ends of connections.

use std::net::IpAddr;

use super::connection::{Connection, Packet, Server, take};
use super::events::Event;
use super::world::World;

/// A client's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line(usize);

/// What a client finds when it reads.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// So much has come.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The server has finished.
    End,
    /// The connection was reset, or refused.
    Reset,
}

impl World {
    /// Asks for a connection from `address`; `who` is called when it is made, when something has come, and when it is over.
    pub fn connect(&mut self, who: u32, address: IpAddr) -> Line {
        self.connections.push(Connection::new(who, address));
        let line = self.connections.len() - 1;
        let time = self.now + self.latency();
        self.note("connect", line as u64, who.into());
        self.at(time, Event::Knock(line, 0));
        Line(line)
    }

    /// Whether the connection is made.
    pub fn is_made(&self, line: Line) -> bool {
        self.connections[line.0].is_made
    }

    /// Sends bytes, in segments of any size.
    pub fn write(&mut self, line: Line, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = self.faults.segment.min(rest.len() as u64);
            let size = if self.random.chance(500_000) { most } else { self.random.between(1, most) };
            let (segment, later) = rest.split_at(size as usize);
            self.put_on_wire(line, Packet::Bytes(segment.to_vec()));
            rest = later;
        }
    }

    /// Finishes sending; answers may still come.
    pub fn finish(&mut self, line: Line) {
        self.put_on_wire(line, Packet::Fin);
    }

    /// Closes the client's socket, in the usual way: what comes then is answered with a reset.
    pub fn leave(&mut self, line: Line) {
        let is_unread = !self.connections[line.0].delivered.is_empty();
        self.put_on_wire(line, if is_unread { Packet::Reset } else { Packet::Fin });
        self.connections[line.0].client_gone = true;
    }

    /// Resets the connection.
    pub fn reset(&mut self, line: Line) {
        self.put_on_wire(line, Packet::Reset);
        self.connections[line.0].client_gone = true;
    }

    /// The client's machine, or the way to it, is gone without a word.
    pub fn vanish(&mut self, line: Line) {
        let connection = &mut self.connections[line.0];
        (connection.client_gone, connection.client_lost) = (true, true);
        self.note("vanish", line.0 as u64, 0);
    }

    /// What has come, at most `limit` bytes of it.
    pub fn read(&mut self, line: Line, limit: usize) -> Received {
        let connection = &mut self.connections[line.0];
        if !connection.delivered.is_empty() {
            let count = connection.delivered.len().min(limit);
            let bytes = take(&mut connection.delivered, count);
            self.keep_moving(line.0);
            return Received::Bytes(bytes);
        }
        match (connection.client_reset, connection.client_end) {
            (true, _) => Received::Reset,
            (false, true) => Received::End,
            (false, false) => Received::Nothing,
        }
    }

    /// Connections whose end at the server is open.
    pub fn open_connections(&self) -> usize {
        self.connections.iter().filter(|connection| connection.server == Server::Open).count()
    }

    fn put_on_wire(&mut self, line: Line, packet: Packet) {
        let connection = &self.connections[line.0];
        if connection.client_gone || connection.client_reset {
            return;
        }
        let last = connection.wire.back().map_or(0, |(time, _)| *time);
        let time = (self.now + self.latency()).max(last);
        self.connections[line.0].wire.push_back((time, packet));
        self.at(time, Event::Segment(line.0));
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::super::Faults;
    use super::*;
    use crate::buffer::SendQueue;

    fn connected() -> (World, OwnedFd, Line, OwnedFd) {
        let mut world = World::new(1, Faults::none());
        let listener = world.listen(8);
        let line = world.connect(0, IpAddr::V4(Ipv4Addr::LOCALHOST));
        world.settle();
        let socket = world.accept(listener.as_raw_fd()).expect("a connection");
        (world, listener, line, socket)
    }

    fn send(world: &mut World, socket: &OwnedFd, bytes: &[u8]) {
        let mut queue = SendQueue::default();
        queue.own().extend_from_slice(bytes);
        assert_eq!(world.send(socket.as_raw_fd(), &mut queue).expect("room"), bytes.len());
    }

    #[test]
    fn what_is_sent_arrives_and_then_the_end() {
        let (mut world, _listener, line, socket) = connected();
        world.write(line, b"question");
        world.settle();
        let mut memory = [0; 16];
        assert_eq!(world.recv(socket.as_raw_fd(), &mut memory).expect("bytes"), 8);
        assert_eq!(&memory[..8], b"question");
        let empty = world.recv(socket.as_raw_fd(), &mut memory).expect_err("nothing more");
        assert_eq!(empty.kind(), std::io::ErrorKind::WouldBlock);
        send(&mut world, &socket, b"answer");
        world.deregister(socket.as_raw_fd());
        world.settle();
        assert_eq!(world.read(line, 99), Received::Bytes(b"answer".into()));
        assert_eq!(world.read(line, 99), Received::End);
    }

    #[test]
    fn a_close_with_unread_bytes_takes_the_answer_with_it() {
        let (mut world, _listener, line, socket) = connected();
        world.write(line, b"question");
        world.settle();
        send(&mut world, &socket, b"answer");
        world.deregister(socket.as_raw_fd());
        world.settle();
        assert_eq!(world.read(line, 99), Received::Reset);
    }

    #[test]
    fn bytes_for_a_closed_socket_are_answered_with_a_reset() {
        let (mut world, _listener, line, socket) = connected();
        world.leave(line);
        world.settle();
        send(&mut world, &socket, b"answer");
        world.settle();
        let error = world.recv(socket.as_raw_fd(), &mut [0; 9]).expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(world.recv(socket.as_raw_fd(), &mut [0; 9]).expect("and an end from then on"), 0);
    }

    #[test]
    fn a_forgotten_descriptor_is_found() {
        let (mut world, listener, _, socket) = connected();
        assert_eq!(world.open_descriptors(), (1, 0));
        drop(socket);
        assert_eq!(world.open_descriptors(), (0, 0));
        let limit = 1;
        world.faults().descriptors = limit;
        world.connect(0, IpAddr::V4(Ipv4Addr::LOCALHOST));
        world.settle();
        let error = world.accept(listener.as_raw_fd()).expect_err("the listener has the only one");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    }
}

//! The network as clients see it: what the crowd does with its ends of connections.

use std::net::IpAddr;

use super::connection::{Connection, Packet, Server};
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
            let bytes = connection.delivered.drain(..count).collect();
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

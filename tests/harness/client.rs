//! A client that sends the bytes it is told to and reads answers by RFC 9112 alone: nothing of the server's own code.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::PATIENCE;

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The first line, without its CRLF.
    pub status_line: String,
    /// Names in lower case and values, in their order.
    pub fields: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A plain request for `path`.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

impl Client {
    /// Connects; a receive buffer of `receive` bytes makes a client that cannot take much at once.
    pub fn connect(address: SocketAddr, receive: Option<usize>) -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        if let Some(receive) = receive {
            sockopt::set_socket_recv_buffer_size(&socket, receive)?;
        }
        connect(&socket, &address)?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes what is sent");
    }

    /// Sends bytes; the server may have closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Sends a request and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        let request = request.as_ref();
        self.send(request);
        self.try_answer(request.starts_with(b"HEAD ")).unwrap_or_else(|error| {
            panic!("{error} for {}", String::from_utf8_lossy(&request[..request.len().min(200)]))
        })
    }

    /// Asks for `path`.
    pub fn get(&mut self, path: &str) -> Answer {
        self.ask(get(path))
    }

    /// The next answer, to anything but HEAD.
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).expect("an answer")
    }

    /// The next answer, to a HEAD.
    pub fn answer_to_head(&mut self) -> Answer {
        self.try_answer(true).expect("an answer to HEAD")
    }

    /// The next answer, interim ones left out; `UnexpectedEof` when the connection ends before or in it.
    pub fn try_answer(&mut self, head_only: bool) -> io::Result<Answer> {
        loop {
            let mut answer = self.try_head()?;
            match answer.status() {
                100..=199 => continue,
                204 | 304 => return Ok(answer),
                _ if head_only => return Ok(answer),
                _ => {}
            }
            let Some(length) = answer.field("content-length") else {
                self.read_to_end()?;
                answer.body = std::mem::take(&mut self.unread);
                return Ok(answer);
            };
            let length: usize = length.parse().expect("Content-Length is a number");
            self.fill(length)?;
            answer.body = self.unread.drain(..length).collect();
            return Ok(answer);
        }
    }

    /// The next answer's head; its body stays unread.
    pub fn try_head(&mut self) -> io::Result<Answer> {
        let end = loop {
            if let Some(end) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            self.fill(self.unread.len() + 1)?;
        };
        let head = self.unread.drain(..end + 4).collect::<Vec<_>>();
        Ok(Answer::parse(&head))
    }

    /// What has been received and not been asked for yet.
    pub fn unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// One read of at most `limit` bytes: empty at the end of the connection.
    pub fn read_once(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        if !self.unread.is_empty() {
            return Ok(self.unread());
        }
        let mut bytes = vec![0; limit];
        let read = self.stream.read(&mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Everything up to the end of the connection, and whether it ended in order or was reset.
    pub fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let ended = self.read_to_end();
        (self.unread(), ended)
    }

    /// Holds the server to having closed: nothing more comes, and no reset.
    pub fn expect_end(&mut self, context: &str) {
        let (rest, ended) = self.rest();
        assert!(ended.is_ok(), "{context}: {ended:?}");
        assert!(rest.is_empty(), "{context}: more came: {}", String::from_utf8_lossy(&rest[..rest.len().min(200)]));
    }

    /// Holds the server to going on with this connection.
    pub fn expect_open(&mut self, context: &str) {
        assert!(self.unread.is_empty(), "{context}: more came: {}", String::from_utf8_lossy(&self.unread));
        let sent = self.try_send("OPTIONS * HTTP/1.1\r\nHost: probe\r\n\r\n");
        let answer = sent.and_then(|()| self.try_answer(false));
        assert!(answer.as_ref().is_ok_and(|answer| answer.status() == 204), "{context}: not open: {answer:?}");
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Makes a close tell the server by a reset.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(std::time::Duration::ZERO)).expect("a socket");
    }

    /// Reads until `wanted` bytes are unread.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let mut bytes = vec![0; 64 * 1024];
        while self.unread.len() < wanted {
            match self.stream.read(&mut bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.unread.extend_from_slice(&bytes[..read]),
            }
        }
        Ok(())
    }

    fn read_to_end(&mut self) -> io::Result<()> {
        self.stream.read_to_end(&mut self.unread).map(drop)
    }
}

impl Answer {
    fn parse(head: &[u8]) -> Self {
        let head = std::str::from_utf8(head).expect("heads are ASCII");
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let status_line = lines.next().expect("a first line").to_owned();
        assert!(status_line.starts_with("HTTP/1.1 "), "no status line: {status_line:?}");
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field line: {line:?}"));
            assert!(value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte)), "odd bytes: {line:?}");
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self { status_line, fields: lines.map(field).collect(), body: Vec::new() }
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status_line[9..12].parse().expect("three digits")
    }

    /// The value of a field that must not stand twice.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.fields.iter().filter(|(present, _)| present == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} stands twice: {:?}", self.fields);
        value
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

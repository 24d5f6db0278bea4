//! A plain client: one keep-alive connection, one request at a time, for checks and for idle connections.

use std::io::{Error, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection. Holds nothing but the socket.
pub struct Client {
    stream: TcpStream,
}

/// What came back. The body is read and forgotten.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub length: u64,
}

impl Client {
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream })
    }

    /// # Errors
    /// The connection ended, or ten seconds passed, before the answer was whole.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.ask(path)?;
        self.hear()
    }

    /// # Errors
    /// The connection ended.
    pub fn ask(&mut self, path: &str) -> Result<()> {
        self.stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").as_bytes())
    }

    /// The answer to what was asked.
    ///
    /// # Errors
    /// As `get`.
    pub fn hear(&mut self) -> Result<Answer> {
        let mut chunk = [0; 16 * 1024];
        let mut head = Vec::new();
        let body = loop {
            if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(Error::other("the connection ended")),
                read => head.extend_from_slice(&chunk[..read]),
            }
        };
        let answer = parse(&String::from_utf8_lossy(&head[..body])).ok_or_else(|| Error::other("an odd answer"))?;
        let mut missing = answer.length.saturating_sub((head.len() - body) as u64);
        while missing > 0 {
            match self.stream.read(&mut chunk)? as u64 {
                0 => return Err(Error::other("the connection ended within a body")),
                read => missing = missing.saturating_sub(read),
            }
        }
        Ok(answer)
    }
}

fn parse(head: &str) -> Option<Answer> {
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Some(Answer { status, length: length? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read() {
        let answer = parse("HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 12\r\n\r\n");
        let expected = Answer { status: 200, length: 12 };
        assert_eq!(answer, Some(expected));
    }
}

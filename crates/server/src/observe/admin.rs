//! The admin address: the server's numbers as JSON, for people and scripts.
//!
//! It lives on a thread of its own (with processes, in their parent) with blocking calls, one client at a time: whatever it
//! does, no loop notices.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use amped_runtime::process;

/// Answers `GET /status` with what `status` returns, until `Office` is dropped: with a listener that several processes share, the
/// next one answers then.
///
/// # Errors
/// In words: no thread or descriptor to be had.
pub fn start(listener: Listener, status: impl Fn() -> String + Send + 'static) -> Result<Office, String> {
    let failed = |error: io::Error| format!("cannot serve the admin address: {error}");
    let (office, open) = UnixStream::pair().map_err(failed)?;
    listener.set_nonblocking().map_err(failed)?;
    let thread = std::thread::Builder::new().name("amped-admin".into());
    let serve = move || {
        // Held for the clients to come: just when descriptors are short somebody wants to know.
        let mut spare = Vec::new();
        loop {
            spare.extend((spare.len()..SPARE).map_while(|_| open.as_fd().try_clone_to_owned().ok()));
            match process::readable(&[listener.as_fd(), open.as_fd()], None).as_deref() {
                Ok([_, true]) => return,
                Ok([true, _]) => {
                    spare.pop();
                    listener.serve_one(&status);
                }
                _ => {}
            }
        }
    };
    thread.spawn(serve).map_err(failed)?;
    Ok(Office { _open: office })
}

/// The admin address is served while this lives.
#[derive(Debug)]
pub struct Office {
    _open: UnixStream,
}

/// Where it is asked.
#[derive(Debug)]
pub enum Listener {
    /// `ADDR:PORT`.
    Tcp(TcpListener),
    /// `unix:PATH`.
    Unix(UnixListener),
}

impl Listener {
    /// Listens on `ADDR:PORT` or `unix:PATH`.
    ///
    /// # Errors
    /// The address and what the system said.
    pub fn bind(address: &str) -> Result<Self, String> {
        let bound = match address.strip_prefix("unix:") {
            Some(path) => {
                // A socket that an earlier process left behind is in the way, and nobody listens on it.
                if UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path).map(Self::Unix)
            }
            None => TcpListener::bind(address).map(Self::Tcp),
        };
        bound.map_err(|error| format!("cannot listen on the admin address {address}: {error}"))
    }

    /// The same of an earlier process of this server.
    pub fn adopt(socket: OwnedFd, address: &str) -> Self {
        if address.starts_with("unix:") { Self::Unix(socket.into()) } else { Self::Tcp(socket.into()) }
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// Waits for a client and answers it.
    pub fn serve_one(&self, status: &impl Fn() -> String) {
        let answered = match self {
            Self::Tcp(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                answer(&stream, &stream, status)
            }),
            Self::Unix(listener) => listener.accept().and_then(|(stream, _)| {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                answer(&stream, &stream, status)
            }),
        };
        // Another process was quicker.
        if answered.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            return;
        }
        // A client that misbehaves has no answer, and the next one is not concerned. Without a descriptor to be had, asking
        // for one again and again would only keep a core busy.
        if answered.is_err() {
            std::thread::sleep(PAUSE);
        }
    }
}

impl From<Listener> for OwnedFd {
    fn from(listener: Listener) -> Self {
        match listener {
            Listener::Tcp(listener) => listener.into(),
            Listener::Unix(listener) => listener.into(),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

fn answer(input: impl Read, mut output: impl Write, status: &impl Fn() -> String) -> io::Result<()> {
    let mut head = BufReader::new(input.take(MAX_HEAD)).lines();
    let request = head.next().transpose()?.unwrap_or_default();
    while head.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = request.split(' ');
    let (code, body) = match (words.next(), words.next()) {
        (Some("GET"), Some("/status" | "/")) => ("200 OK", status()),
        (Some("GET"), _) => ("404 Not Found", "{\"error\":\"ask for /status\"}".to_owned()),
        _ => ("405 Method Not Allowed", "{\"error\":\"ask with GET\"}".to_owned()),
    };
    write!(
        output,
        "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}\n",
        body.len() + 1
    )
}

const PATIENCE: Duration = Duration::from_secs(2);
/// A loop may be quicker to take what is let go of for a client, so there are a few.
const SPARE: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
const MAX_HEAD: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::answer;

    fn ask(request: &str) -> String {
        let mut output = Vec::new();
        answer(request.as_bytes(), &mut output, &|| "{}".to_owned()).expect("memory does not fail");
        String::from_utf8(output).expect("JSON is text")
    }

    #[test]
    fn status_is_json_and_the_rest_is_refused() {
        assert!(
            ask("GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
                .starts_with("HTTP/1.1 200 OK\r\nContent-Type: application/json")
        );
        assert!(ask("GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask("POST /status HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        assert!(ask("").starts_with("HTTP/1.1 405"));
    }
}

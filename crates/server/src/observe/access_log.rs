//! The access log: a line per request, formatted on the loop, written by a thread of its own.
//!
//! Workers fill a buffer and hand it over when it is full or half a second old. When the disk cannot keep up, whole buffers
//! are dropped and their lines counted: a log never delays a request. SIGUSR1 has the file opened anew, for rotation. What a
//! full disk would not take is counted as well, and said once it takes lines again.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amped_runtime::{process, warn};
use amped_wire::head::{Known, Request};
use amped_wire::semantics::date;

use super::counters::Counters;
use crate::config::choice::{AccessLog as Choice, LogFormat};

/// The writing side: one thread for the process.
#[derive(Debug)]
pub struct Writer {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
    format: LogFormat,
    state: Arc<State>,
}

/// What the writing thread and the others tell each other.
#[derive(Debug, Default)]
struct State {
    /// The file is to be opened anew before the next line.
    reopen: AtomicBool,
    /// Lines that the disk would not take.
    lost: AtomicU64,
}

/// A worker's side.
#[derive(Debug)]
pub struct Log {
    queue: SyncSender<Message>,
    format: LogFormat,
    filling: RefCell<Filling>,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Filling {
    bytes: String,
    lines: u64,
}

enum Message {
    Lines(String),
    /// Look at `State` again.
    Nudge,
    End,
}

/// Where lines go.
enum Sink {
    File(PathBuf, File),
    Stderr,
}

/// The writing thread's own.
struct Output {
    sink: Sink,
    state: Arc<State>,
    /// The last line is only half there.
    torn: bool,
    /// Lost lines that have not been spoken of.
    unsaid: u64,
}

/// What a line says of the request, taken before its bytes are gone.
#[derive(Debug, Default)]
pub struct Asked {
    peer: Option<IpAddr>,
    request_line: String,
    host: String,
    referer: Option<String>,
    user_agent: Option<String>,
}

impl Writer {
    /// Starts the log the plan asks for; `None` when it is off.
    ///
    /// # Errors
    /// The path and what the system said, when the file cannot be opened.
    pub fn start(choice: &Choice) -> Result<Option<Self>, String> {
        let (sink, format) = match choice {
            Choice::Off => return Ok(None),
            Choice::Stderr { format } => (Sink::Stderr, *format),
            Choice::File { path, format } => (Sink::File(path.clone(), open_or_explain(path)?), *format),
        };
        let (queue, messages) = sync_channel(MAX_QUEUED);
        let state = Arc::new(State::default());
        let output = Output { sink, state: Arc::clone(&state), torn: false, unsaid: 0 };
        let thread = process::vital_thread("amped-log", move || output.run(&messages));
        let thread = thread.map_err(|error| format!("access log: {error}"))?;
        Ok(Some(Self { queue, thread, format, state }))
    }

    /// A worker's side of it.
    pub fn log(&self, counters: &Arc<Counters>) -> Log {
        Log {
            queue: self.queue.clone(),
            format: self.format,
            filling: RefCell::default(),
            counters: Arc::clone(counters),
        }
    }

    /// Has the file opened anew: after a rotation has renamed it. Waits for nothing.
    pub fn reopen(&self) {
        self.state.reopen.store(true, Relaxed);
        // Where the queue is full the thread will look without being told.
        let _ = self.queue.try_send(Message::Nudge);
    }

    /// Whether the log the plan asks for can be opened: for a process that only starts those that write.
    ///
    /// # Errors
    /// As `start`.
    pub fn check(choice: &Choice) -> Result<(), String> {
        match choice {
            Choice::Off | Choice::Stderr { .. } => Ok(()),
            Choice::File { path, .. } => open_or_explain(path).map(drop),
        }
    }

    /// Lines that the disk would not take.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Relaxed)
    }

    /// Writes what has been handed over and ends; gives a disk that hangs `PATIENCE`.
    pub fn finish(&self) {
        let end = Instant::now() + PATIENCE;
        let mut told = false;
        while !self.thread.is_finished() && Instant::now() < end {
            told = told || self.queue.try_send(Message::End).is_ok();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Asked {
    /// Takes from a request what its line will need.
    pub fn of(request: &Request<'_>, peer: Option<IpAddr>) -> Self {
        let field = |known| request.fields.known(known).map(|value| String::from_utf8_lossy(value).into_owned());
        let method = String::from_utf8_lossy(request.method_raw);
        let target = String::from_utf8_lossy(request.raw_target);
        let version = std::str::from_utf8(request.version.as_bytes()).unwrap_or_default();
        Self {
            peer,
            request_line: format!("{method} {target} {version}"),
            host: String::from_utf8_lossy(request.host).into_owned(),
            referer: field(Known::Referer),
            user_agent: field(Known::UserAgent),
        }
    }

    /// For what was refused before it could be understood.
    pub fn nothing(peer: Option<IpAddr>) -> Self {
        Self { peer, ..Self::default() }
    }
}

impl Log {
    /// Adds a line: the status, and how many bytes of body the answer has.
    pub fn add(&self, asked: &Asked, status: u16, length: u64, unix_time: Duration) {
        let mut filling = self.filling.borrow_mut();
        match self.format {
            LogFormat::Combined => combined(&mut filling.bytes, asked, status, length, unix_time),
            LogFormat::Json => json(&mut filling.bytes, asked, status, length, unix_time),
        }
        filling.lines += 1;
        if filling.bytes.len() >= FULL {
            self.hand_over(&mut filling);
        }
    }

    /// Hands over what has gathered; the worker calls it twice a second.
    pub fn flush(&self) {
        let mut filling = self.filling.borrow_mut();
        if filling.lines > 0 {
            self.hand_over(&mut filling);
        }
    }

    fn hand_over(&self, filling: &mut Filling) {
        let Filling { bytes, lines } = std::mem::take(filling);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.queue.try_send(Message::Lines(bytes)) {
            self.counters.log_lines_dropped.add(lines);
        }
    }
}

impl Output {
    fn run(mut self, messages: &Receiver<Message>) {
        for message in messages {
            if self.state.reopen.swap(false, Relaxed) {
                self.sink.reopen();
            }
            match message {
                Message::Lines(lines) => self.write(lines.as_bytes()),
                Message::Nudge => {}
                Message::End => return,
            }
        }
    }

    /// Writes as much as the disk takes. A full disk costs lines, not the server; the next buffer tries again.
    fn write(&mut self, lines: &[u8]) {
        let mut left = lines;
        if self.torn && self.sink.write(b"\n").is_ok() {
            self.torn = false;
        }
        while !left.is_empty() && !self.torn {
            match self.sink.write(left) {
                Ok(written) if written > 0 => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        if let Some(last) = lines[..lines.len() - left.len()].last() {
            self.torn = *last != b'\n';
        }
        self.account(left.iter().filter(|&&byte| byte == b'\n').count() as u64);
    }

    /// Counts what was lost, and says so once lines are taken again.
    fn account(&mut self, lost: u64) {
        self.unsaid += lost;
        self.state.lost.fetch_add(lost, Relaxed);
        if lost == 0 && self.unsaid > 0 {
            warn!("amped: access log: the disk did not take {} lines", std::mem::take(&mut self.unsaid));
        }
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(_, file) => file.write(bytes),
            Self::Stderr => io::stderr().write(bytes),
        }
    }

    fn reopen(&mut self) {
        if let Self::File(path, file) = self {
            match open(path) {
                Ok(opened) => *file = opened,
                Err(error) => warn!("amped: access log {}: {error}; going on with the old file", path.display()),
            }
        }
    }
}

fn open_or_explain(path: &Path) -> Result<File, String> {
    open(path).map_err(|error| format!("access log {}: {error}", path.display()))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// The combined log format of NCSA and Apache.
fn combined(line: &mut String, asked: &Asked, status: u16, length: u64, unix_time: Duration) {
    match asked.peer {
        Some(peer) => drop(write!(line, "{peer}")),
        None => line.push('-'),
    }
    line.push_str(" - - [");
    clf_date(line, unix_time.as_secs());
    line.push_str("] \"");
    escape(line, &asked.request_line);
    let _ = write!(line, "\" {status} {length} ");
    for field in [&asked.referer, &asked.user_agent] {
        line.push('"');
        escape(line, field.as_deref().unwrap_or("-"));
        line.push_str("\" ");
    }
    line.pop();
    line.push('\n');
}

fn json(line: &mut String, asked: &Asked, status: u16, length: u64, unix_time: Duration) {
    let peer = asked.peer.map(|peer| peer.to_string());
    let fields = serde_json::json!({
        "time": (unix_time.as_secs_f64() * 1000.0).round() / 1000.0,
        "peer": peer,
        "host": asked.host,
        "request": asked.request_line,
        "status": status,
        "bytes": length,
        "referer": asked.referer,
        "user_agent": asked.user_agent,
    });
    let _ = writeln!(line, "{fields}");
}

/// `21/Nov/2026:08:42:07 +0000`, from the fields of an HTTP date.
fn clf_date(line: &mut String, seconds: u64) {
    let date = date::format(seconds);
    let text = std::str::from_utf8(&date).unwrap_or_default();
    let (day, month, year, time) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
    let _ = write!(line, "{day}/{month}/{year}:{time} +0000");
}

/// A quoted string that no request can break out of.
fn escape(line: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            control if control.is_control() => drop(write!(line, "\\x{:02x}", control as u32)),
            other => line.push(other),
        }
    }
}

/// Buffers that may wait to be written: with `FULL`, 16 MB at most.
const MAX_QUEUED: usize = 256;
const FULL: usize = 64 * 1024;
/// What a log's disk may still take when the server ends.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            peer: Some(IpAddr::from([192, 0, 2, 1])),
            request_line: "GET /a\"b HTTP/1.1".into(),
            host: "example.org".into(),
            referer: None,
            user_agent: Some("x\ny".into()),
        }
    }

    #[test]
    fn a_combined_line_cannot_be_broken_out_of() {
        let mut line = String::new();
        combined(&mut line, &asked(), 200, 42, Duration::from_secs(784_111_777));
        let expected = "192.0.2.1 - - [06/Nov/1994:08:49:37 +0000] \"GET /a\\\"b HTTP/1.1\" 200 42 \"-\" \"x\\x0ay\"\n";
        assert_eq!(line, expected);
    }

    #[test]
    fn a_json_line_is_json() {
        let mut line = String::new();
        json(&mut line, &asked(), 404, 0, Duration::from_millis(1500));
        let value: serde_json::Value = serde_json::from_str(&line).expect("one line of JSON");
        assert_eq!((value["status"].as_u64(), value["time"].as_f64()), (Some(404), Some(1.5)));
        assert!(line.ends_with('\n'));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (queue, _receiver) = sync_channel(1);
        let counters = Arc::new(Counters::default());
        let log = Log { queue, format: LogFormat::Combined, filling: RefCell::default(), counters };
        for _ in 0..3 {
            log.add(&asked(), 200, 1, Duration::ZERO);
            log.flush();
        }
        assert_eq!(log.counters.log_lines_dropped.get(), 2);
    }
}

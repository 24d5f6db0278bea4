//! The null server: one thread that answers every request with a constant from memory.
//! Goal: the kernel's own price, the line that no server on the same driver can pass; the bench prints it beside every
//! peer. It parses nothing: a request is whatever ends in an empty line, and `Connection: close` is looked for as bytes.
//!
//! Cost: `epoll` recv + send (+ its share of one wait); `poll` the same and a walk over all descriptors per turn; `uring`
//! one enter per turn. No allocation per request. Not a server to show to the world: no limits, no timeouts.
//!
//! ```text
//! null --driver epoll|poll|uring --port P [--size BYTES] [--listen 0.0.0.0] [--send gathered|each|halves] [--nagle on|off]
//!      [--files N] [--uniform PERCENT]
//! ```
//!
//! `--files` keeps so many copies of the answer and takes them from places all over that memory, as a server that serves as many
//! files must: `--uniform` percent of the answers from all of it, the rest from the first 2,000. From the processor's cache a copy
//! costs less than any server can have.
//!
//! `--send each` sends every answer by itself, `halves` its head and then its body: what a server does that has not thought of
//! it. With `--nagle on` the second half waits for the client's delayed acknowledgement. Experiments use them; the bench does not.

use std::cell::Cell;
use std::io::{self, Error, Result};
use std::mem::{size_of, zeroed};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, Fd, Fixed};
use io_uring::{IoUring, cqueue, opcode};

fn main() {
    if let Err(error) = Options::from_args().and_then(|options| run(&options)) {
        eprintln!("null: {error}");
        std::process::exit(1);
    }
}

struct Options {
    driver: String,
    address: std::net::Ipv4Addr,
    port: u16,
    size: usize,
    send: Send,
    nagle: bool,
    files: usize,
    uniform: usize,
}

/// How much goes into one send.
#[derive(Clone, Copy)]
enum Send {
    Gathered,
    Each,
    Halves,
}

impl Options {
    fn from_args() -> Result<Self> {
        let mut options = Self {
            driver: "epoll".into(),
            address: std::net::Ipv4Addr::LOCALHOST,
            port: 8079,
            size: 1024,
            send: Send::Gathered,
            nagle: false,
            files: 1,
            uniform: 100,
        };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let value = args.next().unwrap_or_default();
            let wrong = |_| Error::other(format!("{name} cannot be `{value}`"));
            match name.as_str() {
                "--driver" => options.driver = value,
                "--listen" => options.address = value.parse().map_err(|_| wrong(()))?,
                "--port" => options.port = value.parse().map_err(|_| wrong(()))?,
                "--send" => {
                    options.send = match value.as_str() {
                        "gathered" => Send::Gathered,
                        "each" => Send::Each,
                        "halves" => Send::Halves,
                        _ => return Err(wrong(())),
                    }
                }
                "--nagle" => options.nagle = value == "on",
                "--size" => options.size = value.parse().map_err(|_| wrong(()))?,
                "--files" => options.files = value.parse().map_err(|_| wrong(()))?,
                "--uniform" => options.uniform = value.parse().map_err(|_| wrong(()))?,
                _ => return Err(Error::other(format!("no option {name}"))),
            }
        }
        Ok(options)
    }
}

fn run(options: &Options) -> Result<()> {
    let answers = Answers::new(options);
    raise_descriptor_limit();
    let listener = listen(options)?;
    eprintln!("listening on http://{}:{}", options.address, options.port);
    match options.driver.as_str() {
        "epoll" => epoll(listener, &answers),
        "poll" => poll(listener, &answers),
        "uring" => uring(listener, &answers),
        other => Err(Error::other(format!("no driver `{other}`: epoll, poll or uring"))),
    }
}

/// The answer, and the one that says `Connection: close`: clients hold a silent close for an error.
struct Answers {
    keep: Copies,
    last: Copies,
}

impl Answers {
    fn new(options: &Options) -> Self {
        Self { keep: Copies::new("", options.files, options), last: Copies::new("Connection: close\r\n", 1, options) }
    }

    fn of(&self, connection: &Connection) -> &Copies {
        if connection.last { &self.last } else { &self.keep }
    }
}

/// As many copies of one answer, end to end, as a turn may want to send at once.
struct Copies {
    bytes: Vec<u8>,
    /// Length of one answer.
    one: usize,
    /// Length of its head.
    head: usize,
    send: Send,
    /// How many of them answers are taken from.
    files: usize,
    /// Percent of the answers that are taken from all of them, not only from the popular ones.
    uniform: usize,
    /// State of the choice between them: Lehmer's generator, as in the bench's scripts.
    state: Cell<u64>,
}

impl Copies {
    fn new(field: &str, files: usize, &Options { size, send, uniform, .. }: &Options) -> Self {
        let head = format!(
            "HTTP/1.1 200 OK\r\nServer: null\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
             Content-Type: text/plain\r\nContent-Length: {size}\r\n{field}\r\n"
        );
        let mut answer = head.into_bytes();
        let head = answer.len();
        answer.resize(answer.len() + size, b'x');
        let one = answer.len();
        let files = files.max(1);
        Self { bytes: answer.repeat((BATCH / one).max(files)), one, head, send, files, uniform, state: Cell::new(17) }
    }

    /// The next bytes of a connection that is still owed `owed` bytes of whole answers.
    fn next(&self, owed: usize) -> &[u8] {
        let sent = (self.one - owed % self.one) % self.one;
        let start = self.place() * self.one;
        let from = start + sent;
        let end = match self.send {
            Send::Gathered => self.bytes.len(),
            Send::Halves if sent < self.head => start + self.head,
            Send::Halves | Send::Each => start + self.one,
        };
        &self.bytes[from..end.min(from + owed)]
    }

    /// Which of the copies is next; the first of as many as a turn may want where there is but one file.
    fn place(&self) -> usize {
        if self.files == 1 {
            return 0;
        }
        let among = if self.below(100) < self.uniform { self.files } else { POPULAR.min(self.files) };
        self.below(among)
    }

    fn below(&self, n: usize) -> usize {
        self.state.set(self.state.get() * 16807 % 2_147_483_647);
        self.state.get() as usize % n
    }
}

/// What one connection is owed, and how far into `\r\n\r\n` its last read ended.
#[derive(Clone, Copy, Default)]
struct Connection {
    owed: usize,
    matched: u8,
    closing: bool,
    /// The answers owed are those that say so.
    last: bool,
    reading: bool,
    sending: bool,
}

impl Connection {
    /// Notes what `read` asks for.
    fn take(&mut self, read: &[u8], answers: &Answers) {
        if contains_close(read) {
            self.closing = true;
            self.last = self.owed == 0;
        }
        self.owed += self.count_ends(read) * answers.of(self).one;
    }

    /// How many empty lines end in `read`, a partial one carried from read to read.
    fn count_ends(&mut self, read: &[u8]) -> usize {
        let mut ends = 0;
        let mut at = 0;
        // The seam with the last read, byte by byte.
        while self.matched > 0 && at < read.len() {
            self.step(read[at], &mut ends);
            at += 1;
        }
        // Four bytes a stride: no end can lie across a byte that is neither CR nor LF.
        while at + 4 <= read.len() {
            match read[at + 3] {
                b'\n' if read[at..at + 3] == *b"\r\n\r" => {
                    ends += 1;
                    at += 4;
                }
                b'\r' | b'\n' => at += 1,
                _ => at += 4,
            }
        }
        for &byte in &read[at..] {
            self.step(byte, &mut ends);
        }
        ends
    }

    fn step(&mut self, byte: u8, ends: &mut usize) {
        self.matched = match (self.matched, byte) {
            (0 | 2, b'\r') => self.matched + 1,
            (1, b'\n') => 2,
            (3, b'\n') => {
                *ends += 1;
                0
            }
            (_, b'\r') => 1,
            _ => 0,
        };
    }
}

fn contains_close(read: &[u8]) -> bool {
    const CLOSE: &[u8] = b"Connection: close";
    // SAFETY: both pointers are valid for the lengths given with them.
    unsafe { !libc::memmem(read.as_ptr().cast(), read.len(), CLOSE.as_ptr().cast(), CLOSE.len()).is_null() }
}

/// What to do with a connection after it was served as far as it goes.
#[derive(PartialEq)]
enum Next {
    Wait,
    Close,
}

/// Reads, answers, and reads on only if the buffer was full or the peer is said to be gone (`drain`).
fn serve(fd: RawFd, connection: &mut Connection, answers: &Answers, buffer: &mut [u8], drain: bool) -> Next {
    loop {
        // SAFETY: the buffer is valid for its length and outlives the call.
        let read = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        if read <= 0 {
            return if read < 0 && would_block() { Next::Wait } else { Next::Close };
        }
        connection.take(&buffer[..read as usize], answers);
        if flush(fd, connection, answers) == Next::Close {
            return Next::Close;
        }
        if !drain && (read as usize) < buffer.len() {
            return Next::Wait;
        }
    }
}

/// Sends what is owed until done or the socket is full.
fn flush(fd: RawFd, connection: &mut Connection, answers: &Answers) -> Next {
    while connection.owed > 0 {
        let bytes = answers.of(connection).next(connection.owed);
        // SAFETY: `bytes` is valid for its length and outlives the call.
        let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        if sent < 0 {
            return if would_block() { Next::Wait } else { Next::Close };
        }
        connection.owed -= sent as usize;
    }
    if connection.closing { Next::Close } else { Next::Wait }
}

// epoll, edge triggered: each connection is registered once, for both directions.

fn epoll(listener: RawFd, answers: &Answers) -> Result<()> {
    // SAFETY: plain system call.
    let selector = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    register(selector, listener, libc::EPOLLIN | libc::EPOLLET)?;
    let mut connections = vec![Connection::default(); MAX_CONNECTIONS];
    let mut buffer = vec![0; READ];
    // SAFETY: epoll_event is plain data, all zeroes are valid.
    let mut events: [libc::epoll_event; EVENTS] = unsafe { zeroed() };
    loop {
        // SAFETY: `events` is valid for EVENTS entries.
        let ready = unsafe { libc::epoll_wait(selector, events.as_mut_ptr(), EVENTS as i32, -1) };
        for event in &events[..ready.max(0) as usize] {
            let (fd, flags) = (event.u64 as RawFd, event.events as i32);
            if fd == listener {
                while let Some(fd) = accept(listener) {
                    let connection = &mut connections[fd as usize];
                    *connection = Connection::default();
                    // The request often lies there already: one read before arming saves the short-lived the arming.
                    if serve(fd, connection, answers, &mut buffer, false) == Next::Close {
                        close(fd);
                    } else {
                        register(selector, fd, libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET)?;
                    }
                }
                continue;
            }
            let connection = &mut connections[fd as usize];
            let mut next = Next::Wait;
            if connection.owed > 0 && flags & libc::EPOLLOUT != 0 {
                next = flush(fd, connection, answers);
            }
            let gone = flags & (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) != 0;
            if next == Next::Wait && (gone || flags & libc::EPOLLIN != 0) {
                next = serve(fd, connection, answers, &mut buffer, gone);
            }
            if next == Next::Close {
                close(fd);
            }
        }
    }
}

fn register(selector: RawFd, fd: RawFd, events: i32) -> Result<()> {
    let mut event = libc::epoll_event { events: events as u32, u64: fd as u64 };
    // SAFETY: `event` is valid for the call.
    check(unsafe { libc::epoll_ctl(selector, libc::EPOLL_CTL_ADD, fd, &mut event) })?;
    Ok(())
}

// poll: one array of descriptors, the listener first.

fn poll(listener: RawFd, answers: &Answers) -> Result<()> {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut entries = vec![entry(listener)];
    let mut connections = vec![Connection::default(); MAX_CONNECTIONS];
    let mut buffer = vec![0; READ];
    loop {
        // SAFETY: the array is valid for its length.
        unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
        let accepting = entries[0].revents != 0;
        // From the end, so that a removal moves only an entry that has been seen.
        for at in (1..entries.len()).rev() {
            let libc::pollfd { fd, revents, .. } = entries[at];
            if revents == 0 {
                continue;
            }
            let connection = &mut connections[fd as usize];
            let mut next = Next::Wait;
            if revents & libc::POLLOUT != 0 {
                next = flush(fd, connection, answers);
            }
            if next == Next::Wait && revents & !libc::POLLOUT != 0 {
                next = serve(fd, connection, answers, &mut buffer, false);
            }
            if next == Next::Close {
                close(fd);
                entries.swap_remove(at);
                continue;
            }
            let writable = if connection.owed > 0 { libc::POLLOUT } else { 0 };
            entries[at].events = libc::POLLIN | writable;
        }
        while accepting && let Some(fd) = accept(listener) {
            let connection = &mut connections[fd as usize];
            *connection = Connection::default();
            if serve(fd, connection, answers, &mut buffer, false) == Next::Close {
                close(fd);
            } else {
                let mut entry = entry(fd);
                if connection.owed > 0 {
                    entry.events |= libc::POLLOUT;
                }
                entries.push(entry);
            }
        }
    }
}

// io_uring: direct descriptors, one enter a turn. A connection's first read is a single one, so that a connection for one
// request is closed by a link behind its send; the reads after it are one multishot operation.

fn uring(listener: RawFd, answers: &Answers) -> Result<()> {
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_cqsize(CQ_ENTRIES)
        .build(SQ_ENTRIES)?;
    ring.submitter().register_files_sparse(MAX_CONNECTIONS as u32)?;
    let buffers = BufferRing::register(&ring)?;
    let accept = opcode::AcceptMulti::new(Fd(listener)).allocate_file_index(true);
    let mut turn = Turn {
        ring,
        buffers,
        connections: vec![Connection::default(); MAX_CONNECTIONS],
        answers,
        accept: accept.build().user_data(tag(ACCEPT, 0)),
    };
    let first = turn.accept.clone();
    turn.push(&[first])?;
    loop {
        turn.ring.submit_and_wait(1)?;
        while turn.reap()? {}
    }
}

/// What the handling of a completion needs.
struct Turn<'a> {
    ring: IoUring,
    buffers: BufferRing,
    connections: Vec<Connection>,
    answers: &'a Answers,
    accept: Entry,
}

impl Turn<'_> {
    /// Handles some completions, and says whether there may be more. They are copied out first, because handling them
    /// needs the ring itself.
    fn reap(&mut self) -> Result<bool> {
        let mut batch = [(0, 0, 0); 64];
        let mut count = 0;
        for (slot, completion) in batch.iter_mut().zip(&mut self.ring.completion()) {
            *slot = (completion.user_data(), completion.result(), completion.flags());
            count += 1;
        }
        for &(tag, result, flags) in &batch[..count] {
            match tag >> 32 {
                ACCEPT => self.accepted(result, flags)?,
                READ_DONE => self.read_done(tag as u32, result, flags)?,
                SEND_DONE => self.send_done(tag as u32, result)?,
                _ => {}
            }
        }
        Ok(count == batch.len())
    }

    fn accepted(&mut self, result: i32, flags: u32) -> Result<()> {
        if result >= 0 {
            self.connections[result as usize] = Connection { reading: true, ..Connection::default() };
            let read = opcode::Recv::new(Fixed(result as u32), ptr::null_mut(), 0).buf_group(GROUP);
            let read = read.build().flags(Flags::BUFFER_SELECT);
            self.push(&[read.user_data(tag(READ_DONE, result as u32))])?;
        }
        if cqueue::more(flags) {
            return Ok(());
        }
        let again = self.accept.clone();
        self.push(&[again])
    }

    fn read_done(&mut self, index: u32, result: i32, flags: u32) -> Result<()> {
        let connection = &mut self.connections[index as usize];
        if let Some(id) = cqueue::buffer_select(flags) {
            connection.take(self.buffers.bytes(id, result), self.answers);
            self.buffers.give_back(id);
        }
        connection.reading = cqueue::more(flags);
        // Out of buffers is not the end of a connection: ask again.
        let ended = result == 0 || (result < 0 && result != -libc::ENOBUFS);
        self.advance(index, ended)
    }

    fn send_done(&mut self, index: u32, result: i32) -> Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.sending = false;
        connection.owed = connection.owed.saturating_sub(result.max(0) as usize);
        self.advance(index, result <= 0)
    }

    /// Queues a connection's next operations.
    fn advance(&mut self, index: u32, ended: bool) -> Result<()> {
        let connection = &mut self.connections[index as usize];
        if ended {
            connection.closing = true;
            connection.owed = 0;
        }
        if connection.owed > 0 && !connection.sending {
            self.send(index)
        } else if connection.closing {
            self.close(index)
        } else {
            self.read_on(index)
        }
    }

    fn send(&mut self, index: u32) -> Result<()> {
        let connection = &mut self.connections[index as usize];
        connection.sending = true;
        let bytes = self.answers.of(connection).next(connection.owed);
        // The kernel goes on after a short send by itself.
        let send = opcode::Send::new(Fixed(index), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        let closing = connection.closing;
        if closing && !connection.reading && bytes.len() == connection.owed {
            // The link closes the descriptor whatever becomes of the send, and nobody has to be told.
            let send = send.flags(Flags::IO_HARDLINK | Flags::SKIP_SUCCESS);
            let close = opcode::Close::new(Fixed(index)).build();
            let close = close.flags(Flags::SKIP_SUCCESS);
            return self.push(&[send.user_data(tag(CLOSED, index)), close.user_data(tag(CLOSED, index))]);
        }
        self.push(&[send.user_data(tag(SEND_DONE, index))])?;
        if closing { Ok(()) } else { self.read_on(index) }
    }

    /// A connection closes only when nothing of it is in flight any more.
    fn close(&mut self, index: u32) -> Result<()> {
        let connection = &self.connections[index as usize];
        let entry = match (connection.reading, connection.sending) {
            (false, false) => opcode::Close::new(Fixed(index)).build(),
            // Ends the multishot read, whose last completion closes.
            (true, false) => opcode::Shutdown::new(Fixed(index), libc::SHUT_RDWR).build(),
            (_, true) => return Ok(()),
        };
        self.push(&[entry.user_data(tag(CLOSED, index))])
    }

    fn read_on(&mut self, index: u32) -> Result<()> {
        let connection = &mut self.connections[index as usize];
        if connection.reading {
            return Ok(());
        }
        connection.reading = true;
        let read = opcode::RecvMulti::new(Fixed(index), GROUP).build();
        self.push(&[read.user_data(tag(READ_DONE, index))])
    }

    fn push(&mut self, entries: &[Entry]) -> Result<()> {
        let queue = self.ring.submission();
        let room = queue.capacity() - queue.len();
        drop(queue);
        if room < entries.len() {
            self.ring.submit()?;
        }
        // SAFETY: sends point into `answers`, which lives as long as the program; reads go to the registered buffers; no
        // other operation points anywhere.
        unsafe { self.ring.submission().push_multiple(entries) }.map_err(Error::other)
    }
}

fn tag(kind: u64, index: u32) -> u64 {
    kind << 32 | u64::from(index)
}

/// Buffers that the kernel picks from by itself: a shared array of descriptions, whose tail only we move.
struct BufferRing {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl BufferRing {
    fn register(ring: &IoUring) -> Result<Self> {
        let entries = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(BUFFERS) * READ)?;
        // SAFETY: the mapping is page aligned, large enough for BUFFERS entries, and never unmapped.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFERS, GROUP, 0)? };
        let mut buffers = Self { entries, memory, tail: 0 };
        for id in 0..BUFFERS {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    fn bytes(&self, id: u16, length: i32) -> &[u8] {
        debug_assert!(id < BUFFERS && length as usize <= READ);
        // SAFETY: buffer `id` is ours from its completion until `give_back`, and the kernel wrote `length` <= READ bytes.
        unsafe { std::slice::from_raw_parts(self.memory.add(usize::from(id) * READ), length.max(0) as usize) }
    }

    fn give_back(&mut self, id: u16) {
        // SAFETY: the masked index lies inside the mapping, and the kernel reads the entry only once the tail has passed it.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(self.tail & (BUFFERS - 1)));
            entry.set_addr(self.memory.add(usize::from(id) * READ) as u64);
            entry.set_len(READ as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies inside the first entry of the mapping, aligned to two bytes; the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

fn map(length: usize) -> Result<*mut u8> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh anonymous mapping touches no memory of ours.
    let memory = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    Ok(memory.cast())
}

// The sockets.

/// Accepted sockets inherit TCP_NODELAY from the listener.
fn listen(options: &Options) -> Result<RawFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain system call.
    let fd = check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    if !options.nagle {
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY)?;
    }
    // SAFETY: sockaddr_in is plain data, all zeroes are valid.
    let mut name: libc::sockaddr_in = unsafe { zeroed() };
    name.sin_family = libc::AF_INET as libc::sa_family_t;
    name.sin_port = options.port.to_be();
    name.sin_addr.s_addr = u32::from(options.address).to_be();
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: `name` is valid for `length` bytes.
    check(unsafe { libc::bind(fd, ptr::from_ref(&name).cast(), length) })?;
    // SAFETY: plain system call.
    check(unsafe { libc::listen(fd, 4096) })?;
    Ok(fd)
}

fn set_option(fd: RawFd, level: i32, name: i32) -> Result<()> {
    let one: i32 = 1;
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the value is valid for `length` bytes.
    check(unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(&one).cast(), length) })?;
    Ok(())
}

fn accept(listener: RawFd) -> Option<RawFd> {
    // SAFETY: no address is asked for, so both pointers may be null.
    let fd = unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), libc::SOCK_NONBLOCK) };
    if fd >= MAX_CONNECTIONS as RawFd {
        close(fd);
        return None;
    }
    (fd >= 0).then_some(fd)
}

fn close(fd: RawFd) {
    // SAFETY: the descriptor is a connection of ours and is not used afterwards.
    unsafe { libc::close(fd) };
}

fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for both calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

fn check(result: i32) -> Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

fn would_block() -> bool {
    let kind = Error::last_os_error().kind();
    kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::Interrupted
}

/// Bytes of answers kept end to end: a pipelined read's answers leave in one send.
const BATCH: usize = 256 * 1024;
/// As the tail's script has it.
const POPULAR: usize = 2000;
const READ: usize = 4096;
const EVENTS: usize = 256;
/// Below the usual hard limit of descriptors.
const MAX_CONNECTIONS: usize = 19_000;
const SQ_ENTRIES: u32 = 1024;
const CQ_ENTRIES: u32 = 4096;
/// A power of two, as the kernel wants it.
const BUFFERS: u16 = 1024;
const GROUP: u16 = 0;

const ACCEPT: u64 = 1;
const READ_DONE: u64 = 2;
const SEND_DONE: u64 = 3;
const CLOSED: u64 = 4;
const _: () = assert!(BUFFERS.is_power_of_two() && MAX_CONNECTIONS < u32::MAX as usize);

//! What must not grow, leak or be lost: memory, descriptors and connections under random bytes, a million requests and rude
//! clients; downloads when the server is told to end.
//!
//! `AMPED_ENDURANCE_SECONDS` makes the random bytes last longer than the usual half minute.

mod harness;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness::{
    Client, Driver, Folder, Server, get, on_every_driver, on_every_loop, on_every_thread, pattern, wait_until,
};
use rustix::process::Signal;

on_every_driver!(
    a_signal_lets_downloads_finish,
    a_signal_lets_answers_from_memory_leave,
    a_drain_answers_all_that_has_come,
    a_second_signal_ends_at_once,
    the_drain_has_a_limit,
    idle_connections_end_in_time,
);
on_every_thread!(
    random_bytes_leave_nothing_behind,
    many_requests_leave_memory_flat,
    too_many_connections_are_turned_away,
);
on_every_loop!(connections_dropped_in_every_state_are_forgotten, a_shortage_of_descriptors_passes);

/// A small generator of random numbers (xorshift64*): a failure is found again by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most) + 1).map(|_| self.next() as u8).collect()
    }
}

/// Pieces of HTTP, so that the bytes come farther than the first one.
const PIECES: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "GET /page.html HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /large.bin HTTP/1.1\r\nHost: a\r\n",
    "HEAD / HTTP/1.0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n\r\n",
    "Range: bytes=0-5,10-20,-1\r\n",
    "Expect: 100-continue\r\n",
    "Host: a\r\n",
    "If-None-Match: *\r\n",
    "Connection: close\r\n",
    "\r\n",
    "5\r\nabcde\r\n0\r\n\r\n",
    "%2e%2e/%00",
    ": ",
];

/// What a server has before and must have after: descriptors, and memory but for some slack.
struct Footprint {
    descriptors: usize,
    memory: u64,
}

impl Footprint {
    fn of(server: &Server) -> Self {
        wait_until("all connections are gone", || server.number("/connections") == 0);
        Self { descriptors: server.descriptors(), memory: server.memory() }
    }

    fn expect_same(&self, server: &Server, slack: u64) {
        // A file more or less may be open in the cache. A connection that has not said anything is not counted among the
        // connections, and is known to be gone a moment later.
        wait_until("the descriptors are what they were", || server.descriptors() <= self.descriptors + 2);
        let now = Self::of(server);
        let grown = now.memory.saturating_sub(self.memory);
        assert!(grown <= slack, "memory: {} KB more than {} KB", grown / 1024, self.memory / 1024);
    }
}

fn random_bytes_leave_nothing_behind(driver: Driver) {
    let seconds = std::env::var("AMPED_ENDURANCE_SECONDS").map_or(30, |text| text.parse().expect("seconds"));
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    // The same for a while, so that caches and pools are as full as they get.
    pester(server.address(), Duration::from_secs(4), 1);
    let before = Footprint::of(&server);
    pester(server.address(), Duration::from_secs(seconds), 2);
    before.expect_same(&server, 12 << 20);
    assert_eq!(server.get("/").text(), "hi\n");
}

/// Fifty connections that send bytes which mean little, read what comes, and end as they like.
fn pester(address: SocketAddr, time: Duration, seed: u64) {
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        for number in 0..10 {
            scope.spawn(move || {
                let mut random = Random(seed << 32 | (number + 1));
                let mut streams: Vec<Option<TcpStream>> = (0..5).map(|_| None).collect();
                while Instant::now() < end {
                    let place = random.below(streams.len());
                    let stream = streams[place].get_or_insert_with(|| connect(address));
                    if !pester_once(stream, &mut random) {
                        streams[place] = None;
                    }
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
        }
    });
}

/// A refusal is asked again, twice: once in some hundred thousand connections, Linux refuses what it should not. A close with
/// SO_LINGER 0 frees the port before it sends the reset. When another processor takes the same port for the same server in these
/// 20 us, its SYN meets the request that waits for its first bytes (TCP_DEFER_ACCEPT), which is answered by a reset (seen by the
/// trace points inet_sock_set_state and tcp_send_reset: state LISTEN, reason INVALID_SYN). Only a client that resets what it has
/// never used, on this machine, comes to that.
fn connect(address: SocketAddr) -> TcpStream {
    let refused = |result: &std::io::Result<_>| {
        result.as_ref().is_err_and(|error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    };
    let mut result = TcpStream::connect(address);
    for _ in 0..2 {
        if refused(&result) {
            result = TcpStream::connect(address);
        }
    }
    let stream = result.expect("the server accepts");
    stream.set_nonblocking(true).expect("a socket");
    stream
}

/// One thing or another with a connection; says whether it goes on.
fn pester_once(stream: &mut TcpStream, random: &mut Random) -> bool {
    let sent = match random.below(20) {
        0 => return false,
        1 => return stream.shutdown(std::net::Shutdown::Write).is_ok(),
        2 => {
            let _ = rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO));
            return false;
        }
        3..6 => stream.write(&random.bytes(2000)),
        6 => stream.write(&vec![b'a'; 20_000]),
        _ => {
            let pieces: String = (0..random.below(6) + 1).map(|_| PIECES[random.below(PIECES.len())]).collect();
            stream.write(pieces.as_bytes())
        }
    };
    let mut buffer = [0; 16 * 1024];
    let goes_on = |result: &std::io::Result<usize>| match result {
        Ok(bytes) => *bytes > 0,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    };
    goes_on(&sent) && (random.below(3) > 0 || goes_on(&stream.read(&mut buffer)))
}

fn many_requests_leave_memory_flat(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let mut client = server.connect();
    // A file just written has a weak tag at first, and a strong one as soon as its time says which version it is: the answer
    // becomes two bytes shorter then.
    wait_until("the tag is a strong one", || {
        !client.get("/page.html").field("etag").is_some_and(|tag| tag.starts_with("W/"))
    });
    let length = {
        client.send(get("/page.html"));
        client.read_once(1 << 16).expect("an answer").len()
    };
    // Over three drivers a million.
    let mut hits = |batches: usize| {
        let batch = get("/page.html").repeat(BATCH);
        for _ in 0..batches {
            client.send(&batch);
            let mut left = length * BATCH;
            while left > 0 {
                let bytes = client.read_once(1 << 18).expect("answers");
                assert!(!bytes.is_empty() && bytes.len() <= left, "an answer of another length");
                left -= bytes.len();
            }
        }
    };
    hits(300);
    mixture(&server, 3_000);
    let before = Footprint { descriptors: server.descriptors(), memory: server.memory() };
    hits(334_000 / BATCH);
    mixture(&server, 20_000);
    let (descriptors, memory) = (server.descriptors(), server.memory());
    assert!(descriptors <= before.descriptors + 2, "descriptors: {} -> {descriptors}", before.descriptors);
    let grown = memory.saturating_sub(before.memory);
    assert!(grown <= 4 << 20, "memory: {} KB more than {} KB", grown / 1024, before.memory / 1024);
    assert!(server.number("/counters/requests") >= 350_000);
}

/// Requests that take longer ways: misses, ranges, conditions, bodies, connections of their own.
fn mixture(server: &Server, count: usize) {
    let mut client = server.connect();
    for at in 0..count {
        let (request, status) = match at % 6 {
            0 => (get(&format!("/missing/{}", at % 1000)), 404),
            1 => ("GET /page.html HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,4-5\r\n\r\n".to_owned(), 206),
            2 => ("GET /page.html HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n".to_owned(), 304),
            3 => ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 405),
            4 => ("GET /large.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=-1000\r\n\r\n".to_owned(), 206),
            _ => ("GET /page.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(), 200),
        };
        assert_eq!(client.ask(request).status(), status);
        if at % 6 == 5 {
            client = server.connect();
        }
    }
}

fn connections_dropped_in_every_state_are_forgotten(driver: Driver) {
    let folder = Folder::usual();
    folder.put("huge.bin", pattern(1, 16 << 20));
    let server = Server::serve(driver, folder.path());
    let states: &[&dyn Fn(&mut Client)] = &[
        &|_| {},
        &|client| client.send("GET / HT"),
        &|client| client.send("GET / HTTP/1.1\r\nHost: a\r\nX: "),
        &|client| client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc"),
        &|client| client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        &|client| client.send(get("/huge.bin")),
        &|client| {
            client.get("/");
            client.send(get("/huge.bin").repeat(3));
        },
        &|client| client.send(get("/page.html").repeat(100)),
        &|client| client.send(get("/large.bin").repeat(100) + "GET /"),
        &|client| client.send("GET / HTTP/1.1\r\nHost : a\r\n\r\nand more"),
        &|client| client.send("GET /huge.bin HTTP/1.0\r\n\r\nand more"),
        &|client| {
            client.send(get("/huge.bin"));
            client.finish_sending();
        },
        &|client| {
            client.get("/page.html");
        },
    ];
    let mut dropped = 0;
    let mut round = |count: usize| {
        for batch in 0..count / 200 {
            let mut clients: Vec<Client> = (0..200).map(|_| server.connect_slowly()).collect();
            for (at, client) in clients.iter_mut().enumerate() {
                states[(at + batch) % states.len()](client);
            }
            dropped += clients.len();
            for (at, client) in clients.into_iter().enumerate() {
                if (at + batch) % 3 == 0 { client.reset() } else { drop(client) }
            }
        }
    };
    round(400);
    let before = Footprint::of(&server);
    round(2000);
    before.expect_same(&server, 12 << 20);
    assert_eq!(server.number("/connections"), 0);
    assert!(dropped >= 2000 && server.get("/").text() == "hi\n");
}

/// Clients that have begun to read a file of `length` bytes.
fn downloads(server: &Server, count: usize) -> Vec<Client> {
    (0..count)
        .map(|_| {
            let mut client = server.connect_slowly();
            client.send(get("/huge.bin"));
            client.try_head().expect("a head");
            client
        })
        .collect()
}

fn a_signal_lets_downloads_finish(driver: Driver) {
    let huge = pattern(1, 6 << 20);
    let folder = Folder::usual();
    folder.put("huge.bin", &huge);
    let mut server = Server::serve(driver, folder.path());
    let mut idle: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|client| drop(client.get("/")));
    let mut clients = downloads(&server, 12);
    let mut mid_head = server.connect();
    mid_head.send("GET /page.html HTTP/1.1\r\nHo");
    let mut pipelined = server.connect_slowly();
    pipelined.send(get("/huge.bin") + &get("/page.html"));
    pipelined.try_head().expect("a head");
    server.signal(Signal::TERM);
    idle.iter_mut().for_each(|client| client.expect_end("an idle connection"));
    assert!(Client::connect(server.address(), None).is_err(), "somebody listens still");
    assert!(server.is_running(), "downloads are under way");
    // A request that had begun is answered, and told that it is the last.
    mid_head.send("st: a\r\n\r\n");
    let answer = mid_head.answer();
    assert_eq!(answer.text(), "a page\n");
    // Threads and processes are told one after the other, so the answer may come first; then the connection is an idle one.
    assert!(answer.field("connection") == Some("close") || driver.architecture().is_some(), "{answer:?}");
    mid_head.expect_end("after the last answer");
    for client in clients.iter_mut().chain([&mut pipelined]) {
        let mut body = client.unread();
        while body.len() < huge.len() {
            let bytes = client.read_once(1 << 20).expect("the download goes on");
            assert!(!bytes.is_empty(), "a download was cut off after {} bytes", body.len());
            body.extend(bytes);
        }
        assert!(body[..huge.len()] == huge);
    }
    drop(clients);
    drop(pipelined);
    assert_eq!(server.wait(), Some(0), "{}", server.said());
    wait_until("it says what it served", || server.said().contains("served "));
}

/// To io_uring they are handed over whole, and its connection waits for the next request meanwhile: it is not an idle one.
fn a_signal_lets_answers_from_memory_leave(driver: Driver) {
    let kept = pattern(3, 48 << 10);
    let folder = Folder::usual();
    folder.put("kept.bin", &kept);
    let mut server = Server::serve(driver, folder.path());
    server.get("/kept.bin");
    let mut slow = server.connect_slowly();
    slow.send(get("/kept.bin").repeat(16));
    std::thread::sleep(Duration::from_millis(200));
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    for number in 0..16 {
        assert!(slow.answer().body == kept, "answer {number}");
    }
    drop(slow);
    assert_eq!(server.wait(), Some(0), "{}", server.said());
}

fn a_drain_answers_all_that_has_come(driver: Driver) {
    let folder = Folder::usual();
    // One loop is told at one moment; a thread each is told one after the other.
    let workers: &[&str] = if driver.architecture().is_some() { &[] } else { &["--workers", "1"] };
    let mut server = Server::serve_with(driver, folder.path(), workers);
    let (mut idle, mut client) = (server.connect(), server.connect());
    idle.get("/");
    client.send("GET /page.html HTTP/1.1\r\nHo");
    std::thread::sleep(Duration::from_millis(100));
    server.signal(Signal::TERM);
    idle.expect_end("an idle connection");
    client.send("st: a\r\n\r\n".to_owned() + &get("/page.html").repeat(3));
    let answers: Vec<_> = (0..4).map(|_| client.answer()).collect();
    assert!(answers.iter().all(|answer| answer.text() == "a page\n"));
    let last = answers.iter().position(|answer| answer.field("connection") == Some("close"));
    assert!(last == Some(3) || driver.architecture().is_some(), "{answers:?}");
    client.expect_end("after the last answer");
    assert_eq!(server.wait(), Some(0), "{}", server.said());
}

fn a_second_signal_ends_at_once(driver: Driver) {
    let folder = Folder::usual();
    folder.put("huge.bin", pattern(1, 16 << 20));
    let mut server = Server::serve(driver, folder.path());
    let clients = downloads(&server, 3);
    server.signal(Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.is_running(), "it did not wait for its downloads");
    let start = Instant::now();
    server.signal(Signal::INT);
    assert_eq!(server.wait(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?} after the second signal", start.elapsed());
    drop(clients);
}

fn the_drain_has_a_limit(driver: Driver) {
    let folder = Folder::usual();
    folder.put("huge.bin", pattern(1, 16 << 20));
    let root = folder.path().display();
    let mut server = Server::run(driver, &format!("[limits]\ndrain_timeout = \"600ms\"\n[[sites]]\nroot = \"{root}\""));
    let clients = downloads(&server, 3);
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let took = start.elapsed();
    assert!((Duration::from_millis(550)..Duration::from_secs(5)).contains(&took), "{took:?}");
    drop(clients);
}

fn idle_connections_end_in_time(driver: Driver) {
    let folder = Folder::usual();
    let root = folder.path().display();
    let server = Server::run(driver, &format!("[limits]\nidle_timeout = \"1s\"\n[[sites]]\nroot = \"{root}\""));
    let mut busy = server.connect();
    let earliest = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        for at in 0..15 {
            let mut client = server.connect();
            if at % 3 > 0 {
                assert_eq!(client.get(if at % 3 == 1 { "/" } else { "/large.bin" }).status(), 200);
            }
            let (since, earliest) = (Instant::now(), &earliest);
            scope.spawn(move || {
                client.expect_end("an idle connection");
                let took = since.elapsed();
                assert!(took < Duration::from_secs(5), "it idled for {took:?}");
                earliest.fetch_min(took.as_millis() as u64, Relaxed);
            });
            std::thread::sleep(Duration::from_millis(30));
        }
        for _ in 0..25 {
            assert_eq!(busy.get("/").status(), 200, "one that asks now and then stays");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert!(earliest.load(Relaxed) >= 900, "one ended after {} ms already", earliest.load(Relaxed));
    wait_until("15 were counted", || server.number("/counters/timeouts") >= 15);
}

fn too_many_connections_are_turned_away(driver: Driver) {
    let folder = Folder::usual();
    let root = folder.path().display();
    let server = Server::run(driver, &format!("[limits]\nmax_connections = 20\n[[sites]]\nroot = \"{root}\""));
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    // One that comes in when it is nearly full may be told that its answer is its last.
    clients.retain_mut(|client| client.get("/").field("connection").is_none());
    assert!(clients.len() >= 10, "only {} may stay", clients.len());
    clients.extend((clients.len()..20).map(|_| server.connect()));
    wait_until("it is full", || server.number("/connections") == 20);
    for _ in 0..5 {
        let mut more = server.connect();
        let _ = more.try_send(get("/"));
        assert!(more.try_answer(false).is_err(), "the 21st was served");
    }
    assert_eq!(server.number("/counters/turned_away"), 5);
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200, "those inside are served"));
    clients.truncate(10);
    wait_until("there is room", || server.number("/connections") <= 10);
    assert_eq!(server.get("/").status(), 200);
}

fn a_shortage_of_descriptors_passes(driver: Driver) {
    let folder = Folder::usual();
    folder.put("big.bin", pattern(1, 100_000));
    let toml = format!("workers = 1\n[[sites]]\nroot = \"{}\"", folder.path().display());
    let server = Server::run_as(driver, &toml, |command| {
        let binary = command.get_program().to_owned();
        *command = Command::new("prlimit");
        command.arg("--nofile=100:100").arg(binary);
    });
    assert_eq!(server.get("/").status(), 200);
    // Whoever speaks has a seat at once; the silent are seated a second later, as far as there are seats.
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    clients.extend((2..150).map(|_| server.connect()));
    wait_until("descriptors are short", || server.number("/counters/accept_shortages") > 0);
    // Those who have a seat are served from memory.
    assert_eq!(clients[0].get("/").status(), 200);
    let answer = clients[1].get("/big.bin");
    assert!(matches!(answer.status(), 200 | 503), "{}", answer.status_line);
    // Whoever waited for a seat has one when others leave.
    let mut waiting = clients.split_off(100);
    drop(clients);
    waiting.iter_mut().for_each(|client| assert_eq!(client.get("/page.html").text(), "a page\n"));
    drop(waiting);
    assert_eq!(server.get("/big.bin").body.len(), 100_000, "the shortage has passed");
}

const BATCH: usize = 100;

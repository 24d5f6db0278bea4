//! HTTP/1.1 on raw sockets: what is answered to good, odd and hostile bytes, in which order, and what becomes of the
//! connection.

mod harness;

use std::time::{Duration, Instant};

use harness::{Client, Driver, Folder, Server, get, on_every_driver, pattern};

on_every_driver!(
    heads_earn_their_status,
    lengths_of_lines_and_heads,
    versions_keep_alive_by_their_own_rules,
    bodies_are_discarded_and_the_next_request_answered,
    broken_and_oversized_bodies_end_the_connection,
    late_heads_are_told_and_idle_connections_closed,
    a_client_that_does_not_read_is_given_up,
    the_error_is_read_before_the_reset,
    a_half_closed_client_gets_its_whole_answer,
    every_split_of_fifty_requests_is_answered_alike,
    more_requests_than_may_be_pipelined,
    a_mixture_is_answered_in_order,
    answers_leave_together,
    nothing_follows_the_last_answer,
    a_dribbled_request_is_a_request,
);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Open,
    Closed,
}
use Fate::{Closed, Open};

const OK: &str = "200 OK";
const BAD: &str = "400 Bad Request";

/// Requests, the status line they earn, and what becomes of the connection. RFC 9112 unless said otherwise.
const HEADS: &[(&str, &str, Fate)] = &[
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", OK, Open),
    // Section 2.2: empty lines before a request, but no bare CR or LF anywhere.
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", OK, Open),
    ("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", OK, Open),
    ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\nHost: a\n\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\n\n", BAD, Closed),
    ("GET / HTTP/1.1\rHost: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n", BAD, Closed),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\x70\x03\x03 a TLS hello", BAD, Closed),
    // Section 3: the request line.
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET /\r\n\r\n", BAD, Closed),
    ("GET\r\n\r\n", BAD, Closed),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET /\x07 HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET index.html HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505 HTTP Version Not Supported", Closed),
    ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", "505 HTTP Version Not Supported", Closed),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505 HTTP Version Not Supported", Closed),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / FTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", OK, Open),
    // Section 3.2: the target's forms, and the Host field.
    ("GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", OK, Open),
    ("GET http://a HTTP/1.1\r\nHost: b\r\n\r\n", OK, Open),
    ("GET http://a:80/page.html?x HTTP/1.1\r\nHost: a\r\n\r\n", OK, Open),
    ("GET http:///page.html HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "204 No Content", Open),
    ("OPTIONS /page.html HTTP/1.1\r\nHost: a\r\n\r\n", "204 No Content", Open),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", "501 Not Implemented", Closed),
    ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\n\r\n", BAD, Closed),
    ("GET http://a/ HTTP/1.1\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", OK, Open),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", OK, Open),
    // RFC 9110 section 9: methods.
    ("BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "501 Not Implemented", Open),
    ("get / HTTP/1.1\r\nHost: a\r\n\r\n", "501 Not Implemented", Open),
    ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFGHI / HTTP/1.1\r\nHost: a\r\n\r\n", "501 Not Implemented", Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", "405 Method Not Allowed", Open),
    ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", "405 Method Not Allowed", Open),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405 Method Not Allowed", Open),
    // Section 5: field lines.
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\n\u{e4}: b\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", BAD, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nX:\u{e4}\t b \r\nY:\r\n\r\n", OK, Open),
    ("GET / HTTP/1.1\r\nHost:a\r\nX: \"a:b, c\"\r\n\r\n", OK, Open),
    // Section 6: one framing, or none.
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", OK, Open),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BAD, Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501 Not Implemented", Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", "501 Not Implemented", Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501 Not Implemented", Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "501 Not Implemented", Closed),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BAD, Closed),
    // RFC 9110 section 10.1.1: who waits for 100 has the final answer instead.
    (
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
        "405 Method Not Allowed",
        Closed,
    ),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n", OK, Closed),
    ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n", OK, Open),
    ("GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n", "417 Expectation Failed", Closed),
    // What the path says is the request's trouble, not the connection's.
    ("GET /missing HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found", Open),
    ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Open),
    ("GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", BAD, Open),
    // An upgrade that is not offered is not made (RFC 9110 section 7.8).
    ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", OK, Open),
];

fn heads_earn_their_status(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for (request, status, fate) in HEADS {
        let mut client = server.connect();
        let answer = client.ask(request);
        assert_eq!(answer.status_line, format!("HTTP/1.1 {status}"), "{request:?}: {}", answer.text());
        check_fate(&mut client, &answer, *fate, request);
    }
}

fn check_fate(client: &mut Client, answer: &harness::Answer, fate: Fate, context: &str) {
    let announced = answer.field("connection") == Some("close");
    assert_eq!(announced, fate == Closed, "{context:?} announces otherwise: {answer:?}");
    match fate {
        Open => client.expect_open(context),
        Closed => client.expect_end(context),
    }
}

fn lengths_of_lines_and_heads(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let line = |length: usize| get(&format!("/?{}", "q".repeat(length - "GET /? HTTP/1.1".len())));
    let head = |length: usize| {
        let start = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
        format!("{start}{}\r\n\r\n", "x".repeat(length - start.len() - 4))
    };
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    let (too_long, too_large) = ("414 URI Too Long", "431 Request Header Fields Too Large");
    let long_name = format!("GET / HTTP/1.1\r\nHost: a\r\n{}: x\r\n\r\n", "n".repeat(4000));
    for (name, request, status, fate) in [
        ("a line of 8192 bytes", line(8192), OK, Open),
        ("a line of 8193 bytes", line(8193), too_long, Closed),
        ("a line without an end", "GET /".to_owned() + &"a".repeat(40_000), too_long, Closed),
        ("a head of 16384 bytes", head(16384), OK, Open),
        ("a head of 16385 bytes", head(16385), too_large, Closed),
        (
            "a head without an end",
            "GET / HTTP/1.1\r\nHost: a\r\n".to_owned() + &"X: y\r\n".repeat(5000),
            too_large,
            Closed,
        ),
        ("100 fields", fields(100), OK, Open),
        ("101 fields", fields(101), too_large, Closed),
        ("a long name", long_name, OK, Open),
    ] {
        let mut client = server.connect();
        let answer = client.ask(request);
        assert_eq!(answer.status_line, format!("HTTP/1.1 {status}"), "{name}");
        check_fate(&mut client, &answer, fate, name);
    }
}

fn versions_keep_alive_by_their_own_rules(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for (version, lines, connection, fate) in [
        ("1.1", "", None, Open),
        ("1.1", "Connection: keep-alive\r\n", None, Open),
        ("1.1", "Connection: close\r\n", Some("close"), Closed),
        ("1.1", "Connection: x, CLOSE ,y\r\n", Some("close"), Closed),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", Some("close"), Closed),
        ("1.0", "", Some("close"), Closed),
        ("1.0", "Connection: Keep-Alive\r\n", Some("keep-alive"), Open),
        ("1.0", "Connection: keep-alive, close\r\n", Some("close"), Closed),
    ] {
        for (method, path, status) in
            [("GET", "/", 200), ("GET", "/large.bin", 200), ("HEAD", "/large.bin", 200), ("GET", "/missing", 404)]
        {
            let context = format!("{method} {path} HTTP/{version} {lines:?}");
            let mut client = server.connect();
            let answer = client.ask(format!("{method} {path} HTTP/{version}\r\nHost: a\r\n{lines}\r\n"));
            assert_eq!((answer.status(), answer.field("connection")), (status, connection), "{context}");
            match fate {
                Open => client.expect_open(&context),
                Closed => client.expect_end(&context),
            }
        }
    }
    let answer = server.connect().ask("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(answer.status(), 200, "HTTP/1.0 needs no Host");
}

/// Bodies that end where they say, and the requests around them.
const BODIES: &[&str] = &[
    "Content-Length: 5\r\n\r\nGET /",
    "Content-Length: 000\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\n\r\n5\r\nGET /\r\n0\r\n\r\n",
    "Transfer-Encoding: CHUNKED\r\n\r\nA;x=\"y\";z\r\n0123456789\r\n1 ;a\r\nb\r\n000\r\nExpires: never\r\nX: y\r\n\r\n",
];

fn bodies_are_discarded_and_the_next_request_answered(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let long = format!("Content-Length: 1048576\r\n\r\n{}", "b".repeat(1 << 20));
    let chunks =
        format!("Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", "1000\r\n".to_owned() + &"c".repeat(4096) + "\r\n");
    for body in BODIES.iter().copied().chain([long.as_str(), &chunks]) {
        for (method, status) in [("POST", 405), ("GET", 200), ("OPTIONS", 204)] {
            let mut client = server.connect();
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{body}{}", get("/page.html")));
            let context = format!("{method} with {:?}", &body[..body.len().min(60)]);
            assert_eq!(client.answer().status(), status, "{context}");
            assert_eq!(client.answer().text(), "a page\n", "{context}");
            client.expect_open(&context);
        }
    }
}

fn broken_and_oversized_bodies_end_the_connection(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for (body, status) in [
        ("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n-1\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n5\nabcde\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nabcdef\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\n0\r\n\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n", 405),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\nX: a\r\n b\r\n\r\n", 405),
        ("Content-Length: 1048577\r\n\r\n", 413),
        ("Content-Length: 18446744073709551615\r\n\r\n", 413),
        ("Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n", 413),
    ] {
        let mut client = server.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"));
        assert_eq!(client.answer().status(), status, "{body:?}");
        client.expect_end(body);
    }
    // What nobody can tell the end of is not read for ever.
    let mut client = server.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.answer().status(), 405);
    let chunk = format!("1000\r\n{}\r\n", "c".repeat(4096));
    let sent = (0..20_000).take_while(|_| client.try_send(&chunk).is_ok()).count();
    assert!(sent < 20_000, "80 MB of an unwanted body were read");
}

fn late_heads_are_told_and_idle_connections_closed(driver: Driver) {
    let folder = Folder::usual();
    let root = folder.path().display();
    let limits = "[limits]\nhead_timeout = \"400ms\"\nidle_timeout = \"700ms\"";
    let server = Server::run(driver, &format!("{limits}\n[[sites]]\nroot = \"{root}\""));
    let mut late = server.connect();
    let mut dribbling = server.connect();
    let mut silent = server.connect();
    let mut idle = server.connect();
    idle.get("/");
    let start = Instant::now();
    late.send("GET / HTTP/1.1\r\nHost: a");
    let answer = late.answer();
    assert_eq!(answer.status_line, "HTTP/1.1 408 Request Timeout");
    assert_eq!(answer.field("connection"), Some("close"));
    assert!(start.elapsed() >= Duration::from_millis(390), "too early: {:?}", start.elapsed());
    late.expect_end("a head that never came");
    // One more byte is no more time.
    let request = get("/");
    for byte in request.as_bytes().chunks(1) {
        if dribbling.try_send(byte).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(dribbling.answer().status(), 408);
    silent.expect_end("a connection that never asked");
    idle.expect_end("a connection that asked once");
    // A request in time after a pause is served.
    let mut client = server.connect();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(client.get("/").status(), 200);
    }
}

fn a_client_that_does_not_read_is_given_up(driver: Driver) {
    let folder = Folder::usual();
    folder.put("huge.bin", pattern(0, 16 << 20));
    let root = folder.path().display();
    let server = Server::run(driver, &format!("[limits]\nwrite_timeout = \"2s\"\n[[sites]]\nroot = \"{root}\""));
    let mut slow = server.connect_slowly();
    slow.send(get("/huge.bin"));
    let mut pipelining = server.connect_slowly();
    pipelining.send(get("/large.bin").repeat(60));
    harness::wait_until("both are there", || server.number("/connections") == 2);
    harness::wait_until("both are given up", || server.number("/connections") == 0);
    assert!(slow.try_answer(false).is_err() && pipelining.rest().0.len() < 18_000_000);
    // Whoever reads slowly, but reads, has its file.
    let mut client = server.connect_slowly();
    client.send(get("/huge.bin"));
    let mut body = Vec::new();
    client.try_head().expect("a head");
    while body.len() < 16 << 20 {
        let read = client.read_once(1 << 20).expect("more of the file");
        assert!(!read.is_empty(), "given up at {} bytes", body.len());
        body.extend(read);
        if body.len() < 4 << 20 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    assert!(body == pattern(0, 16 << 20));
}

fn the_error_is_read_before_the_reset(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for (start, status, late) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400, 12 << 20),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n", 413, 9_000_000),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk", 405, 12 << 20),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, 12 << 20),
        // The client takes this answer only when it has sent all it wants to say, which must fit between the two.
        ("GET /large.bin HTTP/1.0\r\n\r\n", 200, 128 << 10),
    ] {
        let mut client = server.connect();
        client.send(start.to_owned() + "GET /never HTTP/1.1");
        // Much more than the server had any use for, and the answer is read only after it.
        for _ in 0..late / 65_536 {
            client.try_send([b'x'; 64 * 1024]).unwrap_or_else(|error| panic!("{start:?}: {error}"));
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(client.answer().status(), status, "{start:?}");
        client.finish_sending();
        client.expect_end(start);
    }
}

fn a_half_closed_client_gets_its_whole_answer(driver: Driver) {
    let folder = Folder::usual();
    let huge = pattern(3, 6 << 20);
    folder.put("huge.bin", &huge);
    folder.put("cold.html", "read from the disk\n");
    for disk in driver.disk_modes() {
        let server = Server::serve_with(driver, folder.path(), &["--disk", disk]);
        for name in ["huge.bin", "cold.html"] {
            folder.evict(name);
            let mut client = server.connect();
            client.send(get(&format!("/{name}")));
            client.finish_sending();
            let body = client.answer().body;
            assert!(body == std::fs::read(folder.at(name)).expect("own file"), "{disk}: {name}");
            client.expect_end(name);
        }
        let mut client = server.connect();
        client.send(get("/page.html").repeat(3) + "GET / HT");
        client.finish_sending();
        (0..3).for_each(|_| assert_eq!(client.answer().text(), "a page\n"));
        client.expect_end("half a request is none");
    }
}

/// A request, the status of its answer, and its body where the test knows it.
struct Exchange {
    request: String,
    status: u16,
    body: Option<Vec<u8>>,
}

impl Exchange {
    fn check(&self, client: &mut Client, context: &str) {
        let head_only = self.request.starts_with("HEAD ");
        let answer =
            client.try_answer(head_only).unwrap_or_else(|error| panic!("{context}: {error}: {}", self.request));
        assert_eq!(answer.status(), self.status, "{context}: {}", self.request);
        if let Some(body) = &self.body {
            assert!(answer.body == *body, "{context}: {}: {}", self.request, answer.text());
        }
    }
}

/// Hits, misses, bodies, conditions: `count` requests and what they are answered.
fn exchanges(count: usize) -> Vec<Exchange> {
    let exchange = |request: String, status, body: Option<&str>| Exchange {
        request,
        status,
        body: body.map(|body| body.as_bytes().to_vec()),
    };
    (0..count)
        .map(|at| match at % 7 {
            0 => exchange(get("/"), 200, Some("hi\n")),
            1 => exchange(get(&format!("/missing/{at}")), 404, None),
            2 => exchange("HEAD /page.html HTTP/1.1\r\nHost: a\r\n\r\n".into(), 200, Some("")),
            3 => exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET ".into(), 405, None),
            4 => exchange("GET /page.html HTTP/1.1\r\nHost: a\r\nRange: bytes=2-5\r\n\r\n".into(), 206, Some("page")),
            5 => exchange(
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n".into(),
                200,
                Some("hi\n"),
            ),
            _ => exchange(get("/page.html?q"), 200, Some("a page\n")),
        })
        .collect()
}

fn every_split_of_fifty_requests_is_answered_alike(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let exchanges = exchanges(50);
    let bytes: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.request.bytes()).collect();
    let ends: Vec<usize> = exchanges
        .iter()
        .scan(0, |end, exchange| {
            *end += exchange.request.len();
            Some(*end)
        })
        .collect();
    // Many clients at once, each with every so many'th boundary.
    std::thread::scope(|scope| {
        for first in 0..CLIENTS {
            let (server, exchanges, bytes, ends) = (&server, &exchanges, &bytes, &ends);
            scope.spawn(move || {
                let mut client = server.connect();
                for cut in (1..bytes.len()).skip(first).step_by(CLIENTS) {
                    let context = format!("cut at {cut}");
                    client.send(&bytes[..cut]);
                    // What is whole is answered before the rest comes.
                    let whole = ends.iter().filter(|&&end| end <= cut).count();
                    exchanges[..whole].iter().for_each(|exchange| exchange.check(&mut client, &context));
                    client.send(&bytes[cut..]);
                    exchanges[whole..].iter().for_each(|exchange| exchange.check(&mut client, &context));
                }
                client.expect_open("after all cuts");
            });
        }
    });
}

fn more_requests_than_may_be_pipelined(driver: Driver) {
    let folder = Folder::usual();
    let disk = driver.disk_modes().last().expect("one");
    for options in [&[][..], &["--cache", "0"], &["--disk", disk, "--cache", "0"]] {
        let server = Server::serve_with(driver, folder.path(), options);
        let exchanges = exchanges(200);
        let mut client = server.connect();
        client.send(exchanges.iter().map(|exchange| exchange.request.as_str()).collect::<String>());
        for (at, exchange) in exchanges.iter().enumerate() {
            exchange.check(&mut client, &format!("{options:?}: request {at}"));
        }
        client.expect_open("after 200 requests");
    }
}

fn a_mixture_is_answered_in_order(driver: Driver) {
    let folder = Folder::usual();
    let huge = pattern(5, 2_500_000);
    folder.put("huge.bin", &huge);
    (0..20).for_each(|at| drop(folder.put(format!("cold/{at}.txt"), format!("cold file {at}\n"))));
    let server = Server::serve(driver, folder.path());
    (0..20).for_each(|at| folder.evict(format!("cold/{at}.txt")));
    folder.evict("huge.bin");
    let mut exchanges = Vec::new();
    for at in 0..20 {
        exchanges.push(Exchange { request: get("/"), status: 200, body: Some(b"hi\n".to_vec()) });
        let body = Some(format!("cold file {at}\n").into_bytes());
        exchanges.push(Exchange { request: get(&format!("/cold/{at}.txt")), status: 200, body });
        exchanges.push(Exchange { request: get(&format!("/none/{at}")), status: 404, body: None });
        let head = "HEAD /huge.bin HTTP/1.1\r\nHost: a\r\n\r\n".to_owned();
        exchanges.push(Exchange { request: head, status: 200, body: Some(Vec::new()) });
        if at % 5 == 4 {
            exchanges.push(Exchange { request: get("/huge.bin"), status: 200, body: Some(huge.clone()) });
        }
    }
    for round in 0..2 {
        let mut client = server.connect();
        client.send(exchanges.iter().map(|exchange| exchange.request.as_str()).collect::<String>());
        for (at, exchange) in exchanges.iter().enumerate() {
            exchange.check(&mut client, &format!("round {round}, request {at}"));
        }
        client.expect_open("after the mixture");
    }
}

fn answers_leave_together(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let mut client = server.connect();
    let one = client.get("/page.html");
    assert_eq!(one.status(), 200);
    // One send of the server's is one segment here, so one read has all of it.
    client.send(get("/page.html").repeat(2));
    let bytes = client.read_once(1 << 20).expect("answers");
    assert_eq!(count(&bytes, b"HTTP/1.1 200 OK\r\n"), 2, "{}", String::from_utf8_lossy(&bytes));
    assert!(bytes.ends_with(b"a page\n"));
    client.send(get("/page.html").repeat(50));
    let bytes = client.read_once(1 << 20).expect("answers");
    assert_eq!(count(&bytes, b"HTTP/1.1 200 OK\r\n"), 50, "fifty answers in one piece");
}

fn count(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).filter(|window| *window == wanted).count()
}

fn nothing_follows_the_last_answer(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for (last, status) in [
        ("GET /page.html HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
        ("GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200),
        ("GET /missing HTTP/1.0\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n", 405),
    ] {
        let mut client = server.connect();
        client.send(get("/") + last + &get("/page.html").repeat(3));
        assert_eq!(client.answer().text(), "hi\n");
        assert_eq!(client.answer().status(), status, "{last:?}");
        client.expect_end(last);
    }
}

fn a_dribbled_request_is_a_request(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let mut client = server.connect();
    for byte in get("/page.html").repeat(2).as_bytes() {
        client.send([*byte]);
        std::thread::sleep(Duration::from_micros(300));
    }
    assert_eq!(client.answer().text(), "a page\n");
    assert_eq!(client.answer().text(), "a page\n");
    client.expect_open("after a byte at a time");
}

const CLIENTS: usize = 8;

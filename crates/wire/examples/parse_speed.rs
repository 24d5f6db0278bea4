//! Measures how long a request head takes to parse: `cargo run --release -p amped-wire --example parse_speed`.
//! Goal: a figure to watch while changing the parser, on heads like those of load generators and of browsers.
//! Costs: a second or two of one core; the least of several rounds is printed, for noise only ever adds.

use amped_wire::h1::parse_request;
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let small = SMALL.to_vec();
    let pipelined = SMALL.repeat(16);
    let browser = BROWSER.join("\r\n").into_bytes();
    for (name, input, heads) in [("small", &small, 1), ("browser", &browser, 1), ("16 pipelined, each", &pipelined, 16)]
    {
        let ns = nanoseconds(input, heads);
        println!("{name:20} {:5} bytes {ns:7.1} ns", input.len());
    }
}

/// Nanoseconds a head, of the fastest round.
fn nanoseconds(input: &[u8], heads: u32) -> f64 {
    let round = || {
        let start = Instant::now();
        for _ in 0..TIMES {
            assert_eq!(parse_all(black_box(input)), heads);
        }
        start.elapsed().as_nanos() as f64 / f64::from(TIMES * heads)
    };
    (0..ROUNDS).map(|_| round()).fold(f64::MAX, f64::min)
}

/// Parses all heads in the input and looks at what a server would look at.
fn parse_all(input: &[u8]) -> u32 {
    let (mut rest, mut heads) = (input, 0);
    while let Ok(Some((request, len))) = parse_request(rest, &mut 0) {
        black_box((request.target.path(), request.host, request.keep_alive, request.fields.conditional()));
        rest = &rest[len..];
        heads += 1;
    }
    heads
}

const TIMES: u32 = 20_000;
const ROUNDS: u32 = 30;
const SMALL: &[u8] = b"GET /index.html HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const BROWSER: [&str; 15] = [
    "GET /blog/2026/11/how-we-never-wait.html?utm_source=feed HTTP/1.1",
    "Host: www.example.com",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Referer: https://www.example.com/blog/",
    "Connection: keep-alive",
    "Cookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Dest: document",
    "Sec-Fetch-Mode: navigate",
    "Priority: u=0, i",
    "",
    "",
];

//! Slow and hostile clients: each has its deadline by what it does, and none of them is anybody else's trouble.

mod harness;

use std::time::{Duration, Instant};

use harness::{Client, Driver, Folder, Server, get, on_every_driver, on_every_loop, pattern, wait_until};

on_every_driver!(
    a_head_has_its_time_however_it_dribbles,
    a_body_must_keep_a_pace,
    a_reader_must_keep_a_pace,
    a_reader_that_stops_is_given_up,
    half_open_peers_are_asked,
    a_slow_reader_is_not_dead,
);
on_every_loop!(a_crowd_of_slow_clients_is_nobodys_trouble);

/// A server with these limits and a file of 16 MB.
fn with_limits(driver: Driver, folder: &Folder, limits: &str) -> Server {
    folder.put("huge.bin", pattern(3, 16 << 20));
    Server::run(driver, &format!("[limits]\n{limits}\n[[sites]]\nroot = \"{}\"", folder.path().display()))
}

fn a_head_has_its_time_however_it_dribbles(driver: Driver) {
    let folder = Folder::usual();
    let server = with_limits(driver, &folder, "head_timeout = \"800ms\"");
    let mut client = server.connect();
    let start = Instant::now();
    let mut sent = 0;
    for byte in "GET /page.html HTTP/1.1\r\nHost: a\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'a')) {
        if client.try_send([byte]).is_err() || start.elapsed() > Duration::from_secs(8) {
            break;
        }
        sent += 1;
        std::thread::sleep(Duration::from_millis(40));
        if start.elapsed() > Duration::from_millis(800) && server.number("/counters/too_slow") > 0 {
            break;
        }
    }
    assert!(sent > 10 && start.elapsed() < Duration::from_secs(5), "{sent} bytes in {:?}", start.elapsed());
    assert_eq!(client.answer().status(), 408);
}

fn a_body_must_keep_a_pace(driver: Driver) {
    let folder = Folder::usual();
    let server = with_limits(driver, &folder, "body_timeout = \"800ms\"\nmin_body_rate = \"2KB\"");
    let upload = |bytes: usize, most: Duration| {
        let mut client = server.connect();
        client.send("POST /page.html HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        assert_eq!(client.answer().status(), 405);
        let start = Instant::now();
        while start.elapsed() < most && client.try_send(vec![b'a'; bytes]).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
        start.elapsed()
    };
    let dribbled = upload(1, Duration::from_secs(8));
    assert!((Duration::from_millis(700)..Duration::from_secs(5)).contains(&dribbled), "{dribbled:?}");
    let steady = upload(1000, Duration::from_secs(3));
    assert!(steady >= Duration::from_secs(3), "one that keeps its pace was ended after {steady:?}");
    assert!(server.number("/counters/too_slow") >= 1);
}

/// Reads so many bytes each 50 ms, for `most` at the longest; says for how long the server went on with it.
fn read_slowly(client: &mut Client, bytes: usize, most: Duration) -> Duration {
    let start = Instant::now();
    while start.elapsed() < most {
        match client.read_once(bytes) {
            Ok(read) if !read.is_empty() => std::thread::sleep(Duration::from_millis(50)),
            _ => break,
        }
    }
    start.elapsed()
}

fn a_reader_must_keep_a_pace(driver: Driver) {
    let folder = Folder::usual();
    let server = with_limits(driver, &folder, "write_timeout = \"1s\"\nmin_send_rate = \"100KB\"");
    let mut clients: Vec<Client> = (0..2).map(|_| server.connect_slowly()).collect();
    clients.iter_mut().for_each(|client| client.send(get("/huge.bin")));
    let [slow, steady] = clients.try_into().expect("two clients");
    std::thread::scope(|scope| {
        let (mut slow, mut steady) = (slow, steady);
        // 20 KB/s and 320 KB/s.
        let steady = scope.spawn(move || read_slowly(&mut steady, 16_000, Duration::from_secs(6)));
        let slow = scope.spawn(move || {
            // What the kernel holds for it may still come after the end.
            let start = Instant::now();
            let mut read = 0;
            while let Ok(bytes) = slow.read_once(1000) {
                read += bytes.len();
                if bytes.is_empty() || start.elapsed() > Duration::from_secs(20) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            (start.elapsed(), read)
        });
        wait_until("the slow one is given up", || server.number("/counters/too_slow") == 1);
        let steady = steady.join().expect("it reads");
        assert!(steady >= Duration::from_secs(6), "one that keeps its pace was ended after {steady:?}");
        let (took, read) = slow.join().expect("it reads");
        assert!(read < 4 << 20, "{read} bytes in {took:?}");
    });
}

fn a_reader_that_stops_is_given_up(driver: Driver) {
    let folder = Folder::usual();
    let server = with_limits(driver, &folder, "write_timeout = \"1s\"");
    let mut client = server.connect_slowly();
    client.send(get("/huge.bin"));
    let start = Instant::now();
    wait_until("it is given up", || server.number("/counters/too_slow") == 1);
    let took = start.elapsed();
    assert!((Duration::from_millis(800)..Duration::from_secs(5)).contains(&took), "{took:?}");
    wait_until("it is gone", || server.number("/connections") == 0);
}

fn half_open_peers_are_asked(driver: Driver) {
    let folder = Folder::usual();
    let server = with_limits(driver, &folder, "dead_peer_timeout = \"4s\"");
    let mut client = server.connect();
    assert_eq!(client.get("/").status(), 200);
    let ours = client.stream().local_addr().expect("a socket").port();
    let theirs = server.address().port();
    // proc_net_tcp(5): "sl local remote st tx:rx tr:when …"; timer 2 asks a silent peer, in hundredths of a second from now.
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    let line = table.lines().find(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1].ends_with(&format!(":{theirs:04X}")) && words[2].ends_with(&format!(":{ours:04X}"))
    });
    let timer = line.expect("the server's end").split_whitespace().nth(5).expect("a timer");
    let (kind, due) = timer.split_once(':').expect("kind and time");
    let due = u64::from_str_radix(due, 16).expect("a number");
    assert!(kind == "02" && due <= 220, "{timer}");
}

/// Its window is smaller than what waits for it, so the kernel asks again and again whether it has grown: it has, each time.
fn a_slow_reader_is_not_dead(driver: Driver) {
    let folder = Folder::usual();
    folder.put("picture", vec![b'x'; 60_000]);
    let server = with_limits(driver, &folder, "dead_peer_timeout = \"1s\"");
    let mut client = Client::connect(server.address(), Some(4096)).expect("the server accepts");
    client.send(get("/picture"));
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(100));
        let bytes = client.read_once(720).expect("it is there");
        assert!(!bytes.is_empty(), "it ended after {:?}", start.elapsed());
    }
}

fn a_crowd_of_slow_clients_is_nobodys_trouble(driver: Driver) {
    let folder = Folder::usual();
    let server = with_limits(driver, &folder, "");
    let mut crowd: Vec<Client> = (0..300).map(|_| server.connect_slowly()).collect();
    for (at, client) in crowd.iter_mut().enumerate() {
        client.send(match at % 3 {
            0 => "GET /page.html HTTP/1.1\r\nHost: a\r\nX-Slow: ".to_owned(),
            1 => "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc".to_owned(),
            _ => get("/huge.bin"),
        });
    }
    wait_until("all are there", || server.number("/connections") == 300);
    let mut normal = server.connect();
    let mut delays = Vec::new();
    for round in 0..200 {
        for (at, client) in crowd.iter_mut().enumerate().skip(round % 50).step_by(50) {
            if at % 3 == 2 {
                assert!(!client.read_once(500).expect("the download goes on").is_empty());
            } else {
                client.send("b");
            }
        }
        let start = Instant::now();
        assert_eq!(normal.get("/page.html").text(), "a page\n");
        delays.push(start.elapsed());
    }
    delays.sort();
    assert!(delays[190] < Duration::from_millis(50), "95%: {:?}", delays[190]);
}

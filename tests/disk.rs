//! The disk: every way of waiting for it serves the same, and a disk that hangs costs the helpers it holds and nothing else.

mod harness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::stall::{Hanging, HangingExt4};
use harness::{
    Client, Driver, Folder, Server, get, on_every_driver, on_every_loop, on_every_thread, pattern, wait_until,
};

on_every_driver!(
    every_disk_mode_serves_the_same,
    a_download_survives_a_pause_of_the_disk,
    a_client_that_leaves_a_hung_download_is_no_trouble,
    what_was_warm_may_be_gone,
    memory_may_be_taken_away_in_the_middle_of_a_window,
);
on_every_thread!(a_full_cache_still_serves);
on_every_loop!(
    a_hung_mount_holds_only_its_helpers,
    a_hung_disk_delays_nobody_whose_file_is_in_memory,
    a_mount_beneath_the_root_may_hang_too,
    downloads_that_cannot_go_on_wait_quietly,
    one_job_answers_all_who_ask,
    a_job_each_where_that_is_asked_for,
    jobs_of_gone_clients_are_dropped,
);

fn every_disk_mode_serves_the_same(driver: Driver) {
    for folder in [Folder::on_disk(), Folder::in_memory()] {
        folder.put("index.html", "hi\n");
        folder.put("a/page.html", "a page\n");
        folder.put("edge.bin", pattern(1, 65_536));
        folder.put("large.bin", pattern(2, 3_000_001));
        // Until then a tag is weak: a change within the same tick of the clock would bear the same.
        std::thread::sleep(Duration::from_millis(50));
        let paths = ["/", "/a/page.html", "/a", "/a/", "/edge.bin", "/large.bin", "/none", "/none/", "/a/page.html/"];
        let ask = |server: &Server, path: &str| {
            let answer = server.get(path);
            let kept = |(name, _): &(String, String)| name != "date";
            (answer.status_line, answer.fields.into_iter().filter(kept).collect::<Vec<_>>(), answer.body)
        };
        let serve = |disk: &str, cache: &str| {
            let options = ["--disk", disk, "--cache", cache];
            Server::serve_with(driver, folder.path(), &options)
        };
        let first = serve(driver.disk_modes()[0], "256MB");
        let expected = paths.map(|path| ask(&first, path));
        assert_eq!(expected.iter().filter(|answer| answer.0.contains("200")).count(), 4);
        for &disk in driver.disk_modes() {
            for cache in ["256MB", "0"] {
                let server = serve(disk, cache);
                for round in 0..2 {
                    for name in ["index.html", "a/page.html", "edge.bin", "large.bin"] {
                        folder.evict(name);
                    }
                    for (path, expected) in paths.iter().zip(&expected) {
                        assert!(ask(&server, path) == *expected, "--disk {disk} --cache {cache}, {round}: {path}");
                    }
                }
            }
        }
    }
}

/// A healthy folder, and one below `/slow/` that can hang; four helpers, eight jobs may wait.
fn beside(driver: Driver, healthy: &Folder, slow: &std::path::Path) -> Server {
    beside_with(driver, healthy, slow, "")
}

fn beside_with(driver: Driver, healthy: &Folder, slow: &std::path::Path, more: &str) -> Server {
    healthy.put("index.html", "hi\n");
    healthy.put("busy.txt", "the disk is busy\n");
    Server::run(
        driver,
        &format!(
            r#"{more}
helpers = 4
helper_queue = 8
[overload]
body = "{healthy}/busy.txt"
retry_after = 7
[[sites]]
root = "{healthy}"
[[sites.routes]]
match = "/slow/*"
root = "{slow}"
"#,
            healthy = healthy.path().display(),
            slow = slow.display()
        ),
    )
}

/// Files `0` to `59`, each with its name in it.
fn sixty() -> BTreeMap<String, Vec<u8>> {
    (0..60).map(|at| (at.to_string(), content(at))).collect()
}

fn content(at: usize) -> Vec<u8> {
    format!("slow file {at}\n").into_bytes()
}

/// Asks for hot files while the disk hangs, and holds the server to answering at once.
fn expect_quick(server: &Server, paths: &[(&str, &[u8])]) {
    let mut client = server.connect();
    let mut delays: Vec<Duration> = (0..400)
        .map(|at| {
            let (path, body) = &paths[at % paths.len()];
            let start = Instant::now();
            let answer = client.get(path);
            assert_eq!((answer.status(), answer.body.as_slice()), (200, *body), "{path}");
            std::thread::sleep(Duration::from_millis(5));
            start.elapsed() - Duration::from_millis(5)
        })
        .collect();
    delays.sort();
    let (median, most) = (delays[delays.len() / 2], delays[delays.len() * 19 / 20]);
    assert!(median < Duration::from_millis(20) && most < Duration::from_millis(50), "median {median:?}, 95% {most:?}");
}

/// Clients that have each asked for one of the files in `range`.
fn askers(server: &Server, range: std::ops::Range<usize>) -> Vec<(usize, Client)> {
    range
        .map(|at| {
            let mut client = server.connect();
            client.send(get(&format!("/slow/{at}")));
            (at, client)
        })
        .collect()
}

fn a_hung_mount_holds_only_its_helpers(driver: Driver) {
    let Some(disk) = Hanging::mount(sixty()) else { return };
    let healthy = Folder::on_disk();
    let server = beside(driver, &healthy, disk.path());
    assert_eq!(server.get("/slow/0").body, content(0));
    assert_eq!(server.get("/").text(), "hi\n");
    disk.hang();
    let mut askers = askers(&server, 1..41);
    // Four helpers hang, eight jobs wait; the others are refused, with the page for that and a time to come back. Where all
    // came before the helpers did, the helpers took theirs from the eight.
    wait_until("28 are refused", || server.number("/helpers/refused") >= 28 && server.number("/helpers/busy") == 4);
    let mut refused = 0;
    askers.retain_mut(|(_, client)| {
        client.stream().set_read_timeout(Some(Duration::from_millis(40))).expect("a socket");
        let Ok(answer) = client.try_answer(false) else { return true };
        assert_eq!(answer.status_line, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        let seconds: u32 = answer.field("retry-after").expect("a time to come back").parse().expect("a number");
        assert!((7..=11).contains(&seconds), "{seconds}");
        assert_eq!(
            (answer.text().as_str(), answer.field("content-type")),
            ("the disk is busy\n", Some("text/plain; charset=utf-8"))
        );
        refused += 1;
        false
    });
    assert!((28..=32).contains(&refused) && refused == server.number("/helpers/refused"), "{refused} were refused");
    wait_until("the helpers are seen to be stuck", || server.number("/helpers/stuck") >= 4);
    // One more thread than helpers: it confirms what memory holds.
    expect_quick(&server, &[("/", b"hi\n"), ("/slow/0", &content(0))]);
    healthy.put("new.txt", "made while the other disk hangs\n");
    assert_eq!(server.get("/new.txt").status(), 200, "what the kernel has in memory needs no helper");
    assert!(server.number("/helpers/threads") <= 5 && server.number("/helpers/busy") <= 5, "{}", server.status());
    assert!(disk.waiting() <= 5, "{} requests at the disk", disk.waiting());
    disk.recover();
    for (at, mut client) in askers {
        client.stream().set_read_timeout(Some(harness::PATIENCE)).expect("a socket");
        assert_eq!(client.answer().body, content(at), "who could wait has the file");
    }
    wait_until("the helpers are free", || server.number("/helpers/busy") == 0);
    assert_eq!(server.number("/helpers/stuck"), 0);
    assert_eq!(server.get("/slow/50").body, content(50));
}

fn a_hung_disk_delays_nobody_whose_file_is_in_memory(driver: Driver) {
    let files = Folder::on_disk();
    sixty().into_iter().for_each(|(name, bytes)| drop(files.put(name, bytes)));
    files.put("large.bin", pattern(4, 4 << 20));
    let Some(disk) = HangingExt4::mount(files.path()) else { return };
    let healthy = Folder::on_disk();
    let server = beside(driver, &healthy, disk.path());
    assert_eq!(server.get("/").text(), "hi\n");
    assert_eq!(server.get("/slow/0").body, content(0));
    disk.disk().hang();
    let mut askers = askers(&server, 1..30);
    let mut download = server.connect();
    download.send(get("/slow/large.bin"));
    wait_until("the disk is asked", || server.number("/helpers/stuck") > 0);
    expect_quick(&server, &[("/", b"hi\n"), ("/slow/0", &content(0))]);
    assert!(server.number("/helpers/busy") <= 5, "{}", server.status());
    disk.disk().recover();
    let mut served = 0;
    for (at, client) in &mut askers {
        let answer = client.answer();
        assert!(answer.status() == 503 || answer.body == content(*at), "{at}: {}", answer.status_line);
        served += usize::from(answer.status() == 200);
    }
    assert!(served >= 4, "only {served} were served after the recovery");
    let large = download.try_answer(false);
    assert!(large.is_ok_and(|answer| answer.status() == 503 || answer.body == pattern(4, 4 << 20)));
    wait_until("all are served again", || (1..30).all(|at| server.get(&format!("/slow/{at}")).body == content(at)));
}

fn a_download_survives_a_pause_of_the_disk(driver: Driver) {
    let large = pattern(6, 8 << 20);
    let Some(disk) = Hanging::mount(BTreeMap::from([("large".into(), large.clone())])) else { return };
    let healthy = Folder::on_disk();
    let server = beside(driver, &healthy, disk.path());
    assert_eq!(server.get("/").text(), "hi\n");
    let mut client = server.connect_slowly();
    client.send(get("/slow/large"));
    client.try_head().expect("a head");
    let mut body = client.unread();
    while body.len() < 500_000 {
        body.extend(client.read_once(16 * 1024).expect("the download goes on"));
    }
    disk.hang();
    let reader = std::thread::spawn(move || {
        while body.len() < 8 << 20 {
            body.extend(client.read_once(1 << 20).expect("the download goes on after the pause"));
        }
        body
    });
    expect_quick(&server, &[("/", b"hi\n")]);
    assert!(!reader.is_finished(), "the disk was not asked");
    disk.recover();
    assert!(reader.join().expect("it reads to the end") == large);
}

fn a_mount_beneath_the_root_may_hang_too(driver: Driver) {
    let healthy = Folder::on_disk();
    healthy.put("index.html", "hi\n");
    let large = pattern(7, 3 << 20);
    let files = sixty().into_iter().chain([("large".into(), large.clone())]).collect();
    let Some(disk) = Hanging::mount_in(healthy.path(), files) else { return };
    let server = Server::serve(driver, healthy.path());
    let slow = format!("/{}", disk.path().file_name().expect("a name").to_string_lossy());
    assert_eq!(server.get("/").text(), "hi\n");
    assert_eq!(server.get(&format!("{slow}/1")).body, content(1));
    assert!(server.get(&format!("{slow}/large")).body == large);
    // What that mount cannot do says nothing about the root's own.
    let asked = server.number("/counters/not_in_memory");
    healthy.put("new.txt", "new\n");
    assert_eq!((server.get("/new.txt").text().as_str(), server.number("/counters/not_in_memory")), ("new\n", asked));
    disk.hang();
    let mut waiting: Vec<Client> = ["2", "large", "none"]
        .map(|name| {
            let mut client = server.connect();
            client.send(get(&format!("{slow}/{name}")));
            client
        })
        .into();
    wait_until("the helpers are stuck", || server.number("/helpers/stuck") > 0);
    expect_quick(&server, &[("/", b"hi\n"), ("/new.txt", b"new\n"), (&format!("{slow}/1"), &content(1))]);
    disk.recover();
    assert_eq!(waiting[0].answer().body, content(2));
    assert!(waiting[1].answer().body == large);
    assert_eq!(waiting[2].answer().status(), 404);
}

fn downloads_that_cannot_go_on_wait_quietly(driver: Driver) {
    let files: BTreeMap<String, Vec<u8>> = (0..24).map(|at| (format!("large{at}"), pattern(at, 3 << 20))).collect();
    let Some(disk) = Hanging::mount(files.into_iter().chain(sixty()).collect()) else { return };
    let healthy = Folder::on_disk();
    let server = beside(driver, &healthy, disk.path());
    assert_eq!(server.get("/").text(), "hi\n");
    let mut downloads: Vec<(u8, Client, Vec<u8>)> = (0..24)
        .map(|at| {
            let mut client = server.connect_slowly();
            client.send(get(&format!("/slow/large{at}")));
            client.try_head().expect("a head");
            let begun = client.unread();
            (at, client, begun)
        })
        .collect();
    disk.hang();
    let mut used = Duration::ZERO;
    // Every client takes what it can get, and then all of them wait for four helpers and eight places in the queue.
    std::thread::scope(|scope| {
        for (at, client, body) in &mut downloads {
            scope.spawn(move || {
                while body.len() < 3 << 20 {
                    let bytes = client.read_once(1 << 20).expect("the download goes on after the pause");
                    assert!(!bytes.is_empty(), "download {at} was cut off after {} bytes", body.len());
                    body.extend(bytes);
                }
                assert!(*body == pattern(*at, 3 << 20), "download {at} has wrong bytes");
            });
        }
        wait_until("the helpers are stuck", || server.number("/helpers/stuck") == 4);
        let before = server.busy();
        expect_quick(&server, &[("/", b"hi\n")]);
        used = server.busy() - before;
        disk.recover();
    });
    // Two seconds long, on two cores.
    assert!(used < Duration::from_millis(500), "{used:?} of processor time while nothing could be done");
}

fn a_client_that_leaves_a_hung_download_is_no_trouble(driver: Driver) {
    let Some(disk) = Hanging::mount(BTreeMap::from([("large".into(), pattern(8, 4 << 20))])) else { return };
    let healthy = Folder::on_disk();
    // Room for small files; a large one, which costs a descriptor, is not kept: its last client closes it.
    let server = beside_with(driver, &healthy, disk.path(), "cache = \"100KB\"");
    assert_eq!(server.get("/").text(), "hi\n");
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect_slowly()).collect();
    for client in &mut clients {
        client.send(get("/slow/large"));
        client.try_head().expect("a head");
    }
    disk.hang();
    let mut more = server.connect();
    more.send(get("/slow/large"));
    clients.into_iter().for_each(Client::reset);
    expect_quick(&server, &[("/", b"hi\n")]);
    disk.recover();
    assert!(more.answer().body == pattern(8, 4 << 20));
    wait_until("they are gone", || server.number("/connections") <= 1);
}

fn what_was_warm_may_be_gone(driver: Driver) {
    let large = pattern(8, 6 << 20);
    let Some(disk) = Hanging::mount(BTreeMap::from([("large".into(), large.clone())])) else { return };
    let healthy = Folder::on_disk();
    let server = beside(driver, &healthy, disk.path());
    assert_eq!(server.get("/").text(), "hi\n");
    let mut client = server.connect_slowly();
    client.send(get("/slow/large"));
    client.try_head().expect("a head");
    let mut body = client.unread();
    while body.len() < 100_000 {
        body.extend(client.read_once(16 * 1024).expect("the download goes on"));
    }
    // Opening the file anew has the kernel forget what it had read of it; then the disk hangs.
    std::thread::sleep(Duration::from_millis(1100));
    server.connect().ask("HEAD /slow/large HTTP/1.1\r\nHost: a\r\n\r\n");
    drop(std::fs::File::open(disk.path().join("large")).expect("a file"));
    disk.hang();
    let reader = std::thread::spawn(move || {
        while body.len() < 6 << 20 {
            body.extend(client.read_once(1 << 20).expect("the download goes on after the pause"));
        }
        body
    });
    expect_quick(&server, &[("/", b"hi\n")]);
    disk.recover();
    assert!(reader.join().expect("it reads to the end") == large);
}

fn memory_may_be_taken_away_in_the_middle_of_a_window(driver: Driver) {
    let folder = Folder::usual();
    let large = pattern(4, 6 << 20);
    folder.put("large", &large);
    let server = Server::serve(driver, folder.path());
    let mut client = server.connect_slowly();
    client.send(get("/large"));
    client.try_head().expect("a head");
    let mut body = client.unread();
    while body.len() < large.len() {
        folder.evict("large");
        body.extend(client.read_once(64 * 1024).expect("the download goes on"));
    }
    assert!(body == large, "{driver:?}");
    assert_eq!(server.number("/counters/broken_transfers"), 0);
}

fn one_job_answers_all_who_ask(driver: Driver) {
    let Some(disk) = Hanging::mount(sixty()) else { return };
    let options = ["--workers", "1"];
    let server = Server::serve_with(driver, disk.path(), &options);
    disk.hang();
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(get("/7").repeat(3)));
    wait_until("the disk is asked", || disk.waiting() > 0);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((server.number("/helpers/busy"), server.number("/helpers/queued")), (1, 0), "one file, one job");
    disk.recover();
    for client in &mut clients {
        (0..3).for_each(|_| assert_eq!(client.answer().body, content(7)));
    }
    wait_until("it is counted", || server.number("/helpers/ran") == 1);
}

fn a_job_each_where_that_is_asked_for(driver: Driver) {
    let Some(disk) = Hanging::mount(sixty()) else { return };
    let healthy = Folder::on_disk();
    let server = beside_with(driver, &healthy, disk.path(), "workers = 1\nshared_jobs = false");
    disk.hang();
    // As many as the queue takes before the first helper has begun.
    let mut clients: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(get("/slow/7")));
    wait_until("every request has a job", || {
        (server.number("/helpers/busy"), server.number("/helpers/queued")) == (4, 4)
    });
    disk.recover();
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().body, content(7)));
    wait_until("all have run", || server.number("/helpers/ran") == 8);
}

fn jobs_of_gone_clients_are_dropped(driver: Driver) {
    let Some(disk) = Hanging::mount(sixty()) else { return };
    let healthy = Folder::on_disk();
    let server = beside(driver, &healthy, disk.path());
    disk.hang();
    let running = askers(&server, 0..4);
    wait_until("four jobs run", || server.number("/helpers/busy") == 4);
    let waiting = askers(&server, 10..16);
    wait_until("six jobs wait", || server.number("/helpers/queued") == 6);
    let mut patient = askers(&server, 20..21);
    wait_until("seven jobs wait", || server.number("/helpers/queued") == 7);
    waiting.into_iter().for_each(|(_, client)| client.reset());
    wait_until("the server knows", || server.number("/connections") == 5);
    disk.recover();
    assert_eq!(patient[0].1.answer().body, content(20));
    wait_until("five jobs have run", || server.number("/helpers/ran") == 5);
    assert_eq!((server.number("/helpers/queued"), server.number("/helpers/dropped")), (0, 6), "{}", server.status());
    drop(running);
}

fn a_full_cache_still_serves(driver: Driver) {
    let folder = Folder::on_disk();
    (0..300).for_each(|at| drop(folder.put(format!("{at}.bin"), pattern(at as u8, 20_000 + at))));
    let server = Server::serve_with(driver, folder.path(), &["--cache", "1MB"]);
    let mut client = server.connect();
    for round in 0..3 {
        for at in 0..300 {
            assert!(client.get(&format!("/{at}.bin")).body == pattern(at as u8, 20_000 + at), "{round}: {at}");
        }
        assert!(server.number("/cache/bytes") <= 1_000_000);
    }
    assert!(server.number("/cache/entries") > 10, "the cache is used");
}

//! Overload: what cannot be done is refused early, what is done keeps its pace, and all is well again afterwards.

mod harness;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness::stall::Hanging;
use harness::{Client, Driver, Folder, Over, Server, get, on_every_driver, on_every_loop, wait_until};

on_every_driver!(a_client_that_asks_too_often_is_told_so);
on_every_loop!(
    a_drowned_loop_serves_what_it_can,
    priorities_say_who_is_refused,
    idle_connections_make_room,
    a_slow_disk_costs_only_those_who_wait_for_it,
    a_client_has_so_many_connections,
    trusted_clients_have_no_limits,
);

/// A server of one worker, of which requests below `/.amped-test/burn/` take time.
fn burning(driver: Driver, folder: &Folder, more: &str) -> Server {
    let root = folder.path().display();
    let toml = format!("workers = 1\n[[sites]]\nroot = \"{root}\"\n{more}");
    Server::run_as(driver, &toml, |command| {
        command.env("AMPED_TEST_FAULTS", "1");
    })
}

/// What a crowd has seen: answers by status, and how long they took.
#[derive(Default)]
struct Seen {
    served: AtomicU64,
    refused: AtomicU64,
    others: AtomicU64,
}

/// `count` clients that ask for `path` over and over until `end`.
fn drown<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    server: &'scope Server,
    (count, path): (usize, &'scope str),
    seen: &'scope Seen,
    end: &'scope AtomicBool,
) {
    for _ in 0..count {
        scope.spawn(move || {
            let mut client = server.connect();
            while !end.load(Relaxed) {
                client.send(get(path));
                match client.try_answer(false) {
                    Ok(answer) => {
                        let counter = match answer.status() {
                            200 | 404 => &seen.served,
                            503 => &seen.refused,
                            _ => &seen.others,
                        };
                        counter.fetch_add(1, Relaxed);
                        if answer.status() == 503 {
                            assert!(answer.field("retry-after").is_some() && answer.field("connection").is_none());
                            std::thread::sleep(Duration::from_millis(2));
                        }
                    }
                    Err(_) => client = server.connect(),
                }
            }
        });
    }
}

fn a_drowned_loop_serves_what_it_can(driver: Driver) {
    let folder = Folder::usual();
    let server = burning(driver, &folder, "");
    let mut hits = server.connect();
    assert_eq!(hits.get("/").text(), "hi\n");
    let (seen, end) = (Seen::default(), AtomicBool::new(false));
    let mut delays = Vec::new();
    std::thread::scope(|scope| {
        let over = Over(&end);
        drown(scope, &server, (48, "/.amped-test/burn/2000"), &seen, &end);
        wait_until("requests are refused", || seen.refused.load(Relaxed) > 100);
        let (before, start) = (seen.served.load(Relaxed), Instant::now());
        while start.elapsed() < Duration::from_secs(2) {
            let asked = Instant::now();
            assert_eq!(hits.get("/").text(), "hi\n", "memory's answers are not refused");
            delays.push(asked.elapsed());
        }
        let served = seen.served.load(Relaxed) - before;
        drop(over);
        // Two milliseconds each: about 900 would be all there is time for, on a processor of one's own.
        assert!(served > 200, "only {served} were served");
    });
    delays.sort();
    // Without refusals each turn would take 96 ms.
    let median = delays[delays.len() / 2];
    assert!(median < Duration::from_millis(60), "median of the hits: {median:?}");
    assert_eq!(seen.others.load(Relaxed), 0);
    assert_eq!(server.number("/counters/shed_loop"), seen.refused.load(Relaxed));
    assert!(server.number("/counters/ladder_climbs") > 0);
    wait_until("all is well", || server.number("/counters/ladder_step") == 0);
    wait_until("all are served again", || (0..20).all(|_| hits.get("/.amped-test/burn/100").status() == 404));
}

fn priorities_say_who_is_refused(driver: Driver) {
    let folder = Folder::usual();
    let routes = r#"
[[sites.routes]]
match = "/.amped-test/burn/2000/essential"
status = 200
priority = "essential"
[[sites.routes]]
match = "/small-talk"
status = 200
body = "well\n"
priority = "sheddable"
[[sites.routes]]
match = "/health"
status = 200
body = "well\n"
"#;
    let server = burning(driver, &folder, routes);
    assert_eq!(server.get("/small-talk").status(), 200);
    let mut health = server.connect();
    let (seen, essential, end) = (Seen::default(), Seen::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let over = Over(&end);
        drown(scope, &server, (32, "/.amped-test/burn/2000"), &seen, &end);
        drown(scope, &server, (16, "/.amped-test/burn/2000/essential"), &essential, &end);
        wait_until("requests are refused", || seen.refused.load(Relaxed) > 100);
        wait_until("the sheddable are refused", || server.get("/small-talk").status() == 503);
        (0..20).for_each(|_| assert_eq!(health.get("/health").status(), 200));
        drop(over);
    });
    assert!(essential.served.load(Relaxed) > 0 && essential.refused.load(Relaxed) == 0);
    assert!(server.number("/counters/shed_sheddable") > 0);
    wait_until("all are served again", || server.get("/small-talk").status() == 200);
}

fn idle_connections_make_room(driver: Driver) {
    let folder = Folder::usual();
    let root = folder.path().display();
    let toml = format!(
        "workers = 1\n[limits]\nmax_connections = 40\n[overload]\nreap_idle = \"300ms\"\n[[sites]]\nroot = \"{root}\""
    );
    let server = Server::run(driver, &toml);
    let mut busy = server.connect();
    let mut idle: Vec<Client> = (0..34).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    wait_until("the longest idle are ended", || {
        assert_eq!(busy.try_send(get("/")).map(|()| busy.answer().status()).ok(), Some(200), "who asks stays");
        server.number("/counters/reaped") > 0
    });
    let mut ended = 0;
    for client in &mut idle {
        client.stream().set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
        ended += usize::from(client.read_once(1).is_ok_and(|bytes| bytes.is_empty()));
    }
    assert!(ended > 0, "none was told");
    (0..20).for_each(|_| assert_eq!(server.get("/").status(), 200, "there is room"));
}

fn a_slow_disk_costs_only_those_who_wait_for_it(driver: Driver) {
    let files: BTreeMap<String, Vec<u8>> = (0..400).map(|at| (at.to_string(), vec![b'x'; 100])).collect();
    let Some(disk) = Hanging::mount(files) else { return };
    let healthy = Folder::usual();
    let server = Server::run(
        driver,
        &format!(
            "workers = 1\nhelpers = 4\nhelper_queue = 2000\n[overload]\nretry_after = 4\ndisk_delay = \"20ms\"\n[[sites]]\nroot = \"{}\"\n[[sites.routes]]\nmatch = \"/slow/*\"\nroot = \"{}\"",
            healthy.path().display(),
            disk.path().display()
        ),
    );
    assert_eq!(server.get("/").text(), "hi\n");
    let end = AtomicBool::new(false);
    let (served, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut delays = Vec::new();
    std::thread::scope(|scope| {
        let over = Over(&end);
        // A disk that answers four at a time, now and then.
        scope.spawn(|| {
            while !end.load(Relaxed) {
                disk.hang();
                std::thread::sleep(Duration::from_millis(20));
                disk.recover();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        for first in 0..40 {
            let (server, end, served, refused) = (&server, &end, &served, &refused);
            scope.spawn(move || {
                let mut client = server.connect();
                for at in (first * 10..).take_while(|_| !end.load(Relaxed)) {
                    // A name that is not there is asked of the disk each time.
                    let answer = client.get(&format!("/slow/none-{first}-{at}"));
                    let counter = if answer.status() == 503 { refused } else { served };
                    counter.fetch_add(1, Relaxed);
                    if answer.status() == 503 {
                        let seconds: u32 = answer.field("retry-after").expect("a time").parse().expect("a number");
                        assert!((4..=6).contains(&seconds));
                    }
                }
            });
        }
        let mut hits = server.connect();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            assert_eq!(hits.get("/").text(), "hi\n");
            delays.push(asked.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(over);
    });
    delays.sort();
    assert!(delays[delays.len() * 19 / 20] < Duration::from_millis(20), "95%: {:?}", delays[delays.len() * 19 / 20]);
    assert!(served.load(Relaxed) > 20, "{served:?} were served");
    assert!(refused.load(Relaxed) > 20, "{refused:?} were refused, {}", server.status());
    assert_eq!(server.number("/counters/shed_disk"), refused.load(Relaxed));
    assert!(server.number("/helpers/incidents") > 0);
    wait_until("the queue is a good one", || server.get("/slow/1").status() == 200);
}

/// A server with limits for each client.
fn limited(driver: Driver, folder: &Folder, limits: &str) -> Server {
    Server::run(driver, &format!("[clients]\n{limits}\n[[sites]]\nroot = \"{}\"", folder.path().display()))
}

fn a_client_that_asks_too_often_is_told_so(driver: Driver) {
    let folder = Folder::usual();
    let server = limited(driver, &folder, "requests = 1\nburst = 5");
    let mut client = server.connect();
    let statuses: Vec<u16> = (0..8).map(|_| client.get("/page.html").status()).collect();
    if driver == Driver::Mp {
        assert!(statuses.starts_with(&[200; 5]) && statuses.contains(&429), "{statuses:?}");
        return;
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    assert_eq!((answer.status(), answer.field("retry-after")), (429, Some("1")));
    client.expect_end("a refusal does not wait for the body");
    assert_eq!(server.number("/counters/client_requests_refused"), 4);
    wait_until("a token comes each second", || server.get("/page.html").status() == 200);
}

fn a_client_has_so_many_connections(driver: Driver) {
    let folder = Folder::usual();
    let server = limited(driver, &folder, "connections = 3");
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    let mut more = server.connect();
    let _ = more.try_send(get("/"));
    assert!(more.try_answer(false).is_err(), "the fourth was served");
    assert_eq!(server.number("/counters/client_connections_refused"), 1);
    clients.pop();
    wait_until("it is gone", || server.number("/connections") == 2);
    assert_eq!(server.get("/").status(), 200);
}

fn trusted_clients_have_no_limits(driver: Driver) {
    let folder = Folder::usual();
    let server = limited(driver, &folder, "connections = 1\nrequests = 1\ntrusted = [\"10.0.0.0/8\", \"127.0.0.0/8\"]");
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    (0..20).for_each(|at| assert_eq!(clients[at % 5].get("/").status(), 200));
}

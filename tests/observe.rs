//! What the server says about itself: numbers, metrics, health and the dashboard, asked of the real binary.

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::{Browser, Client, Driver, Folder, Server, binary, get, on_every_driver, on_every_loop, wait_until};
use openmetrics_parser::{PrometheusType, PrometheusValue, openmetrics, prometheus};
use rustix::process::Signal;

on_every_driver!(metrics_parse_and_say_what_happened, a_draining_server_is_alive_and_not_ready);
on_every_loop!(connections_are_counted_by_what_they_wait_for);

/// A site's configuration beside one for all other hosts.
fn two_sites(folder: &Folder) -> String {
    let root = folder.path().display();
    format!("[[sites]]\nnames = [\"images.example\"]\nroot = \"{root}\"\n[[sites]]\nroot = \"{root}\"\n")
}

/// The value of one series, by its line in the text format.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}:\n{text}")).parse().expect("a number")
}

fn metrics_parse_and_say_what_happened(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::run(driver, &two_sites(&folder));
    let mut client = server.connect();
    for _ in 0..20 {
        assert_eq!(client.get("/page.html").status(), 200);
        assert_eq!(client.get("/none").status(), 404);
    }
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: images.example\r\n\r\n").status(), 200);
    assert_eq!(client.ask("GET /large.bin HTTP/1.1\r\nHost: images.example\r\n\r\n").status(), 200);
    assert_eq!(server.connect().ask("nonsense\r\n\r\n").status(), 400);
    // Whoever has received it all may be ahead of who counts it.
    wait_until("what was sent is counted", || {
        value(&server.admin("/metrics", "").1, "amped_sent_bytes_total") > 300_000.0
    });
    let (head, text) = server.admin("/metrics", "");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    for (series, expected) in [
        ("amped_requests_total{site=\"default\",code=\"2xx\"}", 20.0),
        ("amped_requests_total{site=\"default\",code=\"4xx\"}", 20.0),
        ("amped_requests_total{site=\"images.example\",code=\"2xx\"}", 2.0),
        ("amped_requests_total{site=\"none\",code=\"4xx\"}", 1.0),
        ("amped_connections_accepted_total", 2.0),
        ("amped_refused_requests_total", 1.0),
        ("amped_draining", 0.0),
        ("amped_restarts_total", 0.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}:\n{text}");
    }
    // Estimates: the last requests may not be represented yet.
    assert!((25.0..=42.0).contains(&value(&text, "amped_request_duration_seconds_count")), "{text}");
    assert!(value(&text, "amped_sent_bytes_total") > 300_000.0);
    assert!(value(&text, "amped_cache_lookups_total{result=\"hit\"}") > 10.0);
    assert!(value(&text, "amped_turn_duration_seconds_count") > 20.0);
    assert!(value(&text, "amped_request_duration_seconds_sum") < 10.0);
    let parsed = prometheus::parse_prometheus(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let requests = &parsed.families["amped_requests_total"];
    assert_eq!(requests.family_type, PrometheusType::Counter);
    let all = requests.iter_samples().map(|sample| match &sample.value {
        PrometheusValue::Counter(counter) => counter.value.as_f64(),
        other => panic!("no counter: {other:?}"),
    });
    assert_eq!(all.sum::<f64>(), 43.0);
    let (head, open) = server.admin("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
    assert!(head.contains("Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
    let parsed = openmetrics::parse_openmetrics(&open).unwrap_or_else(|error| panic!("{error}\n{open}"));
    assert!(parsed.families.contains_key("amped_requests") && parsed.families.contains_key("amped_build"));
    let status = server.status();
    for (list, name) in [("paths", "/page.html"), ("paths", "/none"), ("errors", "404 /none")] {
        let seen = status["top"][list][name].as_u64().unwrap_or_else(|| panic!("no {name}: {}", status["top"]));
        assert!((10..=30).contains(&seen), "{name}: {seen} of 20");
    }
}

/// Whatever clients send, there are as many series as before; and everything that is counted in one place is in the other.
#[test]
fn clients_cannot_make_series() {
    let folder = Folder::usual();
    let server = Server::run(Driver::EpollEdge, &two_sites(&folder));
    let series = || -> BTreeSet<String> {
        let (_, text) = server.admin("/metrics", "");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.rsplit_once(' ').expect("a name and a value").0.to_owned()).collect()
    };
    let before = series();
    for number in 0..300 {
        let mut client = server.connect();
        client.ask(format!("GET /{number}\"x HTTP/1.1\r\nHost: h{number}.example\r\n\r\n"));
        client.ask(format!("BREW{number} / HTTP/1.1\r\nHost: images.example\r\n\r\n"));
    }
    assert_eq!(series(), before);
    let status = server.status();
    assert!(status["top"]["paths"].as_object().expect("a table").len() <= 20);
    for name in status["counters"].as_object().expect("a table").keys() {
        let metric = amped::observe::counters::KNOWN.iter().find(|known| known.name == *name);
        // `ladder_step` is a state, and shown as one.
        let derived = ["requests", "client_errors", "server_errors", "ladder_step"].contains(&name.as_str());
        let shown = metric.is_some_and(|known| before.iter().any(|series| series.starts_with(known.metric)));
        assert!(derived || shown, "{name} is not in /metrics");
    }
}

fn a_draining_server_is_alive_and_not_ready(driver: Driver) {
    let folder = Folder::usual();
    folder.put("huge.bin", vec![b'x'; 50_000_000]);
    let mut server = Server::serve(driver, folder.path());
    assert!(server.admin("/healthz", "").0.starts_with("HTTP/1.1 200"));
    assert!(server.admin("/readyz", "").0.starts_with("HTTP/1.1 200"));
    // A client that takes its time keeps the server for a while.
    let mut slow = server.connect_slowly();
    slow.send(get("/huge.bin"));
    assert_eq!(slow.try_head().expect("a head").status(), 200);
    server.signal(Signal::TERM);
    wait_until("it is not ready", || server.admin("/readyz", "").0.starts_with("HTTP/1.1 503"));
    assert!(server.admin("/healthz", "").0.starts_with("HTTP/1.1 200"));
    assert_eq!(value(&server.admin("/metrics", "").1, "amped_draining"), 1.0);
    drop(slow);
    assert_eq!(server.wait(), Some(0));
}

fn connections_are_counted_by_what_they_wait_for(driver: Driver) {
    let folder = Folder::usual();
    folder.put("huge.bin", vec![b'x'; 50_000_000]);
    let server = Server::serve(driver, folder.path());
    let mut idle: Vec<_> = (0..3).map(|_| server.connect()).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
    let mut head = server.connect();
    head.send("GET / HTTP/1.1\r\nHo");
    let mut body = server.connect();
    body.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx");
    let mut sending = server.connect_slowly();
    sending.send(get("/huge.bin"));
    let expected = [("idle", 3), ("reading_head", 1), ("reading_body", 1), ("sending", 1), ("waiting_for_disk", 0)];
    let states = || server.status()["states"].clone();
    wait_until("each in its place", || expected.iter().all(|(state, count)| states()[*state] == *count));
    assert_eq!(value(&server.admin("/metrics", "").1, "amped_connections{state=\"sending\"}"), 1.0);
    drop((idle, head, body, sending));
    wait_until("nobody is left", || states().as_object().expect("a table").values().all(|count| *count == 0));
}

/// What one pays to be looked at closely is a choice among many: under load few are, and they stand for all.
#[test]
fn samples_stand_for_all() {
    let folder = Folder::usual();
    let server = Server::serve_with(Driver::EpollEdge, folder.path(), &["--workers", "1"]);
    let requests = get("/page.html").repeat(16);
    let mut client = server.connect();
    for _ in 0..3000 {
        client.send(&requests);
        (0..16).for_each(|_| assert_eq!(client.answer().status(), 200));
    }
    let status = server.status();
    let buckets = status["latency"]["buckets"].as_object().expect("a table");
    let estimated: u64 = buckets.values().map(|count| count.as_u64().expect("a number")).sum();
    assert!((40_000..=48_000).contains(&estimated), "{estimated} of 48,000");
    let path = status["top"]["paths"]["/page.html"].as_u64().expect("the only path");
    assert!((40_000..=48_000).contains(&path), "{path} of 48,000");
}

#[test]
fn events_come_by_themselves() {
    let folder = Folder::usual();
    for (driver, streamed) in [(Driver::EpollEdge, 3), (Driver::Mp, 1)] {
        let server = Server::serve(driver, folder.path());
        let mut stream = server.admin_socket();
        stream.set_read_timeout(Some(Duration::from_millis(2500))).expect("a socket");
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: admin\r\n\r\n").expect("it listens");
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let data = lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).take(streamed);
        let documents: Vec<serde_json::Value> =
            data.map(|line| serde_json::from_str(&line).expect("a line of JSON")).collect();
        // Processes: the parent has no thread to spare for a stream, and the browser asks again.
        assert_eq!(documents.len(), streamed, "{driver:?}");
        assert!(documents.iter().all(|document| document["turns"].is_array()), "{documents:?}");
    }
}

/// With processes their parent answers, on the thread that is told of their ends.
#[test]
fn a_process_that_ends_leaves_no_client_without_an_answer() {
    let folder = Folder::usual();
    let server = Server::serve_with(Driver::Mp, folder.path(), &["--workers", "3"]);
    let children = server.children();
    let mut admin = server.admin_socket();
    // Half of the request: the parent reads when it is told.
    admin.write_all(b"GET /status HTTP/1.1\r\n").expect("it listens");
    std::thread::sleep(Duration::from_millis(200));
    let victim = rustix::process::Pid::from_raw(children[0]).expect("a process");
    rustix::process::kill_process(victim, Signal::KILL).expect("own grandchild");
    std::thread::sleep(Duration::from_millis(200));
    admin.write_all(b"Host: admin\r\n\r\n").expect("it still reads");
    let mut answer = String::new();
    admin.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn other_machines_need_a_token() {
    let folder = Folder::usual();
    let serve = |admin: &str, token: Option<&str>| {
        let mut command = binary();
        command.arg("serve").arg(folder.path()).args(["--listen", "127.0.0.1:0", "--admin", admin]);
        command.env_remove("AMPED_ADMIN_TOKEN");
        if let Some(token) = token {
            command.env("AMPED_ADMIN_TOKEN", token);
        }
        command.output().expect("the binary starts")
    };
    for (admin, token, words) in [
        ("0.0.0.0:0", None, &["0.0.0.0:0", "other machines", "AMPED_ADMIN_TOKEN", "unix:PATH"][..]),
        ("[::]:0", None, &["[::]:0", "other machines"]),
        (":0", None, &["0.0.0.0:0", "other machines"]),
        ("127.0.0.1:0", Some("short"), &["AMPED_ADMIN_TOKEN", "16 to 256"]),
        ("nowhere", None, &["`nowhere` is not an address", "unix:PATH"]),
    ] {
        let output = serve(admin, token);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{admin}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{admin} does not say {word:?}: {said}"));
    }
    let file =
        folder.put("amped.toml", format!("admin = \":9000\"\n[[sites]]\nroot = \"{}\"\n", folder.path().display()));
    let mut check = binary();
    let output = check.args(["check", "-c"]).arg(&file).env_remove("AMPED_ADMIN_TOKEN").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && said.contains("amped.toml:1") && said.contains("other machines"),
        "{said}"
    );
    let token = "admin_token = \"0123456789abcdef\"\n";
    let server = Server::run(Driver::EpollEdge, &format!("{token}{}", two_sites(&folder)));
    assert!(server.admin("/status", "").0.starts_with("HTTP/1.1 401"));
    let (head, body) = server.admin("/metrics", "Authorization: Bearer 0123456789abcdef\r\n");
    assert!(head.starts_with("HTTP/1.1 200") && body.contains("amped_build_info"), "{head}");
    assert!(server.admin("/readyz", "").0.starts_with("HTTP/1.1 200"));
}

/// Every metric that the Grafana dashboard asks for is one that the server exports, and every one of the server's is asked for.
#[test]
fn grafana_asks_for_what_there_is() {
    let folder = Folder::usual();
    let server = Server::serve(Driver::EpollEdge, folder.path());
    let (_, text) = server.admin("/metrics", "");
    let exported: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().expect("a name"))
        .collect();
    let json = fs::read_to_string(top().join("docs/grafana.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let mut asked = BTreeSet::new();
    names_in(&dashboard, &mut asked);
    assert!(asked.len() > 15, "{asked:?}");
    let unknown: Vec<_> = asked.iter().filter(|name| !exported.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "not exported: {unknown:?}");
    let is_asked = |name: &&&str| asked.contains(**name) || name.ends_with("_sum") || name.ends_with("_count");
    let unused: Vec<_> = exported.iter().filter(|name| !is_asked(name)).collect();
    assert!(unused.is_empty(), "in no panel: {unused:?}");
}

/// The metrics in every `expr` of a document.
fn names_in(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Array(values) => values.iter().for_each(|value| names_in(value, names)),
        serde_json::Value::Object(object) => {
            let expression = object.get("expr").and_then(serde_json::Value::as_str).unwrap_or_default();
            let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            names.extend(words.filter(|word| word.starts_with("amped_")).map(str::to_owned));
            object.values().for_each(|value| names_in(value, names));
        }
        _ => {}
    }
}

/// The dashboard in a browser: it loads, it lives, in both themes, on a phone; and its picture for docs/, when asked for.
#[test]
fn the_dashboard_lives_in_a_browser() {
    let folder = Folder::usual();
    folder.put("huge.bin", vec![b'x'; 50_000_000]);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let admin = format!("127.0.0.1:{port}");
    let server = Server::serve_with(Driver::EpollEdge, folder.path(), &["--workers", "2", "--admin", &admin]);
    let _traffic = Traffic::start(server.address());
    let mut others: Vec<_> = (0..4).map(|_| server.connect_slowly()).collect();
    others[0].send("GET / HTTP/1.1\r\nHo");
    others[1].send(get("/huge.bin"));
    let mut browser = Browser::start();
    browser.call("Log.enable", serde_json::json!({}));
    let url = format!("http://127.0.0.1:{port}/");
    for (size, scheme, ground) in [
        ((1280, 900), "light", "rgb(245, 246, 248)"),
        ((1280, 900), "dark", "rgb(15, 19, 25)"),
        ((390, 844), "dark", "rgb(15, 19, 25)"),
    ] {
        browser.open(&url, size, scheme);
        browser.wait_until("document.body?.dataset.events >= 3");
        let events = browser.value("Number(document.body.dataset.events)").as_u64().expect("a number");
        browser.wait_until(&format!("Number(document.body.dataset.events) > {events}"));
        assert_eq!(browser.value("document.getElementById('state').textContent"), "live");
        assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), ground, "{scheme}");
        browser.wait_until("parseFloat(document.querySelector('[data-key=requests] b').textContent) > 0");
        let text = browser.value("document.body.innerText").to_string();
        for word in ["/page.html", "404 /none", "epoll-edge", "calm", "longest turn"] {
            assert!(text.contains(word), "no {word:?}: {text}");
        }
        // Every plot has ink, and nothing is wider than the screen.
        let painted = "[...document.querySelectorAll('canvas')].every(canvas => canvas.getContext('2d')\
            .getImageData(0, 0, canvas.width, canvas.height).data.some(byte => byte > 0))";
        assert_eq!(browser.value(painted), true);
        assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), true, "{size:?}");
        let asked =
            "performance.getEntriesByType('resource').every(entry => new URL(entry.name).origin === location.origin)";
        assert_eq!(browser.value(asked), true, "it asked somebody else");
    }
    if let Some(docs) = std::env::var_os("AMPED_PICTURES") {
        for (scheme, name) in [("light", "dashboard.png"), ("dark", "dashboard-dark.png")] {
            browser.open(&url, (1280, 1300), scheme);
            (1..=10).for_each(|tens| browser.wait_until(&format!("document.body?.dataset.events >= {tens} * 9")));
            fs::write(Path::new(&docs).join(name), browser.picture()).expect("a folder for pictures");
        }
    }
}

/// Requests of several kinds, again and again, until it is dropped.
struct Traffic {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    fn start(address: SocketAddr) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let ask = move || {
            let mut clients: Vec<_> = (0..8).map(|_| Client::connect(address, None).expect("it accepts")).collect();
            let mut turn = 0_u64;
            while !is_over.load(Relaxed) {
                for client in &mut clients {
                    turn += 1;
                    let path = match turn % 64 {
                        0 => "/none",
                        63 => "/of-old.html",
                        1..5 => "/large.bin",
                        5..20 => "/",
                        _ => "/page.html",
                    };
                    client.get(path);
                }
                // Tides, so that plots have a shape.
                let tide = (turn as f64 / 40_000.0).sin() + 1.2;
                std::thread::sleep(Duration::from_micros((2000.0 * tide) as u64));
            }
        };
        Self { over, thread: Some(std::thread::spawn(ask)) }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "the traffic broke down");
    }
}

fn top() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

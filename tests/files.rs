//! Files: which file a path leads to, and what its answer says.

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant, SystemTime};

use harness::{Answer, Driver, Folder, Server, get, on_every_driver, pattern};

on_every_driver!(
    no_path_leaves_the_root,
    links_are_followed_by_policy,
    hidden_names_are_not_there,
    folders_have_an_index_or_a_slash,
    special_files_are_refused_at_once,
    names_are_bytes,
    long_names_are_not_found,
    unreadable_files_are_forbidden,
    media_types_and_lengths,
    methods_that_files_have,
    conditions_in_their_order,
    a_file_of_the_future_is_dated_now,
    ranges_of_small_and_large_files,
    many_ranges_are_parts,
    if_range_guards_a_range,
    fields_by_path_and_error_pages,
);

const SECRET: &str = "outside the root\n";

/// A root below a folder that must not be reached.
fn guarded() -> (Folder, std::path::PathBuf) {
    let folder = Folder::on_disk();
    folder.put("secret.txt", SECRET);
    folder.put("root/index.html", "hi\n");
    folder.put("root/a/b/page.html", "a page\n");
    let root = folder.at("root");
    (folder, root)
}

fn no_path_leaves_the_root(driver: Driver) {
    let (folder, root) = guarded();
    let server = Server::serve(driver, &root);
    let absolute = format!("/{}", folder.at("secret.txt").display());
    for (path, status) in [
        ("/../secret.txt", 400),
        ("/a/../../secret.txt", 400),
        ("/a/b/../../../secret.txt", 400),
        ("/./../secret.txt", 400),
        ("/..", 400),
        ("/%2e%2e/secret.txt", 400),
        ("/%2E%2E/secret.txt", 400),
        ("/.%2e/secret.txt", 400),
        ("/%2e./secret.txt", 400),
        ("/%2e%2e%2fsecret.txt", 404),
        ("/..%2fsecret.txt", 404),
        ("/a%2fb%2fpage.html", 404),
        ("/%252e%252e/secret.txt", 404),
        ("/%252e%252e%252fsecret.txt", 404),
        ("/..%252fsecret.txt", 404),
        ("/..%5csecret.txt", 404),
        ("/..\\secret.txt", 404),
        ("/a\\..\\..\\secret.txt", 404),
        ("/..%c0%afsecret.txt", 404),
        ("/%c0%ae%c0%ae/secret.txt", 404),
        ("/.../secret.txt", 404),
        ("/..;/secret.txt", 404),
        ("/%00", 400),
        ("/index.html%00.png", 400),
        ("/secret.txt%00", 400),
        ("/%", 400),
        ("/%4", 400),
        ("/%g1", 400),
        ("/%2", 400),
        ("/proc/self/environ", 404),
        ("//etc/passwd", 404),
        (absolute.as_str(), 404),
        ("/index.html/", 404),
        ("/index.html/..", 200),
        ("/index.html/x", 404),
        ("/a/b/../b/./page.html", 200),
        ("//a///b//page.html", 200),
        ("/%61/%62/page%2ehtml", 200),
        ("/a/b/page.html?/../../secret.txt", 200),
    ] {
        for request in [get(path), get(&format!("http://test{path}"))] {
            let answer = server.connect().ask(&request);
            assert_eq!(answer.status(), status, "{request:?}: {}", answer.text());
            assert!(!answer.text().contains(SECRET.trim()), "{path} leaves the root");
        }
    }
}

fn links_are_followed_by_policy(driver: Driver) {
    let (folder, root) = guarded();
    let link = |target: &str, name: &str| symlink(target, root.join(name)).expect("own folder");
    link("a/b/page.html", "within");
    link("../secret.txt", "out");
    link("a/../../root/a/b/page.html", "out-and-back");
    link("a/b", "folder");
    link("..", "parent");
    link("loop", "loop");
    link("nowhere", "dangling");
    symlink(folder.at("secret.txt"), root.join("absolute")).expect("own folder");
    symlink(root.join("index.html"), root.join("absolute-within")).expect("own folder");
    link("/proc/self/root/etc/hostname", "magic");
    // (path, within, never, anywhere)
    let table = [
        ("/within", 200, 403, 200),
        ("/folder/page.html", 200, 403, 200),
        ("/out", 403, 403, 200),
        ("/out-and-back", 403, 403, 200),
        ("/parent/secret.txt", 403, 403, 200),
        ("/absolute", 403, 403, 200),
        ("/absolute-within", 403, 403, 200),
        ("/magic", 403, 403, 403),
        ("/loop", 403, 403, 403),
        ("/dangling", 404, 403, 404),
    ];
    for (policy, column) in [("within", 0), ("never", 1), ("anywhere", 2)] {
        let toml = format!("[[sites]]\nroot = \"{}\"\nsymlinks = \"{policy}\"", root.display());
        let server = Server::run(driver, &toml);
        for (path, within, never, anywhere) in table {
            let expected = [within, never, anywhere][column];
            for round in ["first", "cached"] {
                let answer = server.get(path);
                assert_eq!(answer.status(), expected, "{path} with {policy}, {round}: {}", answer.text());
                assert!(column == 2 || !answer.text().contains(SECRET.trim()), "{path} with {policy}");
            }
        }
    }
}

fn hidden_names_are_not_there(driver: Driver) {
    let folder = Folder::on_disk();
    for name in [".env", ".git/config", "a/.b/c", ".well-known/acme", ".well-known/.x", "a/.well-known/y", "..x"] {
        folder.put(name, "found\n");
    }
    let table = [
        ("/.env", 404),
        ("/%2eenv", 404),
        ("/.git/config", 404),
        ("/.git", 404),
        ("/.git/", 404),
        ("/a/.b/c", 404),
        ("/a/../.env", 404),
        ("/..x", 404),
        ("/.well-known/acme", 200),
        ("/.well-known/.x", 404),
        ("/a/.well-known/y", 404),
        ("/.well-known-not", 404),
    ];
    let server = Server::serve(driver, folder.path());
    for (path, status) in table {
        assert_eq!(server.get(path).status(), status, "{path}");
    }
    let toml = format!("[[sites]]\nroot = \"{}\"\nhidden = true", folder.path().display());
    let server = Server::run(driver, &toml);
    for path in ["/.env", "/%2eenv", "/.git/config", "/a/.b/c", "/..x", "/.well-known/.x"] {
        assert_eq!(server.get(path).text(), "found\n", "{path}, when hidden names are shown");
    }
}

fn folders_have_an_index_or_a_slash(driver: Driver) {
    let folder = Folder::on_disk();
    folder.put("index.html", "top\n");
    folder.put("with/index.html", "with\n");
    folder.put("second/index.htm", "second\n");
    folder.put("without/page.html", "page\n");
    folder.put("odd/index.html/x", "a folder named so\n");
    folder.put("sp ace\"\u{e4}/index.html", "odd\n");
    folder.put(OsStr::from_bytes(b"byte\xff/index.html"), "byte\n");
    let toml = format!("[[sites]]\nroot = \"{}\"\nindex = [\"index.html\", \"index.htm\"]", folder.path().display());
    let server = Server::run(driver, &toml);
    for (path, status, body) in [
        ("/", 200, "top\n"),
        ("/?q", 200, "top\n"),
        ("/with/", 200, "with\n"),
        ("/with/.", 200, "with\n"),
        ("/with/x/..", 200, "with\n"),
        ("/second/", 200, "second\n"),
        ("/without/", 403, "403 Forbidden\n"),
        ("/odd/", 403, "403 Forbidden\n"),
        ("/none/", 404, "404 Not Found\n"),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{path}");
    }
    for (path, location) in [
        ("/with", "/with/"),
        ("/without", "/without/"),
        ("/with?a=b&c=%20d?e", "/with/?a=b&c=%20d?e"),
        ("/with?", "/with/?"),
        ("/x/../with", "/with/"),
        ("//with", "/with/"),
        ("/%77ith", "/with/"),
        ("/sp%20ace%22%c3%a4", "/sp%20ace%22%C3%A4/"),
        ("/byte%ff?x", "/byte%FF/?x"),
    ] {
        for round in ["first", "cached"] {
            let answer = server.get(path);
            assert_eq!((answer.status(), answer.field("location")), (301, Some(location)), "{path}, {round}");
        }
        let target = server.get(location);
        assert!(matches!(target.status(), 200 | 403), "{path} leads nowhere");
    }
}

fn special_files_are_refused_at_once(driver: Driver) {
    let folder = Folder::on_disk();
    folder.put("index.html", "hi\n");
    let node = |name: &str, kind, device| {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(rustix::fs::CWD, folder.at(name), kind, mode, device)
    };
    node("fifo", rustix::fs::FileType::Fifo, 0).expect("own folder");
    node("fifo-with-writer", rustix::fs::FileType::Fifo, 0).expect("own folder");
    let _socket = UnixListener::bind(folder.at("socket")).expect("own folder");
    let mut paths = vec!["/fifo", "/fifo-with-writer", "/socket"];
    // Devices are for those who may make them: /dev/zero never ends, /dev/null never begins.
    for (name, minor) in [("zero", 5), ("null", 3)] {
        if node(name, rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(1, minor)).is_ok() {
            paths.push(if name == "zero" { "/zero" } else { "/null" });
        }
    }
    let writer = fs::OpenOptions::new().read(true).write(true).open(folder.at("fifo-with-writer")).expect("a fifo");
    rustix::io::write(&writer, b"for somebody else").expect("room in the fifo");
    for disk in driver.disk_modes() {
        let server = Server::serve_with(driver, folder.path(), &["--disk", disk]);
        let start = Instant::now();
        for _ in 0..3 {
            for path in &paths {
                assert_eq!(server.get(path).status(), 403, "{path} with --disk {disk}");
                assert_eq!(server.get("/").text(), "hi\n");
            }
        }
        assert!(start.elapsed() < Duration::from_secs(5), "something waited: {:?}", start.elapsed());
    }
    let mut bytes = [0; 32];
    let read = rustix::io::read(&writer, &mut bytes).expect("what was written");
    assert_eq!(&bytes[..read], b"for somebody else", "the server read from a fifo");
}

fn names_are_bytes(driver: Driver) {
    let folder = Folder::on_disk();
    let names: &[(&[u8], &str)] = &[
        (b"\xff\xfe", "/%ff%fe"),
        (b"new\nline", "/new%0aline"),
        (b"tab\there", "/tab%09here"),
        (b"percent%41", "/percent%2541"),
        (b"question?mark", "/question%3fmark"),
        (b"hash#mark", "/hash%23mark"),
        (b"back\\slash", "/back\\slash"),
        (b"plus+plus", "/plus+plus"),
        (b"del\x7f\x01", "/del%7f%01"),
        ("\u{e4}\u{1f600}".as_bytes(), "/%C3%A4%F0%9F%98%80"),
        (b"a b", "/a%20b"),
        (b"<script>\"'&", "/%3Cscript%3E%22'&"),
    ];
    for (name, _) in names {
        folder.put(OsStr::from_bytes(name), name);
    }
    let server = Server::serve(driver, folder.path());
    for (name, path) in names {
        assert_eq!(server.get(path).body, *name, "{path}");
    }
    // Raw bytes above ASCII, as old clients send them.
    let mut client = server.connect();
    client.send(b"GET /\xc3\xa4\xf0\x9f\x98\x80 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().body, "\u{e4}\u{1f600}".as_bytes());
}

fn long_names_are_not_found(driver: Driver) {
    let folder = Folder::on_disk();
    let longest = "n".repeat(255);
    folder.put(&longest, "found\n");
    let server = Server::serve(driver, folder.path());
    assert_eq!(server.get(&format!("/{longest}")).text(), "found\n");
    for path in [
        format!("/{longest}n"),
        format!("/{}", "n".repeat(5000)),
        format!("/{}", "n".repeat(8000)),
        "/d".repeat(2047),
        "/d".repeat(2049),
        "/d".repeat(4000),
        format!("/{}/x", "%6e".repeat(256)),
        format!("/{longest}/x"),
    ] {
        assert_eq!(server.get(&path).status(), 404, "{} bytes: {}", path.len(), &path[..20]);
    }
}

fn unreadable_files_are_forbidden(driver: Driver) {
    let folder = Folder::for_all();
    folder.put("index.html", "hi\n");
    folder.put("locked.html", "locked\n");
    folder.put("closed/page.html", "closed\n");
    let forbid =
        |name: &str| fs::set_permissions(folder.at(name), fs::Permissions::from_mode(0o000)).expect("own file");
    forbid("locked.html");
    forbid("closed");
    // With all rights everything can be read, so the server is started without them; a copy of it, where anybody may run it.
    let place = tempfile::tempdir().expect("a temporary folder");
    let toml = format!("[[sites]]\nroot = \"{}\"", folder.path().display());
    let server = Server::run_as(driver, &toml, |command| {
        if harness::is_root() {
            *command = harness::binary_as_nobody(place.path());
        }
    });
    assert_eq!(server.get("/").text(), "hi\n");
    for path in ["/locked.html", "/closed/page.html", "/closed/"] {
        assert_eq!(server.get(path).status(), 403, "{path}");
    }
    // It is forbidden no longer once it may be read.
    fs::set_permissions(folder.at("locked.html"), fs::Permissions::from_mode(0o644)).expect("own file");
    harness::wait_until("the file is served", || server.get("/locked.html").status() == 200);
    fs::set_permissions(folder.at("closed"), fs::Permissions::from_mode(0o755)).expect("own file");
}

fn media_types_and_lengths(driver: Driver) {
    let folder = Folder::on_disk();
    let large = pattern(0, 70_000);
    for (name, bytes) in
        [("empty.txt", &b""[..]), ("one.html", b"1"), ("edge.bin", &large[..65_536]), ("over.css", &large)]
    {
        folder.put(name, bytes);
    }
    for name in ["a.JS", "b.svg", "c.jpeg", "d.woff2", "e.mp4", "f.unknown", "g", ".h/i.tar.gz", "j.json", "k.wasm"] {
        folder.put(name, "x");
    }
    let server = Server::serve(driver, folder.path());
    for (path, media_type, length) in [
        ("/empty.txt", "text/plain; charset=utf-8", 0),
        ("/one.html", "text/html; charset=utf-8", 1),
        ("/edge.bin", "application/octet-stream", 65_536),
        ("/over.css", "text/css; charset=utf-8", 70_000),
        ("/a.JS", "text/javascript; charset=utf-8", 1),
        ("/b.svg", "image/svg+xml", 1),
        ("/c.jpeg", "image/jpeg", 1),
        ("/d.woff2", "font/woff2", 1),
        ("/e.mp4", "video/mp4", 1),
        ("/f.unknown", "application/octet-stream", 1),
        ("/g", "application/octet-stream", 1),
        ("/j.json", "application/json", 1),
        ("/k.wasm", "application/wasm", 1),
    ] {
        let mut client = server.connect();
        for round in ["first", "cached"] {
            let answer = client.get(path);
            assert_eq!(answer.field("content-type"), Some(media_type), "{path}, {round}");
            assert_eq!(answer.body.len(), length, "{path}, {round}");
            assert_eq!(answer.field("accept-ranges"), Some("bytes"));
            assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT") && date.len() == 29));
            let head = client.ask(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let without_date =
                |answer: &Answer| answer.fields.iter().filter(|(name, _)| name != "date").cloned().collect::<Vec<_>>();
            assert_eq!(without_date(&head), without_date(&answer), "HEAD of {path} differs");
        }
        client.expect_open(path);
    }
}

fn methods_that_files_have(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE"] {
        for path in ["/", "/large.bin", "/missing"] {
            let answer = server.connect().ask(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!((answer.status(), answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method} {path}");
        }
    }
    let answer = server.connect().ask("OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status(), answer.field("allow")), (204, Some("GET, HEAD, OPTIONS")));
}

/// A request for `path` with one more line.
fn with(method: &str, path: &str, lines: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

/// A folder with a small and a large file that were last changed at `THEN`.
fn dated() -> Folder {
    let folder = Folder::on_disk();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    folder.write("small.txt", pattern(1, SMALL), then);
    folder.write("large.bin", pattern(1, LARGE), then);
    folder.write("empty.txt", "", then);
    // A change within the file system's clock tick of another cannot be told apart, so young files have weak tags.
    std::thread::sleep(Duration::from_millis(50));
    folder
}

/// What claims to have changed later than now is dated now (RFC 9110 section 8.8.2.1), and its tag is as strong as another's.
fn a_file_of_the_future_is_dated_now(driver: Driver) {
    let folder = Folder::on_disk();
    folder.write("page.html", "a page\n", SystemTime::now() + Duration::from_secs(100 * 366 * 86_400));
    std::thread::sleep(Duration::from_millis(50));
    let server = Server::serve(driver, folder.path());
    let answer = server.get("/page.html");
    let year = |field: &str| answer.field(field).and_then(|date| date.split(' ').nth(3)).expect("a date").to_owned();
    assert!(year("last-modified") <= year("date"), "{answer:?}");
    assert!(answer.field("etag").is_some_and(|tag| tag.starts_with('"')), "{answer:?}");
    let dated = answer.field("last-modified").expect("a date");
    let again = format!("GET /page.html HTTP/1.1\r\nHost: test\r\nIf-Modified-Since: {dated}\r\n\r\n");
    assert_eq!(server.connect().ask(again).status(), 304);
}

fn conditions_in_their_order(driver: Driver) {
    let folder = dated();
    let server = Server::serve(driver, folder.path());
    for path in ["/small.txt", "/large.bin"] {
        let answer = server.get(path);
        let tag = answer.field("etag").expect("a tag").to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "not a strong tag: {tag}");
        assert_eq!(answer.field("last-modified"), Some(THEN));
        let table = [
            (format!("If-None-Match: {tag}"), 304, 412),
            (format!("If-None-Match: W/{tag}"), 304, 412),
            (format!("If-None-Match: \"x\", {tag}"), 304, 412),
            ("If-None-Match: *".into(), 304, 412),
            ("If-None-Match: \"x\"".into(), 200, 405),
            (format!("If-Modified-Since: {THEN}"), 304, 405),
            (format!("If-Modified-Since: {AFTER}"), 304, 405),
            (format!("If-Modified-Since: {BEFORE}"), 200, 405),
            ("If-Modified-Since: yesterday".into(), 200, 405),
            // The tag decides, whatever the date says (RFC 9110 section 13.2.2).
            (format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {AFTER}"), 200, 405),
            (format!("If-None-Match: {tag}\r\nIf-Modified-Since: {BEFORE}"), 304, 412),
            (format!("If-Match: {tag}"), 200, 405),
            ("If-Match: *".into(), 200, 405),
            ("If-Match: \"x\"".into(), 412, 412),
            (format!("If-Match: W/{tag}"), 412, 412),
            (format!("If-Unmodified-Since: {THEN}"), 200, 405),
            (format!("If-Unmodified-Since: {BEFORE}"), 412, 412),
            (format!("If-Match: {tag}\r\nIf-Unmodified-Since: {BEFORE}"), 200, 405),
            (format!("If-Match: {tag}\r\nIf-None-Match: {tag}"), 304, 412),
            (format!("If-Match: \"x\"\r\nIf-None-Match: {tag}"), 412, 412),
        ];
        let mut client = server.connect();
        for (lines, status, _) in &table {
            let answer = client.ask(with("GET", path, lines));
            assert_eq!(answer.status(), *status, "{path}: {lines}");
            let head = client.ask(with("HEAD", path, lines));
            assert_eq!(head.status(), *status, "HEAD {path}: {lines}");
            if *status == 304 {
                assert_eq!(answer.field("etag"), Some(tag.as_str()), "304 repeats the tag");
                assert_eq!(answer.field("content-length"), None, "304 promises nothing");
            }
        }
        client.expect_open(path);
        // Conditions do not make a missing file present.
        for lines in ["If-None-Match: *", "If-Match: *", "If-Modified-Since: yesterday"] {
            assert_eq!(server.connect().ask(with("GET", "/missing", lines)).status(), 404, "{lines}");
        }
    }
}

fn ranges_of_small_and_large_files(driver: Driver) {
    let folder = dated();
    let server = Server::serve(driver, folder.path());
    for (path, length) in [("/small.txt", SMALL), ("/large.bin", LARGE)] {
        let whole = pattern(1, length);
        let mut client = server.connect();
        for (range, expected) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=0-499", Some(0..500)),
            ("bytes=500-", Some(500..length)),
            ("bytes=-1", Some(length - 1..length)),
            ("bytes=-500", Some(length - 500..length)),
            ("bytes=-99999999", Some(0..length)),
            ("bytes=10-99999999999999999999999", Some(10..length)),
            ("BYTES=1-2", Some(1..3)),
            ("bytes=0-0,", Some(0..1)),
            ("bytes=0-9,5-19", Some(0..20)),
            ("bytes=0-9, 99999999-", Some(0..10)),
        ] {
            let range_line = format!("Range: {range}");
            let answer = client.ask(with("GET", path, &range_line));
            let expected = expected.expect("a range");
            assert_eq!(answer.status(), 206, "{path} {range}");
            let content_range = format!("bytes {}-{}/{length}", expected.start, expected.end - 1);
            assert_eq!(answer.field("content-range"), Some(content_range.as_str()), "{path} {range}");
            assert!(answer.body == whole[expected], "{path} {range}: wrong bytes");
            // Only GET has ranges (RFC 9110 section 14.2).
            assert_eq!(client.ask(with("HEAD", path, &range_line)).status(), 200);
        }
        for range in ["bytes=abc", "bytes=5-2", "bytes", "bytes=", "bytes=,", "lines=0-1", "bytes=0-1;2", "bytes=--1"] {
            let answer = client.ask(with("GET", path, &format!("Range: {range}")));
            assert_eq!((answer.status(), answer.body == whole), (200, true), "{path} {range}");
        }
        let many = (0..200).map(|at| format!("{}-{}", at * 4, at * 4 + 1)).collect::<Vec<_>>().join(",");
        assert_eq!(client.ask(with("GET", path, &format!("Range: bytes={many}"))).status(), 200, "too many ranges");
        for range in [format!("bytes={length}-"), format!("bytes={length}-{}", length + 5), "bytes=-0".into()] {
            let answer = client.ask(with("GET", path, &format!("Range: {range}")));
            assert_eq!(answer.status(), 416, "{path} {range}");
            assert_eq!(answer.field("content-range"), Some(format!("bytes */{length}").as_str()), "{path} {range}");
        }
        client.expect_open(path);
    }
    assert_eq!(server.connect().ask(with("GET", "/empty.txt", "Range: bytes=0-")).status(), 416);
}

fn many_ranges_are_parts(driver: Driver) {
    let folder = dated();
    let server = Server::serve(driver, folder.path());
    for (path, length, media_type) in
        [("/small.txt", SMALL, "text/plain; charset=utf-8"), ("/large.bin", LARGE, "application/octet-stream")]
    {
        let whole = pattern(1, length);
        for (range, expected) in [
            ("bytes=0-9,20-29", vec![0..10, 20..30]),
            ("bytes=-5, 0-0 ,100-1099", vec![length - 5..length, 0..1, 100..1100]),
            ("bytes=2000-2999,0-99", vec![2000..3000, 0..100]),
        ] {
            let mut client = server.connect();
            let answer = client.ask(with("GET", path, &format!("Range: {range}")));
            assert_eq!(answer.status(), 206, "{path} {range}");
            assert_eq!(answer.field("content-range"), None, "it belongs to the parts");
            let parts = parts(&answer);
            assert_eq!(parts.len(), expected.len(), "{path} {range}");
            for ((fields, body), expected) in parts.iter().zip(expected) {
                let content_range = format!("bytes {}-{}/{length}", expected.start, expected.end - 1);
                assert!(fields.iter().any(|line| *line == format!("Content-Range: {content_range}")), "{fields:?}");
                assert!(fields.iter().any(|line| *line == format!("Content-Type: {media_type}")), "{fields:?}");
                assert!(*body == whole[expected], "{path} {range}: wrong bytes");
            }
            client.expect_open(range);
        }
    }
}

/// The parts of a multipart/byteranges answer: field lines and bytes (RFC 2046 section 5.1).
fn parts(answer: &Answer) -> Vec<(Vec<String>, Vec<u8>)> {
    let media_type = answer.field("content-type").expect("a type");
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").expect("parts").trim_matches('"');
    let mut rest = answer.body.as_slice();
    let mut parts = Vec::new();
    let delimiter = format!("--{boundary}");
    rest = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    rest = rest.strip_prefix(delimiter.as_bytes()).expect("a first delimiter");
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let head = find(part, b"\r\n\r\n").expect("a part's head");
        let fields = String::from_utf8_lossy(&part[..head]).split("\r\n").map(str::to_owned).collect();
        let body = &part[head + 4..];
        let end = find(body, format!("\r\n{delimiter}").as_bytes()).expect("a part's end");
        parts.push((fields, body[..end].to_vec()));
        rest = &body[end + 2 + delimiter.len()..];
    }
    assert!(rest == b"--\r\n" || rest == b"--", "no closing delimiter");
    parts
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn if_range_guards_a_range(driver: Driver) {
    let folder = dated();
    let server = Server::serve(driver, folder.path());
    for path in ["/small.txt", "/large.bin"] {
        let tag = server.get(path).field("etag").expect("a tag").to_owned();
        for (value, status) in [
            (tag.clone(), 206),
            (format!("W/{tag}"), 200),
            ("\"x\"".into(), 200),
            (THEN.into(), 206),
            (AFTER.into(), 200),
            (BEFORE.into(), 200),
            ("nonsense".into(), 200),
        ] {
            let lines = format!("Range: bytes=3-5\r\nIf-Range: {value}");
            assert_eq!(server.connect().ask(with("GET", path, &lines)).status(), status, "{path} If-Range: {value}");
        }
        // Conditions come before ranges.
        let lines = format!("Range: bytes=3-5\r\nIf-None-Match: {tag}");
        assert_eq!(server.connect().ask(with("GET", path, &lines)).status(), 304);
        let lines = "Range: bytes=3-5\r\nIf-Match: \"x\"";
        assert_eq!(server.connect().ask(with("GET", path, lines)).status(), 412);
    }
}

fn fields_by_path_and_error_pages(driver: Driver) {
    let folder = Folder::usual();
    folder.put("style.css", "css\n");
    folder.put("404.html", "<p>own 404\n");
    folder.put("pages/busy.txt", "own 405\n");
    let root = folder.path().display();
    let toml = format!(
        r#"[[sites]]
root = "{root}"
error_pages = {{ 404 = "404.html", 405 = "pages/busy.txt" }}
[[sites.headers]]
match = "*"
set = {{ X-All = "every path" }}
[[sites.headers]]
match = "*.css"
cache_control = "public, max-age=86400"
set = {{ X-All = "styles" }}
[[sites.headers]]
match = "/large*"
cache_control = "no-cache"
"#
    );
    let server = Server::run(driver, &toml);
    let mut client = server.connect();
    for (path, all, cache_control) in [
        ("/", Some("every path"), None),
        ("/style.css", Some("styles"), Some("public, max-age=86400")),
        ("/large.bin", Some("every path"), Some("no-cache")),
    ] {
        for lines in
            ["X: y", "Range: bytes=0-0", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT", "If-None-Match: *"]
        {
            let answer = client.ask(with("GET", path, lines));
            assert_eq!(answer.field("x-all"), all, "{path} {lines} {}", answer.status());
            assert_eq!(answer.field("cache-control"), cache_control, "{path} {lines} {}", answer.status());
        }
    }
    let answer = client.get("/missing.css");
    assert_eq!((answer.status(), answer.text().as_str()), (404, "<p>own 404\n"));
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    let answer = client.ask("POST / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((answer.status(), answer.text().as_str()), (405, "own 405\n"));
    assert_eq!(answer.field("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.field("allow"), Some("GET, HEAD, OPTIONS"));
    client.expect_open("after own error pages");
    // `amped serve` takes 404.html of the folder.
    let server = Server::serve(driver, folder.path());
    assert_eq!(server.get("/missing").text(), "<p>own 404\n");
}

const SMALL: usize = 10_000;
const LARGE: usize = 3_000_000;

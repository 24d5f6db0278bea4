//! Files that change: seen new in time, and never a wrong byte under a promised length.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use harness::{
    Client, Driver, Folder, Server, get, on_every_driver, on_every_loop, on_every_thread, pattern, wait_until,
};

on_every_driver!(
    a_download_is_one_version_or_broken,
    a_window_is_one_version_or_broken,
    a_file_that_never_rests_is_never_torn,
    an_answer_is_of_the_second_it_is_given_in,
);
on_every_thread!(a_file_is_seen_new_in_time);
on_every_loop!(a_folder_is_seen_new_gone_and_back);

fn a_file_is_seen_new_in_time(driver: Driver) {
    std::thread::scope(|scope| {
        for make in [Folder::on_disk, Folder::in_memory] {
            for (name, length) in [("small.bin", 1000), ("large.bin", 200_000)] {
                scope.spawn(move || follow_changes(driver, &make(), name, length));
            }
        }
    });
}

fn follow_changes(driver: Driver, folder: &Folder, name: &str, length: usize) {
    folder.put(name, pattern(1, length));
    let server = Server::serve(driver, folder.path());
    let path = format!("/{name}");
    assert!(server.get(&path).body == pattern(1, length));
    folder.replace(name, pattern(2, length));
    expect_soon(&server, &path, 200, &pattern(1, length), &pattern(2, length));
    // Without the old version's help: another length, in place.
    folder.write(name, pattern(3, length + 77), SystemTime::now());
    expect_soon(&server, &path, 200, &pattern(2, length), &pattern(3, length + 77));
    folder.write(name, pattern(4, length), SystemTime::now());
    expect_soon(&server, &path, 200, &pattern(3, length + 77), &pattern(4, length));
    fs::remove_file(folder.at(name)).expect("own file");
    expect_soon(&server, &path, 404, &pattern(4, length), b"404 Not Found\n");
    assert_eq!(server.get(&path).status(), 404, "a missing file is remembered");
    folder.put(name, pattern(5, length));
    expect_soon(&server, &path, 200, b"404 Not Found\n", &pattern(5, length));
    fs::remove_file(folder.at(name)).expect("own file");
    fs::create_dir(folder.at(name)).expect("own folder");
    expect_soon(&server, &path, 301, &pattern(5, length), b"");
}

/// Asks until the new version comes. Before it, only the old one may, or a broken connection; never something else.
fn expect_soon(server: &Server, path: &str, status: u16, old: &[u8], new: &[u8]) {
    let start = Instant::now();
    loop {
        let mut client = server.connect();
        client.send(get(path));
        match client.try_answer(false) {
            Ok(answer) if answer.body == new => return assert_eq!(answer.status(), status, "{path}"),
            Ok(answer) => assert!(
                answer.body == old,
                "{path}: neither the old nor the new version: {} with {} bytes",
                answer.status_line,
                answer.body.len()
            ),
            Err(error) => assert!(is_broken(&error), "{path}: {error}"),
        }
        // One second by promise; the rest is for busy machines.
        assert!(start.elapsed() < Duration::from_secs(4), "{path}: the old version is still served");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whatever its length, and while somebody takes long to read the answer of an earlier second.
fn an_answer_is_of_the_second_it_is_given_in(driver: Driver) {
    let folder = Folder::on_disk();
    let sizes = [100, 1900, 3000, 9000, 60_000];
    sizes.iter().for_each(|size| _ = folder.put(format!("{size}.bin"), pattern(1, *size)));
    let server = Server::serve(driver, folder.path());
    let (mut client, mut slow) = (server.connect(), server.connect_slowly());
    // The answer to what is not there lies in no cache.
    let now = |client: &mut Client| second_of(&client.get("/none"));
    let start = now(&mut client);
    slow.send(get("/60000.bin").repeat(20));
    while now(&mut client) < start + 3 {
        for size in sizes {
            let before = now(&mut client);
            let answer = client.get(&format!("/{size}.bin"));
            assert!(answer.body == pattern(1, size), "{size}");
            let after = now(&mut client);
            assert!((before..=after).contains(&second_of(&answer)), "{size}: {before} to {after}, {:?}", answer.fields);
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    // Another worker may have looked at the clock up to 50 ms before or after.
    for _ in 0..20 {
        let answer = slow.answer();
        assert!(answer.body == pattern(1, 60_000));
        assert!((start - 1..=now(&mut client) + 1).contains(&second_of(&answer)), "{start}: {:?}", answer.fields);
    }
}

fn second_of(answer: &harness::Answer) -> u64 {
    let date = answer.field("date").expect("a date");
    amped_wire::semantics::date::parse(date.as_bytes(), 0).expect("a date")
}

fn is_broken(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset)
}

fn a_download_is_one_version_or_broken(driver: Driver) {
    const HUGE: usize = 24 << 20;
    type Change = (&'static str, bool, fn(&Path));
    let changes: &[Change] = &[
        ("replaced by rename", true, |path| {
            let new = path.with_extension("new");
            fs::write(&new, pattern(2, HUGE)).expect("own folder");
            fs::rename(new, path).expect("own folder");
        }),
        ("removed", true, |path| fs::remove_file(path).expect("own file")),
        ("overwritten in place", false, |path| fs::write(path, pattern(2, HUGE)).expect("own file")),
        ("grown", false, |path| {
            let file = fs::OpenOptions::new().append(true).open(path).expect("own file");
            rustix::io::write(&file, &pattern(9, 100_000)).expect("room");
        }),
        ("shrunk to nothing", false, |path| drop(fs::File::create(path).expect("own file"))),
        ("shrunk by a third", false, |path| {
            let file = fs::OpenOptions::new().write(true).open(path).expect("own file");
            file.set_len(HUGE as u64 / 3 * 2).expect("own file");
        }),
    ];
    let old = pattern(1, HUGE);
    for folder in [Folder::on_disk(), Folder::in_memory()] {
        let server = Server::serve(driver, folder.path());
        for (what, must_be_whole, change) in changes {
            let path = folder.put("huge.bin", &old);
            harness::wait_until("the old version is back", || {
                let mut client = server.connect_slowly();
                client.send("GET /huge.bin HTTP/1.1\r\nHost: a\r\nRange: bytes=-8\r\n\r\n");
                client.try_answer(false).is_ok_and(|answer| answer.body == old[HUGE - 8..])
            });
            let mut client = server.connect_slowly();
            client.send(get("/huge.bin"));
            client.try_head().expect("a head");
            let mut body = Vec::new();
            read_some(&mut client, &mut body, 300_000);
            change(&path);
            let ended = read_to_end(&mut client, &mut body, HUGE);
            match ended {
                Ok(()) => assert!(body == old, "{what}: a mixture was sent whole"),
                Err(error) => {
                    assert!(is_broken(&error), "{what}: {error}");
                    assert!(!must_be_whole, "{what}: the download broke after {} bytes", body.len());
                    assert!(body.len() < HUGE, "{what}: everything came, and then it broke");
                }
            }
        }
    }
}

/// A file that is in memory to its end when it changes. Of some lengths the last bytes are all that is left to be sent by then:
/// once they have gone, it would be too late to break the connection.
fn a_window_is_one_version_or_broken(driver: Driver) {
    let folder = Folder::on_disk();
    let server = Server::serve(driver, folder.path());
    let mut broken = 0;
    for length in (80_000..600_000).step_by(20_000).chain([1_000_000]) {
        let path = folder.put(format!("{length}.bin"), pattern(1, length));
        let mut client = server.connect_slowly();
        client.send(get(&format!("/{length}.bin")));
        client.try_head().expect("a head");
        let mut body = Vec::new();
        read_some(&mut client, &mut body, 50_000);
        fs::write(path, pattern(2, length)).expect("own file");
        match read_to_end(&mut client, &mut body, length) {
            Ok(()) => assert!(body == pattern(1, length), "a mixture of {length} bytes was sent whole"),
            Err(error) => {
                assert!(is_broken(&error), "{error}");
                broken += 1;
            }
        }
    }
    assert!(broken > 0, "the kernel takes it all at once");
}

fn read_some(client: &mut Client, body: &mut Vec<u8>, wanted: usize) {
    while body.len() < wanted {
        body.extend(client.read_once(16 * 1024).expect("the download goes on"));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read_to_end(client: &mut Client, body: &mut Vec<u8>, length: usize) -> std::io::Result<()> {
    while body.len() < length {
        match client.read_once(1 << 20)? {
            bytes if bytes.is_empty() => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            bytes => body.extend(bytes),
        }
    }
    Ok(())
}

fn a_file_that_never_rests_is_never_torn(driver: Driver) {
    let folder = Folder::on_disk();
    let versions: Vec<Vec<u8>> = (0..8).map(|version| pattern(version, 40_000 + usize::from(version) * 8)).collect();
    folder.replace("small.bin", &versions[0]);
    folder.replace("large.bin", versions[0].repeat(3));
    let server = Server::serve(driver, folder.path());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let start = Instant::now();
            for version in versions.iter().cycle().take_while(|_| start.elapsed() < Duration::from_secs(3)) {
                folder.replace("small.bin", version);
                folder.replace("large.bin", version.repeat(3));
            }
        });
        let mut answers = 0;
        while !writer.is_finished() {
            let mut client = server.connect();
            let small = client.get("/small.bin");
            let large = client.get("/large.bin");
            assert!(versions.contains(&small.body), "a torn small file");
            assert!(versions.iter().any(|version| large.body == version.repeat(3)), "a torn large file");
            answers += 2;
        }
        assert!(answers > 10, "only {answers} answers");
    });
}

/// Releases behind a link, as many are deployed; and a folder that is not there for a while.
fn a_folder_is_seen_new_gone_and_back(driver: Driver) {
    let folder = Folder::on_disk();
    let release = |number: u8| {
        let path = folder.at(number.to_string());
        fs::create_dir(&path).expect("own folder");
        fs::write(path.join("page"), format!("release {number}\n")).expect("own file");
        path
    };
    let (_, second) = (release(1), release(2));
    symlink("1", folder.at("current")).expect("own link");
    let server = Server::serve(driver, &folder.at("current"));
    let mut client = server.connect();
    assert_eq!(client.get("/page").text(), "release 1\n");
    symlink("2", folder.at("next")).expect("own link");
    fs::rename(folder.at("next"), folder.at("current")).expect("own link");
    wait_until("the next release", || client.get("/page").text() == "release 2\n");
    wait_until("it is said", || server.said().contains("current is another folder now, which is served from here on"));

    fs::rename(&second, folder.at("away")).expect("own folder");
    wait_until("it is missed", || server.said().contains("current is gone;"));
    assert_eq!(client.get("/missing").status(), 500, "nobody knows what should be there");
    fs::remove_dir_all(folder.at("away")).expect("own folder");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(client.get("/page").text(), "release 2\n", "memory knows");
    assert_eq!(client.get("/").status(), 500);
    symlink("3", folder.at("next")).expect("own link");
    release(3);
    fs::rename(folder.at("next"), folder.at("current")).expect("own link");
    wait_until("what was put there", || client.get("/page").text() == "release 3\n");
    assert_eq!(client.get("/missing").status(), 404);
}

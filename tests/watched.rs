//! Files that the server need not look at, since the kernel tells of changes in their folders: no change may be missed for it.

mod harness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Driver, Folder, Server, on_every_loop, wait_until};

on_every_loop!(
    a_quiet_file_is_not_looked_at,
    whatever_happens_to_a_file_is_served,
    folders_that_move_take_their_files_along,
    what_a_watch_cannot_see_is_looked_at,
    a_reload_serves_the_folder_that_is_there,
);

/// Serves `folder` with this more of configuration.
fn serve(driver: Driver, folder: &Folder, more: &str) -> Server {
    let root = folder.path().display();
    Server::run(driver, &format!("workers = 1\nrevalidate = \"100ms\"\n{more}\n[[sites]]\nroot = \"{root}\"\n"))
}

/// A folder in memory, which is a local file system everywhere.
fn folder() -> Folder {
    let folder = Folder::in_memory();
    for name in ["index.html", "deep/inner/index.html", "deep/inner/page.html", "deep/inner/other.html"] {
        folder.put(name, "old\n");
    }
    folder
}

/// How often files were looked at while `path` was asked for, for `ASKED`.
fn looks(server: &Server, path: &str) -> u64 {
    let looks = || server.number("/counters/revalidations");
    let (before, end) = (looks(), Instant::now() + ASKED);
    let mut client = server.connect();
    while Instant::now() < end {
        assert_eq!(client.get(path).status(), 200);
        std::thread::sleep(Duration::from_millis(2));
    }
    looks() - before
}

/// Asks until `path` is an answer that nobody looks at.
fn settle(server: &Server, path: &str) {
    wait_until("its folder is watched", || looks(server, path) == 0);
}

/// What there is now is served at once, or nearly.
fn expect(server: &Server, path: &str, text: Option<&str>, what: &str) {
    let mut client = server.connect();
    let changed = Instant::now();
    loop {
        let answer = client.get(path);
        if text.map_or(answer.status() == 404, |text| answer.status() == 200 && answer.text() == text) {
            return;
        }
        // A hundred milliseconds, and what a busy machine needs: far less than the server trusts what is watched.
        assert!(changed.elapsed() < Duration::from_secs(5), "{what}: {} {}", answer.status(), answer.text());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn a_quiet_file_is_not_looked_at(driver: Driver) {
    let folder = folder();
    let server = serve(driver, &folder, "");
    for path in ["/", "/deep/inner/", "/deep/inner/page.html"] {
        settle(&server, path);
    }
    assert_eq!(server.number("/watched_folders"), 3);
    std::thread::sleep(Duration::from_millis(2100));
    let looks_at_once = looks(&server, "/deep/inner/other.html");
    assert_eq!(looks_at_once, 0, "asked for the first time, where all is watched, and unchanged for two seconds");
    drop(server);
    settle(&serve(driver, &folder, "sandbox = true"), "/");
    let server = serve(driver, &folder, "watch_folders = false");
    let looks = looks(&server, "/");
    assert!((1..=4).contains(&looks), "every 100 ms, and not {looks} times in {ASKED:?}");
    assert_eq!(server.number("/watched_folders"), 0);
}

fn whatever_happens_to_a_file_is_served(driver: Driver) {
    let folder = folder();
    let server = serve(driver, &folder, "");
    let file = folder.at("deep/inner/page.html");
    let page = "/deep/inner/page.html";
    settle(&server, page);
    fs::write(&file, "written\n").expect("own file");
    expect(&server, page, Some("written\n"), "written");
    settle(&server, page);
    folder.replace("deep/inner/page.html", "replaced\n");
    expect(&server, page, Some("replaced\n"), "replaced");
    settle(&server, page);
    fs::remove_file(&file).expect("own file");
    expect(&server, page, None, "removed");
    fs::write(&file, "again\n").expect("own folder");
    expect(&server, page, Some("again\n"), "made again");
    // An index of which another takes the place.
    settle(&server, "/deep/inner/");
    folder.replace("deep/inner/index.html", "another\n");
    expect(&server, "/deep/inner/", Some("another\n"), "another index");
}

fn folders_that_move_take_their_files_along(driver: Driver) {
    let folder = folder();
    let server = serve(driver, &folder, "");
    let page = "/deep/inner/page.html";
    folder.put("other/inner/page.html", "other\n");
    settle(&server, page);
    fs::rename(folder.at("deep"), folder.at("gone")).expect("own folder");
    expect(&server, page, None, "its folder's folder is gone");
    fs::rename(folder.at("other"), folder.at("deep")).expect("own folder");
    expect(&server, page, Some("other\n"), "another folder's folder");
    fs::rename(folder.at("deep/inner"), folder.at("deep/old")).expect("own folder");
    expect(&server, page, None, "its folder is gone");
    fs::rename(folder.at("gone/inner"), folder.at("deep/inner")).expect("own folder");
    expect(&server, page, Some("old\n"), "the first folder is back");
}

fn what_a_watch_cannot_see_is_looked_at(driver: Driver) {
    let folder = folder();
    folder.put("elsewhere/file", "old\n");
    fs::create_dir(folder.at("links")).expect("own folder");
    symlink("../elsewhere/file", folder.at("links/soft")).expect("own folder");
    fs::hard_link(folder.at("elsewhere/file"), folder.at("links/hard")).expect("own folder");
    symlink("elsewhere", folder.at("way")).expect("own folder");
    let server = serve(driver, &folder, "");
    let paths = ["/links/soft", "/links/hard", "/way/file"];
    // Long enough for the folders to be watched: it does not help.
    paths.iter().for_each(|path| assert!(looks(&server, path) > 0));
    paths.iter().for_each(|path| assert!(looks(&server, path) > 0, "{path} is trusted"));
    fs::write(folder.at("elsewhere/file"), "written\n").expect("own file");
    paths.iter().for_each(|path| expect(&server, path, Some("written\n"), path));
    // And what is plain beside them is trusted.
    folder.put("links/plain", "old\n");
    settle(&server, "/links/plain");
}

fn a_reload_serves_the_folder_that_is_there(driver: Driver) {
    let folder = folder();
    let root = folder.at("deep").display().to_string();
    let server = Server::run(driver, &format!("workers = 1\nrevalidate = \"100ms\"\n[[sites]]\nroot = \"{root}\"\n"));
    settle(&server, "/inner/page.html");
    folder.put("next/inner/page.html", "next\n");
    fs::rename(folder.at("deep"), folder.at("before")).expect("own folder");
    fs::rename(folder.at("next"), folder.at("deep")).expect("own folder");
    // The server looks by itself where its roots are, once a second.
    expect(&server, "/inner/page.html", Some("next\n"), "another root");
    settle(&server, "/inner/page.html");
    assert_eq!(server.number("/watched_folders"), 2, "those of the other root are forgotten");
}

/// A folder in the place of another, for as long as this lives.
struct Bound(std::path::PathBuf);

impl Bound {
    /// `None` without the right to mount, and the test's output says so.
    fn mount(from: &Path, place: &Path) -> Option<Self> {
        match rustix::mount::mount_bind(from, place) {
            Ok(()) => Some(Self(place.to_owned())),
            Err(error) => {
                eprintln!("NOT TESTED: a mount on top needs the right to mount: {error}");
                assert!(!harness::is_root(), "root could not mount: {error}");
                None
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_mount_on_top_is_noticed() {
    let folder = folder();
    folder.put("other/page.html", "other\n");
    let server = serve(Driver::EpollEdge, &folder, "");
    let page = "/deep/inner/page.html";
    settle(&server, page);
    let Some(bound) = Bound::mount(&folder.at("other"), &folder.at("deep/inner")) else { return };
    expect(&server, page, Some("other\n"), "on top");
    assert!(looks(&server, page) > 0, "what is on another mount is looked at");
    drop(bound);
    expect(&server, page, Some("old\n"), "beneath");
    settle(&server, page);
}

/// Three times as long as the server trusts what nobody watches.
const ASKED: Duration = Duration::from_millis(300);

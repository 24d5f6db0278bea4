//! Folders: names that stay beneath their root, files that are there, missing or special, and what is in memory.

use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use amped_runtime::disk::{
    Ability, FileKind, Held, Mount, Place, Root, Symlinks, is_resident, read_at, read_now, read_resident, stamp,
};
use rustix::io::Errno;

use crate::support::{assert_same, pattern};

/// A folder beneath another one, so that there is something to escape to, on each file system that is at hand.
fn folders() -> Vec<(tempfile::TempDir, PathBuf)> {
    let memory = Path::new("/dev/shm");
    let places = [std::env::temp_dir(), memory.to_path_buf()];
    let mut made = Vec::new();
    for place in places.iter().filter(|place| place.is_dir()) {
        let outside = tempfile::tempdir_in(place).expect("a temporary folder");
        fs::write(outside.path().join("secret"), b"secret").expect("a file");
        let root = outside.path().join("root");
        fs::create_dir_all(root.join("folder/deep")).expect("a folder");
        fs::write(root.join("file"), b"contents").expect("a file");
        fs::write(root.join("folder/inner"), b"inner").expect("a file");
        made.push((outside, root));
    }
    made
}

const POLICIES: [Symlinks; 3] = [Symlinks::Within, Symlinks::Never, Symlinks::Anywhere];

fn errno(outcome: io::Result<File>) -> Option<Errno> {
    outcome.err().map(|error| match Errno::from_io_error(&error) {
        Some(errno) => errno,
        None if error.kind() == io::ErrorKind::WouldBlock => Errno::AGAIN,
        None => panic!("{error} has no number"),
    })
}

/// Where openat2(2) is not to be had (old kernels, sandboxes, valgrind) names are walked, and only `Anywhere` follows links.
fn walks() -> bool {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let outcome = openat2(CWD, ".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::BENEATH);
    if let Err(error) = &outcome {
        eprintln!("openat2 cannot be had on this machine ({error}): the walk in its place is tested");
    }
    outcome.is_err()
}

/// `open_now` may always leave the answer to a helper, but never give another one.
fn assert_opens(root: &Root, name: &[u8], expected: Option<Errno>, what: &str) {
    if walks() {
        // Refused all the same, but not always for the kernel's reason.
        assert_eq!(root.open_file(name).is_err(), expected.is_some(), "{what}");
        return assert_eq!(errno(root.open_now(name)), Some(Errno::AGAIN), "{what}, at once");
    }
    assert_eq!(errno(root.open_file(name)), expected, "{what}");
    match root.open_now(name) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        outcome => assert_eq!(errno(outcome), expected, "{what}, at once"),
    }
}

#[test]
fn files_and_folders_are_opened_and_told_apart() {
    for (_outside, path) in folders() {
        for policy in POLICIES {
            let root = Root::open(&path, policy).expect("a folder");
            for (name, kind, size) in [
                ("file", FileKind::File, Some(8)),
                ("folder/inner", FileKind::File, Some(5)),
                ("folder", FileKind::Directory, None),
                ("", FileKind::Directory, None),
                ("folder/", FileKind::Directory, None),
            ] {
                let file = root.open_file(name.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
                let (seen, facts) = stamp(&file).expect("an open file");
                assert_eq!(seen, kind, "{name}");
                assert!(size.is_none_or(|size| size == facts.size), "{name}: {} bytes", facts.size);
                // What a helper has just opened is in memory, so it is opened at once, where that is done at all.
                match root.open_now(name.as_bytes()) {
                    Ok(file) => assert_eq!(stamp(&file).expect("an open file"), (seen, facts), "{name}"),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{name}: {error}"),
                }
            }
        }
    }
}

#[test]
fn names_alone_lead_over_no_link() {
    if walks() {
        return eprintln!("nobody asks for it where names are walked");
    }
    for (_outside, path) in folders() {
        symlink("file", path.join("alias")).expect("own folder");
        symlink("folder", path.join("way")).expect("own folder");
        for policy in POLICIES {
            let root = Root::open(&path, policy).expect("a folder");
            for (name, expected) in
                [("file", None), ("folder/inner", None), ("alias", Some(Errno::LOOP)), ("way/inner", Some(Errno::LOOP))]
            {
                assert_eq!(errno(root.open_plain(name.as_bytes())), expected, "{policy:?}: {name}");
                match root.open_plain_now(name.as_bytes()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => assert_eq!(errno(outcome), expected, "{policy:?}: {name}, at once"),
                }
            }
        }
    }
}

#[test]
fn what_is_missing_is_missing() {
    for (_outside, path) in folders() {
        let root = Root::open(&path, Symlinks::Within).expect("a folder");
        assert_opens(&root, b"missing", Some(Errno::NOENT), "a missing file");
        assert_opens(&root, b"missing/file", Some(Errno::NOENT), "a file in a missing folder");
        assert_opens(&root, b"file/below", Some(Errno::NOTDIR), "a file below a file");
        assert_opens(&root, b"file/", Some(Errno::NOTDIR), "a file with a slash");
        assert_opens(&root, &[b'n'; 300], Some(Errno::NAMETOOLONG), "a name of 300 bytes");
        assert_opens(&root, &b"folder/../".repeat(600), Some(Errno::NAMETOOLONG), "a path of 6,000 bytes");
        assert_opens(&root, b"\xff\xfe\x01 name", Some(Errno::NOENT), "a name of any bytes");
    }
    let missing = Root::open(Path::new("/nonexistent/folder"), Symlinks::Within);
    assert_eq!(missing.expect_err("no folder").kind(), io::ErrorKind::NotFound);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = Root::open(file.path(), Symlinks::Within).expect_err("a file is no folder");
    assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
}

/// Serving a file must not make the disk write that it was read.
#[test]
fn reading_leaves_no_trace() {
    for (_outside, path) in folders() {
        let root = Root::open(&path, Symlinks::Within).expect("a folder");
        let times = FileTimes::new().set_accessed(UNIX_EPOCH).set_modified(UNIX_EPOCH + Duration::from_secs(1));
        let name = path.join("file");
        File::options().write(true).open(&name).and_then(|file| file.set_times(times)).expect("own file");
        for file in [root.open_file(b"file"), root.open_now(b"file")].into_iter().flatten() {
            assert_eq!(read_at(&file, &mut [0; 100], 0).expect("readable"), 8);
        }
        assert_eq!(name.metadata().and_then(|facts| facts.accessed()).expect("a file"), UNIX_EPOCH);
    }
}

/// A NUL in a name is a missing file, and says nothing about the mount.
#[test]
fn a_nul_in_a_name_changes_nothing() {
    for (_outside, path) in folders() {
        for policy in POLICIES {
            let root = Root::open(&path, policy).expect("a folder");
            let ability = root.mount().ability();
            assert_opens(&root, b"file\0", Some(Errno::NOENT), "a NUL at the end");
            assert_opens(&root, b"\0", Some(Errno::NOENT), "a NUL alone");
            assert_opens(&root, b"file\0/../../secret", Some(Errno::NOENT), "a NUL before an escape");
            assert_eq!(root.mount().ability(), ability, "a client's name must not slow the mount down");
        }
    }
}

#[test]
fn names_do_not_lead_out_of_the_root() {
    for (_outside, path) in folders() {
        for policy in POLICIES {
            let root = Root::open(&path, policy).expect("a folder");
            for name in [
                "..",
                "../secret",
                "folder/../../secret",
                "folder/../../root/file",
                "./../secret",
                "folder/deep/../../../secret",
            ] {
                assert_opens(&root, name.as_bytes(), Some(Errno::XDEV), &format!("{policy:?}: {name}"));
            }
            let absolute = path.join("file");
            assert_opens(
                &root,
                absolute.as_os_str().as_bytes(),
                Some(Errno::XDEV),
                &format!("{policy:?}: an absolute name"),
            );
            assert_opens(&root, b"/", Some(Errno::XDEV), &format!("{policy:?}: the root of everything"));
            assert!(root.open_file(b"./file").is_ok(), "{policy:?}: a dot leads nowhere");
        }
    }
}

#[test]
fn symbolic_links_are_followed_by_policy() {
    for (outside, path) in folders() {
        symlink("folder/inner", path.join("within")).expect("a link");
        symlink("folder", path.join("folder-within")).expect("a link");
        symlink("../secret", path.join("out")).expect("a link");
        symlink(outside.path().join("secret"), path.join("absolute-out")).expect("a link");
        symlink(path.join("file"), path.join("absolute-in")).expect("a link");
        symlink("loop", path.join("loop")).expect("a link");
        symlink("nowhere", path.join("dangling")).expect("a link");
        symlink("/proc/self/root/etc/hostname", path.join("magic")).expect("a link");
        let (ok, out, link) = (None, Some(Errno::XDEV), Some(Errno::LOOP));
        let expected: [(&str, [Option<Errno>; 3]); 8] = [
            //                 Within Never Anywhere
            ("within", [ok, link, ok]),
            ("folder-within/inner", [ok, link, ok]),
            ("out", [out, link, ok]),
            ("absolute-out", [out, link, ok]),
            ("absolute-in", [out, link, ok]),
            ("loop", [link, link, link]),
            ("dangling", [Some(Errno::NOENT), link, Some(Errno::NOENT)]),
            ("magic", [out, link, link]),
        ];
        for (policy, column) in POLICIES.into_iter().zip(0..) {
            let root = Root::open(&path, policy).expect("a folder");
            for (name, outcomes) in expected {
                if walks() && (policy != Symlinks::Anywhere || name == "magic") {
                    assert!(
                        policy == Symlinks::Anywhere || root.open_file(name.as_bytes()).is_err(),
                        "{policy:?}: {name}"
                    );
                    continue;
                }
                assert_opens(&root, name.as_bytes(), outcomes[column], &format!("{policy:?}: {name}"));
            }
        }
    }
}

#[test]
fn a_fifo_holds_nobody() {
    for (_outside, path) in folders() {
        rustix::fs::mknodat(rustix::fs::CWD, path.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a fifo");
        assert!(fs::metadata(path.join("fifo")).expect("a fifo").file_type().is_fifo());
        let (done, outcome) = mpsc::channel();
        thread::spawn(move || {
            let root = Root::open(&path, Symlinks::Within).expect("a folder");
            for _ in 0..3 {
                let file = root.open_file(b"fifo").expect("an open fifo");
                done.send(stamp(&file).expect("facts").0).expect("a listener");
                if let Ok(file) = root.open_now(b"fifo") {
                    done.send(stamp(&file).expect("facts").0).expect("a listener");
                }
            }
        });
        let mut seen = 0;
        loop {
            match outcome.recv_timeout(Duration::from_secs(20)) {
                Ok(kind) => assert_eq!(kind, FileKind::Special),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("a fifo without a writer held its opener"),
            }
            seen += 1;
        }
        assert!(seen >= 3);
    }
}

#[test]
fn a_stamp_tells_versions_apart() {
    for (_outside, path) in folders() {
        let root = Root::open(&path, Symlinks::Within).expect("a folder");
        let first = stamp(&root.open_file(b"file").expect("a file")).expect("facts").1;
        assert_eq!(first, stamp(&root.open_file(b"file").expect("a file")).expect("facts").1);
        fs::write(path.join("next"), b"contents").expect("a file");
        fs::rename(path.join("next"), path.join("file")).expect("a rename");
        let second = stamp(&root.open_file(b"file").expect("a file")).expect("facts").1;
        assert_ne!(first.identity, second.identity, "another file under the same name");
        let held = root.open_file(b"file").expect("a file");
        fs::write(path.join("file"), b"longer contents").expect("a file");
        let third = stamp(&held).expect("facts").1;
        assert_eq!((third.identity, third.size), (second.identity, 15));
    }
}

#[test]
fn reads_say_what_is_in_memory() {
    for (_outside, path) in folders() {
        let bytes = pattern(700_001, 3);
        fs::write(path.join("large"), &bytes).expect("a file");
        let root = Root::open(&path, Symlinks::Within).expect("a folder");
        let mount = root.mount();
        let file = root.open_file(b"large").expect("a file");
        let mut memory = vec![0; bytes.len() + 100];
        assert_eq!(read_at(&file, &mut memory, 0).expect("a local file"), bytes.len(), "short at the end");
        assert_same(&memory[..bytes.len()], &bytes, "the file");
        assert_eq!(read_at(&file, &mut memory, 700_000).expect("a local file"), 1);
        assert_eq!(read_at(&file, &mut memory, 700_001).expect("a local file"), 0);
        // Just read, so in memory: no wait, if the mount can tell.
        let mut memory = vec![0; 5000];
        match read_now(mount, &file, &mut memory, 300_000) {
            Ok(length) => assert_same(&memory[..length], &bytes[300_000..300_000 + length], "a window"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                assert_eq!(mount.ability(), Ability::None, "{mount}: a file just read is in memory");
            }
        }
        let file = Held::new(file, Place::Own);
        assert_eq!(file.warm(0, bytes.len()).expect("a local file"), bytes.len());
        assert_eq!(file.warm(700_000, 5000).expect("a local file"), 1, "as much as there is");
        assert_eq!(file.warm(0, 0).expect("a local file"), 0);
        let can_tell = mount.ability() != Ability::None;
        for (offset, length) in [(0, 1), (0, bytes.len()), (131_071, 2), (4096, 131_072), (700_000, 1)] {
            assert_eq!(is_warm(mount, &file, offset, length), can_tell, "{mount}: {offset} and {length} on");
        }
        assert_eq!(file.warm_until(mount, 5..5, Instant::now(), true), 5, "nothing is always there");
        if mount.ability() == Ability::NoWait {
            assert!(!is_warm(mount, &file, 650_000, 200_000), "nothing lies beyond the end");
            assert_eq!(read_now(mount, &file, &mut memory, 1 << 30).expect("the end"), 0);
        }
    }
}

fn is_warm(mount: &Mount, file: &Held, offset: u64, length: usize) -> bool {
    let end = offset + length as u64;
    file.warm_until(mount, offset..end, Instant::now(), true) == end
}

/// Pages that the kernel has dropped: a read says so instead of waiting. Where the kernel keeps them, nothing is asserted but
/// that no byte is wrong.
#[test]
fn a_cold_window_is_not_waited_for() {
    for (_outside, path) in folders() {
        let bytes = pattern(2 << 20, 5);
        fs::write(path.join("cold"), &bytes).expect("a file");
        let root = Root::open(&path, Symlinks::Within).expect("a folder");
        let file = Held::new(root.open_file(b"cold").expect("a file"), Place::Own);
        File::open(path.join("cold")).and_then(|file| file.sync_all()).expect("a disk");
        let drop_it = || rustix::fs::fadvise(&*file, 0, None, rustix::fs::Advice::DontNeed).expect("advice");
        drop_it();
        let mut memory = vec![0; 8192];
        // Who asks first begins nothing: it is as cold the second time, after what would have been time enough to read it.
        if let Err(error) = read_resident(root.mount(), &file, &mut memory, 1 << 20, false) {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
            std::thread::sleep(Duration::from_millis(50));
            let again = read_resident(root.mount(), &file, &mut memory, 1 << 20, false);
            assert!(again.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "{}", root.mount());
        }
        match read_now(root.mount(), &file, &mut memory, 1 << 20) {
            Ok(length) => assert_same(&memory[..length], &bytes[1 << 20..(1 << 20) + length], "a window"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                assert!(!is_warm(root.mount(), &file, 1 << 20, 8192), "a window that cannot be read is not warm");
            }
        }
        assert_eq!(file.warm(1 << 20, 8192).expect("a local file"), 8192);
        if root.mount().ability() != Ability::None {
            assert!(is_warm(root.mount(), &file, 1 << 20, 8192), "{}: just read", root.mount());
            assert_eq!(read_now(root.mount(), &file, &mut memory, 1 << 20).expect("a warm window"), 8192);
            assert_same(&memory, &bytes[1 << 20..(1 << 20) + 8192], "a window");
            memory.fill(0);
            let resident = read_resident(root.mount(), &file, &mut memory, 1 << 20, true);
            assert_eq!(resident.expect("a warm window"), 8192);
            assert_same(&memory, &bytes[1 << 20..(1 << 20) + 8192], "a window");
            // What was proven is no proof once the kernel has dropped it; that is noticed after a moment, or when asked for.
            assert_eq!(file.warm(0, 1 << 20).expect("a local file"), 1 << 20);
            assert!((0..2).all(|_| is_warm(root.mount(), &file, 0, 1 << 20)), "{}: just read", root.mount());
            for asks_all in [false, true] {
                assert!(!file.has_gone(root.mount(), 0, 1 << 20, asks_all), "{}: just read", root.mount());
            }
            drop_it();
            if is_resident(&file, 0, 1 << 20) == Some(false) {
                assert_eq!(file.has_gone(root.mount(), 0, 1 << 20, false), root.mount().ability() == Ability::NoWait);
                let (now, later) = (Instant::now(), Instant::now() + Duration::from_millis(101));
                assert_eq!(file.warm_until(root.mount(), 0..1 << 20, now, false), 0, "{}: dropped", root.mount());
                assert_eq!(file.warm_until(root.mount(), 0..1 << 20, later, true), 0, "{}: dropped", root.mount());
            }
            // What is there can be sent, whatever comes after it.
            assert_eq!(file.warm(0, 1 << 20).expect("a local file"), 1 << 20);
            if is_resident(&file, 1 << 20, 1 << 20) == Some(false) {
                let warm_until = file.warm_until(root.mount(), 0..2 << 20, Instant::now(), true);
                assert!((1 << 20..2 << 20).contains(&warm_until), "{}: {warm_until}", root.mount());
            }
        }
    }
}

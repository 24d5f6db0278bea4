//! Folders of which the kernel tells changes (inotify(7)): while nothing happens in a file's folder, memory need not look at the file again.
//!
//! Order is everything. A mark is taken before a file is looked at, so a change after the look leaves a mark that no longer stands. A folder is
//! watched only together with all that lead to it from the root, and after it was added its path is resolved once more: a rename in between
//! was either seen then, or is reported to a watch that is on the books.
//!
//! What inotify does not tell is for the caller: what lies behind links and other mounts, or has other names (`Root::open_plain`, `Stamp::links`), stores to mapped
//! memory, and writes that do not go by the file's name. So no mark is to be trusted for ever. Mounts that are put on top are told of by /proc/self/mountinfo (proc(5)).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::mount::Ability;
use super::root::Root;
use crate::process;

/// The folders that are watched.
#[derive(Debug)]
pub struct Watches {
    inotify: OwnedFd,
    mounts: File,
    /// For each place that there may be on the books the version of what its folder holds; 0: nobody tells.
    versions: Box<[AtomicU32]>,
    next: AtomicU32,
    count: AtomicUsize,
    books: Mutex<Books>,
    /// One helper adds folders, the others have better things to do.
    adding: Mutex<()>,
}

/// Changes are read while this lives.
#[derive(Debug)]
pub struct Watcher {
    watches: Arc<Watches>,
    _open: UnixStream,
}

/// What a folder held at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    place: u32,
    version: u32,
}

/// What is known of a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It is watched.
    On(Mark),
    /// It is not: `Watches::add` may change that. Said once in a while, to one.
    Wanted,
    /// It is not, and that will remain so for now.
    Off,
}

#[derive(Debug, Default)]
struct Books {
    /// By the root's device and inode, and by the path from there.
    roots: HashMap<Identity, HashMap<Box<[u8]>, u32>>,
    places: Vec<Option<Place>>,
    /// By watch descriptor: a folder may be the root of one site and lie beneath another's.
    of_watch: HashMap<i32, Vec<u32>>,
    /// When somebody was told to add a folder, by its root.
    wanted: HashMap<Identity, HashMap<Box<[u8]>, Instant>>,
}

#[derive(Clone, Debug)]
struct Place {
    root: Identity,
    path: Box<[u8]>,
    watch: i32,
}

type Identity = (u64, u64);

impl Watches {
    /// No folder yet. To be called before a sandbox shuts /proc.
    ///
    /// # Errors
    /// EMFILE: this user has too many inotify instances (`fs.inotify.max_user_instances`); ENOENT: there is no /proc.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            mounts: File::open("/proc/self/mountinfo")?,
            versions: (0..most(std::fs::read_to_string(LIMIT).ok().as_deref())).map(|_| AtomicU32::new(0)).collect(),
            next: AtomicU32::new(0),
            count: AtomicUsize::new(0),
            books: Mutex::default(),
            adding: Mutex::default(),
        })
    }

    /// Has changes read by a thread of its own, from now on.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self) -> io::Result<Watcher> {
        let (open, end) = UnixStream::pair()?;
        let watches = Arc::new(self);
        let reading = Arc::clone(&watches);
        process::vital_thread("amped-watch", move || {
            while !reading.read_until(&end) {
                // A log that is written line by line says so line by line: what is the same as the last event is not told twice.
                super::pause(PAUSE);
            }
        })?;
        Ok(Watcher { watches, _open: open })
    }

    /// Waits for changes and notes them; true when `end` has come instead.
    fn read_until(&self, end: &UnixStream) -> bool {
        let (changes, mounts) = (PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.mounts, PollFlags::PRI));
        let mut polled = [changes, mounts, PollFd::new(end, PollFlags::IN)];
        if poll(&mut polled, None).is_err() {
            return false;
        }
        let [changes, mounts, end] = polled.map(|polled| !polled.revents().is_empty());
        if mounts {
            // What is beneath a new mount is not reached any more, and what was is again: the next look at each file tells.
            self.books().of_watch.values().flatten().for_each(|number| self.change(*number));
        }
        if changes {
            self.read();
        }
        end
    }

    /// Anything may have happened, to any folder.
    fn forget(&self) {
        let mut books = self.books();
        let numbers: Vec<u32> = books.of_watch.values().flatten().copied().collect();
        numbers.into_iter().for_each(|number| self.strike(&mut books, number));
    }

    /// Whether nothing has happened in the folder since.
    pub fn stands(&self, mark: Mark) -> bool {
        self.versions.get(mark.place as usize).is_some_and(|version| version.load(Relaxed) == mark.version)
    }

    /// Folders that are watched, those included that lead to others.
    pub fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// A mark of `folder`, if it is watched.
    pub fn mark(&self, root: &Root, folder: &[u8]) -> Option<Mark> {
        let books = self.books.try_lock().ok()?;
        let place = books.find(root.identity(), folder)?;
        let version = self.versions[place as usize].load(Relaxed);
        (version != 0).then_some(Mark { place, version })
    }

    /// What is known of `folder`, a path from `root` without slashes at its ends; to be asked before a file in it is looked at.
    pub fn watch(&self, root: &Root, folder: &[u8]) -> Watch {
        // A loop does not wait while thousands of folders are struck off; the next one who asks will know.
        let Ok(mut books) = self.books.try_lock() else { return Watch::Off };
        if let Some(place) = books.find(root.identity(), folder) {
            let version = self.versions[place as usize].load(Relaxed);
            return if version == 0 { Watch::Off } else { Watch::On(Mark { place, version }) };
        }
        // Network file systems do not tell, and overlays not of their layers.
        let can_tell = root.mount().ability() != Ability::None;
        if !can_tell || self.count() >= self.versions.len() {
            return Watch::Off;
        }
        let (now, wanted) = (Instant::now(), books.wanted.entry(root.identity()).or_default());
        if wanted.get(folder).is_some_and(|asked| now.duration_since(*asked) < AGAIN) {
            return Watch::Off;
        }
        if wanted.len() >= MOST * 2 {
            wanted.clear();
        }
        wanted.insert(folder.into(), now);
        Watch::Wanted
    }

    /// Watches `folder` and all that lead to it. May wait for the disk: for helpers.
    ///
    /// # Errors
    /// What openat2(2) or inotify_add_watch(2) says: a link on the way, no right to read the folder; ENOSPC when this user has no watches
    /// left (`fs.inotify.max_user_watches`), EDQUOT when there are as many folders as there may be. `WouldBlock` while another helper
    /// adds one. The folder is wanted again after a while.
    pub fn add(&self, root: &Root, folder: &[u8]) -> io::Result<()> {
        let Ok(_alone) = self.adding.try_lock() else {
            self.books().wanted.entry(root.identity()).or_default().remove(folder);
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let inner = folder.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in std::iter::once(0).chain(inner).chain((!folder.is_empty()).then_some(folder.len())) {
            if self.version(&self.books(), root.identity(), &folder[..end]) == 0 {
                self.add_one(root, &folder[..end])?;
            }
        }
        Ok(())
    }

    /// Forgets the folders of all roots but these.
    pub fn retain<'a>(&self, roots: impl Iterator<Item = &'a Root>) {
        let kept: HashSet<Identity> = roots.map(Root::identity).collect();
        let mut books = self.books();
        books.wanted.retain(|root, _| kept.contains(root));
        let gone: Vec<Identity> = books.roots.keys().filter(|root| !kept.contains(root)).copied().collect();
        gone.into_iter().for_each(|root| self.strike_all(&mut books, root, b""));
    }

    fn add_one(&self, root: &Root, path: &[u8]) -> io::Result<()> {
        let (directory, identity) = root.open_folder(path)?;
        let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
        let watch = inotify::add_watch(&self.inotify, &name, CHANGES)?;
        let place = Place { root: root.identity(), path: path.into(), watch };
        let Some(number) = self.enter(&mut self.books(), place) else {
            return Err(Errno::DQUOT.into());
        };
        // The folder may have been watched for another root, and no longer: from here on it is on the books, and nobody ends its watch unasked.
        let again = inotify::add_watch(&self.inotify, &name, CHANGES).unwrap_or(-1);
        let is_live = again == watch;
        let is_there = root.open_folder(path).is_ok_and(|(_, again)| again == identity);
        let mut books = self.books();
        let leads = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => self.version(&books, root.identity(), &path[..slash]) != 0,
            None => path.is_empty() || self.version(&books, root.identity(), b"") != 0,
        };
        let is_entered = books.find(root.identity(), path) == Some(number);
        if is_live && is_there && leads && is_entered {
            self.renew(number);
            return Ok(());
        }
        if is_entered {
            self.strike(&mut books, number);
        }
        if !is_live && !books.of_watch.contains_key(&again) {
            let _ = inotify::remove_watch(&self.inotify, again);
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn version(&self, books: &Books, root: Identity, path: &[u8]) -> u32 {
        books.find(root, path).map_or(0, |place| self.versions[place as usize].load(Relaxed))
    }

    /// Gives a place a version that it never had.
    fn renew(&self, place: u32) {
        let next = || self.next.fetch_add(1, Relaxed).wrapping_add(1);
        let version = Some(next()).filter(|version| *version != 0).unwrap_or_else(next);
        self.versions[place as usize].store(version, Relaxed);
    }

    /// What the folder holds has changed.
    fn change(&self, place: u32) {
        if self.versions[place as usize].load(Relaxed) != 0 {
            self.renew(place);
        }
    }

    /// Puts a folder on the books, of which nobody tells yet.
    fn enter(&self, books: &mut Books, place: Place) -> Option<u32> {
        let free = books.places.iter().position(Option::is_none);
        let number = free.or((books.places.len() < self.versions.len()).then_some(books.places.len()));
        let Some(number) = number else {
            if !books.of_watch.contains_key(&place.watch) {
                let _ = inotify::remove_watch(&self.inotify, place.watch);
            }
            return None;
        };
        if number == books.places.len() {
            books.places.push(None);
        }
        books.roots.entry(place.root).or_default().insert(place.path.clone(), number as u32);
        books.of_watch.entry(place.watch).or_default().push(number as u32);
        books.places[number] = Some(place);
        self.count.fetch_add(1, Relaxed);
        Some(number as u32)
    }

    /// Takes a folder off the books.
    fn strike(&self, books: &mut Books, number: u32) {
        self.versions[number as usize].store(0, Relaxed);
        let Some(place) = books.places[number as usize].take() else { return };
        self.count.fetch_sub(1, Relaxed);
        if let Some(paths) = books.roots.get_mut(&place.root) {
            paths.remove(&place.path);
            if paths.is_empty() {
                books.roots.remove(&place.root);
            }
        }
        let Some(numbers) = books.of_watch.get_mut(&place.watch) else { return };
        numbers.retain(|other| *other != number);
        if numbers.is_empty() {
            books.of_watch.remove(&place.watch);
            // It may be gone by itself, with its folder.
            let _ = inotify::remove_watch(&self.inotify, place.watch);
        }
    }

    /// Takes a folder and all beneath it off the books.
    fn strike_all(&self, books: &mut Books, root: Identity, path: &[u8]) {
        let is_beneath = |other: &[u8]| {
            path.is_empty() || other.strip_prefix(path).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
        };
        let paths = books.roots.get(&root).into_iter().flatten();
        let struck: Vec<u32> = paths.filter(|(other, _)| is_beneath(other)).map(|(_, number)| *number).collect();
        struck.into_iter().for_each(|number| self.strike(books, number));
    }

    /// Takes note of all changes that the kernel has to tell.
    fn read(&self) {
        let mut memory = [MaybeUninit::uninit(); 16 * 1024];
        let mut reader = Reader::new(&self.inotify, &mut memory);
        // Not for ever, whoever writes how fast: mounts are to be looked at too.
        let mut read = 0;
        while read < MOST_AT_ONCE || !reader.is_buffer_empty() {
            let Ok(event) = reader.next() else { return };
            self.note(event.wd(), event.events(), event.file_name().map(|name| name.to_bytes()));
            read += 1;
        }
    }

    fn note(&self, watch: i32, events: ReadFlags, name: Option<&[u8]>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.forget();
        }
        let mut books = self.books();
        let gone = ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT;
        for number in books.of_watch.get(&watch).cloned().unwrap_or_default() {
            let Some(Place { root, path, .. }) = books.places[number as usize].clone() else { continue };
            match name {
                // The folder itself: it has gone, or the right to look into it has changed.
                _ if events.intersects(gone) => self.strike_all(&mut books, root, &path),
                None => self.strike_all(&mut books, root, &path),
                Some(name) if events.contains(ReadFlags::ISDIR) => {
                    let inner = if path.is_empty() { name.to_vec() } else { [&path, &b"/"[..], name].concat() };
                    self.strike_all(&mut books, root, &inner);
                    self.change(number);
                }
                Some(_) => self.change(number),
            }
        }
    }
}

impl Watcher {
    /// For those who ask.
    pub fn watches(&self) -> &Arc<Watches> {
        &self.watches
    }
}

impl Mark {
    /// As a number other than 0.
    pub fn pack(self) -> u64 {
        u64::from(self.place) << 32 | u64::from(self.version)
    }

    /// The opposite; `None` for 0.
    pub fn unpack(packed: u64) -> Option<Self> {
        (packed != 0).then_some(Self { place: (packed >> 32) as u32, version: packed as u32 })
    }
}

impl Books {
    fn find(&self, root: Identity, path: &[u8]) -> Option<u32> {
        self.roots.get(&root)?.get(path).copied()
    }
}

const CHANGES: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
/// Folders at one time, of a user who may have so many watches: half of them, as he may have other programs that watch (8,192 were all on
/// kernels before 5.11). Files of other folders are looked at as if there were no watches.
fn most(limit: Option<&str>) -> usize {
    limit.and_then(|limit| limit.trim().parse::<usize>().ok()).map_or(MOST, |limit| (limit / 2).min(MOST))
}

const LIMIT: &str = "/proc/sys/fs/inotify/max_user_watches";
/// Each costs the kernel about 1 KB.
const MOST: usize = 8192;
/// A folder that could not be watched, or is no longer, is tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// Changes read before anything else is looked at: as many as the kernel keeps (`fs.inotify.max_queued_events`).
const MOST_AT_ONCE: usize = 16_384;
const PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::disk::Symlinks;

    /// A root in memory, with a folder in a folder and a file in each.
    struct Stage {
        folder: tempfile::TempDir,
        root: Root,
        watcher: Watcher,
    }

    impl Stage {
        fn new() -> Self {
            let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
            fs::create_dir_all(folder.path().join("a/b")).expect("folders");
            for name in ["top", "a/middle", "a/b/file"] {
                fs::write(folder.path().join(name), name).expect("a file");
            }
            let root = Root::open(folder.path(), Symlinks::Within).expect("it is there");
            Self { folder, root, watcher: Watches::open().and_then(Watches::start).expect("inotify") }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.path(from), self.path(to)).expect("own files");
        }

        fn watch(&self, folder: &str) -> Watch {
            self.watcher.watches().watch(&self.root, folder.as_bytes())
        }

        fn add(&self, folder: &str) -> Mark {
            self.watcher.watches().add(&self.root, folder.as_bytes()).expect("a folder to watch");
            self.mark(&self.root, folder)
        }

        fn mark(&self, root: &Root, folder: &str) -> Mark {
            let mut mark = None;
            wait_until("it is watched", || {
                let watch = self.watcher.watches().watch(root, folder.as_bytes());
                mark = if let Watch::On(mark) = watch { Some(mark) } else { None };
                mark.is_some()
            });
            mark.expect("it was waited for")
        }

        fn stands(&self, mark: Mark) -> bool {
            self.watcher.watches().stands(mark)
        }

        fn expect_fallen(&self, mark: Mark, why: &str) {
            wait_until(why, || !self.stands(mark));
        }
    }

    /// Whoever reads changes may have the books just now.
    fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < end, "in vain: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn one_is_told_to_add_a_folder_and_those_that_lead_to_it_come_along() {
        let stage = Stage::new();
        assert_eq!((stage.watch("a/b"), stage.watch("a/b")), (Watch::Wanted, Watch::Off));
        let mark = stage.add("a/b");
        assert!(stage.stands(mark) && stage.watcher.watches().count() == 3);
        assert!(stage.stands(stage.mark(&stage.root, "a")) && stage.stands(stage.mark(&stage.root, "")));
        assert_eq!(Mark::unpack(mark.pack()), Some(mark));
        assert_eq!(Mark::unpack(0), None);
    }

    #[test]
    fn whatever_happens_to_a_file_is_noticed_in_its_folder_only() {
        let stage = Stage::new();
        let (top, file) = (stage.path("top"), stage.path("a/b/file"));
        let append = |path: &Path| {
            use std::io::Write;
            let mut open = fs::File::options().append(true).open(path).expect("own file");
            open.write_all(b"more").expect("room");
        };
        let changes: [(&str, &dyn Fn()); 8] = [
            ("written", &|| fs::write(&file, "new").expect("own file")),
            ("appended to", &|| append(&file)),
            ("made shorter", &|| {
                fs::File::options().write(true).open(&file).and_then(|file| file.set_len(1)).expect("own")
            }),
            ("forbidden", &|| fs::set_permissions(&file, Permissions::from_mode(0o000)).expect("own file")),
            ("replaced", &|| {
                fs::write(&top, "another").expect("own file");
                fs::rename(&top, &file).expect("own files");
            }),
            ("removed", &|| fs::remove_file(&file).expect("own file")),
            ("made", &|| fs::write(&file, "again").expect("own folder")),
            ("a link", &|| {
                fs::remove_file(&file).expect("own file");
                std::os::unix::fs::symlink("../middle", &file).expect("own folder");
            }),
        ];
        let middle = stage.add("a");
        for (what, change) in changes {
            let mark = stage.add("a/b");
            change();
            stage.expect_fallen(mark, what);
        }
        assert!(stage.stands(middle), "nothing has happened there");
    }

    #[test]
    fn a_folder_that_moves_takes_the_marks_of_all_beneath_it_along() {
        let stage = Stage::new();
        let (inner, outer) = (stage.add("a/b"), stage.add("a"));
        stage.rename("a", "c");
        stage.rename("c", "a");
        stage.expect_fallen(inner, "away and back");
        stage.expect_fallen(outer, "away and back");
        // What is there now can be watched again, by no mark of before.
        let again = stage.add("a/b");
        assert!(stage.stands(again) && !stage.stands(inner));
        fs::set_permissions(stage.path("a"), Permissions::from_mode(0o700)).expect("own folder");
        stage.expect_fallen(again, "the right to pass");
        let last = stage.add("a/b");
        fs::remove_dir_all(stage.path("a")).expect("own folder");
        stage.expect_fallen(last, "removed");
        assert!(stage.watcher.watches().add(&stage.root, b"a/b").is_err());
        wait_until("the root alone is on the books", || stage.watcher.watches().count() == 1);
    }

    #[test]
    fn others_keep_half_of_the_watches() {
        assert_eq!(most(Some("8192\n")), 4096);
        assert_eq!([most(None), most(Some("many")), most(Some("1048576\n"))], [MOST; 3]);
        assert_eq!([most(Some("1")), most(Some("0"))], [0; 2]);
        let stage = Stage::new();
        let mut few = Watches::open().expect("inotify");
        few.versions = few.versions.into_iter().take(2).collect();
        few.add(&stage.root, b"a").expect("a folder and the root");
        assert_eq!(
            few.add(&stage.root, b"a/b").map_err(|error| error.raw_os_error()),
            Err(Some(Errno::DQUOT.raw_os_error()))
        );
        assert_eq!((few.watch(&stage.root, b"a/b"), few.count()), (Watch::Off, 2));
    }

    #[test]
    fn links_are_not_watched() {
        let stage = Stage::new();
        std::os::unix::fs::symlink("a", stage.path("link")).expect("own folder");
        for folder in ["link", "link/b", "top", "none", "a/b/file"] {
            assert!(stage.watcher.watches().add(&stage.root, folder.as_bytes()).is_err(), "{folder}");
        }
        assert_eq!(stage.watcher.watches().count(), 3, "the root, a and a/b");
    }

    #[test]
    fn a_folder_may_be_of_two_roots() {
        let stage = Stage::new();
        let other = Root::open(&stage.path("a"), Symlinks::Within).expect("it is there");
        let watches = stage.watcher.watches();
        let mark = stage.add("a");
        watches.add(&other, b"").expect("a folder to watch");
        let theirs = stage.mark(&other, "");
        fs::write(stage.path("a/middle"), "new").expect("own file");
        stage.expect_fallen(mark, "written");
        stage.expect_fallen(theirs, "written");
        watches.retain([&other].into_iter());
        assert_eq!(watches.count(), 1, "what was of the other root is forgotten");
        wait_until("it may be added again", || stage.watch("a") == Watch::Wanted);
        let last = stage.mark(&other, "");
        stage.rename("a", "c");
        stage.expect_fallen(last, "their root has moved");
    }

    #[test]
    fn lost_reports_are_changes_everywhere() {
        let stage = Stage::new();
        let (inner, outer) = (stage.add("a/b"), stage.add(""));
        stage.watcher.watches().note(-1, ReadFlags::QUEUE_OVERFLOW, None);
        assert!(!stage.stands(inner) && !stage.stands(outer) && stage.watcher.watches().count() == 0);
        assert!(stage.stands(stage.add("a/b")));
    }
}

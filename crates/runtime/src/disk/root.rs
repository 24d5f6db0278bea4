//! A folder that is served: names are resolved beneath it by the kernel and cannot leave it.
//!
//! openat2(2) with RESOLVE_BENEATH settles dots, links and races in one call. Costs 2.2 us for a cached path, where a walk of
//! our own would cost that for every component.

use std::fs::File;
use std::io;
#[cfg(feature = "sim")]
use std::os::fd::AsRawFd;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mount::{Ability, Mount, is_local};

/// Which symbolic links are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Symlinks {
    /// Those that lead to something beneath the root. Absolute links are refused, wherever they lead.
    #[default]
    Within,
    /// None.
    Never,
    /// All.
    Anywhere,
}

/// An open folder and what its mount can do.
#[derive(Debug)]
pub struct Root {
    directory: OwnedFd,
    symlinks: Symlinks,
    mount: Mount,
    device: u64,
    inode: u64,
    /// openat2(2) is not to be had (Linux before 5.6, some sandboxes): paths are walked, and no link is followed.
    walks: bool,
    /// As of the last `look`.
    lost: AtomicBool,
    /// Every file so far was this user's own, or this user may do as if.
    is_owner: AtomicBool,
}

/// Where the path of a root leads now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// To the folder that is open, as far as one can tell.
    Same,
    /// To another folder, of this device and inode.
    Other((u64, u64)),
    /// To no folder.
    Gone,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Size in bytes.
    pub size: u64,
    /// Modification time: seconds and nanoseconds since the Unix epoch.
    pub modified: (i64, u32),
    /// Change time, which a program cannot set.
    pub changed: (i64, u32),
    /// Names it has (hard links).
    pub links: u32,
}

/// Where an open file lies, and so what the loop may do with it: other mounts may begin anywhere beneath a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the root's own mount: what that can do holds.
    Own,
    /// On another local one: it may be asked what it is, and that is all.
    Local,
    /// Where every question may wait for another machine or process: for helpers.
    Remote,
}

/// What kind of thing a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A fifo, socket or device: never served.
    Special,
}

impl Root {
    /// Opens the folder and finds out what its mount can do. Waits for the disk: for start-up.
    ///
    /// # Errors
    /// What open(2) says; ENOTDIR when it is no folder.
    pub fn open(path: &Path, symlinks: Symlinks) -> io::Result<Self> {
        simulated!(|world| Self::simulated(world, symlinks));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty())?;
        let mount = Mount::of(&directory);
        let (device, inode) = rustix::fs::fstat(&directory).map(|stat| (stat.st_dev, stat.st_ino))?;
        let (lost, is_owner) = (AtomicBool::new(false), AtomicBool::new(true));
        let mut root = Self { directory, symlinks, mount, device, inode, walks: false, lost, is_owner };
        if root.resolve(b".", ResolveFlags::empty()).is_err_and(|error| is_unsupported(&error)) {
            root.walks = true;
            root.mount.refuse();
        }
        Ok(root)
    }

    #[cfg(feature = "sim")]
    fn simulated(world: &mut crate::sim::World, symlinks: Symlinks) -> io::Result<Self> {
        let mount = Mount::simulated(world.ability());
        let (lost, is_owner) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { directory: world.root()?, symlinks, mount, device: 1, inode: 1, walks: false, lost, is_owner })
    }

    /// The mount that holds the folder.
    pub fn mount(&self) -> &Mount {
        &self.mount
    }

    /// Device and inode of the folder: another folder may have taken its path.
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Looks where `path`, by which it was opened, leads now. May wait for the disk: for threads that may.
    pub fn look(&self, path: &Path) -> Standing {
        let standing = match rustix::fs::stat(path) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == self.identity() => Standing::Same,
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Standing::Other((stat.st_dev, stat.st_ino))
            }
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Standing::Gone,
            Err(_) => Standing::Same,
        };
        self.lost.store(standing == Standing::Gone, Relaxed);
        standing
    }

    /// Whether the last look found no folder: what is missing in it then is the machine's fault, not the name's.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    /// Where a file that was opened beneath this root lies.
    pub fn place_of(&self, file: &File, stamp: &Stamp) -> Place {
        simulated!(|world| world.place());
        match (is_local(file), stamp.identity.0 == self.device) {
            (true, true) => Place::Own,
            (true, false) => Place::Local,
            (false, _) => Place::Remote,
        }
    }

    /// Opens what `path` (relative, no leading slash) names. May wait for the disk: for helpers.
    ///
    /// Opened non-blocking, so that a fifo without a writer does not hold the helper; what it is must be asked afterwards.
    ///
    /// # Errors
    /// What openat2(2) says; EXDEV when the path leads out of the root.
    pub fn open_file(&self, path: &[u8]) -> io::Result<File> {
        if self.walks { self.walk(path) } else { self.resolve(path, ResolveFlags::empty()) }
    }

    /// As `open_file`, by names alone: over no link and no other mount, whatever the root allows.
    ///
    /// # Errors
    /// ELOOP or EXDEV where it takes more than that; else as `open_file`. Not for a kernel without openat2(2).
    pub fn open_plain(&self, path: &[u8]) -> io::Result<File> {
        self.resolve(path, BY_NAMES)
    }

    /// Opens what `path` names if memory alone can tell.
    ///
    /// # Errors
    /// `WouldBlock` when it cannot: ask a helper, once. Anything else is the answer (a cached absence included).
    pub fn open_now(&self, path: &[u8]) -> io::Result<File> {
        self.open_cached(path, ResolveFlags::empty())
    }

    /// Both at once.
    ///
    /// # Errors
    /// As `open_plain`, but for another mount, and `open_now`.
    pub fn open_plain_now(&self, path: &[u8]) -> io::Result<File> {
        self.open_cached(path, BY_NAMES)
    }

    fn open_cached(&self, path: &[u8], extra: ResolveFlags) -> io::Result<File> {
        if self.mount.ability() == Ability::None {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // Another mount beneath this one may be a slow one, so crossing is left to the helper.
        self.resolve(path, ResolveFlags::CACHED | ResolveFlags::NO_XDEV | extra).map_err(|error| {
            if is_unsupported(&error) {
                self.mount.refuse();
                return io::ErrorKind::WouldBlock.into();
            }
            match Errno::from_io_error(&error) {
                Some(Errno::XDEV) => io::ErrorKind::WouldBlock.into(),
                _ => error,
            }
        })
    }

    /// A folder that `path` leads to by names alone, and its device and inode. May wait for the disk: for helpers.
    pub(super) fn open_folder(&self, path: &[u8]) -> io::Result<(OwnedFd, (u64, u64))> {
        self.check(path)?;
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), BY_NAMES)?;
        let stat = rustix::fs::fstat(&folder)?;
        Ok((folder, (stat.st_dev, stat.st_ino)))
    }

    fn resolve(&self, path: &[u8], extra: ResolveFlags) -> io::Result<File> {
        self.check(path)?;
        simulated!(|world| world.open_file(path, extra.contains(ResolveFlags::CACHED)));
        let path = if path.is_empty() { b"." } else { path };
        let policy = match self.symlinks {
            Symlinks::Within => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            Symlinks::Never => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
            Symlinks::Anywhere => ResolveFlags::NO_MAGICLINKS,
        };
        let open = |flags| rustix::fs::openat2(&self.directory, path, flags, Mode::empty(), policy | extra);
        // Who reads a file for the first time in a day makes the disk write that it was read (relatime, mount(8)); its owner need
        // not. The rest of a folder in which one file is another user's will hardly be ours, so that is asked once.
        if self.is_owner.load(Relaxed) {
            match open(OPEN_FLAGS | OFlags::NOATIME) {
                Err(Errno::PERM) => self.is_owner.store(false, Relaxed),
                outcome => return Ok(outcome?.into()),
            }
        }
        Ok(open(OPEN_FLAGS)?.into())
    }

    /// What the kernel would not refuse, or not in these words. Without RESOLVE_BENEATH it takes a leading slash and `..` at
    /// their word: links may lead anywhere, names may not. And a NUL must not look like a kernel that does not know the call.
    fn check(&self, path: &[u8]) -> io::Result<()> {
        if path.contains(&0) {
            return Err(Errno::NOENT.into());
        }
        let climbs = || path.split(|&byte| byte == b'/').any(|name| name == b"..");
        if path.first() == Some(&b'/') || (self.symlinks == Symlinks::Anywhere && climbs()) {
            return Err(Errno::XDEV.into());
        }
        Ok(())
    }

    /// One component at a time, so that nothing but the file system itself decides where a step leads.
    fn walk(&self, path: &[u8]) -> io::Result<File> {
        self.check(path)?;
        if self.symlinks == Symlinks::Anywhere {
            let path = if path.is_empty() { b"." } else { path };
            return Ok(rustix::fs::openat(&self.directory, path, OPEN_FLAGS, Mode::empty())?.into());
        }
        let mut directory = self.directory.try_clone()?;
        let (parents, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        for parent in parents.split(|&byte| byte == b'/').filter(|parent| !parent.is_empty()) {
            if parent == b".." {
                return Err(Errno::XDEV.into());
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            directory = rustix::fs::openat(&directory, parent, flags, Mode::empty())?;
        }
        match name {
            b".." => Err(Errno::XDEV.into()),
            b"" => Ok(rustix::fs::openat(&directory, ".", OPEN_FLAGS, Mode::empty())?.into()),
            name => Ok(rustix::fs::openat(&directory, name, OPEN_FLAGS | OFlags::NOFOLLOW, Mode::empty())?.into()),
        }
    }
}

/// Kernels say ENOSYS or EINVAL to what they do not know, sandboxes often EPERM.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSYS | Errno::PERM | Errno::INVAL))
}

const BY_NAMES: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);
const OPEN_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Asks an open file what it is. Does not wait on a local file system, since the inode is in memory while the file is open.
///
/// # Errors
/// EIO or ESTALE from a network file system.
pub fn stamp(file: &File) -> io::Result<(FileKind, Stamp)> {
    simulated!(|world| world.stat(file.as_raw_fd()));
    let stat = rustix::fs::fstat(file.as_fd())?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        _ => FileKind::Special,
    };
    let stamp = Stamp {
        identity: (stat.st_dev, stat.st_ino),
        size: stat.st_size as u64,
        modified: (stat.st_mtime, stat.st_mtime_nsec as u32),
        changed: (stat.st_ctime, stat.st_ctime_nsec as u32),
        links: stat.st_nlink as u32,
    };
    Ok((kind, stamp))
}

/// Reads until `memory` is full or the file ends. May wait for the disk: for helpers.
///
/// # Errors
/// EIO from the disk.
pub fn read_at(file: &File, memory: &mut [u8], offset: u64) -> io::Result<usize> {
    simulated!(|world| world.read_file(file.as_raw_fd(), memory, offset));
    let mut filled = 0;
    while filled < memory.len() {
        match rustix::io::pread(file, &mut memory[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_that_is_replaced_or_gone_is_noticed() {
        let parent = tempfile::tempdir().expect("a folder");
        let (path, link) = (parent.path().join("1"), parent.path().join("link"));
        std::fs::create_dir(&path).expect("a folder");
        symlink("1", &link).expect("a link");
        let root = Root::open(&link, Symlinks::Within).expect("it is there");
        assert_eq!(root.look(&link), Standing::Same);
        std::fs::rename(&path, parent.path().join("2")).expect("own folder");
        assert_eq!((root.look(&link), root.is_lost()), (Standing::Gone, true));
        std::fs::write(&path, "no folder").expect("own file");
        assert_eq!(root.look(&link), Standing::Gone);
        std::fs::remove_file(&path).expect("own file");
        std::fs::create_dir(&path).expect("a folder");
        let Standing::Other(other) = root.look(&link) else { panic!("another folder") };
        let next = Root::open(&link, Symlinks::Within).expect("it is there");
        assert_eq!((next.identity(), root.is_lost()), (other, false));
    }

    #[test]
    fn a_walk_stays_within_the_root_and_follows_nothing() {
        let outside = tempfile::tempdir().expect("a folder");
        let folder = outside.path().join("root");
        std::fs::create_dir_all(folder.join("a/b")).expect("folders");
        std::fs::write(folder.join("a/b/file"), "inside").expect("a file");
        std::fs::write(outside.path().join("secret"), "outside").expect("a file");
        symlink(outside.path(), folder.join("out")).expect("a link");
        symlink("a/b/file", folder.join("in")).expect("a link");
        let mut root = Root::open(&folder, Symlinks::Within).expect("the folder is there");
        root.walks = true;
        for path in ["a/b/file", "a//b/file"] {
            let file = root.open_file(path.as_bytes()).expect("a plain path");
            assert_eq!(std::io::read_to_string(file).expect("readable"), "inside");
        }
        for path in ["", "a", "a/b/"] {
            assert_eq!(
                stamp(&root.open_file(path.as_bytes()).expect("a folder")).expect("open").0,
                FileKind::Directory
            );
        }
        for path in ["../secret", "a/../../secret", "out/secret", "in", "..", "a/.."] {
            assert!(root.open_file(path.as_bytes()).is_err(), "{path}");
        }
        root.symlinks = Symlinks::Anywhere;
        for path in ["", "a", "in", "out/secret"] {
            assert!(root.open_file(path.as_bytes()).is_ok(), "links lead anywhere: {path}");
        }
        for path in ["../secret", "a/../../secret", "/", "out/.."] {
            assert!(root.open_file(path.as_bytes()).is_err(), "names do not: {path}");
        }
    }
}

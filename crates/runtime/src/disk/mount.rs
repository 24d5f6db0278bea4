//! What a mount can do without waiting, found out by type and by trial.
//!
//! `RWF_NOWAIT` answers EOPNOTSUPP on overlayfs, tmpfs and squashfs, and a network file system may wait in the middle of a
//! cached open's `fstat`. So only file systems known to be local are tried at all, and one refusal settles the matter for good.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::{fmt, io};

use super::now::read_now_unchecked;

/// What the loop may do itself on files of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// Cached open and no-wait read: the page cache is asked, the disk never.
    NoWait,
    /// Files are memory (tmpfs, ramfs): an ordinary read does not wait.
    Memory,
    /// Everything goes to the helpers.
    None,
}

/// One mount's name and ability.
#[derive(Debug)]
pub struct Mount {
    name: &'static str,
    ability: Ability,
    /// A no-wait read was refused after all.
    refused: AtomicBool,
}

impl Mount {
    /// Looks at the mount that holds `directory`.
    pub(crate) fn of(directory: impl AsFd) -> Self {
        let (name, ability) = match rustix::fs::fstatfs(&directory) {
            Ok(facts) => by_type(facts.f_type as u64),
            Err(_) => ("unknown", Ability::None),
        };
        let mount = Self { name, ability, refused: AtomicBool::new(false) };
        if ability == Ability::NoWait {
            mount.try_a_file(directory);
        }
        mount
    }

    #[cfg(feature = "sim")]
    pub(crate) fn simulated(ability: Ability) -> Self {
        Self { name: "simulated", ability, refused: AtomicBool::new(false) }
    }

    /// What may be done here now.
    pub fn ability(&self) -> Ability {
        if self.refused.load(Relaxed) { Ability::None } else { self.ability }
    }

    /// Takes note that a call which should have worked is not supported.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Relaxed);
    }

    /// The trial: a no-wait read of any file near the top. No file, no verdict; the first request gives it then.
    fn try_a_file(&self, directory: impl AsFd) {
        use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
        let Ok(entries) = Dir::read_from(&directory) else { return };
        let is_file = |entry: &rustix::fs::DirEntry| entry.file_type() == FileType::RegularFile;
        for entry in entries.flatten().take(MAX_TRIED).filter(is_file) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let Ok(file) = openat(&directory, entry.file_name(), flags, Mode::empty()) else { continue };
            if let Err(error) = read_now_unchecked(&File::from(file), &mut [0], 0)
                && error.kind() != io::ErrorKind::WouldBlock
            {
                self.refuse();
            }
            return;
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ability = match self.ability() {
            Ability::NoWait => "page cache asked without waiting",
            Ability::Memory => "files are memory",
            Ability::None => "every first read by a helper",
        };
        write!(formatter, "{}, {ability}", self.name)
    }
}

/// Whether the file lies where asking what it is never waits for another machine or process.
pub(crate) fn is_local(file: impl AsFd) -> bool {
    let name = rustix::fs::fstatfs(file).map_or("unknown", |facts| by_type(facts.f_type as u64).0);
    matches!(name, "ext4" | "xfs" | "btrfs" | "f2fs" | "tmpfs" | "ramfs" | "overlayfs" | "squashfs" | "zfs")
}

/// Local file systems whose cached opens and no-wait reads were probed. An unknown one is left to the helpers.
fn by_type(magic: u64) -> (&'static str, Ability) {
    match magic {
        0xEF53 => ("ext4", Ability::NoWait),
        0x5846_5342 => ("xfs", Ability::NoWait),
        0x9123_683E => ("btrfs", Ability::NoWait),
        0xF2F5_2010 => ("f2fs", Ability::NoWait),
        0x0102_1994 => ("tmpfs", Ability::Memory),
        0x8584_58F6 => ("ramfs", Ability::Memory),
        0x794C_7630 => ("overlayfs", Ability::None),
        0x6969 => ("nfs", Ability::None),
        0x6573_5546 => ("fuse", Ability::None),
        0xFF53_4D42 | 0xFE53_4D42 => ("cifs", Ability::None),
        0x7371_7368 => ("squashfs", Ability::None),
        0x2FC1_2FC1 => ("zfs", Ability::None),
        _ => ("another file system", Ability::None),
    }
}

/// Directory entries looked at in the search for a file to try.
const MAX_TRIED: usize = 256;

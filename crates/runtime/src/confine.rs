//! What a process gives up before it serves: its user's rights, and every file it has no business with.
//!
//! For a process of one thread, before it starts others: they inherit what it has then. Costs nothing per request that memory
//! answers; an open walks to the nearest folder of the rules once more, inside the kernel.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// How far Landlock holds (landlock(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// Everything that was asked for.
    Full,
    /// What this kernel knows of it.
    Partial,
    /// Nothing: no such thing in this kernel, or switched off.
    None,
}

/// Whom a process becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: u32,
    /// Its own group.
    pub group: u32,
    /// The other groups it is in.
    pub groups: Vec<u32>,
}

/// From now on this thread, and those it starts, may read beneath `readable`, and create and write files beneath `writable`; no other
/// path can be opened, made, renamed or removed. Open descriptors stay what they are. Paths that do not exist give no right.
///
/// # Errors
/// What the kernel says to a ruleset, which it does not say to a good one.
pub fn restrict_files(readable: &[&Path], writable: &[&Path]) -> io::Result<Sandbox> {
    let restrict = || -> Result<Sandbox, RulesetError> {
        let everything = AccessFs::from_all(ABI::V5);
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(everything)?;
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        let writing = AccessFs::WriteFile | AccessFs::MakeReg;
        let mut created = ruleset.create()?;
        for (paths, rights) in [(readable, reading), (writable, writing)] {
            for path in paths {
                let Ok(place) = PathFd::new(path) else { continue };
                let rights = if path.is_dir() { rights } else { rights & of_files() };
                created = created.add_rule(PathBeneath::new(place, rights))?;
            }
        }
        Ok(match created.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => Sandbox::Full,
            RulesetStatus::PartiallyEnforced => Sandbox::Partial,
            RulesetStatus::NotEnforced => Sandbox::None,
        })
    };
    restrict().map_err(io::Error::other)
}

/// The rights that a file can have.
fn of_files() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile
}

/// Whether this process may do anything.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Becomes somebody else for good: real, effective and saved user and group of every thread (setresuid(2), "C library/kernel
/// differences"), and their groups.
///
/// # Errors
/// EPERM without the right to; EAGAIN when that user has too many processes.
pub fn become_user(identity: &Identity) -> io::Result<()> {
    let checked = |outcome: libc::c_int| if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // Groups first: the user would not have the right any more.
    // SAFETY: the pointer and the length are those of a slice that lives through the call.
    checked(unsafe { libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) })?;
    // SAFETY: no pointers involved.
    checked(unsafe { libc::setresgid(identity.group, identity.group, identity.group) })?;
    // SAFETY: no pointers involved.
    checked(unsafe { libc::setresuid(identity.user, identity.user, identity.user) })?;
    // A way back would mean that nothing was given up.
    // SAFETY: no pointers involved.
    if identity.user != 0 && unsafe { libc::setresuid(0, 0, 0) } == 0 {
        return Err(io::Error::other("the rights of root could be had again"));
    }
    Ok(())
}

/// No program that this process starts can have more rights than it has (PR_SET_NO_NEW_PRIVS, prctl(2)).
///
/// # Errors
/// None is expected.
pub fn renounce_new_rights() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Bounds the core file that a crash of this process leaves, in bytes; 0 for none (RLIMIT_CORE, getrlimit(2)). It is for good.
///
/// # Errors
/// EPERM: more than the process was started with, and no right to raise it.
pub fn limit_core(bytes: u64) -> io::Result<()> {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    Ok(setrlimit(Resource::Core, limit)?)
}

/// Lets a process leave a core file that has become another user (PR_SET_DUMPABLE, prctl(2)): the kernel lets none, since
/// memory may hold what that user should not see. That user may then look at the process' memory as well (ptrace(2)).
///
/// # Errors
/// None is expected.
pub fn allow_core() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_was_named_can_be_opened() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = |name: &str| folder.path().join(name);
        for name in ["site", "logs", "other"] {
            fs::create_dir(place(name)).expect("own folder");
            fs::write(place(name).join("file"), name).expect("own folder");
        }
        // A sandbox is for good: a thread of its own takes it along.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                renounce_new_rights().expect("always allowed");
                let held =
                    restrict_files(&[&place("site")], &[&place("logs"), Path::new("/none")]).expect("good rules");
                if held == Sandbox::None {
                    eprintln!("this kernel has no Landlock");
                    return;
                }
                assert_eq!(fs::read(place("site/file")).expect("readable"), b"site");
                assert!(fs::write(place("site/file"), "x").is_err() && fs::remove_file(place("site/file")).is_err());
                fs::write(place("logs/new"), "x").expect("writable");
                assert!(fs::read(place("logs/new")).is_err() && fs::read(place("other/file")).is_err());
                assert!(fs::read_dir(folder.path()).is_err() && fs::read("/etc/passwd").is_err());
            });
        });
        assert!(fs::read(place("other/file")).is_ok(), "the other threads are as free as before");
    }

    #[test]
    fn without_the_right_nobody_becomes_another() {
        if !is_root() {
            let root = Identity { user: 0, group: 0, groups: Vec::new() };
            assert_eq!(become_user(&root).expect_err("not allowed").kind(), io::ErrorKind::PermissionDenied);
        }
    }
}

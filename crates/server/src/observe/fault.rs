//! Faults on purpose, for the tests of the supervisor: only in builds with debug assertions, and only where `AMPED_FAULTS` names a
//! folder. In a release build nothing of this exists.

use std::path::Path;
use std::sync::OnceLock;

/// Does what the tests ask a path for: `/fault/spin` never comes back, `/fault/abort` ends the process.
pub fn strike(path: &[u8]) {
    if folder().is_none() {
        return;
    }
    match path {
        b"/fault/spin" => endless_loop(),
        b"/fault/abort" => std::process::abort(),
        _ => {}
    }
}

/// Does what the tests ask of the beginning of a server process: a file `start` in the folder ends it, `hang` holds it.
pub fn at_start() {
    let Some(folder) = folder() else { return };
    if folder.join("start").exists() {
        std::process::exit(3);
    }
    while folder.join("hang").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[inline(never)]
fn endless_loop() {
    let mut turns: u64 = 0;
    loop {
        turns = std::hint::black_box(turns.wrapping_add(1));
    }
}

fn folder() -> Option<&'static Path> {
    static FOLDER: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os("AMPED_FAULTS").map(Into::into)).as_deref()
}

//! The watch over the folders: a path that leads elsewhere by now, or nowhere, is noticed.
//!
//! A folder is open from the start, and whatever takes its place goes unseen: the next release behind a link, a disk that was
//! mounted again. So each path is asked for once a second (stat(2), about 1 us) by a thread of its own, which may wait for the
//! disk: a mount that hangs keeps the other folders from being looked at, and nothing else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use amped_runtime::disk::Standing;
use amped_runtime::{say, warn};

use super::server::Server;

/// Looks for ever. What it finds is said on standard error, and folders that are others now are opened; `unable` is told why that
/// could not be done, once for each.
pub fn run(server: &Server, mut unable: impl FnMut(String)) -> ! {
    let mut seen: HashMap<PathBuf, Standing> = HashMap::new();
    loop {
        std::thread::sleep(INTERVAL);
        let (plan, roots) = server.folders();
        let mut others: Vec<PathBuf> = Vec::new();
        for (path, root) in roots.with_paths(&plan) {
            let standing = root.look(path);
            let before = seen.insert(path.to_owned(), standing).unwrap_or(Standing::Same);
            let folder = path.display();
            match (before, standing) {
                _ if before == standing => {}
                (_, Standing::Gone) => {
                    warn!("amped: the folder {folder} is gone; what memory does not know of it is answered 500");
                }
                (Standing::Gone, Standing::Same) => say!("amped: the folder {folder} is back"),
                (_, Standing::Same) => {}
                (_, Standing::Other(_)) => others.push(path.to_owned()),
            }
        }
        seen.retain(|path, _| roots.with_paths(&plan).any(|(known, _)| known == path));
        let Some(first) = others.first() else { continue };
        let folder = first.display();
        match server.renew() {
            Ok(()) => say!("amped: {folder} is another folder now, which is served from here on"),
            Err(why) => unable(format!("{folder} is another folder now: {why}")),
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);

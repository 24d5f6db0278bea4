//! Which entries need not be looked at: had anything happened to their files, the kernel would have told (`disk::Watches`).
//!
//! Trust is given by a look on the loop, if the file's folder is watched already and the way there holds nothing that a watch cannot see. The
//! second look at a file has its folder watched. It ends with the first change in the folder, and after `TRUSTED_MS` in any case: a watch does not see everything.

use std::io;
use std::sync::{Arc, Once};

use amped_runtime::disk::{Class, Helpers, Mark, Watch, Watches};
use amped_runtime::{Runtime, warn};

use super::entry::Entry;
use super::load::Target;

/// One worker's share in the watches.
#[derive(Debug)]
pub struct Trust(Option<Arc<Watches>>);

impl Trust {
    /// Without watches there is none, nor where everything is looked at every time, or later than trust would end.
    pub fn new(watches: Option<&Arc<Watches>>, revalidate_ms: u64) -> Self {
        Self(watches.filter(|_| (1..TRUSTED_MS).contains(&revalidate_ms)).cloned())
    }

    /// Whether the entry is still right; it is confirmed then.
    pub fn holds(&self, entry: &Entry, now: u64) -> bool {
        let Some(watches) = &self.0 else { return false };
        let holds = entry.trusted(now).is_some_and(|(mark, age)| age < TRUSTED_MS && watches.stands(mark));
        if holds {
            // Should trust end while the disk is drowned, memory may go on answering for as long as for any other.
            entry.confirm(now);
        }
        holds
    }

    /// To be asked before the target is looked at: what it may be trusted by afterwards. The first one who asks for what memory knows has a helper
    /// watch the folder: what was asked for once may never be again.
    pub fn prepare(
        &self,
        target: &Target<'_>,
        known: Option<&Entry>,
        runtime: &Runtime,
        helpers: &Helpers,
    ) -> Option<Mark> {
        let watches = self.0.as_ref()?;
        let folder = folder_of(target.relative());
        if known.and_then(Entry::representation).is_none() {
            return watches.mark(target.root, folder);
        }
        match watches.watch(target.root, folder) {
            Watch::On(mark) => return Some(mark),
            Watch::Off => {}
            Watch::Wanted => {
                let (watches, root, folder) = (Arc::clone(watches), Arc::clone(target.root), Box::<[u8]>::from(folder));
                // Whatever the reason may be that it cannot be watched: then its files are looked at, as they would be without watches.
                // Urgent as looking at files that memory holds is: where the mount hangs, it takes no helper from those who read.
                let job =
                    helpers.submit_in(super::folder(target.root), Class::Urgent, move || watches.add(&root, &folder));
                runtime.spawn(async move {
                    if let Ok(Err(error)) = job.await {
                        say_once(&error);
                    }
                });
            }
        }
        None
    }
}

/// What somebody may want to do something about.
fn say_once(error: &io::Error) {
    static SAID: Once = Once::new();
    if error.raw_os_error() == Some(NO_WATCHES_LEFT) {
        SAID.call_once(|| warn!("amped: some folders are not watched, their files are looked at instead: {WHY}"));
    }
}

fn folder_of(relative: &[u8]) -> &[u8] {
    relative.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &relative[..slash])
}

const NO_WATCHES_LEFT: i32 = 28;
const WHY: &str =
    "this user has no inotify watches left; `sysctl fs.inotify.max_user_watches` tells and sets how many there may be";
/// For what a watch does not see: stores to mapped memory, and writes that do not go by the file's name.
const TRUSTED_MS: u64 = 300_000;

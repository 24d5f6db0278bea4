//! Where the paths come from: a file of URLs, a folder, a log.

mod common_log;
mod folder;
mod list;

pub use common_log::{read_log, target_of};
pub use folder::list_folder;
pub use list::read_list;

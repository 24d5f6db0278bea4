//! What a server process gives up when everything is bound and open, before its first thread: its user's rights, and all files but
//! those it serves and the log it writes.
//!
//! Descriptors that are open stay open: the folders of the plan, its sockets, the admin address.

use std::fmt;
use std::path::Path;

use amped_runtime::confine::{self, Sandbox};

use crate::config::choice::{AccessLog, Symlinks};
use crate::config::plan::{Action, FilesPlan, Plan};

/// What was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confined {
    /// Whom the process has become, or that it is root.
    user: Option<String>,
    /// How far Landlock holds; `None` when it was not asked for.
    sandbox: Option<Sandbox>,
}

/// Whether a plan may be served by whoever has started it.
///
/// # Errors
/// Root would serve other machines, and nobody has said that it should.
pub fn check(plan: &Plan) -> Result<(), String> {
    let reachable = plan.listen.iter().find(|address| !address.ip().is_loopback());
    match reachable {
        Some(address) if confine::is_root() && plan.user.is_none() => Err(format!(
            "this is root, and other machines can connect to {address}: name whom to become once it is bound, with `--user USER` or \
             `user = \"USER\"` (`root`, if it must be)"
        )),
        _ => Ok(()),
    }
}

/// What a parent that keeps its rights has to say of it: its processes become `user`, it does not.
pub fn warning(plan: &Plan) -> Option<&'static str> {
    match &plan.user {
        _ if !confine::is_root() => None,
        None => Some("its processes are root: `--user` or `user` names somebody with fewer rights"),
        Some(_) => Some("its parent stays root, to start processes that become the user"),
    }
}

/// Gives up what the plan does not need.
///
/// # Errors
/// In words: no right to become that user.
pub fn confine(plan: &Plan) -> Result<Confined, String> {
    let failed = |error| format!("cannot give up rights: {error}");
    confine::renounce_new_rights().map_err(failed)?;
    // First of all, since the folders may lie where only root may look.
    let sandbox = plan.sandbox.then(|| restrict(plan)).transpose().map_err(failed)?;
    if let Some(user) = &plan.user {
        let failed = |error| format!("cannot become the user `{}`: {error}", user.name);
        confine::become_user(&user.identity).map_err(failed)?;
    }
    let user = plan.user.as_ref().map(|user| user.name.clone());
    Ok(Confined { user: user.or_else(|| confine::is_root().then(|| "root".into())), sandbox })
}

fn restrict(plan: &Plan) -> std::io::Result<Sandbox> {
    let mut readable: Vec<&Path> = OWN.iter().map(Path::new).collect();
    readable.extend(folders(plan).map(|files| match files.symlinks {
        // Such a link may lead anywhere.
        Symlinks::Anywhere => Path::new("/"),
        Symlinks::Within | Symlinks::Never => &files.root,
    }));
    // The folder and not the file: a rotation puts a new one in its place.
    let log = match &plan.access_log {
        AccessLog::File { path, .. } => path.parent(),
        AccessLog::Off | AccessLog::Stderr { .. } => None,
    };
    confine::restrict_files(&readable, log.as_slice())
}

fn folders(plan: &Plan) -> impl Iterator<Item = &FilesPlan> {
    let actions = plan.sites.iter().flat_map(|site| &site.routes).map(|route| &route.action);
    actions.filter_map(|action| match action {
        Action::Files(files) => Some(files),
        Action::Redirect { .. } | Action::Status { .. } => None,
    })
}

impl Confined {
    /// The same for `/status`.
    pub fn json(&self) -> serde_json::Value {
        let sandbox = match self.sandbox {
            None => "off",
            Some(Sandbox::None) => "unavailable",
            Some(Sandbox::Partial) => "partial",
            Some(Sandbox::Full) => "landlock",
        };
        serde_json::json!({ "user": self.user, "sandbox": sandbox })
    }
}

impl fmt::Display for Confined {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sandbox {
            Some(Sandbox::Full) => write!(formatter, "opens its folders and its log alone (Landlock)")?,
            Some(Sandbox::Partial) => {
                write!(formatter, "opens its folders and its log alone (as far as this kernel's Landlock goes)")?
            }
            Some(Sandbox::None) => write!(formatter, "may open any file: no Landlock here")?,
            None => write!(formatter, "may open any file: `sandbox` is off")?,
        }
        match self.user.as_deref() {
            Some("root") => write!(formatter, ", and is root: `--user` or `user` names somebody with fewer rights"),
            Some(user) => write!(formatter, ", and is {user}"),
            None => Ok(()),
        }
    }
}

/// What a program looks at of itself: its stack when something goes wrong, the number of its processors, how memory is granted.
const OWN: &[&str] = &["/proc/self", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu", "/sys/fs/cgroup"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_said() {
        let confined = Confined { user: Some("www-data".into()), sandbox: Some(Sandbox::Full) };
        assert_eq!(confined.to_string(), "opens its folders and its log alone (Landlock), and is www-data");
        assert_eq!(confined.json()["sandbox"], "landlock");
        let root = Confined { user: Some("root".into()), sandbox: None };
        assert!(root.to_string().contains("is root: `--user`"));
    }

    #[test]
    fn root_is_not_for_everybody() {
        let mut plan = Plan::for_folder(Path::new("/nowhere"));
        assert_eq!(check(&plan), Ok(()), "this machine alone");
        plan.listen = vec!["0.0.0.0:80".parse().expect("an address")];
        assert_eq!(check(&plan).is_err(), confine::is_root());
        assert_eq!(warning(&plan).is_some(), confine::is_root());
        plan.user = Some(crate::config::user::User::parse("0:0").expect("root"));
        assert_eq!(check(&plan), Ok(()));
    }
}

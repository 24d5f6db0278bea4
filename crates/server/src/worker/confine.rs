//! What a server process gives up when everything is bound and open, before its first thread: its user's rights, all files but
//! those it serves and the log it writes, and what a crash of it may leave.
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
    if let Some(bytes) = plan.core_limit {
        let failed = |error| {
            format!("cannot let a core file have {bytes} bytes (`core_limit`): {error}; `ulimit -Hc` tells how many")
        };
        // While there is the right to raise it.
        confine::limit_core(bytes).map_err(failed)?;
    }
    // First of all, since the folders may lie where only root may look.
    let sandbox = plan.sandbox.then(|| restrict(plan)).transpose().map_err(failed)?;
    if let Some(user) = &plan.user {
        let failed = |error| format!("cannot become the user `{}`: {error}", user.name);
        confine::become_user(&user.identity).map_err(failed)?;
        if plan.core_limit.is_some_and(|bytes| bytes > 0) {
            confine::allow_core().map_err(|error| format!("cannot leave core files: {error}"))?;
        }
    }
    let user = plan.user.as_ref().map(|user| user.name.clone());
    Ok(Confined { user: user.or_else(|| confine::is_root().then(|| "root".into())), sandbox })
}

/// Whether a process that was confined for one plan can open what another one serves. Where it cannot tell (a folder that was
/// put in the place of another) it finds out.
pub fn leaves_open(now: &Plan, next: &Plan) -> bool {
    let gives_up = now.sandbox || now.user.is_some();
    let known: Vec<&FilesPlan> = folders(now).collect();
    let is_known =
        |path: &Path| known.iter().any(|files| files.symlinks == Symlinks::Anywhere || path.starts_with(&files.root));
    let pages = next.sites.iter().flat_map(|site| &site.error_pages).map(|(_, file)| file);
    let files = pages.chain(next.overload_body.iter().map(|body| &body.path));
    let mut links = folders(next).filter(|files| files.symlinks == Symlinks::Anywhere);
    let may_follow = links.all(|_| known.iter().any(|files| files.symlinks == Symlinks::Anywhere));
    !gives_up || (may_follow && folders(next).map(|files| &files.root).chain(files).all(|path| is_known(path)))
}

fn restrict(plan: &Plan) -> std::io::Result<Sandbox> {
    // A reload looks users up again.
    let names: &[&str] = if plan.user.is_some() { USERS } else { &[] };
    let mut readable: Vec<&Path> = OWN.iter().chain(names).map(Path::new).collect();
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
    /// Whether there is anything that another process might open and this one cannot.
    pub fn lacks_rights(&self) -> bool {
        !matches!(self.sandbox, None | Some(Sandbox::None)) || self.user.as_deref().is_some_and(|user| user != "root")
    }

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

/// What a program looks at of itself: its stack when something goes wrong, with the names that its file has, the number of its
/// processors, how memory is granted.
const OWN: &[&str] =
    &["/proc/self", "/proc/self/exe", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu", "/sys/fs/cgroup"];
/// What `config::user` reads; passwords are elsewhere.
const USERS: &[&str] = &["/etc/passwd", "/etc/group"];

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
    fn a_confined_process_serves_what_it_has_opened() {
        let plan = |root: &str| Plan { sandbox: true, ..Plan::for_folder(Path::new(root)) };
        let now = plan("/srv/site");
        assert!(leaves_open(&now, &now) && leaves_open(&now, &plan("/srv/site/part")));
        assert!(!leaves_open(&now, &plan("/srv")) && !leaves_open(&now, &plan("/srv/site2")));
        let mut page = now.clone();
        page.sites[0].error_pages = vec![(404, "/srv/pages/404.html".into())];
        assert!(!leaves_open(&now, &page));
        let mut links = now.clone();
        let Action::Files(files) = &mut links.sites[0].routes[0].action else { panic!("a folder") };
        files.symlinks = Symlinks::Anywhere;
        assert!(!leaves_open(&now, &links) && leaves_open(&links, &page));
        let open = Plan { sandbox: false, ..now };
        assert!(leaves_open(&open, &plan("/elsewhere")));
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

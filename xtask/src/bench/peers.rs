//! The servers measured: the peers as Debian has them, amped on each driver, the null server on each driver.
//! A peer's configuration is what its own documentation recommends: bench/peers/.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Binaries;
use super::corpus::FILES;
use crate::install::{Need, need};
use crate::root;

/// One row of a table.
pub struct Server {
    pub name: &'static str,
    pub role: Role,
    /// The program and its package, for peers.
    pub need: Option<Need>,
    /// How to ask it for its version.
    pub version: &'static [&'static str],
    /// Its file in bench/peers/.
    config: &'static str,
    /// The command's arguments; `{CONFIG}` and the words of a configuration are replaced.
    args: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Peer,
    Amped,
    /// Another binary of amped, to be compared with.
    Before,
    Null,
}

/// Where and what a server serves.
pub struct Place {
    pub port: u16,
    pub root: PathBuf,
    /// A folder of its own for configuration, logs and pid files.
    pub run: PathBuf,
    /// amped's memory for files; its own choice without.
    pub cache: Option<String>,
    /// The null server's body, in bytes.
    pub size: u64,
    /// The null server sends from as many places in memory as the tail has files, these percent of the answers from all of them.
    pub tail: Option<u32>,
}

impl Server {
    pub fn command(&self, place: &Place, binaries: &Binaries) -> Result<Command> {
        let fill = |text: &str| {
            text.replace("{{PORT}}", &place.port.to_string())
                .replace("{{ROOT}}", &place.root.to_string_lossy())
                .replace("{{RUN}}", &place.run.to_string_lossy())
                .replace("{{CACHE}}", &place.cache.as_ref().map_or(String::new(), |size| format!("--cache={size}")))
                .replace("{{SIZE}}", &place.size.to_string())
                .replace("{{FILES}}", &place.tail.map_or(1, |_| FILES).to_string())
                .replace("{{UNIFORM}}", &place.tail.unwrap_or(100).to_string())
        };
        let config = place.run.join("config");
        if !self.config.is_empty() {
            let template = fs::read_to_string(root().join("bench/peers").join(self.config))?;
            fs::write(&config, fill(&template))?;
        }
        let mut command = Command::new(self.program(binaries)?);
        let args = self.args.iter().map(|arg| fill(&arg.replace("{{CONFIG}}", &config.to_string_lossy())));
        command.args(args.filter(|arg| !arg.is_empty()));
        // What would otherwise be kept in somebody's home.
        command.env("HOME", &place.run).env("XDG_DATA_HOME", &place.run);
        Ok(command)
    }

    fn program(&self, binaries: &Binaries) -> Result<PathBuf> {
        let path = match self.role {
            Role::Amped => Some(binaries.amped.clone()),
            Role::Before => Some(binaries.before.clone()),
            Role::Null => Some(binaries.null.clone()),
            Role::Peer => self.need.and_then(|need| crate::install::find(need.program)),
        };
        path.filter(|path| Path::new(path).exists())
            .ok_or_else(|| Error::other(format!("{}: no such program", self.name)))
    }

    /// The same driver with the binary from before.
    pub fn before(&self) -> Option<String> {
        self.name.strip_prefix("amped-").map(|driver| format!("before-{driver}"))
    }

    /// The null server that uses the same system calls.
    pub fn null(&self) -> Option<&'static str> {
        match self.name {
            "amped-epoll-edge" => Some("null-epoll"),
            "amped-poll" => Some("null-poll"),
            "amped-uring" => Some("null-uring"),
            _ => None,
        }
    }
}

/// The servers whose names begin with one of `names`, or all.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Server>> {
    let known = || ALL.iter().filter(|server| server.role != Role::Before);
    for name in names {
        if !known().any(|server| server.name.starts_with(name.as_str())) {
            let known: Vec<_> = known().map(|server| server.name).collect();
            return Err(Error::other(format!("no server `{name}`; there are {}", known.join(" "))));
        }
    }
    let wanted = |server: &&Server| names.is_empty() || names.iter().any(|name| server.name.starts_with(name.as_str()));
    Ok(known().filter(wanted).collect())
}

/// The binary from before on each driver that is among `servers`.
pub fn before(servers: &[&Server]) -> impl Iterator<Item = &'static Server> + use<> {
    let names: Vec<_> = servers.iter().filter_map(|server| server.before()).collect();
    ALL.iter().filter(move |server| names.iter().any(|name| name == server.name))
}

const ALL: &[Server] = &[
    Server {
        name: "nginx",
        role: Role::Peer,
        need: Some(need("nginx", "nginx-light")),
        version: &["-v"],
        config: "nginx.conf",
        args: &["-p", "{{RUN}}", "-e", "{{RUN}}/nginx-error.log", "-c", "{{CONFIG}}"],
    },
    Server {
        name: "lighttpd",
        role: Role::Peer,
        need: Some(need("lighttpd", "lighttpd")),
        version: &["-v"],
        config: "lighttpd.conf",
        args: &["-D", "-f", "{{CONFIG}}"],
    },
    Server {
        name: "h2o",
        role: Role::Peer,
        need: Some(need("h2o", "h2o")),
        version: &["--version"],
        config: "h2o.conf",
        args: &["-c", "{{CONFIG}}"],
    },
    Server {
        name: "caddy",
        role: Role::Peer,
        need: Some(need("caddy", "caddy")),
        version: &["version"],
        config: "Caddyfile",
        args: &["run", "--adapter", "caddyfile", "--config", "{{CONFIG}}"],
    },
    Server {
        name: "apache2",
        role: Role::Peer,
        need: Some(need("apache2", "apache2")),
        version: &["-v"],
        config: "apache2.conf",
        args: &["-D", "FOREGROUND", "-f", "{{CONFIG}}"],
    },
    amped("amped-epoll-edge", Role::Amped, &amped_args("epoll-edge")),
    amped("amped-poll", Role::Amped, &amped_args("poll")),
    amped("amped-uring", Role::Amped, &amped_args("uring")),
    amped("amped-auto", Role::Amped, &amped_args("auto")),
    amped("before-epoll-edge", Role::Before, &amped_args("epoll-edge")),
    amped("before-poll", Role::Before, &amped_args("poll")),
    amped("before-uring", Role::Before, &amped_args("uring")),
    amped("before-auto", Role::Before, &amped_args("auto")),
    null("null-epoll", &null_args("epoll")),
    null("null-poll", &null_args("poll")),
    null("null-uring", &null_args("uring")),
];

const fn amped(name: &'static str, role: Role, args: &'static [&'static str]) -> Server {
    Server { name, role, need: None, version: &["--version"], config: "", args }
}

const fn amped_args(driver: &'static str) -> [&'static str; 12] {
    [
        "serve",
        "{{ROOT}}",
        "--listen",
        "127.0.0.1:{{PORT}}",
        "--workers",
        "1",
        "--driver",
        driver,
        "{{CACHE}}",
        "--access-log",
        "off",
        "--no-supervisor",
    ]
}

const fn null(name: &'static str, args: &'static [&'static str]) -> Server {
    Server { name, role: Role::Null, need: None, version: &[], config: "", args }
}

const fn null_args(driver: &'static str) -> [&'static str; 10] {
    ["--driver", driver, "--port", "{{PORT}}", "--size", "{{SIZE}}", "--files", "{{FILES}}", "--uniform", "{{UNIFORM}}"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_chooses() {
        let names = |servers: &[&Server]| -> Vec<_> { servers.iter().map(|server| server.name).collect() };
        let few = chosen(&["null-e".into(), "amped-u".into(), "nginx".into()]).unwrap();
        assert_eq!(names(&few), ["nginx", "amped-uring", "null-epoll"]);
        assert_eq!(names(&before(&few).collect::<Vec<_>>()), ["before-uring"]);
        let all = chosen(&[]).unwrap();
        assert_eq!(all.len() + before(&all).count(), ALL.len());
        assert!(chosen(&["iis".into()]).is_err());
        assert!(chosen(&["before".into()]).is_err(), "they come with amped's");
    }
}

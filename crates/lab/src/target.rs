//! The server that is asked: its URL as typed, its address as found.
//!
//! Only plain HTTP. Whatever is wrong with a URL is said in words, with what to write instead.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::Duration;

/// An `http://` URL, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The host's name or address, without the brackets of an IPv6 address.
    pub host: String,
    /// The port; 80 when none was given.
    pub port: u16,
    /// The path and the query, as they go into a request line.
    pub path: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong, and what to write instead.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let scheme_end = typed.find("://");
        let rest = match scheme_end.map(|end| (typed[..end].to_ascii_lowercase(), &typed[end + 3..])) {
            Some((scheme, rest)) if scheme == "http" => rest,
            Some((scheme, rest)) if scheme == "https" => {
                return Err(format!(
                    "`{typed}`: https is not spoken here, only plain HTTP: write http://{rest}, or put the load on the server \
                     behind the TLS terminator"
                ));
            }
            Some((scheme, rest)) => {
                return Err(format!("`{typed}`: the scheme `{scheme}` is unknown: write http://{rest}"));
            }
            None => return Err(format!("`{typed}` has no scheme: write http://{}", typed.trim_start_matches('/'))),
        };
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_end);
        if authority.contains('@') {
            return Err(format!("`{typed}` has a user name: write it as --header 'Authorization: Basic …'"));
        }
        let (host, port) = split_authority(authority).map_err(|why| format!("`{typed}`: {why}"))?;
        let path = match path.split('#').next().unwrap_or_default() {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        check_path(&path).map_err(|why| format!("`{typed}`: {why}"))?;
        Ok(Self { host: host.to_owned(), port, path })
    }

    /// The value of the Host field.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }

    /// The address to connect to: the first the name has.
    ///
    /// # Errors
    /// When the name is unknown, or nobody says within a second.
    pub fn resolve(&self) -> Result<SocketAddr, String> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(address, self.port));
        }
        let (host, port) = (self.host.clone(), self.port);
        let (tell, told) = mpsc::channel();
        // A resolver whose name servers do not answer asks for half a minute.
        std::thread::spawn(move || tell.send((host.as_str(), port).to_socket_addrs()));
        let late = |_| format!("no word on the host `{}` within a second: does the name server answer?", self.host);
        let found = told.recv_timeout(REACHABLE_WITHIN).map_err(late)?;
        let none = || format!("the host `{}` has no address: is the name right?", self.host);
        found.map_err(|error| format!("{} ({error})", none()))?.next().ok_or_else(none)
    }
}

/// Whether anybody listens there, asked once before thousands do.
///
/// # Errors
/// What is the matter, and what to look at.
pub fn check_reachable(address: SocketAddr) -> Result<(), String> {
    match TcpStream::connect_timeout(&address, REACHABLE_WITHIN) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    "nobody listens there: is the server running, is the port right?"
                }
                std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => {
                    "no answer within a second: is the address right, is a firewall in between?"
                }
                _ => "is the address right?",
            };
            Err(format!("cannot connect to {address}: {why} ({error})"))
        }
    }
}

/// Whether `path` can stand in a request line.
///
/// # Errors
/// What is wrong with it.
pub fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("the path `{path}` does not begin with a slash"));
    }
    match path.chars().find(|character| !character.is_ascii_graphic()) {
        Some(odd) => Err(format!("the path has {odd:?} in it: percent-encode it")),
        None => Ok(()),
    }
}

fn split_authority(authority: &str) -> Result<(&str, u16), String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("the IPv6 address has no closing bracket")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("[{host}] is no IPv6 address"));
            }
            (host, rest)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    if host.is_empty() {
        return Err("the host is missing: write http://127.0.0.1:8080/".into());
    }
    let is_name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    if !authority.starts_with('[') && !host.chars().all(is_name) {
        return Err(format!("`{host}` is no host name"));
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 80,
        None => return Err(format!("`{port}` stands where the port should be")),
        Some(digits) => match digits.parse::<u16>() {
            Ok(port @ 1..) => port,
            _ => return Err(format!("`{digits}` is no port: write a number from 1 to 65535")),
        },
    };
    Ok((host, port))
}

/// An unreachable server is to be reported within a second.
const REACHABLE_WITHIN: Duration = Duration::from_millis(900);

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(typed: &str) -> (String, u16, String) {
        let url = Url::parse(typed).unwrap_or_else(|error| panic!("{typed}: {error}"));
        (url.host, url.port, url.path)
    }

    #[test]
    fn urls_are_read() {
        assert_eq!(parts("http://a.example"), ("a.example".into(), 80, "/".into()));
        assert_eq!(parts("HTTP://127.0.0.1:8080/x?y=1#z"), ("127.0.0.1".into(), 8080, "/x?y=1".into()));
        assert_eq!(parts("http://[::1]:81?q"), ("::1".into(), 81, "/?q".into()));
        assert_eq!(Url::parse("http://[::1]:81/").unwrap().authority(), "[::1]:81");
        assert_eq!(Url::parse("http://a:80/").unwrap().authority(), "a");
        assert_eq!(Url::parse("http://[::1]:81/").unwrap().resolve().unwrap().to_string(), "[::1]:81");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (typed, word) in [
            ("https://a/", "only plain HTTP"),
            ("ftp://a/", "`ftp` is unknown"),
            ("a:8080/x", "write http://a:8080/x"),
            ("http:///x", "host is missing"),
            ("http://a:0/", "no port"),
            ("http://a:99999/", "no port"),
            ("http://a:b/", "no port"),
            ("http://u:p@a/", "user name"),
            ("http://[::1/", "closing bracket"),
            ("http://[zz]/", "no IPv6"),
            ("http://a b/", "no host name"),
            ("http://a/b c", "percent-encode"),
            ("http://a/\u{e4}", "percent-encode"),
        ] {
            let error = Url::parse(typed).unwrap_err();
            assert!(error.contains(word), "{typed}: {error}");
        }
    }

    #[test]
    fn nobody_there_is_said() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(check_reachable(address), Ok(()));
        drop(taken);
        assert!(check_reachable(address).unwrap_err().contains("nobody listens there"));
    }
}

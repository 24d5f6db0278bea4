//! Host to site: exact names, `*.example.org`, and the site for all others.
//!
//! Goal: no allocation whatever the client writes. Cost: a lower-case copy on the stack and a hash;
//! for a name below a wildcard, a hash for each of its labels.

use std::collections::HashMap;

use foldhash::quality::RandomState;

use crate::config::plan::Site;

/// The sites' names.
#[derive(Debug)]
pub struct Hosts {
    exact: Names,
    /// The part below the star: `example.org` for `*.example.org`.
    wildcards: Names,
    other: u16,
}

/// Clients choose what is looked up, so the hash has a secret.
type Names = HashMap<Box<[u8]>, u16, RandomState>;

impl Hosts {
    /// The first of two sites of one name wins; a checked plan has no such two.
    pub fn new(sites: &[Site]) -> Hosts {
        let nameless = sites.iter().position(|site| site.names.is_empty());
        let other = nameless.and_then(|at| u16::try_from(at).ok()).unwrap_or(0);
        let mut hosts = Hosts { exact: Names::default(), wildcards: Names::default(), other };
        for (site, at) in sites.iter().zip(0_u16..) {
            for name in &site.names {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(below) => (&mut hosts.wildcards, below),
                    None => (&mut hosts.exact, name.as_str()),
                };
                names.entry(name.as_bytes().into()).or_insert(at);
            }
        }
        hosts
    }

    /// The index of the site for a `Host` value, with or without port.
    pub fn find(&self, host: &[u8]) -> u16 {
        if self.exact.is_empty() && self.wildcards.is_empty() {
            return self.other;
        }
        let mut space = [0; LONGEST];
        let Some(name) = bare(host, &mut space) else {
            return self.other;
        };
        self.exact.get(name).or_else(|| self.below(name)).copied().unwrap_or(self.other)
    }

    /// The wildcard with the most labels that `name` is below.
    fn below(&self, name: &[u8]) -> Option<&u16> {
        if self.wildcards.is_empty() {
            return None;
        }
        let dots = name.iter().enumerate().filter(|(_, byte)| **byte == b'.');
        dots.map(|(at, _)| at).filter(|at| *at > 0).find_map(|at| self.wildcards.get(&name[at + 1..]))
    }
}

/// The name in lower case without port and without the root's dot; `None` when it is too long to
/// be one.
fn bare<'a>(host: &[u8], space: &'a mut [u8; LONGEST]) -> Option<&'a [u8]> {
    let host = without_port(host);
    let host = host.strip_suffix(b".").unwrap_or(host);
    let name = space.get_mut(..host.len())?;
    name.copy_from_slice(host);
    name.make_ascii_lowercase();
    Some(name)
}

fn without_port(host: &[u8]) -> &[u8] {
    let end = match host.first() {
        Some(b'[') => host.iter().position(|byte| *byte == b']').map(|at| at + 1),
        _ => host.iter().position(|byte| *byte == b':'),
    };
    &host[..end.unwrap_or(host.len())]
}

/// RFC 1035, section 2.3.4: a name of 255 bytes on the wire is at most 253 as text.
const LONGEST: usize = 253;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hosts(sites: &[&[&str]]) -> Hosts {
        let site = |names: &&[&str]| Site {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..Site::for_folder(Path::new("/nowhere"))
        };
        Hosts::new(&sites.iter().map(site).collect::<Vec<_>>())
    }

    #[test]
    fn exact_then_wildcard_then_nameless() {
        let hosts = hosts(&[&["a.example"], &[], &["*.a.example", "*.deep.a.example"], &["b.a.example", "[::1]"]]);
        for (host, site) in [
            ("a.example", 0),
            ("A.Example:8080", 0),
            ("a.example.", 0),
            ("a.example.:80", 0),
            ("x.a.example", 2),
            ("x.y.a.example", 2),
            ("b.a.example", 3),
            ("[::1]:80", 3),
            ("[::1]", 3),
            ("[::2]", 1),
            ("other", 1),
            ("", 1),
            (".a.example", 1),
            ("xa.example", 1),
            ("[", 1),
            (":", 1),
        ] {
            assert_eq!(hosts.find(host.as_bytes()), site, "{host}");
        }
    }

    #[test]
    fn the_longest_wildcard_wins() {
        let hosts = hosts(&[&["*.example"], &["*.a.example"]]);
        assert_eq!(hosts.find(b"x.a.example"), 1);
        assert_eq!(hosts.find(b"x.b.example"), 0);
        assert_eq!(hosts.find(b"a.example"), 0);
    }

    #[test]
    fn without_a_nameless_site_the_first_answers() {
        let hosts = hosts(&[&["a.example"], &["b.example"]]);
        assert_eq!(hosts.find(b"b.example"), 1);
        assert_eq!(hosts.find(b"c.example"), 0);
    }

    #[test]
    fn names_too_long_to_be_names() {
        let hosts = hosts(&[&["a.example"], &[]]);
        assert_eq!(hosts.find(&[b'a'; 100_000]), 1);
        assert_eq!(hosts.find(&[0xff; 253]), 1);
    }
}

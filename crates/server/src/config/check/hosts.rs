//! Host names of sites: what one is, and that no two sites share one.

use super::Check;
use crate::config::problem::Problem;
use crate::config::text::SiteText;
use crate::config::typed::{At, OneOrMany};

impl Check {
    /// The names of a site in lower case; those that are not names are reported and left out.
    pub(super) fn names(&mut self, typed: &Option<OneOrMany<String>>) -> Vec<String> {
        let Some(OneOrMany(typed)) = typed else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for word in typed {
            let name = word.value.text().to_ascii_lowercase();
            let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
            match check_name(&name) {
                Ok(()) => names.push(name),
                Err(sentence) => self.wrong(word, sentence),
            }
        }
        names
    }

    /// No name twice, and at most one site without names.
    pub(super) fn unique_names(&mut self, sites: &[At<SiteText>]) {
        let mut known: Vec<String> = Vec::new();
        for word in sites.iter().filter_map(|site| site.value.names.as_ref()).flat_map(|n| &n.0) {
            let typed = word.value.text().to_ascii_lowercase();
            let name = typed.strip_suffix('.').unwrap_or(&typed);
            if known.iter().any(|other| other == name) {
                self.wrong(word, format!("`{name}` is named twice: leave one out"));
            } else {
                known.push(name.to_owned());
            }
        }
        let nameless = |site: &&At<SiteText>| site.value.names.as_ref().is_none_or(|n| n.0.is_empty());
        for site in sites.iter().filter(nameless).skip(1) {
            self.problems.push(Problem::at(
                &site.span,
                "a second site without names: add `names`, only one site can be for all other hosts",
            ));
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.contains("://") {
        return Err(format!("`{name}` is not a host name: leave out the `http://`"));
    }
    let below = name.strip_prefix("*.").unwrap_or(name);
    if below.contains('*') {
        return Err(format!("`{name}` is not a host name: a star stands first, as in `*.example.org`"));
    }
    let is_v6 = below.starts_with('[') && below.ends_with(']');
    if let Some((host, _)) = below.rsplit_once(':').filter(|_| !is_v6) {
        return Err(format!("`{name}` is not a host name: write `{host}`, without the port"));
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (is_v6 && "[:]".contains(c));
    if let Some(bad) = below.chars().find(|c| !good(*c)) {
        let why = if bad.is_ascii() { "is not allowed" } else { "must be written in Punycode (`xn--`)" };
        return Err(format!("`{name}` is not a host name: {bad:?} {why}"));
    }
    if below.is_empty() || below.len() > LONGEST || below.split('.').any(str::is_empty) {
        return Err(format!("`{name}` is not a host name: write one such as `www.example.org`"));
    }
    Ok(())
}

/// RFC 1035, section 2.3.4, without the root's empty label.
const LONGEST: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["example.org", "*.example.org", "localhost", "127.0.0.1", "[::1]", "a_b.c"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for (bad, says) in [
            ("http://a.example", "leave out"),
            ("a.example:80", "write `a.example`"),
            ("*a.example", "a star stands first"),
            ("*.*.example", "a star stands first"),
            ("a b", "' ' is not allowed"),
            ("bücher.example", "Punycode"),
            ("a..b", "such as"),
            ("", "such as"),
            ("*.", "such as"),
        ] {
            let error = check_name(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}

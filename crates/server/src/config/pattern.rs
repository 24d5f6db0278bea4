//! Path patterns: `/a`, `/a/*`, `*.png`, `/a/*/b*.js`.
//!
//! Goal: one look at a request's path, without allocating. Cost: a comparison for an exact path,
//! prefix or suffix; a search per piece for a pattern with several stars.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Which paths a route or a block of headers is for.
///
/// A star stands for any bytes, also none, also slashes. Everything else stands for itself, case
/// included. Paths are compared decoded: `/a%20b` is matched by `/a b`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    typed: Box<str>,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Shape {
    Everything,
    Exact,
    /// `/a/*`: the bytes before the star.
    Prefix(Box<[u8]>),
    /// `*.png`: the bytes after the star.
    Suffix(Box<[u8]>),
    /// The bytes between the stars; the first and the last are anchored, and may be empty.
    Glob(Box<[Box<[u8]>]>),
}

/// The order in which patterns are tried: smaller first, equal ones in order of appearance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// A path without a star.
    Exact,
    /// `/a/*`; the longer the prefix, the smaller the number.
    Prefix(usize),
    /// `*.png` and everything with several stars.
    Glob,
    /// `*` and `/*`.
    Everything,
}

impl Pattern {
    /// Reads a pattern; the error says what to type instead.
    pub fn parse(typed: &str) -> Result<Pattern, String> {
        if typed.is_empty() {
            return Err("a pattern is missing: write a path such as `/a`, `/a/*` or `*.png`".into());
        }
        if !typed.starts_with(['/', '*']) {
            return Err(format!("a pattern starts with `/` or `*`: write `/{typed}`"));
        }
        if let Some(bad) = typed.chars().find(|c| c.is_control()) {
            return Err(format!("a pattern cannot hold the control character {bad:?}"));
        }
        if typed.contains("**") {
            let single = collapse_stars(typed);
            return Err(format!("one `*` already crosses slashes: write `{single}`"));
        }
        Ok(Pattern { typed: typed.into(), shape: Shape::of(typed) })
    }

    /// The pattern of every path, `/*`.
    pub fn everything() -> Pattern {
        Pattern { typed: "/*".into(), shape: Shape::Everything }
    }

    /// Whether a decoded path is meant.
    #[inline]
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.shape {
            Shape::Everything => true,
            Shape::Exact => path == self.typed.as_bytes(),
            Shape::Prefix(start) => path.starts_with(start),
            Shape::Suffix(end) => path.ends_with(end),
            Shape::Glob(pieces) => glob_rest(pieces, path).is_some(),
        }
    }

    /// What the last star stands for in a path that matches; empty for an exact pattern.
    pub fn rest<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        match &self.shape {
            Shape::Everything => path.strip_prefix(b"/").unwrap_or(path),
            Shape::Exact => &[],
            Shape::Prefix(start) => path.strip_prefix(&**start).unwrap_or(&[]),
            Shape::Suffix(end) => path.strip_suffix(&**end).unwrap_or(&[]),
            Shape::Glob(pieces) => glob_rest(pieces, path).unwrap_or(&[]),
        }
    }

    /// When it is tried.
    pub fn rank(&self) -> Rank {
        match &self.shape {
            Shape::Everything => Rank::Everything,
            Shape::Exact => Rank::Exact,
            Shape::Prefix(start) => Rank::Prefix(usize::MAX - start.len()),
            Shape::Suffix(_) | Shape::Glob(_) => Rank::Glob,
        }
    }

    /// `/a/` for `/a/*`; `None` for the other shapes.
    pub fn folder(&self) -> Option<&str> {
        match &self.shape {
            Shape::Prefix(start) if start.ends_with(b"/") => self.typed.strip_suffix('*'),
            _ => None,
        }
    }

    /// The path it is for, when that is one path alone.
    pub fn exact(&self) -> Option<&[u8]> {
        (self.shape == Shape::Exact).then_some(self.typed.as_bytes())
    }

    /// Whether it is `*` or `/*`.
    pub fn is_everything(&self) -> bool {
        self.shape == Shape::Everything
    }

    /// As it was typed.
    pub fn as_str(&self) -> &str {
        &self.typed
    }
}

impl Shape {
    fn of(typed: &str) -> Shape {
        if typed == "*" || typed == "/*" {
            return Shape::Everything;
        }
        let pieces: Vec<Box<[u8]>> = typed.split('*').map(|p| p.as_bytes().into()).collect();
        match pieces.as_slice() {
            [_] => Shape::Exact,
            [start, end] if end.is_empty() => Shape::Prefix(start.clone()),
            [start, end] if start.is_empty() => Shape::Suffix(end.clone()),
            _ => Shape::Glob(pieces.into()),
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(typed: &str) -> Result<Pattern, String> {
        Pattern::parse(typed)
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[/*]" })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

/// What the last star matched, or `None` when the pieces do not fit. The first place at which a
/// middle piece fits is always good enough, so there is no going back: linear for each piece.
fn glob_rest<'a>(pieces: &[Box<[u8]>], path: &'a [u8]) -> Option<&'a [u8]> {
    let (first, others) = pieces.split_first()?;
    let (last, middle) = others.split_last()?;
    let mut rest = path.strip_prefix(&**first)?.strip_suffix(&**last)?;
    for piece in middle {
        let at = rest.windows(piece.len()).position(|window| window == &**piece)?;
        rest = &rest[at + piece.len()..];
    }
    Some(rest)
}

fn collapse_stars(typed: &str) -> String {
    let mut single = typed.to_owned();
    while single.contains("**") {
        single = single.replace("**", "*");
    }
    single
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, path: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn each_shape() {
        for (pattern, yes, no) in [
            ("/a", &["/a"][..], &["/a/", "/A", "/ab", "/"][..]),
            ("/a/*", &["/a/", "/a/b", "/a/b/c"], &["/a", "/ab/", "/"]),
            ("/a*", &["/a", "/ab", "/a/b"], &["/b", "/"]),
            ("*.png", &["/x.png", "/a/b.png", ".png"], &["/x.PNG", "/png", "/x.png/"]),
            ("/*", &["/", "/a", "/a/b"], &[]),
            ("*", &["/", "*", ""], &[]),
            ("/a/*/c", &["/a/b/c", "/a/b/b/c", "/a//c"], &["/a/c", "/a/b/c/", "/a/b"]),
            ("*/b/*", &["/a/b/c", "/b/"], &["/b", "/a/b"]),
            ("/a*b*a", &["/aba", "/a-b-a", "/abbaa"], &["/ab", "/a", "/aa"]),
        ] {
            yes.iter().for_each(|path| assert!(fits(pattern, path), "{pattern} {path}"));
            no.iter().for_each(|path| assert!(!fits(pattern, path), "{pattern} {path}"));
        }
    }

    #[test]
    fn anchored_ends_never_share_bytes() {
        assert!(!fits("/ab*ba", "/aba"));
        assert!(fits("/ab*ba", "/abba"));
    }

    #[test]
    fn the_rest_is_the_last_star() {
        for (pattern, path, rest) in [
            ("/a/*", "/a/b/c", "b/c"),
            ("/*", "/a/b", "a/b"),
            ("*.png", "/i/x.png", "/i/x"),
            ("/a/*/c/*.js", "/a/b/c/d/e.js", "d/e"),
            ("/a", "/a", ""),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.rest(path.as_bytes()), rest.as_bytes(), "{pattern}");
        }
    }

    #[test]
    fn ranks_order_as_documented() {
        let rank = |typed: &str| Pattern::parse(typed).unwrap().rank();
        assert!(rank("/a/b") < rank("/a/b*"));
        assert!(rank("/a/b/*") < rank("/a/*"));
        assert!(rank("/a/*") < rank("*.png"));
        assert!(rank("/a/*.png") < rank("/*"));
        assert_eq!(rank("*.png"), rank("/a/*.png"));
    }

    #[test]
    fn mistakes_say_what_to_type() {
        assert!(Pattern::parse("images/*").unwrap_err().contains("`/images/*`"));
        assert!(Pattern::parse("/a/**/***").unwrap_err().contains("`/a/*/*`"));
        assert!(Pattern::parse("").is_err() && Pattern::parse("/a\n").is_err());
    }

    /// Every pattern and path of up to five letters of a small alphabet, against the plain
    /// recursive definition.
    #[test]
    fn agrees_with_the_definition() {
        let patterns = words(b"/ab*", 5);
        let paths = words(b"/ab", 5);
        for typed in &patterns {
            let Ok(pattern) = Pattern::parse(typed) else {
                continue;
            };
            for path in paths.iter().filter(|path| path.starts_with('/')) {
                let meant = definition(typed.as_bytes(), path.as_bytes());
                assert_eq!(pattern.matches(path.as_bytes()), meant, "{typed} {path}");
            }
        }
    }

    fn definition(pattern: &[u8], path: &[u8]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((b'*', more)) => (0..=path.len()).any(|at| definition(more, &path[at..])),
            Some((byte, more)) => path.first() == Some(byte) && definition(more, &path[1..]),
        }
    }

    fn words(alphabet: &[u8], longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..longest {
            let end = all.len();
            for at in from..end {
                all.extend(alphabet.iter().map(|byte| format!("{}{}", all[at], *byte as char)).collect::<Vec<_>>());
            }
            from = end;
        }
        all
    }
}

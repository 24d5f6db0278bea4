//! Request paths: percent-decoding and dot segments, once and in that order of trust (RFC 3986 sections 2.1, 5.2.4).
//! Goal: one name for one file, never above the root, whatever was encoded; names in any byte sequence.
//! Costs: one pass over a path that is already plain, which is then borrowed; a copy of any other.

use crate::status::{Reject, Status};

/// A path without percent-encoding, dot segments or empty segments; it begins with a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normal<'a> {
    /// The path was so already.
    Borrowed(&'a [u8]),
    /// It had to be rewritten.
    Owned(Vec<u8>),
}

/// Makes a target's path a name: decodes it once, resolves `.` and `..`, and squeezes empty segments, which no file
/// system knows, to one slash.
///
/// Decoding is done once: `%252e` names a file called `%2e`. A backslash is a byte like any other. Dots count as
/// segments whether they came encoded or not.
///
/// # Errors
/// 400 for broken percent-encoding, NUL, a path that does not begin with a slash, or one that climbs above the root.
/// 404 for an encoded slash: no name can hold it, and taking it for a separator would give a file two paths, one of
/// which a rule for its folder would not see.
#[inline]
pub fn normalize(path: &[u8]) -> Result<Normal<'_>, Reject> {
    if path.first() == Some(&b'/') && is_plain(path) {
        Ok(Normal::Borrowed(path))
    } else {
        rewrite(path).map(Normal::Owned)
    }
}

/// Whether any segment of a normalized path begins with a dot, but for a first segment `.well-known` (RFC 8615).
#[inline]
pub fn is_hidden(path: &[u8]) -> bool {
    let path = match path.strip_prefix(b"/.well-known") {
        Some(rest) if rest.is_empty() || rest[0] == b'/' => rest,
        _ => path,
    };
    has_pair(path, |a, b| (a == b'/') & (b == b'.'))
}

/// Appends a path as it may stand in a target or a Location field: the inverse of the decoding in [`normalize`].
pub fn encode(out: &mut Vec<u8>, path: &[u8]) {
    for &byte in path {
        if byte.is_ascii_alphanumeric() || PATH_MARKS.contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

impl Normal<'_> {
    /// The path's bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Normal::Borrowed(path) => path,
            Normal::Owned(path) => path,
        }
    }
}

impl AsRef<[u8]> for Normal<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Whether there is nothing to rewrite: no `%`, no NUL, and no segment that is empty or begins with a dot.
#[inline]
fn is_plain(path: &[u8]) -> bool {
    !has_pair(path, |a, b| (a == b'%') | (a == 0) | ((a == b'/') & ((b == b'/') | (b == b'.'))))
        && !matches!(path.last(), Some(b'%' | 0))
}

/// Whether two neighbouring bytes are as `is` says. Without early exits, `is` included, it compiles to wide instructions.
#[inline]
fn has_pair(path: &[u8], is: impl Fn(u8, u8) -> bool) -> bool {
    let next = path.get(1..).unwrap_or_default();
    path.iter().zip(next).fold(false, |any, (&a, &b)| any | is(a, b))
}

/// Decodes segment by segment: a segment is known to be dots only once it is whole.
fn rewrite(path: &[u8]) -> Result<Vec<u8>, Reject> {
    let segments = path.strip_prefix(b"/").ok_or(Reject::bad("path without a leading slash"))?;
    let mut out = Vec::with_capacity(path.len());
    let mut is_folder = true;
    for segment in segments.split(|&b| b == b'/') {
        let start = out.len();
        out.push(b'/');
        decode(segment, &mut out)?;
        is_folder = matches!(&out[start + 1..], b"" | b"." | b"..");
        match &out[start + 1..] {
            b"" | b"." => out.truncate(start),
            b".." => {
                out.truncate(start);
                let parent = out.iter().rposition(|&b| b == b'/').ok_or(Reject::bad("path above the root"))?;
                out.truncate(parent);
            }
            _ => {}
        }
    }
    if is_folder {
        out.push(b'/');
    }
    Ok(out)
}

/// Appends a segment, its percent-encoded bytes decoded.
fn decode(segment: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
    let mut rest = segment;
    while let [byte, tail @ ..] = rest {
        let (byte, tail) = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => (encoded(*high, *low)?, tail),
            (b'%', _) => return Err(BROKEN),
            (0, _) => return Err(NUL),
            _ => (*byte, tail),
        };
        out.push(byte);
        rest = tail;
    }
    Ok(())
}

/// The byte that two hexadecimal digits encode.
fn encoded(high: u8, low: u8) -> Result<u8, Reject> {
    let digit = |b: u8| (b as char).to_digit(16).ok_or(BROKEN);
    match (digit(high)? << 4 | digit(low)?) as u8 {
        0 => Err(NUL),
        b'/' => Err(Reject::new(Status::NOT_FOUND, "encoded slash in the path")),
        byte => Ok(byte),
    }
}

/// RFC 3986 section 3.3: what may stand in a path as it is, besides letters and digits; and the slash.
const PATH_MARKS: &[u8] = b"/-._~!$&'()*+,;=:@";
const HEX: &[u8; 16] = b"0123456789ABCDEF";
const NUL: Reject = Reject::bad("NUL in the path");
const BROKEN: Reject = Reject::bad("broken percent-encoding");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(path: &str) -> Result<Vec<u8>, u16> {
        normalize(path.as_bytes()).map(|normal| normal.as_bytes().to_vec()).map_err(|reject| reject.status.code())
    }

    #[test]
    fn plain_paths_are_borrowed() {
        for path in ["/", "/a", "/a/", "/a.b/c.d", "/a..b/c.", "/a\\b", "/\u{e4}", "/..well"] {
            let normal = normalize(path.as_bytes()).unwrap();
            assert_eq!(normal.as_bytes(), path.as_bytes());
            assert_eq!(matches!(normal, Normal::Borrowed(_)), !path.starts_with("/."), "{path}");
        }
    }

    #[test]
    fn other_paths_are_rewritten() {
        for (path, expected) in [
            ("/a%20b", "/a b"),
            ("/%61%2Eb", "/a.b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/.", "/"),
            ("/a/..", "/"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a/...", "/a/..."),
            ("/..a/.b", "/..a/.b"),
            ("/%252e%252e/a", "/%2e%2e/a"),
            ("/%25", "/%"),
            ("/a%5C..%5cb", "/a\\..\\b"),
            ("/%3f%23", "/?#"),
        ] {
            assert_eq!(name(path), Ok(expected.as_bytes().to_vec()), "{path}");
        }
        assert_eq!(name("/%ff%80"), Ok(b"/\xff\x80".to_vec()));
    }

    #[test]
    fn climbing_and_broken_paths_are_refused() {
        for (path, status) in [
            ("", 400),
            ("a", 400),
            ("*", 400),
            ("/..", 400),
            ("/../a", 400),
            ("/a/../..", 400),
            ("/%2e%2e", 400),
            ("/./../a", 400),
            ("//..", 400),
            ("/%", 400),
            ("/%a", 400),
            ("/%a/b", 400),
            ("/%g0", 400),
            ("/%+1", 400),
            ("/%00", 400),
            ("/a%00.txt", 400),
            ("/\0", 400),
            ("/\0a", 400),
            ("/a%2fb", 404),
            ("/..%2f..", 404),
            ("/%2F", 404),
        ] {
            assert_eq!(name(path), Err(status), "{path}");
        }
    }

    #[test]
    fn hidden_names_are_seen_at_any_depth() {
        for path in
            ["/.git", "/.git/config", "/a/.htaccess", "/.well-known2", "/.well-known/.x", "/a/.well-known/x", "/.."]
        {
            assert!(is_hidden(path.as_bytes()), "{path}");
        }
        for path in ["", "/", "/a", "/a.b/c.", "/.well-known", "/.well-known/", "/.well-known/acme-challenge/x"] {
            assert!(!is_hidden(path.as_bytes()), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normal_path_has_no_dots_and_stays_normal(path in "/([./%a2eEfF]|%2e|\\.\\./|é){0,20}") {
            if let Ok(normal) = normalize(path.as_bytes()) {
                let bytes = normal.as_bytes();
                prop_assert_eq!(bytes[0], b'/');
                let segments: Vec<_> = bytes[1..].split(|&b| b == b'/').collect();
                let (last, inner) = segments.split_last().unwrap();
                prop_assert!(inner.iter().all(|s| !matches!(*s, b"" | b"." | b"..")));
                prop_assert!(!matches!(*last, b"." | b".."));
                if !bytes.contains(&b'%') {
                    let twice = normalize(bytes).unwrap();
                    prop_assert_eq!(twice.as_bytes(), bytes);
                }
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(name in "/[^/.\\x00][^/\\x00]{0,20}", byte in 128u8..) {
            let name = [name.as_bytes(), &[byte]].concat();
            let mut path = Vec::new();
            encode(&mut path, &name);
            prop_assert!(path.iter().all(u8::is_ascii_graphic));
            let decoded = normalize(&path).unwrap();
            prop_assert_eq!(decoded.as_bytes(), &name[..]);
        }

        #[test]
        fn no_bytes_panic(path: Vec<u8>) {
            let _ = normalize(&path);
            is_hidden(&path);
        }
    }
}

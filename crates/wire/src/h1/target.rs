//! The four forms of a request target (RFC 9112 section 3.2).
//! Goal: each form only with the methods it belongs to, so that routing never guesses.
//! Costs: nothing for the origin form beyond one byte's test.

use super::{authority, scan};
use crate::head::{Method, Target};
use crate::status::Reject;
use memchr::memchr;

/// The form of `target`, whose path part is its first `path_len` bytes.
#[inline]
pub(super) fn classify(method: Method, target: &[u8], path_len: usize) -> Result<Target<'_>, Reject> {
    if method == Method::Connect {
        return connect(target);
    }
    if target[0] == b'/' {
        return Ok(Target::Origin { path: &target[..path_len], query: target.get(path_len + 1..) });
    }
    if target == b"*" {
        return if method == Method::Options { Ok(Target::Asterisk) } else { Err(STRAY_ASTERISK) };
    }
    absolute(target, path_len)
}

/// `host:port`, the port not left out (RFC 9110 section 9.3.6).
fn connect(target: &[u8]) -> Result<Target<'_>, Reject> {
    let port = authority::port(target).ok_or(NO_AUTHORITY)?;
    if port.is_empty() || port.len() + 1 == target.len() || !authority::is_valid(target) {
        return Err(NO_AUTHORITY);
    }
    Ok(Target::Authority(target))
}

/// `scheme://authority/path?query`.
fn absolute(target: &[u8], path_len: usize) -> Result<Target<'_>, Reject> {
    let (before_query, query) = (&target[..path_len], target.get(path_len + 1..));
    let colon = memchr(b':', before_query).ok_or(NO_FORM)?;
    let (scheme, rest) = before_query.split_at(colon);
    let rest = rest.strip_prefix(b"://").ok_or(NO_FORM)?;
    if !is_scheme(scheme) {
        return Err(NO_FORM);
    }
    let slash = memchr(b'/', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(slash);
    if authority.is_empty() || !authority::is_valid(authority) {
        return Err(WRONG_AUTHORITY);
    }
    Ok(Target::Absolute { scheme, authority, path: if path.is_empty() { b"/" } else { path }, query })
}

/// RFC 3986 section 3.1: a letter, then letters, digits, `+`, `-` and `.`, all of them token bytes.
fn is_scheme(scheme: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"+-.".contains(b);
    scan::is_token(scheme) && scheme[0].is_ascii_alphabetic() && scheme.iter().all(allowed)
}

const NO_FORM: Reject = Reject::bad("target has no known form");
const NO_AUTHORITY: Reject = Reject::bad("CONNECT needs host:port");
const STRAY_ASTERISK: Reject = Reject::bad("target * of another method than OPTIONS");
const WRONG_AUTHORITY: Reject = Reject::bad("malformed authority in the target");

#[cfg(test)]
mod tests {
    use super::*;

    fn form(method: Method, target: &str) -> Option<Target<'_>> {
        let path_len = target.find('?').unwrap_or(target.len());
        classify(method, target.as_bytes(), path_len).ok()
    }

    #[test]
    fn origin_form_splits_at_the_first_question_mark() {
        let origin = |path: &'static str, query: Option<&'static str>| {
            Some(Target::Origin { path: path.as_bytes(), query: query.map(str::as_bytes) })
        };
        assert_eq!(form(Method::Get, "/"), origin("/", None));
        assert_eq!(form(Method::Get, "/a?"), origin("/a", Some("")));
        assert_eq!(form(Method::Get, "/a?b?c"), origin("/a", Some("b?c")));
        assert_eq!(form(Method::Options, "//x"), origin("//x", None));
    }

    #[test]
    fn absolute_form_has_a_path_even_when_none_was_sent() {
        let absolute = |authority: &'static str, path: &'static str, query: Option<&'static str>| {
            let (authority, path) = (authority.as_bytes(), path.as_bytes());
            Some(Target::Absolute { scheme: b"http", authority, path, query: query.map(str::as_bytes) })
        };
        assert_eq!(form(Method::Get, "http://a.b:8/c?d"), absolute("a.b:8", "/c", Some("d")));
        assert_eq!(form(Method::Get, "http://a.b"), absolute("a.b", "/", None));
        assert_eq!(form(Method::Get, "http://a.b?d"), absolute("a.b", "/", Some("d")));
        assert_eq!(form(Method::Get, "http://[::1]:80/"), absolute("[::1]:80", "/", None));
    }

    #[test]
    fn other_forms_belong_to_their_methods() {
        assert_eq!(form(Method::Options, "*"), Some(Target::Asterisk));
        assert_eq!(form(Method::Connect, "a.b:443"), Some(Target::Authority(b"a.b:443")));
        assert_eq!(form(Method::Connect, "[::1]:443"), Some(Target::Authority(b"[::1]:443")));
        for (method, target) in [
            (Method::Get, "*"),
            (Method::Options, "**"),
            (Method::Connect, "/"),
            (Method::Connect, "a.b"),
            (Method::Connect, "a.b:"),
            (Method::Connect, ":443"),
            (Method::Connect, "a.b:44x"),
            (Method::Connect, "http://a.b/"),
            (Method::Get, "a.b:443"),
            (Method::Get, "index.html"),
            (Method::Get, "http:/a"),
            (Method::Get, "http://"),
            (Method::Get, "http:///a"),
            (Method::Get, "http://u@a/"),
            (Method::Get, "://a/"),
            (Method::Get, "1http://a/"),
            (Method::Get, "?a"),
        ] {
            assert_eq!(form(method, target), None, "{method:?} {target}");
        }
    }
}

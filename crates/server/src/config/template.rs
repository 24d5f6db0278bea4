//! Where a redirect leads: text with `{host}`, `{path}`, `{rest}` and `{query}` to fill in.
//!
//! Goal: no request can lead a redirect to a host the configuration does not name: what is filled
//! in is encoded, and a leading `//` cannot arise. Cost: one string per redirect.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A redirect's target, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    typed: Box<str>,
    pieces: Vec<Piece>,
}

/// What a template is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The request's host as received; its port is left out.
    pub host: &'a [u8],
    /// The path, decoded.
    pub path: &'a [u8],
    /// What the last star of the route's pattern stands for: `Pattern::rest`.
    pub rest: &'a [u8],
    /// The query as received, without its question mark.
    pub query: Option<&'a [u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Host,
    Path,
    Rest,
    Query,
}

impl Template {
    /// Reads a template; the error says what to type instead.
    pub fn parse(typed: &str) -> Result<Template, String> {
        let pieces = split(typed)?;
        check_text(&pieces)?;
        check_start(typed, &pieces)?;
        Ok(Template { typed: typed.into(), pieces })
    }

    /// The value of `Location`: ASCII without spaces or control characters. Where the template
    /// asks for a host and the request has none, the target is the request's own path.
    pub fn fill(&self, parts: Parts<'_>) -> String {
        let mut out = String::with_capacity(self.typed.len() + parts.path.len());
        let host = bare_host(parts.host);
        if self.pieces.contains(&Piece::Host) && host.is_none() {
            push_path(&mut out, parts.path);
            push_query(&mut out, parts.query);
            return out;
        }
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Host => out.extend(host.unwrap_or(&[]).iter().map(|byte| char::from(*byte))),
                Piece::Path => push_path(&mut out, parts.path),
                Piece::Rest => push_rest(&mut out, parts.rest),
                Piece::Query => push_query(&mut out, parts.query),
            }
        }
        out
    }

    /// As it was typed.
    pub fn as_str(&self) -> &str {
        &self.typed
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(typed: &str) -> Result<Template, String> {
        Template::parse(typed)
    }
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "Template".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(/|https?://|\\{path\\})" })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

fn split(typed: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut left = typed;
    while let Some(open) = left.find('{') {
        let close = left[open..].find('}').ok_or("a `{` has no `}`")? + open;
        if open > 0 {
            pieces.push(Piece::Text(left[..open].into()));
        }
        pieces.push(Piece::named(&left[open + 1..close])?);
        left = &left[close + 1..];
    }
    if !left.is_empty() {
        pieces.push(Piece::Text(left.into()));
    }
    Ok(pieces)
}

impl Piece {
    fn named(name: &str) -> Result<Piece, String> {
        match name {
            "host" => Ok(Piece::Host),
            "path" => Ok(Piece::Path),
            "rest" => Ok(Piece::Rest),
            "query" => Ok(Piece::Query),
            _ => Err(super::nearest::one_of("placeholder", name, &NAMES)),
        }
    }
}

fn check_text(pieces: &[Piece]) -> Result<(), String> {
    for piece in pieces {
        let Piece::Text(text) = piece else { continue };
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c)) {
            return Err(format!("a redirect cannot hold {bad:?}: write it percent-encoded"));
        }
    }
    Ok(())
}

/// The host must be the configuration's or the request's own, never a piece of the path.
fn check_start(typed: &str, pieces: &[Piece]) -> Result<(), String> {
    let after_scheme = typed.strip_prefix("https://").or_else(|| typed.strip_prefix("http://"));
    let Some(after) = after_scheme else {
        let local = typed.starts_with('/') && !typed.starts_with("//");
        return if local || pieces.first() == Some(&Piece::Path) {
            Ok(())
        } else {
            Err("a redirect starts with `/`, `https://`, `http://` or `{path}`".into())
        };
    };
    let host_end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let host = after[..host_end].split("{path}").next().unwrap_or("");
    let bare = host.replacen("{host}", "h", 1);
    if bare.is_empty() {
        return Err("a redirect names a host after `://`: a name or `{host}`".into());
    }
    if bare.contains(['{', '}', '@']) {
        return Err("the host of a redirect is a name or `{host}`: put a `/` after it".into());
    }
    if host != "{host}" && host.contains("{host}") && !host.starts_with("{host}:") {
        return Err("`{host}` stands alone between `://` and the path".into());
    }
    Ok(())
}

/// The host without its port; `None` where there is no valid one: `https://` and a path would be
/// read as `https://` and another host.
fn bare_host(host: &[u8]) -> Option<&[u8]> {
    let bracket = host.iter().position(|byte| *byte == b']').map(|at| at + 1);
    let colon = || host.iter().position(|byte| *byte == b':');
    let end = if host.first() == Some(&b'[') { bracket? } else { colon().unwrap_or(host.len()) };
    let bare = &host[..end];
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    (!bare.is_empty() && bare.iter().all(good)).then_some(bare)
}

fn push_path(out: &mut String, path: &[u8]) {
    let bare = path.strip_prefix(b"/").unwrap_or(path);
    if !out.ends_with('/') {
        out.push('/');
    }
    push_rest(out, bare);
}

/// Slashes that would turn a local target into another host (`//host`) are dropped.
fn push_rest(out: &mut String, mut rest: &[u8]) {
    while out == "/" && rest.first() == Some(&b'/') {
        rest = &rest[1..];
    }
    push_encoded(out, rest);
}

fn push_query(out: &mut String, query: Option<&[u8]>) {
    if let Some(query) = query {
        out.push(if out.contains('?') { '&' } else { '?' });
        for &byte in query {
            push_byte(out, byte, byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte));
        }
    }
}

fn push_encoded(out: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        push_byte(out, byte, byte.is_ascii_alphanumeric() || PATH_BYTES.contains(&byte));
    }
}

fn push_byte(out: &mut String, byte: u8, plain: bool) {
    if plain {
        out.push(byte as char);
    } else {
        out.push('%');
        out.push(HEX[usize::from(byte >> 4)] as char);
        out.push(HEX[usize::from(byte & 15)] as char);
    }
}

const NAMES: [&str; 4] = ["host", "path", "rest", "query"];
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// RFC 3986 `pchar` and the slash, without letters and digits.
const PATH_BYTES: &[u8] = b"-._~!$&'()*+,;=:@/";

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, path: &str, rest: &str, query: Option<&str>) -> String {
        let parts =
            Parts { host: b"a.example", path: path.as_bytes(), rest: rest.as_bytes(), query: query.map(str::as_bytes) };
        Template::parse(template).unwrap().fill(parts)
    }

    #[test]
    fn fills() {
        assert_eq!(fill("https://{host}{path}{query}", "/a b", "", Some("c=d")), "https://a.example/a%20b?c=d");
        assert_eq!(fill("https://b.example{path}", "/a", "", None), "https://b.example/a");
        assert_eq!(fill("/new/{rest}", "/old/x/é", "x/é", None), "/new/x/%C3%A9");
        assert_eq!(fill("/s?p=1{query}", "/", "", Some("q")), "/s?p=1&q");
    }

    #[test]
    fn no_path_becomes_a_host() {
        assert_eq!(fill("{path}", "//evil.example", "", None), "/evil.example");
        assert_eq!(fill("/{rest}", "/go//evil.example", "/evil.example", None), "/evil.example");
        assert_eq!(fill("{path}", "/\\evil.example", "", None), "/%5Cevil.example");
        assert_eq!(fill("{path}", "/a\r\nb: c", "", None), "/a%0D%0Ab:%20c");
        assert_eq!(fill("https://b.example{path}", "@evil.example", "", None), "https://b.example/@evil.example");
    }

    #[test]
    fn the_hosts_port_is_left_out() {
        let template = Template::parse("https://{host}{path}").unwrap();
        for (host, bare) in [("a.example:80", "a.example"), ("[::1]:80", "[::1]"), ("b", "b")] {
            let parts = Parts { host: host.as_bytes(), path: b"/", rest: b"", query: None };
            assert_eq!(template.fill(parts), format!("https://{bare}/"));
        }
    }

    #[test]
    fn without_a_host_the_target_is_local() {
        let template = Template::parse("https://{host}:8443{path}{query}").unwrap();
        for host in ["", "a b", "evil.example/", ":80", "["] {
            let parts = Parts { host: host.as_bytes(), path: b"//evil.example", rest: b"", query: Some(b"a") };
            assert_eq!(template.fill(parts), "/evil.example?a");
        }
    }

    #[test]
    fn mistakes_say_what_to_type() {
        for (typed, says) in [
            ("https://b.example{rest}", "put a `/` after it"),
            ("https://{rest}/", "put a `/` after it"),
            ("https://x{host}/", "stands alone"),
            ("https:///a", "names a host"),
            ("//evil.example", "starts with"),
            ("{rest}", "starts with"),
            ("/a b", "percent-encoded"),
            ("/{pth}", "did you mean `path`"),
            ("/{path", "no `}`"),
            ("", "starts with"),
        ] {
            let error = Template::parse(typed).unwrap_err();
            assert!(error.contains(says), "{typed}: {error}");
        }
    }
}

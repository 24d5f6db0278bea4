//! A request head as meant: method, target, version, fields, and what they say of body and connection.
//! Goal: everything a server asks of a head, already checked, borrowed from the bytes it came in.
//! Costs: no allocation; about 300 bytes on the stack, of which the field index is a third.

mod fields;

pub use fields::{Fields, Known, Lines};

/// A request head that has passed every check of RFC 9112.
#[derive(Clone, Copy, Debug)]
pub struct Request<'b> {
    /// The method, [`Method::Other`] if it is none that this crate knows: the server's to answer 501 (or 405).
    pub method: Method,
    /// The method as sent; methods are case-sensitive (RFC 9110 section 9.1).
    pub method_raw: &'b [u8],
    /// The target as sent: for logs and upstreams.
    pub raw_target: &'b [u8],
    /// The target's parts, not yet decoded.
    pub target: Target<'b>,
    /// The version of the conversation; a minor version above 1 counts as 1.1.
    pub version: Version,
    /// Host and optional port as sent: an absolute or authority target's own, else the Host field's
    /// (RFC 9112 section 3.2.2); empty if neither names one.
    pub host: &'b [u8],
    /// The field lines.
    pub fields: Fields<'b>,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the client lets the connection go on after this request (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for 100 (Continue) before it sends its body (RFC 9110 section 10.1.1).
    pub expect_continue: bool,
    /// The Upgrade field if the Connection field lists it and the version is 1.1 (RFC 9110 section 7.8).
    pub upgrade: Option<&'b [u8]>,
}

/// A request method (RFC 9110 section 9.3, RFC 5789).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Connect,
    Patch,
    /// Any other token; [`Request::method_raw`] holds it.
    Other,
}

/// The HTTP version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    Http10,
    Http11,
}

/// A request target by its form (RFC 9112 section 3.2). Paths begin with a slash and are not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'b> {
    /// `/path?query`
    Origin { path: &'b [u8], query: Option<&'b [u8]> },
    /// `scheme://authority/path?query`; an absent path reads `/`.
    Absolute { scheme: &'b [u8], authority: &'b [u8], path: &'b [u8], query: Option<&'b [u8]> },
    /// `*`, of OPTIONS only.
    Asterisk,
    /// `host:port`, of CONNECT only.
    Authority(&'b [u8]),
}

/// How a request's body is delimited (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body at all.
    None,
    /// So many bytes, by Content-Length; may be 0.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
}

impl Method {
    /// The method a token names. Case-sensitive: `get` is [`Method::Other`].
    #[inline]
    pub fn from_bytes(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"CONNECT" => Method::Connect,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }

    /// The method's name; empty for [`Method::Other`].
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Trace => "TRACE",
            Method::Connect => "CONNECT",
            Method::Patch => "PATCH",
            Method::Other => "",
        }
    }
}

impl<'b> Target<'b> {
    /// The path, if this form has one.
    #[inline]
    pub fn path(&self) -> Option<&'b [u8]> {
        match *self {
            Target::Origin { path, .. } | Target::Absolute { path, .. } => Some(path),
            Target::Asterisk | Target::Authority(_) => None,
        }
    }

    /// The query without its question mark, if there is one.
    #[inline]
    pub fn query(&self) -> Option<&'b [u8]> {
        match *self {
            Target::Origin { query, .. } | Target::Absolute { query, .. } => query,
            Target::Asterisk | Target::Authority(_) => None,
        }
    }
}

impl Version {
    /// The version as it stands in a message.
    pub const fn as_bytes(self) -> &'static [u8; 8] {
        match self {
            Version::Http10 => b"HTTP/1.0",
            Version::Http11 => b"HTTP/1.1",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_method_reads_back_its_own_name() {
        use Method::*;
        for method in [Get, Head, Post, Put, Delete, Options, Trace, Connect, Patch] {
            assert_eq!(Method::from_bytes(method.name().as_bytes()), method);
        }
        assert_eq!(Method::from_bytes(b"get"), Other);
        assert_eq!(Method::from_bytes(b""), Other);
    }

    #[test]
    fn only_forms_with_a_path_have_one() {
        let origin = Target::Origin { path: b"/a", query: Some(b"q") };
        assert_eq!((origin.path(), origin.query()), (Some(&b"/a"[..]), Some(&b"q"[..])));
        assert_eq!((Target::Asterisk.path(), Target::Authority(b"a:1").query()), (None, None));
    }
}

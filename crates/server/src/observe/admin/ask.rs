//! A request to the admin address, as far as it matters there. Pure; bounded by the head it is read from.

use std::net::IpAddr;

/// What is asked, and on whose word.
#[derive(Debug, Default)]
pub struct Ask<'h> {
    /// The method as sent.
    pub method: &'h str,
    /// The path without its query.
    pub path: &'h str,
    /// What follows the question mark.
    query: &'h str,
    /// The host as the client calls it.
    host: &'h str,
    /// What the client can read.
    pub accept: &'h str,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<&'h str>,
    /// The token of the page's cookie.
    pub cookie: Option<&'h str>,
}

impl<'h> Ask<'h> {
    /// Takes what there is; a request that makes no sense asks for nothing that exists.
    pub fn parse(head: &'h str) -> Self {
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let method = words.next().unwrap_or_default();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut ask = Self { method, path, query, ..Self::default() };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "host" => ask.host = value,
                "accept" => ask.accept = value,
                "authorization" => ask.bearer = bearer(value),
                "cookie" => ask.cookie = value.split(';').find_map(|pair| cookie(pair.trim())).or(ask.cookie),
                _ => {}
            }
        }
        ask
    }

    /// The token in the query.
    pub fn token(&self) -> Option<String> {
        let value = self.query.split('&').find_map(|pair| pair.strip_prefix("token="))?;
        decode(value)
    }

    /// Whether the client names this machine by its address, by a name without a dot, which nobody outside can own (localhost, a
    /// container's), or not at all (HTTP/1.0).
    pub fn host_is_ours(&self) -> bool {
        let name = match self.host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or_default(),
            None => self.host.split(':').next().unwrap_or_default(),
        };
        !name.contains('.') || name.parse::<IpAddr>().is_ok()
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn cookie(pair: &str) -> Option<&str> {
    pair.split_once('=').filter(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Percent-encoding undone; `None` when that is no text.
fn decode(value: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

/// The cookie that the page is opened with.
pub const COOKIE: &str = "amped_admin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_their_case() {
        let head = "GET /a?b=c&token=x%2By HTTP/1.1\r\nHOST: [::1]:80\r\nauthorization: bearer t \r\nCookie: x=1; amped_admin=z\r\n\r\n";
        let ask = Ask::parse(head);
        assert_eq!((ask.method, ask.path, ask.bearer, ask.cookie), ("GET", "/a", Some("t"), Some("z")));
        assert_eq!(ask.token().as_deref(), Some("x+y"));
        assert!(ask.host_is_ours());
    }

    #[test]
    fn nonsense_asks_for_nothing() {
        for head in [
            "",
            "\r\n\r\n",
            "GET",
            "GET  ",
            ":\r\n:",
            "GET /?token=%zz x\r\nCookie\r\n\r\n",
            "GET /?token=%ff x\r\n\r\n",
        ] {
            let ask = Ask::parse(head);
            assert!(ask.bearer.is_none() && ask.cookie.is_none() && ask.token().is_none(), "{head:?}");
        }
    }
}

//! What a request says of its connection: Connection, Upgrade and Expect (RFC 9110 sections 7.6.1, 7.8, 10.1.1).
//! Goal: know whether the connection goes on, changes its protocol, or waits for our leave.
//! Costs: one comparison for the usual `keep-alive` and `close`; a list is walked once.

use crate::head::{Framing, Known, Request, Version};
use crate::status::{Reject, Status};

/// Fills in `keep_alive`, `upgrade` and `expect_continue`.
pub(super) fn apply(request: &mut Request) -> Result<(), Reject> {
    let options = connection_options(request);
    // RFC 9112 section 9.3: close wins; 1.1 goes on unless told, 1.0 only if told.
    request.keep_alive = !options.close && (request.version == Version::Http11 || options.keep_alive);
    if options.upgrade && request.version == Version::Http11 {
        request.upgrade = request.fields.known(Known::Upgrade);
    }
    request.expect_continue = expects_continue(request)?;
    Ok(())
}

/// The members of a comma-separated list, empty ones left out (RFC 9110 section 5.6.1).
pub(super) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

fn connection_options(request: &Request) -> Options {
    let mut options = Options::default();
    // What browsers send, spared the walk over a list.
    if request.fields.known(Known::Connection) == Some(b"keep-alive") && !request.fields.repeated(Known::Connection) {
        return Options { keep_alive: true, ..options };
    }
    for option in request.fields.each(Known::Connection).flat_map(members) {
        options.close |= option.eq_ignore_ascii_case(b"close");
        options.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        options.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
    }
    options
}

/// Whether 100 (Continue) is awaited: not by HTTP/1.0, nor for a body that will not come.
fn expects_continue(request: &Request) -> Result<bool, Reject> {
    let mut expects = false;
    for expectation in request.fields.each(Known::Expect).flat_map(members) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err(UNKNOWN_EXPECTATION);
        }
        expects = true;
    }
    let body = !matches!(request.framing, Framing::None | Framing::Length(0));
    Ok(expects && body && request.version == Version::Http11)
}

const UNKNOWN_EXPECTATION: Reject = Reject::new(Status::EXPECTATION_FAILED, "unknown expectation");

#[cfg(test)]
mod tests {
    use crate::h1::parse_request;
    use crate::head::Request;

    fn request(version: &str, lines: &str) -> Result<Request<'static>, u16> {
        let head = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes().leak();
        match parse_request(head, &mut 0) {
            Ok(parsed) => Ok(parsed.expect("a whole head").0),
            Err(reject) => Err(reject.status.code()),
        }
    }

    #[test]
    fn the_connection_goes_on_as_its_version_and_options_say() {
        for (version, lines, keep_alive) in [
            ("1.1", "X: y", true),
            ("1.1", "Connection: keep-alive", true),
            ("1.1", "Connection: close", false),
            ("1.1", "Connection: CLOSE", false),
            ("1.1", "Connection: foo, close ,bar", false),
            ("1.1", "Connection: keep-alive, close", false),
            ("1.1", "Connection: keep-alive\r\nConnection: close", false),
            ("1.1", "Connection: closed", true),
            ("1.1", "Connection:", true),
            ("1.9", "Connection: x", true),
            ("1.0", "X: y", false),
            ("1.0", "Connection: Keep-Alive", true),
            ("1.0", "Connection: keep-alive, close", false),
            ("1.0", "Connection: x", false),
        ] {
            assert_eq!(request(version, lines).unwrap().keep_alive, keep_alive, "{version} {lines}");
        }
    }

    #[test]
    fn an_upgrade_must_be_listed() {
        for (version, lines, upgrade) in [
            ("1.1", "Upgrade: websocket\r\nConnection: Upgrade", Some(&b"websocket"[..])),
            ("1.1", "Connection: keep-alive, upgrade\r\nUpgrade: h2c, x", Some(b"h2c, x")),
            ("1.1", "Upgrade: websocket", None),
            ("1.1", "Connection: upgrade", None),
            ("1.0", "Upgrade: websocket\r\nConnection: upgrade", None),
        ] {
            assert_eq!(request(version, lines).unwrap().upgrade, upgrade, "{version} {lines}");
        }
    }

    #[test]
    fn a_continuation_is_awaited_only_before_a_body() {
        for (version, lines, expected) in [
            ("1.1", "Expect: 100-continue\r\nContent-Length: 1", Ok(true)),
            ("1.1", "Expect: 100-Continue\r\nTransfer-Encoding: chunked", Ok(true)),
            ("1.1", "Expect: 100-continue\r\nContent-Length: 0", Ok(false)),
            ("1.1", "Expect: 100-continue", Ok(false)),
            ("1.0", "Expect: 100-continue\r\nContent-Length: 1", Ok(false)),
            ("1.1", "Expect: 200-ok", Err(417)),
            ("1.1", "Expect: 100-continue, x", Err(417)),
            ("1.1", "Expect: 100-continue\r\nExpect: x", Err(417)),
        ] {
            let got = request(version, lines).map(|r| r.expect_continue);
            assert_eq!(got, expected, "{version} {lines}");
        }
    }
}

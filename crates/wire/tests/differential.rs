//! Our parser against `httparse`, an independent one, on heads put together from right and wrong pieces.
//! Goal: what we accept it accepts, and reads the same; where we alone refuse, the reason is one we listed.
//! Costs: some thousand small heads a run; both parsers together take well under a second.

use amped_wire::h1::parse_request;
use amped_wire::head::{Request, Version};
use proptest::prelude::*;

/// A message as both parsers can show it: length, method, target, minor version, fields.
type Outline = (usize, Vec<u8>, Vec<u8>, u8, Vec<(Vec<u8>, Vec<u8>)>);

fn compare(bytes: &[u8]) -> Result<(), TestCaseError> {
    match (parse_request(bytes, &mut 0), peer(bytes)) {
        (Ok(Some((request, len))), Ok(Some(theirs))) => {
            prop_assert_eq!(outline(&request, len), theirs)
        }
        (Ok(Some(_)), theirs) => prop_assert!(is_our_leniency(bytes), "only we accept; the peer says {theirs:?}"),
        (Ok(None), Ok(Some(_))) => prop_assert!(false, "only the peer sees the end of the head"),
        (Ok(None), _) => {}
        (Err(ours), Ok(Some(_))) => {
            prop_assert!(OUR_STRICTNESS.contains(&ours.reason), "unlisted strictness: {ours} {}", bytes.escape_ascii())
        }
        (Err(_), _) => {}
    }
    Ok(())
}

fn outline(request: &Request, len: usize) -> Outline {
    let fields = request.fields.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let minor = u8::from(request.version == Version::Http11);
    (len, request.method_raw.to_vec(), request.raw_target.to_vec(), minor, fields)
}

fn peer(bytes: &[u8]) -> Result<Option<Outline>, httparse::Error> {
    let mut slots = [httparse::EMPTY_HEADER; 200];
    let mut request = httparse::Request::new(&mut slots);
    let httparse::Status::Complete(len) = request.parse(bytes)? else {
        return Ok(None);
    };
    let fields = request.headers.iter().map(|field| (field.name.as_bytes().to_vec(), field.value.to_vec())).collect();
    let text = |part: Option<&str>| part.unwrap_or_default().as_bytes().to_vec();
    Ok(Some((len, text(request.method), text(request.path), request.version.unwrap_or_default(), fields)))
}

/// Minor versions above 1, which RFC 9110 section 2.5 has us read as 1.1, and targets that are not UTF-8.
fn is_our_leniency(bytes: &[u8]) -> bool {
    let later_minor = |at: &[u8]| at.starts_with(b"HTTP/1.") && at.get(7).is_some_and(|b| (b'2'..=b'9').contains(b));
    std::str::from_utf8(bytes).is_err() || (0..bytes.len()).any(|at| later_minor(&bytes[at..]))
}

/// Why we refuse what the peer lets through. The peer parses only; most of these are rules about what fields mean.
const OUR_STRICTNESS: &[&str] = &[
    // RFC 9112 section 2.2 and our choice: a line ends in CRLF, and nothing else does.
    "bare LF in a field line",
    "bare LF in the request line",
    "no method",
    "too many empty lines before the request",
    // RFC 9112 section 3.2: the target's form.
    "fragment in the target",
    "target has no known form",
    "target * of another method than OPTIONS",
    "CONNECT needs host:port",
    "malformed authority in the target",
    // RFC 9112 section 3.2: Host.
    "no Host field",
    "more than one Host field",
    "malformed Host field",
    // RFC 9112 section 6: framing.
    "both Content-Length and Transfer-Encoding",
    "Transfer-Encoding in HTTP/1.0",
    "chunked is not the last transfer coding",
    "chunked more than once",
    "unknown transfer coding",
    "more than one Content-Length",
    "malformed Content-Length",
    // RFC 9110 section 10.1.1.
    "unknown expectation",
    // Limits.
    "method too long",
    "too many fields",
];

#[test]
fn known_heads_are_read_alike() {
    for head in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"\r\n\r\nGET /a?b HTTP/1.0\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost:\t a \t\r\nX:\r\nY: \xff \"\r\n\r\nrest",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
        b"GET /\xc3\xa4\"<>\\^`{|} HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert!(matches!(parse_request(head, &mut 0), Ok(Some(_))), "{}", head.escape_ascii());
        compare(head).unwrap();
    }
}

/// A right head with one byte of it changed, inserted or removed: nearer to the edges of the grammar than any list.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let edit = (0..3, any::<prop::sample::Index>(), any::<u8>());
    (prop::sample::select(HEADS), prop::collection::vec(edit, 0..3)).prop_map(|(head, edits)| {
        let mut bytes = head.to_vec();
        for (kind, at, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

fn assembled() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(PIECES), 0..20)
        .prop_map(|pieces| [&pieces.concat(), &b"\r\n\r\n"[..]].concat())
}

const HEADS: &[&[u8]] = &[
    b"GET /index.html HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    b"POST /a?b=c HTTP/1.1\r\nHost: a:80\r\nContent-Length: 12\r\nX-Y: z\tz\r\n\r\n",
    b"PUT http://h.i/j HTTP/1.1\r\nHost: h.i\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
];

const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\x7f",
    b"\x80",
    b"GET / HTTP/1.1\r\n",
    b"Q /#a HTTP/1.0\r\n",
    b"GET http://a?b HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"host:a\n",
    b"A: b\r\n",
    b"A : b\r\n",
    b" folded\r\n",
    b"Content-Length: 1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: x\r\n",
    b"HTTP/1.1",
    b"GET",
    b"/",
    b"\"",
    b"(",
    b"a",
    b"HTTP/1.9\r\n",
    b"HTTP/2.0\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_heads_are_read_alike(bytes in mutated()) {
        compare(&bytes)?;
    }

    #[test]
    fn assembled_heads_are_read_alike(bytes in assembled()) {
        compare(&bytes)?;
    }
}

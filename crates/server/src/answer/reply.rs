//! A reply as data: status, field lines, body. The conversation adds Date and Connection and sends it.
//!
//! Most replies are a cached entry's memory, which is the whole answer: a reference, no copy, no formatting.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use amped_runtime::process::random_seed;
use amped_wire::h1::encode;
use amped_wire::head::{Fields, Method, Request};
use amped_wire::semantics::condition::{self, Outcome, Validators};
use amped_wire::semantics::multipart::Multipart;
use amped_wire::semantics::range::{self, Ranges};
use amped_wire::status::Status;

use super::error_page::ErrorPages;
use super::files::{Content, Entry, Representation, Transfer};
use crate::config::plan;

/// Everything of an answer but Date and Connection.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: Status,
    /// The field lines and the empty line after them.
    pub head: Head,
    /// The body, for a GET.
    pub body: Body,
    /// The body's length, for the log.
    pub length: u64,
    /// The connection cannot go on after this answer.
    pub close: bool,
    /// Whose answer it is, for the counters: a place in the plan, or `NOWHERE`.
    pub site: u16,
}

/// Field lines, each with its CRLF, and the CRLF that ends a head.
#[derive(Debug)]
pub enum Head {
    /// All of a 200 from memory: an opening (`super::opening`), field lines, and in this range the body.
    Whole(Arc<[u8]>, Range<usize>),
    /// Made for this reply.
    Own(Vec<u8>),
}

/// A reply's body.
#[derive(Debug)]
pub enum Body {
    /// None, or behind its head.
    Empty,
    /// A range of shared memory.
    Shared(Arc<[u8]>, Range<usize>),
    /// Several pieces in order.
    Pieces(VecDeque<Piece>),
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes made for this reply.
    Own(Vec<u8>),
    /// A range of shared memory.
    Shared(Arc<[u8]>, Range<usize>),
    /// A range of a file too large for memory.
    File(Box<Transfer>),
}

/// What a request asked for, kept while the answer is awaited: its head's bytes are gone by then.
pub struct Asked {
    method: Method,
    query: Option<Box<[u8]>>,
    head: Option<Box<[u8]>>,
}

impl Asked {
    /// Keeps of `request` what its answer will depend on: nothing but the method, unless it is conditional.
    pub fn of(request: &Request<'_>) -> Self {
        let head = request.fields.conditional().then(|| conditions(&request.fields));
        Self { method: request.method, query: request.target.query().map(Box::from), head }
    }

    /// The reply to the request.
    pub fn reply(&self, entry: &Entry, pages: &ErrorPages, site: u16, now: u64) -> Reply {
        let query = self.query.as_deref();
        let Some(head) = &self.head else { return unconditional(entry, query, pages, site) };
        match amped_wire::h1::parse_request(head, &mut 0) {
            Ok(Some((request, _))) => conditional((self.method, &request.fields, query), entry, pages, site, now),
            _ => unconditional(entry, query, pages, site),
        }
    }
}

/// A minimal head that carries the conditional fields: copied, it outlives the chunk they came in.
fn conditions(fields: &Fields<'_>) -> Box<[u8]> {
    let mut head = b"GET / HTTP/1.1\r\nHost: h\r\n".to_vec();
    for (name, value) in fields.iter().filter(|(name, _)| is_conditional(name)) {
        encode::field(&mut head, name, value);
    }
    encode::end(&mut head);
    head.into()
}

fn is_conditional(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"range") || name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(b"if-"))
}

/// The reply to a request of which everything is at hand.
pub fn to_request(request: &Request<'_>, entry: &Entry, pages: &ErrorPages, site: u16, now: u64) -> Reply {
    if request.fields.conditional() {
        conditional((request.method, &request.fields, request.target.query()), entry, pages, site, now).at(site)
    } else {
        unconditional(entry, request.target.query(), pages, site)
    }
}

fn unconditional(entry: &Entry, query: Option<&[u8]>, pages: &ErrorPages, site: u16) -> Reply {
    match entry.content() {
        Content::Memory(memory) => Reply {
            status: Status::OK,
            head: Head::Whole(Arc::clone(&memory.bytes), memory.head..memory.end),
            length: (memory.end - memory.head) as u64,
            body: Body::Empty,
            close: false,
            site,
        },
        Content::File(file) => {
            let length = file.representation.stamp.size;
            Reply {
                status: Status::OK,
                head: Head::Own(file.representation.head(length)),
                body: Body::file(Transfer::new(file, 0..length)),
                length,
                close: false,
                site,
            }
        }
        Content::Folder(location) => super::redirect::to_folder(location, query).at(site),
        Content::Refused(status) => pages.reply(site, *status).at(site),
    }
}

fn conditional(
    (method, fields, query): (Method, &Fields<'_>, Option<&[u8]>),
    entry: &Entry,
    pages: &ErrorPages,
    site: u16,
    now: u64,
) -> Reply {
    let Some(representation) = entry.representation() else { return unconditional(entry, query, pages, site) };
    let mut etag = Vec::new();
    representation.etag(&mut etag);
    let validators = Validators { etag: Some(&etag), last_modified: representation.last_modified };
    match condition::evaluate(method, fields, &validators, now) {
        Outcome::NotModified => return Reply::own(Status::NOT_MODIFIED, representation.validator_head()),
        Outcome::PreconditionFailed => return pages.reply(site, Status::PRECONDITION_FAILED),
        Outcome::Proceed => {}
    }
    let size = representation.stamp.size;
    match range::of_request(method, fields, &validators, size, now) {
        Ranges::Whole => unconditional(entry, query, pages, site),
        Ranges::One(range) => one_part(entry, representation, range),
        Ranges::Many(ranges) => many_parts(entry, representation, &ranges),
        Ranges::Unsatisfiable => {
            let mut value = Vec::new();
            range::unsatisfied(&mut value, size);
            pages.with_field(site, Status::RANGE_NOT_SATISFIABLE, b"Content-Range", &value)
        }
    }
}

fn one_part(entry: &Entry, representation: &Representation, range: Range<u64>) -> Reply {
    let mut value = Vec::new();
    range::content_range(&mut value, &range, representation.stamp.size);
    let length = range.end - range.start;
    let mut head = representation.head(length);
    head.truncate(head.len() - 2);
    encode::field(&mut head, b"Content-Range", &value);
    encode::end(&mut head);
    let body = match entry.piece(range) {
        Piece::Shared(memory, range) => Body::Shared(memory, range),
        piece => Body::Pieces([piece].into()),
    };
    Reply { status: Status::PARTIAL_CONTENT, head: Head::Own(head), body, length, close: false, site: NOWHERE }
}

fn many_parts(entry: &Entry, representation: &Representation, ranges: &[Range<u64>]) -> Reply {
    let boundary = boundary();
    let content_type = representation.media_type.as_bytes();
    let size = representation.stamp.size;
    let multipart = Multipart { boundary: boundary.as_bytes(), content_type, len: size };
    let mut pieces = VecDeque::with_capacity(ranges.len() * 2 + 1);
    for range in ranges {
        let mut head = Vec::new();
        multipart.part_head(&mut head, range);
        pieces.push_back(Piece::Own(head));
        pieces.push_back(entry.piece(range.clone()));
    }
    let mut closing = Vec::new();
    multipart.closing(&mut closing);
    pieces.push_back(Piece::Own(closing));
    let length = multipart.content_length(ranges);
    let mut head = Vec::new();
    representation.put_head(&mut head, &multipart.content_type(), length);
    Reply {
        status: Status::PARTIAL_CONTENT,
        head: Head::Own(head),
        body: Body::Pieces(pieces),
        length,
        close: false,
        site: NOWHERE,
    }
}

/// The configuration's fields as they are sent.
pub fn field_lines(fields: &plan::Fields<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    if let Some(value) = fields.cache_control {
        encode::field(&mut lines, b"Cache-Control", value.as_bytes());
    }
    for (name, value) in &fields.set {
        encode::field(&mut lines, name.as_bytes(), value.as_bytes());
    }
    lines
}

/// A boundary that no earlier answer used and no content can foresee.
fn boundary() -> String {
    format!("amped{:016x}{:016x}", random_seed(), random_seed())
}

impl Reply {
    /// A reply without a body, with these field lines (the ending empty line included).
    pub fn own(status: Status, head: Vec<u8>) -> Self {
        Self { status, head: Head::Own(head), body: Body::Empty, length: 0, close: false, site: NOWHERE }
    }

    /// The same as an answer of this site.
    pub fn at(mut self, site: u16) -> Self {
        self.site = site;
        self
    }

    /// Whether it says that there was no time for the request: 503, 429.
    pub fn is_refusal(&self) -> bool {
        self.status == Status::SERVICE_UNAVAILABLE || self.status == Status::TOO_MANY_REQUESTS
    }

    /// The same with more field lines, each with its CRLF. A file's head has its own already.
    pub fn with_lines(mut self, lines: &[u8]) -> Self {
        if let Head::Own(head) = &mut self.head {
            let end = head.len() - 2;
            head.splice(end..end, lines.iter().copied());
        }
        self
    }

    /// A reply without content that lists methods.
    pub fn allow(status: Status, methods: &str) -> Self {
        let mut head = Vec::new();
        encode::field(&mut head, b"Allow", methods.as_bytes());
        if !status.is_bodiless() {
            encode::field_u64(&mut head, b"Content-Length", 0);
        }
        encode::end(&mut head);
        Self::own(status, head)
    }
}

/// The site of what was refused before anybody knew whom it was for.
pub const NOWHERE: u16 = u16::MAX;

impl Body {
    fn file(transfer: Transfer) -> Self {
        if transfer.is_done() {
            return Self::Empty;
        }
        Self::Pieces([Piece::File(Box::new(transfer))].into())
    }
}

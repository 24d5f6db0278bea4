//! Every limit of the protocol, named, with its reason, and held to the others by compile-time assertions.
//! Goal: one page that says how much a stranger may make us read, keep or send.
//! Costs: nothing at run time.

/// Bytes of a request line, its CRLF not counted; more is answered 414.
///
/// RFC 9112 section 3 asks for at least 8000 octets; nginx and Apache stop at 8 KiB as well.
pub const MAX_REQUEST_LINE: usize = 8 << 10;

/// Bytes of a method; more is answered 501, since no registered method comes near it (RFC 9112 section 3).
pub const MAX_METHOD: usize = 32;

/// Bytes of a whole head to its empty line, empty lines before it included; more is answered 431.
///
/// Twice the longest request line: a browser's head is under 2 KiB, one swollen by cookies under 8 KiB.
pub const MAX_HEAD: usize = 16 << 10;

/// Field lines of a head; more is answered 431. Browsers send under 30, chains of proxies under 60.
pub const MAX_FIELDS: usize = 100;

/// Empty lines forgiven before a request line (RFC 9112 section 2.2 speaks of one); more is answered 400.
pub const MAX_EMPTY_LINES: usize = 4;

/// Requests of one connection that may be in work at once; the rest waits in the kernel's buffer.
///
/// Deep enough for every pipelining client known (16 to 50), shallow enough that one connection cannot fill
/// the helpers' queue.
pub const MAX_PIPELINED: usize = 64;

/// Bytes of an unwanted request body that are read and dropped so that the connection can go on.
///
/// Beyond it, closing costs both sides less than reading on.
pub const MAX_DISCARDED_BODY: u64 = 1 << 20;

/// Hexadecimal digits of a chunk size, leading zeros included: what a `u64` holds. More is answered 400.
pub const MAX_CHUNK_DIGITS: u32 = 16;

/// Bytes of all chunk extensions of one body; more is answered 400.
///
/// Nothing in use needs them, and unbounded ones let a client send nothing at great length (CVE-2023-39326).
pub const MAX_CHUNK_EXTENSIONS: u32 = 4 << 10;

/// Bytes of a trailer section; more is answered 431. Trailers are checked and dropped.
pub const MAX_TRAILERS: u32 = 8 << 10;

/// Ranges of one Range field; a field with more is ignored and answered with the whole (RFC 9110 section 14.2).
///
/// Readers of PDF and zip files ask for under ten. Overlaps are merged, so the answer never outgrows the file.
pub const MAX_RANGES: usize = 16;

const _: () = {
    assert!(MAX_REQUEST_LINE >= 8000, "RFC 9112 section 3");
    assert!(MAX_METHOD < MAX_REQUEST_LINE, "a method is part of its line");
    assert!(MAX_REQUEST_LINE * 2 <= MAX_HEAD, "the longest line leaves half of the head to the fields");
    assert!(MAX_HEAD <= u16::MAX as usize, "a field's place in the head is kept in 16 bits");
    assert!(MAX_FIELDS * 4 <= MAX_HEAD, "the shortest field lines must be able to reach their limit");
    assert!(MAX_TRAILERS as usize <= MAX_HEAD, "a trailer section is no larger than a head");
    assert!((MAX_CHUNK_EXTENSIONS as u64) < MAX_DISCARDED_BODY, "framing must cost less than what it frames");
    assert!(MAX_CHUNK_DIGITS * 4 <= u64::BITS, "a chunk size fits its integer");
    assert!(MAX_PIPELINED >= 50, "the depth that tests and clients use");
    assert!(MAX_RANGES < 64, "a range list is searched linearly");
};

//! The field lines of a head: the ones servers ask for by index, the rest by walking the checked bytes again.
//! Goal: finding a known field costs one bit test; knowing that none of the conditions is there costs one too.
//! Costs: 8 bytes of masks and 4 bytes a known field; an unknown field costs a walk over the lines.

use memchr::memchr;
use std::fmt;

/// The field lines of one head, in the order they were sent.
#[derive(Clone, Copy)]
pub struct Fields<'b> {
    /// The head from its request line to its empty line. Every place below points into it.
    head: &'b [u8],
    /// Where the field lines begin.
    first_line: u16,
    /// Which known fields are there, one bit each.
    present: u32,
    /// Which of them have more than one line.
    repeated: u32,
    /// Where the first line's value of each known field stands: start and length.
    values: [(u16, u16); Known::COUNT],
}

/// Walks field lines: name and value, the value without the white space around it.
#[derive(Clone, Debug)]
pub struct Lines<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    /// The value of a known field, white space around it removed; of several lines the first.
    #[inline]
    pub fn known(&self, field: Known) -> Option<&'b [u8]> {
        if self.present & field.bit() == 0 {
            return None;
        }
        let (start, len) = self.values[field as usize];
        self.head.get(start as usize..start as usize + len as usize)
    }

    /// Whether a known field has more than one line.
    #[inline]
    pub fn repeated(&self, field: Known) -> bool {
        self.repeated & field.bit() != 0
    }

    /// Every line's value of a known field; costs a walk only if there is more than one.
    pub fn each(&self, field: Known) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        let rest = if self.repeated(field) { self.iter() } else { Lines { rest: b"" } };
        let rest = rest.filter(move |(name, _)| name.eq_ignore_ascii_case(field.name().as_bytes()));
        self.known(field).into_iter().chain(rest.skip(1).map(|(_, value)| value))
    }

    /// The value of the first line with this name, in any case of letters.
    pub fn get(&self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The values of all lines with this name, in any case of letters.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'b [u8]> + use<'b, 'n> {
        self.iter().filter(|(line, _)| line.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// All lines, in order.
    pub fn iter(&self) -> Lines<'b> {
        Lines { rest: self.head.get(self.first_line as usize..).unwrap_or_default() }
    }

    /// Whether any field asks for less than the whole: If-Match and its kin, or Range (RFC 9110 sections 13, 14).
    #[inline]
    pub fn conditional(&self) -> bool {
        self.present & CONDITIONAL != 0
    }

    /// Whether any of these fields is there.
    #[inline]
    pub(crate) fn any(&self, fields: u32) -> bool {
        self.present & fields != 0
    }

    /// A view on a head whose field lines begin at `first_line`, none of them known yet.
    #[inline]
    pub(crate) fn over(head: &'b [u8], first_line: usize) -> Fields<'b> {
        let first_line = first_line as u16;
        Fields { head, first_line, present: 0, repeated: 0, values: [(0, 0); Known::COUNT] }
    }

    /// Notes a line of a known field, its value at `start` for `len` bytes: within the head, so within 16 bits.
    #[inline]
    pub(crate) fn note(&mut self, field: Known, start: usize, len: usize) {
        let bit = field.bit();
        if self.present & bit != 0 {
            self.repeated |= bit;
        } else {
            self.present |= bit;
            self.values[field as usize] = (start as u16, len as u16);
        }
    }

    /// Cuts the view to the head's `len` bytes, once its end is known.
    #[inline]
    pub(crate) fn end_at(&mut self, len: usize) {
        self.head = self.head.get(..len).unwrap_or_default();
    }
}

impl<'b> Iterator for Lines<'b> {
    type Item = (&'b [u8], &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let end = memchr(b'\r', self.rest)?;
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.get(2..).unwrap_or_default();
        let colon = memchr(b':', line)?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    }
}

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |(name, value)| (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        f.debug_map().entries(self.iter().map(text)).finish()
    }
}

impl Default for Fields<'_> {
    /// No lines at all.
    fn default() -> Self {
        Fields::over(b"", 0)
    }
}

/// Writes the known fields, their names and the way to recognise them from one table.
macro_rules! known {
    ($($name:ident $text:literal ($len:literal $first:literal $last:literal))*) => {
        /// The fields that are found by index: what a server asks for on the hot path or by rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Known { $(#[doc = $text] $name),* }

        impl Known {
            pub(crate) const COUNT: usize = [$(Known::$name),*].len();

            /// The field's name, in lower case.
            pub const fn name(self) -> &'static str {
                match self { $(Known::$name => $text),* }
            }

            /// The known field of this name. Length, first and last letter tell all of them apart, so
            /// at most one is compared. `name` holds no control bytes: then `| 0x20` folds letters' case and
            /// confuses nothing else with what stands in these names.
            #[inline]
            pub(crate) fn recognise(name: &[u8]) -> Option<Known> {
                let (first, last) = (*name.first()?, *name.last()?);
                match (name.len(), first | 0x20, last | 0x20) {
                    $(($len, $first, $last) if same::<$len>(name, $text.as_bytes()) => Some(Known::$name),)*
                    _ => None,
                }
            }
        }

        #[cfg(test)]
        const ALL: &[Known] = &[$(Known::$name),*];
    };
}

known! {
    Host "host" (4 b'h' b't')
    Connection "connection" (10 b'c' b'n')
    ContentLength "content-length" (14 b'c' b'h')
    TransferEncoding "transfer-encoding" (17 b't' b'g')
    Expect "expect" (6 b'e' b't')
    Upgrade "upgrade" (7 b'u' b'e')
    IfMatch "if-match" (8 b'i' b'h')
    IfNoneMatch "if-none-match" (13 b'i' b'h')
    IfModifiedSince "if-modified-since" (17 b'i' b'e')
    IfUnmodifiedSince "if-unmodified-since" (19 b'i' b'e')
    IfRange "if-range" (8 b'i' b'e')
    Range "range" (5 b'r' b'e')
    Accept "accept" (6 b'a' b't')
    AcceptEncoding "accept-encoding" (15 b'a' b'g')
    AcceptLanguage "accept-language" (15 b'a' b'e')
    Authorization "authorization" (13 b'a' b'n')
    CacheControl "cache-control" (13 b'c' b'l')
    ContentType "content-type" (12 b'c' b'e')
    Cookie "cookie" (6 b'c' b'e')
    Forwarded "forwarded" (9 b'f' b'd')
    Origin "origin" (6 b'o' b'n')
    Referer "referer" (7 b'r' b'r')
    UserAgent "user-agent" (10 b'u' b't')
    XForwardedFor "x-forwarded-for" (15 b'x' b'r')
}

impl Known {
    /// The field's bit in a mask.
    #[inline]
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Whether `name`, its letters in lower case, is `text`. Of fixed length, so that it compiles to a few wide compares.
#[inline]
fn same<const N: usize>(name: &[u8], text: &[u8]) -> bool {
    let (Some(name), Some(text)) = (name.first_chunk::<N>(), text.first_chunk::<N>()) else {
        return false;
    };
    (0..N).fold(0, |differ, i| differ | ((name[i] | 0x20) ^ text[i])) == 0
}

const CONDITIONAL: u32 = Known::IfMatch.bit()
    | Known::IfNoneMatch.bit()
    | Known::IfModifiedSince.bit()
    | Known::IfUnmodifiedSince.bit()
    | Known::IfRange.bit()
    | Known::Range.bit();

const _: () = assert!(Known::COUNT <= 32, "one bit each in a u32");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::parse_request;

    fn fields(lines: &str) -> Fields<'static> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes().leak();
        parse_request(head, &mut 0).unwrap().unwrap().0.fields
    }

    #[test]
    fn every_known_field_is_recognised_in_any_case() {
        for &field in ALL {
            assert_eq!(Known::recognise(field.name().as_bytes()), Some(field));
            assert_eq!(Known::recognise(field.name().to_ascii_uppercase().as_bytes()), Some(field));
        }
        for other in ["", "h", "hest", "hosts", "if-mitch", "content\x0dlength"] {
            assert_eq!(Known::recognise(other.as_bytes()).filter(|_| !other.contains('\r')), None, "{other}");
        }
    }

    #[test]
    fn values_come_without_the_space_around_them() {
        let fields = fields("Accept:  \t a b \t \r\nX-One:1\r\nx-empty:\r\n");
        assert_eq!(fields.known(Known::Accept), Some(&b"a b"[..]));
        assert_eq!(fields.get("X-ONE"), Some(&b"1"[..]));
        assert_eq!(fields.get("x-empty"), Some(&b""[..]));
        assert_eq!(fields.get("x-absent"), None);
        assert_eq!(fields.known(Known::Range), None);
    }

    #[test]
    fn repeated_lines_are_all_seen_in_order() {
        let fields = fields("If-Match: \"a\"\r\nX: 1\r\nif-match: \"b\"\r\nx: 2\r\n");
        assert!(fields.repeated(Known::IfMatch) && !fields.repeated(Known::Host));
        assert_eq!(fields.each(Known::IfMatch).collect::<Vec<_>>(), [b"\"a\"", b"\"b\""]);
        assert_eq!(fields.each(Known::Host).collect::<Vec<_>>(), [b"a"]);
        assert_eq!(fields.all("x").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(fields.iter().count(), 5);
    }

    #[test]
    fn conditions_are_noticed() {
        assert!(fields("Range: bytes=0-1\r\n").conditional());
        assert!(fields("If-None-Match: *\r\n").conditional());
        assert!(!fields("Accept: a\r\n").conditional());
        assert!(!Fields::default().conditional());
        assert_eq!(Fields::default().iter().count(), 0);
    }

    #[test]
    fn debug_shows_names_and_values() {
        assert_eq!(format!("{:?}", fields("")), r#"{"Host": "a"}"#);
    }
}

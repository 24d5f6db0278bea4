//! Searches for the bytes that end a token, a target or a value, eight at a time.
//! Goal: one look at each byte both finds the end and proves that nothing forbidden stands before it.
//! Costs: a dozen instructions for eight bytes, in plain integers: a word at a time is what safe code can do everywhere.

/// The first position from `from` on of a control byte, DEL, space, `?` or `#`: where a path ends.
#[inline]
pub(super) fn path_end(buf: &[u8], from: usize) -> usize {
    search(buf, from, |word| word.below(0x21) | word.equal(0x7f) | word.equal(b'?') | word.equal(b'#'))
}

/// The first position from `from` on of a control byte, DEL, space or `#`: where a query ends.
#[inline]
pub(super) fn query_end(buf: &[u8], from: usize) -> usize {
    search(buf, from, |word| word.below(0x21) | word.equal(0x7f) | word.equal(b'#'))
}

/// The first position from `from` on of a colon, control byte or space: where a field's name ends.
#[inline]
pub(super) fn name_end(buf: &[u8], from: usize) -> usize {
    search(buf, from, |word| word.below(0x21) | word.equal(b':'))
}

/// The first position from `from` on of a control byte or DEL, tab not counted: where a field's line ends.
#[inline]
pub(super) fn value_end(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    loop {
        at = search(buf, at, |word| word.below(0x20) | word.equal(0x7f));
        if buf.get(at) != Some(&b'\t') {
            return at;
        }
        at += 1;
    }
}

/// Whether every byte may stand in a token (RFC 9110 section 5.6.2) and there is one.
#[inline]
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().fold(true, |all, &b| all & TCHAR[b as usize])
}

/// Whether this byte may stand in a token.
#[inline]
pub(super) fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

/// The first position from `from` on that `stops` marks, or the buffer's length.
///
/// The last bytes are looked at in a word that begins before them, so that a head which ends its buffer, the
/// common case, is not finished byte by byte.
#[inline(always)]
fn search(buf: &[u8], from: usize, stops: impl Fn(Word) -> u64) -> usize {
    let mut at = from;
    while let Some(bytes) = buf.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = stops(Word(u64::from_le_bytes(*bytes)));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += WORD;
    }
    last_word(buf, at, stops)
}

/// [`search`] in the last bytes, fewer than a word.
#[inline(always)]
fn last_word(buf: &[u8], at: usize, stops: impl Fn(Word) -> u64) -> usize {
    let left = buf.len().saturating_sub(at);
    if left == 0 {
        return buf.len();
    }
    let bytes = match buf.last_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes) >> ((WORD - left) * 8),
        None => buf.iter().rev().take(left).fold(0, |word, &b| word << 8 | u64::from(b)),
    };
    // What is beyond the end reads as NUL, which every search stops at: just where the buffer ends.
    at + stops(Word(bytes)).trailing_zeros() as usize / 8
}

/// Eight bytes, the first one lowest. A comparison marks bytes by their highest bit; what it says is
/// right up to and including the first byte that it marks, which is all that a search asks.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    /// Marks bytes below `limit`, at most 0x80: subtracting it borrows from their highest bit.
    #[inline(always)]
    fn below(self, limit: u8) -> u64 {
        self.0.wrapping_sub(EACH * u64::from(limit)) & !self.0 & HIGHEST_BITS
    }

    /// Marks bytes equal to `byte`.
    #[inline(always)]
    fn equal(self, byte: u8) -> u64 {
        Word(self.0 ^ (EACH * u64::from(byte))).below(1)
    }
}

const WORD: usize = 8;
const EACH: u64 = 0x0101_0101_0101_0101;
const HIGHEST_BITS: u64 = EACH << 7;

/// RFC 9110 section 5.6.2: what a token is made of.
const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < marks.len() {
        table[marks[i] as usize] = true;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte, at every place of buffers around the block size, stops exactly the searches it should.
    #[test]
    fn each_search_stops_at_its_bytes_wherever_they_stand() {
        for len in 1..40 {
            for place in 0..len {
                for byte in 0..=255u8 {
                    let mut buf = vec![b'a'; len];
                    buf[place] = byte;
                    let control = byte < 0x20 || byte == 0x7f;
                    let expect = |stops: bool| if stops { place } else { len };
                    assert_eq!(path_end(&buf, 0), expect(control || b" ?#".contains(&byte)));
                    assert_eq!(query_end(&buf, 0), expect(control || b" #".contains(&byte)));
                    assert_eq!(name_end(&buf, 0), expect(byte <= 0x20 || byte == b':'));
                    assert_eq!(value_end(&buf, 0), expect(control && byte != b'\t'));
                }
            }
        }
    }

    #[test]
    fn a_search_sees_nothing_before_its_start() {
        let buf = b"\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\r\raaaa";
        for from in 19..=buf.len() {
            assert_eq!(value_end(buf, from), buf.len());
            assert_eq!(value_end(&buf[10..], from - 10), buf.len() - 10);
        }
        assert_eq!(value_end(b"", 0), 0);
    }

    #[test]
    fn tokens_are_told_from_other_bytes() {
        assert!(is_token(b"GET") && is_token(b"x-!#$%&'*+.^_`|~9"));
        for bad in ["", "a b", "a:", "a(", "a\"", "a/", "ä", "a\0", "a\x7f", "@", "[", "{", "a,"] {
            assert!(!is_token(bad.as_bytes()), "{bad:?}");
        }
        assert!(is_tchar(b'a') && !is_tchar(b' '));
    }
}

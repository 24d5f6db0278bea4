//! A small parser of responses, independent of amped's own: httparse for the head, Content-Length for the body.

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub date: String,
    pub body: Vec<u8>,
    /// What the head says of the body's length.
    pub length: u64,
    pub closes: bool,
    pub etag: Option<String>,
    pub content_range: Option<String>,
}

/// Takes the first answer from `input` if it is whole; `head_only` says that it has no body whatever its head says.
pub fn take(input: &mut Vec<u8>, head_only: bool) -> Result<Option<Response>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let end = match head.parse(input) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no response: {error}: {}", shown(input))),
    };
    let field = |name: &str| {
        let mut values = head.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = values.next().map(|field| String::from_utf8_lossy(field.value).into_owned());
        if values.next().is_some() { Err(format!("{name} twice: {}", shown(input))) } else { Ok(value) }
    };
    let status = head.code.ok_or("no status")?;
    let date = field("Date")?.ok_or_else(|| format!("no Date: {}", shown(input)))?;
    if field("Transfer-Encoding")?.is_some() {
        return Err(format!("a coding nobody asked for: {}", shown(input)));
    }
    let length: u64 = match field("Content-Length")? {
        Some(length) => length.parse().map_err(|_| format!("Content-Length {length}"))?,
        None if status == 304 || status == 204 => 0,
        None => return Err(format!("no Content-Length: {}", shown(input))),
    };
    // Who refuses a head before its end does not know that it was a HEAD.
    let head_only = head_only && status != 408;
    let body = if head_only || status == 304 || status == 204 { 0 } else { length as usize };
    if input.len() < end + body {
        return Ok(None);
    }
    let closes = field("Connection")?.is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let (etag, content_range) = (field("ETag")?, field("Content-Range")?);
    let body = input[end..end + body].to_vec();
    input.drain(..end + body.len());
    Ok(Some(Response { status, date, body, length, closes, etag, content_range }))
}

fn shown(input: &[u8]) -> String {
    String::from_utf8_lossy(&input[..input.len().min(300)]).into_owned()
}

#[test]
fn answers_are_told_apart() {
    let mut input =
        b"HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\nETag: \"a\"\r\n\r\nabcHTTP/1.1 404 Not Found\r\nDate: x\r\n".to_vec();
    let first = take(&mut input, false).expect("a response").expect("a whole one");
    assert_eq!((first.status, &*first.body, first.etag.as_deref()), (200, &b"abc"[..], Some("\"a\"")));
    assert!(take(&mut input, false).expect("the beginning of one").is_none());
    input.extend_from_slice(b"Connection: close\r\nContent-Length: 9\r\n\r\n");
    let second = take(&mut input, true).expect("a response").expect("a head");
    assert!(second.closes && second.body.is_empty() && second.length == 9 && input.is_empty());
    assert!(take(&mut b"abc\r\n\r\n".to_vec(), false).is_err());
}

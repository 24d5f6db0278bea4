//! Status codes with their reason phrases, and the refusal that names its culprit.
//! Goal: every answer of the server says a registered code by its RFC 9110 name.
//! Costs: two bytes a status; a refusal carries a static text, never an allocation.

use std::fmt;

/// A status code (RFC 9110 section 15). Made from the constants, or checked to have three digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

/// Why bytes from outside were refused, and the answer they earn.
///
/// After a refusal the place where the next request begins is unknown: answer, then close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The answer's status: 4xx or 5xx.
    pub status: Status,
    /// What was wrong, in a few words: for the body and the log.
    pub reason: &'static str,
}

impl Status {
    /// The status with this code, if it has three digits and a class (RFC 9110 section 15: 100 to 599).
    pub const fn new(code: u16) -> Option<Status> {
        if code >= 100 && code <= 599 { Some(Status(code)) } else { None }
    }

    /// The code: 100 to 599.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The code as its three ASCII digits.
    pub const fn digits(self) -> [u8; 3] {
        [b'0' + (self.0 / 100) as u8, b'0' + (self.0 / 10 % 10) as u8, b'0' + (self.0 % 10) as u8]
    }

    /// Whether an answer with this status never has a body (RFC 9110 section 6.4.1): 1xx, 204 and 304.
    pub const fn is_bodiless(self) -> bool {
        self.0 < 200 || self.0 == 204 || self.0 == 304
    }
}

impl Reject {
    /// A refusal with `status`, because of `reason`.
    pub const fn new(status: Status, reason: &'static str) -> Reject {
        Reject { status, reason }
    }

    /// 400: the bytes break the grammar, or could be read in two ways.
    pub(crate) const fn bad(reason: &'static str) -> Reject {
        Reject { status: Status::BAD_REQUEST, reason }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.reason())
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

impl std::error::Error for Reject {}

/// Writes the constants and the phrases from one table, so that they cannot drift apart.
macro_rules! statuses {
    ($($name:ident $code:literal $phrase:literal)*) => {
        impl Status {
            $(#[doc = concat!($code, " ", $phrase)] pub const $name: Status = Status($code);)*

            /// The reason phrase of the registry (RFC 9110 section 15); empty for an unregistered code.
            pub const fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $phrase,)*
                    _ => "",
                }
            }
        }

        #[cfg(test)]
        const ALL: &[Status] = &[$(Status::$name),*];
    };
}

statuses! {
    CONTINUE 100 "Continue"
    SWITCHING_PROTOCOLS 101 "Switching Protocols"
    PROCESSING 102 "Processing"
    EARLY_HINTS 103 "Early Hints"
    OK 200 "OK"
    CREATED 201 "Created"
    ACCEPTED 202 "Accepted"
    NON_AUTHORITATIVE_INFORMATION 203 "Non-Authoritative Information"
    NO_CONTENT 204 "No Content"
    RESET_CONTENT 205 "Reset Content"
    PARTIAL_CONTENT 206 "Partial Content"
    MULTI_STATUS 207 "Multi-Status"
    ALREADY_REPORTED 208 "Already Reported"
    IM_USED 226 "IM Used"
    MULTIPLE_CHOICES 300 "Multiple Choices"
    MOVED_PERMANENTLY 301 "Moved Permanently"
    FOUND 302 "Found"
    SEE_OTHER 303 "See Other"
    NOT_MODIFIED 304 "Not Modified"
    USE_PROXY 305 "Use Proxy"
    TEMPORARY_REDIRECT 307 "Temporary Redirect"
    PERMANENT_REDIRECT 308 "Permanent Redirect"
    BAD_REQUEST 400 "Bad Request"
    UNAUTHORIZED 401 "Unauthorized"
    PAYMENT_REQUIRED 402 "Payment Required"
    FORBIDDEN 403 "Forbidden"
    NOT_FOUND 404 "Not Found"
    METHOD_NOT_ALLOWED 405 "Method Not Allowed"
    NOT_ACCEPTABLE 406 "Not Acceptable"
    PROXY_AUTHENTICATION_REQUIRED 407 "Proxy Authentication Required"
    REQUEST_TIMEOUT 408 "Request Timeout"
    CONFLICT 409 "Conflict"
    GONE 410 "Gone"
    LENGTH_REQUIRED 411 "Length Required"
    PRECONDITION_FAILED 412 "Precondition Failed"
    CONTENT_TOO_LARGE 413 "Content Too Large"
    URI_TOO_LONG 414 "URI Too Long"
    UNSUPPORTED_MEDIA_TYPE 415 "Unsupported Media Type"
    RANGE_NOT_SATISFIABLE 416 "Range Not Satisfiable"
    EXPECTATION_FAILED 417 "Expectation Failed"
    MISDIRECTED_REQUEST 421 "Misdirected Request"
    UNPROCESSABLE_CONTENT 422 "Unprocessable Content"
    LOCKED 423 "Locked"
    FAILED_DEPENDENCY 424 "Failed Dependency"
    TOO_EARLY 425 "Too Early"
    UPGRADE_REQUIRED 426 "Upgrade Required"
    PRECONDITION_REQUIRED 428 "Precondition Required"
    TOO_MANY_REQUESTS 429 "Too Many Requests"
    REQUEST_HEADER_FIELDS_TOO_LARGE 431 "Request Header Fields Too Large"
    UNAVAILABLE_FOR_LEGAL_REASONS 451 "Unavailable For Legal Reasons"
    INTERNAL_SERVER_ERROR 500 "Internal Server Error"
    NOT_IMPLEMENTED 501 "Not Implemented"
    BAD_GATEWAY 502 "Bad Gateway"
    SERVICE_UNAVAILABLE 503 "Service Unavailable"
    GATEWAY_TIMEOUT 504 "Gateway Timeout"
    HTTP_VERSION_NOT_SUPPORTED 505 "HTTP Version Not Supported"
    VARIANT_ALSO_NEGOTIATES 506 "Variant Also Negotiates"
    INSUFFICIENT_STORAGE 507 "Insufficient Storage"
    LOOP_DETECTED 508 "Loop Detected"
    NETWORK_AUTHENTICATION_REQUIRED 511 "Network Authentication Required"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_phrase_and_three_digits() {
        for status in ALL {
            assert!(!status.reason().is_empty());
            assert_eq!(std::str::from_utf8(&status.digits()).unwrap(), status.code().to_string());
            assert_eq!(Status::new(status.code()), Some(*status));
        }
    }

    #[test]
    fn only_codes_with_a_class_are_made() {
        assert_eq!(Status::new(99), None);
        assert_eq!(Status::new(600), None);
        assert_eq!(Status::new(299).unwrap().reason(), "");
    }

    #[test]
    fn a_refusal_reads_as_a_sentence() {
        assert_eq!(Reject::bad("two Host fields").to_string(), "400 Bad Request: two Host fields");
    }

    #[test]
    fn bodiless_answers_are_known() {
        assert!(Status::CONTINUE.is_bodiless() && Status::NO_CONTENT.is_bodiless());
        assert!(Status::NOT_MODIFIED.is_bodiless() && !Status::OK.is_bodiless());
    }
}

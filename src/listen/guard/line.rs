//! The lines of an HTTP/1 request (RFC 9112 §2 to §7), each without its CRLF.

use memchr::{memchr, memrchr};

use super::requests::Fault;

/// Longest line of a chunk: its size, which fits in 16 digits, and extensions that nobody uses.
pub(super) const CHUNK_LINE_MAX: usize = 1024;
/// Digits of a chunk's size.
const SIZE_DIGITS_MAX: usize = 16;

/// Which bytes tokens are made of (RFC 9110 §5.6.2).
static IS_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// What of a request's first line decides how the rest is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http10,
    Http11,
}

/// What a field says of its request's framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// `Upgrade`, to whatever.
    Upgrade,
    /// Nothing.
    Other,
}

/// `GET /path HTTP/1.1`
pub(super) fn request_line(line: &[u8]) -> Result<Version, Fault> {
    let (Some(first), Some(last)) = (memchr(b' ', line), memrchr(b' ', line)) else {
        return Err(Fault("a request line is not made of three words"));
    };
    let version = match &line[last + 1..] {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        _ => return Err(Fault("a request is of an unknown version")),
    };
    let (method, target) = (&line[..first], line.get(first + 1..last).unwrap_or_default());
    if !is_token(method) {
        return Err(Fault("a method is not a token"));
    }
    if method == b"CONNECT" {
        // What comes behind it would not be requests.
        return Err(Fault("a request is for a tunnel"));
    }
    if target.is_empty() || !target.iter().fold(true, |fine, byte| fine & is_of_target(*byte)) {
        return Err(Fault("a request target is empty or has a byte that none may have"));
    }
    Ok(version)
}

/// Bytes beyond ASCII are not of a URI, and are passed on all the same: every server reads them
/// in one way only. A fragment is for the client alone, and some servers take it off.
fn is_of_target(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && byte != b'#'
}

/// `Name: value`, of a head.
pub(super) fn field(line: &[u8]) -> Result<Field, Fault> {
    let (name, value) = name_and_value(line)?;
    match name.len() {
        7 if name.eq_ignore_ascii_case(b"upgrade") => Ok(Field::Upgrade),
        14 if name.eq_ignore_ascii_case(b"content-length") => decimal(value)
            .map(Field::Length)
            .ok_or(Fault("a Content-Length is not a number, or too large")),
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            if value.eq_ignore_ascii_case(b"chunked") {
                Ok(Field::Chunked)
            } else {
                Err(Fault("a Transfer-Encoding is not chunked"))
            }
        }
        _ => Ok(Field::Other),
    }
}

/// The same behind a body. Framing is over there (RFC 9110 §6.5.1).
pub(super) fn trailer(line: &[u8]) -> Result<(), Fault> {
    match field(line)? {
        Field::Length(_) | Field::Chunked => Err(Fault("a trailer tells of framing")),
        Field::Upgrade | Field::Other => Ok(()),
    }
}

/// `1f` or `1f;name=value`
pub(super) fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, rest) = line.split_at(digits);
    let extension = rest.trim_ascii_start();
    if !(rest.is_empty() || extension.starts_with(b";")) || !is_text(rest) {
        return Err(Fault("the size of a chunk is followed by something else than an extension"));
    }
    let size = str::from_utf8(size).ok().filter(|size| size.len() <= SIZE_DIGITS_MAX);
    // Others count in signed numbers.
    let size = size.and_then(|size| i64::from_str_radix(size, 16).ok());
    size.and_then(|size| u64::try_from(size).ok())
        .ok_or(Fault("a chunk has no size, or one that is too large"))
}

fn name_and_value(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    let Some(colon) = memchr(b':', line) else {
        return Err(Fault("a field has no colon, or is folded"));
    };
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // A folded line begins with a space, and so does one before a colon end the name.
    if !is_token(name) {
        return Err(Fault("the name of a field is not a token"));
    }
    if !is_text(value) {
        return Err(Fault("the value of a field has a control character"));
    }
    Ok((name, trimmed(value)))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| IS_TOKEN[usize::from(*byte)])
}

/// No control characters but the tab. Without a way out in the middle, so that many bytes are
/// looked at in one step.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |fine, byte| fine & (*byte >= b' ' && *byte != 0x7f || *byte == b'\t'))
}

fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

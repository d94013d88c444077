//! Where requests of an HTTP/1 connection begin and end, and what in them is not as RFC 9112 has
//! it.
//!
//! Pure: it is given the bytes of a connection as they come, cut anywhere, and keeps nothing of
//! them but a line that has only begun. What it lets through can be read in one way only: every
//! line ends in CRLF, no line is folded, and there is one framing for each body, known before the
//! body begins.

use memchr::{memchr, memchr2};

use super::line::{self, CHUNK_LINE_MAX, Field, Version};

/// Empty lines before a request; clients of old sent one behind a body.
const EMPTY_LINES_MAX: u8 = 4;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub &'static str);

/// A fault, and where it showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong.
    pub fault: Fault,
    /// Of the bytes that were given: everything before this one is fine, or is the beginning of
    /// what is not and has no meaning without this one.
    pub at: usize,
    /// Whether a head is the worse for it, and not a body.
    pub in_head: bool,
}

/// Follows the requests of a connection.
#[derive(Debug)]
pub struct Requests {
    at: At,
    head: Head,
    /// A line that has begun.
    line: Vec<u8>,
    /// Longest line of a head.
    line_max: usize,
    heads: u32,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The first line of a request, after so many empty ones.
    RequestLine(u8),
    Field,
    /// The rest of a body with a length.
    Body(u64),
    ChunkSize,
    /// The rest of a chunk.
    Chunk(u64),
    /// The CRLF after a chunk.
    ChunkEnd,
    Trailer,
    /// Nobody knows, until it is known whether the protocol has been switched.
    Unknown,
    /// A line that is longer than any head may be.
    TooLong,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    is_http11: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl Requests {
    /// At the beginning of a connection. `head_max`: bytes that a head may have. Who reads the
    /// same bytes refuses longer ones; a line of more than that goes by once, and nothing after it.
    pub fn new(head_max: usize) -> Self {
        let (at, head) = (At::RequestLine(0), Head::default());
        Self { at, head, line: Vec::new(), line_max: head_max, heads: 0 }
    }

    /// Heads that have passed in full.
    pub fn heads(&self) -> u32 {
        self.heads
    }

    /// Whether the last request may make the connection speak something else, so that nothing can
    /// be said of what follows.
    pub fn may_switch(&self) -> bool {
        self.at == At::Unknown
    }

    /// It has been answered, and requests are what follows.
    pub fn go_on(&mut self) {
        if self.may_switch() {
            self.at = At::RequestLine(0);
        }
    }

    /// Goes through the bytes that come next, and says how many: all, or those up to the end of a
    /// request that [may switch](Self::may_switch). After a refusal nothing can be said of any more.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            passed += match self.at {
                At::Body(left) => self.skip(left, rest, At::Body, At::RequestLine(0)),
                At::Chunk(left) => self.skip(left, rest, At::Chunk, At::ChunkEnd),
                At::Unknown => return Ok(passed),
                At::TooLong => return Err(self.refused("a line is too long", passed)),
                At::RequestLine(_) | At::Field | At::ChunkSize | At::ChunkEnd | At::Trailer => {
                    let Some(length) = memchr(b'\n', rest) else {
                        self.keep(rest).map_err(|fault| self.refused(fault.0, passed))?;
                        return Ok(bytes.len());
                    };
                    self.whole_line(&rest[..length])
                        .map_err(|fault| self.refused(fault.0, passed + length))?;
                    length + 1
                }
            };
        }
        Ok(passed)
    }

    fn refused(&self, fault: &'static str, at: usize) -> Refused {
        let in_head = matches!(self.at, At::RequestLine(_) | At::Field);
        Refused { fault: Fault(fault), at, in_head }
    }

    /// Goes over bytes of a body; how many.
    fn skip(&mut self, left: u64, rest: &[u8], on: fn(u64) -> At, then: At) -> usize {
        let length = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        let left = left - length as u64;
        self.at = if left == 0 { then } else { on(left) };
        length
    }

    /// Keeps the beginning of a line until its end comes.
    fn keep(&mut self, beginning: &[u8]) -> Result<(), Fault> {
        let length = self.line.len() + beginning.len();
        match self.at {
            At::ChunkSize | At::ChunkEnd if length > CHUNK_LINE_MAX => {
                return Err(Fault("the line of a chunk is too long"));
            }
            _ if length > self.line_max => {
                self.line = Vec::new();
                self.at = At::TooLong;
            }
            _ => self.line.extend_from_slice(beginning),
        }
        Ok(())
    }

    /// `end`: all of the line that was not kept, up to its LF.
    fn whole_line(&mut self, end: &[u8]) -> Result<(), Fault> {
        if self.line.is_empty() {
            return self.ended_line(end);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(end);
        self.ended_line(&line)
    }

    fn ended_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let Some((b'\r', line)) = line.split_last() else {
            return Err(Fault("a line ends in a bare LF"));
        };
        if memchr2(b'\r', b'\0', line).is_some() {
            return Err(Fault("a line has a bare CR or a NUL"));
        }
        self.at = match self.at {
            At::RequestLine(before) if line.is_empty() => {
                if before == EMPTY_LINES_MAX {
                    return Err(Fault("there are only empty lines"));
                }
                At::RequestLine(before + 1)
            }
            At::RequestLine(_) => {
                let is_http11 = line::request_line(line)? == Version::Http11;
                self.head = Head { is_http11, ..Head::default() };
                At::Field
            }
            At::Field if line.is_empty() => {
                self.heads = self.heads.wrapping_add(1);
                self.head.what_follows()
            }
            At::Field => {
                self.head.add(line::field(line)?)?;
                At::Field
            }
            At::ChunkSize if line.len() > CHUNK_LINE_MAX => {
                return Err(Fault("the line of a chunk is too long"));
            }
            At::ChunkSize => match line::chunk_size(line)? {
                0 => At::Trailer,
                size => At::Chunk(size),
            },
            At::ChunkEnd if line.is_empty() => At::ChunkSize,
            At::ChunkEnd => return Err(Fault("a chunk is longer than it says")),
            At::Trailer if line.is_empty() => At::RequestLine(0),
            At::Trailer => {
                line::trailer(line)?;
                At::Trailer
            }
            // These are not made of lines.
            at @ (At::Body(_) | At::Chunk(_) | At::Unknown | At::TooLong) => at,
        };
        Ok(())
    }
}

impl Head {
    fn add(&mut self, field: Field) -> Result<(), Fault> {
        let framed_before = self.chunked || self.length.is_some();
        match field {
            Field::Length(_) | Field::Chunked if framed_before => {
                return Err(Fault("a request has two framings"));
            }
            Field::Chunked if !self.is_http11 => {
                return Err(Fault("an HTTP/1.0 request is chunked"));
            }
            Field::Length(length) => self.length = Some(length),
            Field::Chunked => self.chunked = true,
            Field::Upgrade => self.upgrade = true,
            Field::Other => {}
        }
        Ok(())
    }

    fn what_follows(&self) -> At {
        match self.length {
            _ if self.chunked => At::ChunkSize,
            Some(length) if length > 0 => At::Body(length),
            _ if self.upgrade && self.is_http11 => At::Unknown,
            _ => At::RequestLine(0),
        }
    }
}

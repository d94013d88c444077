//! What HTTP/1 clients send, looked at before hyper reads it.
//!
//! hyper reads what two servers may read differently: lines that end in a bare LF, a length beside
//! a transfer coding, the same length twice. It forgives that, and what it forgave can't be seen
//! any more. A proxy must not forgive (RFC 9112 §11.2), so `Guarded` has the bytes [followed
//! strictly](Requests) and ends the connection where they go wrong. What is fine goes by as it is;
//! nothing is copied.

mod line;
mod requests;

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::HEAD_BYTES_MAX;
use super::stream::Stream;
pub use requests::{Fault, Refused, Requests};

/// The end of every head that is refused. No head may have its first byte anywhere, so that hyper
/// answers with 400 when it is its turn, after the answers to earlier requests; and hyper doesn't
/// look at a head that has only begun before it sees an empty line.
const POISON: &[u8] = b"\0\r\n\r\n";

/// What became of the requests of a connection: who serves them tells, who reads them asks.
#[derive(Debug, Default)]
pub(super) struct Answers {
    count: AtomicU32,
    switched: AtomicBool,
}

impl Answers {
    /// The next request in turn has an answer. `switches`: after it, another protocol is spoken.
    pub(super) fn add(&self, switches: bool) {
        self.switched.store(switches, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether another protocol is spoken from the last answer on.
    pub(super) fn have_switched(&self) -> bool {
        self.switched.load(Ordering::Relaxed)
    }
}

/// A stream from which requests are read that are clear, and nothing else.
#[derive(Debug)]
pub(super) struct Guarded<S> {
    stream: S,
    watch: Watch,
    /// What came behind a request that may switch protocols, and is read when that is decided.
    held: Vec<u8>,
    answers: Arc<Answers>,
}

#[derive(Debug)]
enum Watch {
    Requests(Requests),
    /// Something was wrong. That is still to be read, and nothing after it.
    Over(&'static [u8]),
    /// Another protocol is spoken now.
    Off,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S, answers: Arc<Answers>) -> Self {
        let watch = Watch::Requests(Requests::new(HEAD_BYTES_MAX));
        Self { stream, watch, held: Vec::new(), answers }
    }

    /// What is read from without looking.
    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Whether a request was refused.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.watch, Watch::Over(_))
    }

    fn is_undecided(&self) -> bool {
        matches!(&self.watch, Watch::Requests(requests) if requests.may_switch())
    }

    /// Learns what became of a request that could switch protocols.
    fn catch_up(&mut self) {
        let Watch::Requests(requests) = &mut self.watch else { return };
        if !requests.may_switch() || self.answers.count.load(Ordering::Relaxed) != requests.heads()
        {
            return;
        }
        if self.answers.have_switched() {
            self.watch = Watch::Off;
        } else {
            requests.go_on();
        }
    }

    /// Looks at what was read, and takes away what must not be, or not yet. Pending: that is all.
    fn look(&mut self, buffer: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        let Watch::Requests(requests) = &mut self.watch else { return Poll::Ready(Ok(())) };
        let read = &buffer.filled()[before..];
        let passed = match requests.follow(read) {
            Ok(passed) if passed == read.len() => return Poll::Ready(Ok(())),
            Ok(passed) => {
                self.held.splice(..0, read[passed..].iter().copied());
                passed
            }
            Err(Refused { fault, at, in_head }) => {
                tracing::debug!(reason = fault.0, "a request is refused");
                buffer.set_filled(before + at);
                self.watch = Watch::Over(if in_head { POISON } else { &[] });
                return if at > 0 { Poll::Ready(Ok(())) } else { self.read_poison(buffer) };
            }
        };
        buffer.set_filled(before + passed);
        if passed > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Reads what makes hyper refuse a head, and then fails.
    fn read_poison(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Watch::Over(rest) = &mut self.watch else { return Poll::Ready(Ok(())) };
        if rest.is_empty() {
            return Poll::Ready(Err(is_over()));
        }
        let (now, later) = rest.split_at(rest.len().min(buffer.remaining()));
        buffer.put_slice(now);
        *rest = later;
        Poll::Ready(Ok(()))
    }

    /// Reads what was held, now that it may be.
    fn read_held(&mut self, buffer: &mut ReadBuf<'_>) {
        let length = self.held.len().min(buffer.remaining());
        buffer.put_slice(&self.held[..length]);
        self.held.drain(..length);
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }
}

fn is_over() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the client sent is not HTTP/1.1")
}

impl<S: Stream> Stream for Guarded<S> {
    fn socket(&self) -> BorrowedFd<'_> {
        self.stream.socket()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over() {
            return self.read_poison(buffer);
        }
        let before = buffer.filled().len();
        self.catch_up();
        if self.held.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        } else if self.is_undecided() {
            // Whoever decides reads on after that.
            return Poll::Pending;
        } else {
            self.read_held(buffer);
        }
        self.look(buffer, before)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;

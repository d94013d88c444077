//! The body of an answer as it is passed on.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http2::Stream;
use super::{Upstreams, http1};
use crate::access_log::Line;
use crate::lifecycle::Lease;
use crate::proxy::headers;
use crate::proxy::reply::BoxError;

/// The body of an answer, and what it comes over.
pub(in crate::proxy) enum Answer {
    Http1 { incoming: Incoming, sender: http1::Sender },
    Http2(Box<Stream>),
}

impl Answer {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self {
            Self::Http1 { incoming, .. } => {
                Pin::new(incoming).poll_frame(context).map_err(BoxError::from)
            }
            Self::Http2(stream) => stream.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1 { incoming, .. } => incoming.is_end_stream(),
            Self::Http2(stream) => stream.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1 { incoming, .. } => incoming.size_hint(),
            Self::Http2(stream) => stream.size_hint(),
        }
    }
}

/// The body of an answer as it is passed on. Carries the lease: while it lives, bytes move.
pub struct ResponseBody {
    /// Here until the end.
    answer: Option<Answer>,
    /// It may end at any point: its client comes back for the rest by itself.
    is_event_stream: bool,
    finished: bool,
    upstreams: Rc<Upstreams>,
    lease: Lease,
    /// What the access log is to say of it.
    line: Option<Box<Line>>,
}

impl ResponseBody {
    /// `head` is the answer's.
    pub(in crate::proxy) fn new(
        head: &response::Parts,
        answer: Answer,
        upstreams: Rc<Upstreams>,
        lease: Lease,
    ) -> Self {
        // A stream of events has no length; the others are not asked.
        let is_event_stream =
            answer.size_hint().exact().is_none() && headers::is_event_stream(&head.headers);
        let (finished, line) = (false, None);
        Self { answer: Some(answer), is_event_stream, finished, upstreams, lease, line }
    }

    /// Counts its bytes in a line, which is written when it is over.
    pub(in crate::proxy) fn note_in(&mut self, line: Box<Line>) {
        self.line = Some(line);
    }

    /// Whether an end that came too soon may pass for an end.
    fn may_end_here(&self) -> bool {
        let lease = &self.lease;
        self.is_event_stream && self.upstreams.is_severed(lease.workspace(), lease.generation())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        let frame = ready!(answer.poll_frame(context));
        if matches!(frame, Some(Err(_))) && self.may_end_here() {
            return Poll::Ready(None);
        }
        self.finished = frame.is_none();
        if let (Some(line), Some(Ok(frame))) = (&mut self.line, &frame) {
            line.answer.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.answer.as_ref().is_none_or(Answer::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.as_ref().map_or(SizeHint::with_exact(0), Answer::size_hint)
    }
}

impl Drop for ResponseBody {
    /// Whoever sends the body drops it after its last byte, or when the client has gone. Only in
    /// the first case is an HTTP/1 connection of further use. A stream of HTTP/2 is reset in the
    /// second, and its connection goes on.
    fn drop(&mut self) {
        if let Some(Answer::Http1 { incoming, sender }) = self.answer.take()
            && (self.finished || incoming.is_end_stream())
        {
            let (serial, generation) = (self.lease.workspace().serial(), self.lease.generation());
            self.upstreams.give_back(serial, generation, sender);
        }
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ResponseBody({:?})", self.lease)
    }
}

//! The body of a request as it is passed on.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::progress::Progress;
use crate::proxy::headers;

/// Read from the client when the workspace takes it.
pub(in crate::proxy) enum RequestBody {
    Empty,
    Streaming {
        /// What was read already, for a workspace that did not take the request.
        ahead: VecDeque<Bytes>,
        incoming: Incoming,
        progress: Progress,
    },
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        Self::Streaming { ahead: VecDeque::new(), incoming, progress: Progress::default() }
    }
}

impl RequestBody {
    pub(super) fn progress(&self) -> Option<Progress> {
        match self {
            Self::Empty => None,
            Self::Streaming { progress, .. } => Some(progress.clone()),
        }
    }

    /// Puts back what was read of it.
    pub(super) fn put_back(&mut self, read: Vec<Bytes>) {
        if let Self::Streaming { ahead, .. } = self {
            for data in read.into_iter().rev() {
                ahead.push_front(data);
            }
        }
    }
}

fn without_head_fields(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streaming { ahead, incoming, progress } => {
                if let Some(data) = ahead.pop_front() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                let frame = Pin::new(incoming).poll_frame(context);
                progress.note(&frame);
                frame.map_ok(without_head_fields)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { ahead, incoming, .. } => ahead.is_empty() && incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { ahead, incoming, .. } => {
                let mut hint = incoming.size_hint();
                let ahead: usize = ahead.iter().map(Bytes::len).sum();
                if let (Some(rest), 1..) = (hint.exact(), ahead) {
                    hint.set_exact(rest + ahead as u64);
                }
                hint
            }
        }
    }
}

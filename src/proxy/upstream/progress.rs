//! How far a request has come, and whose turn it is: the workspace's to answer, or its client's to
//! send more.

use std::cell::Cell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, timeout_at};

use super::SendError;

/// How often a client that may be late with a body is looked after, and so by which part of its time
/// it may be later.
const LOOKS_IN_A_TIMEOUT: u32 = 4;

/// How long an answer is waited for.
#[derive(Debug, Clone, Copy)]
pub(in crate::proxy) struct Limits {
    /// From the last byte of the request on.
    pub(in crate::proxy) response_timeout: Duration,
    /// For more of the body, while the workspace would read it.
    pub(in crate::proxy) body_timeout: Duration,
    /// For a second's worth of it, on average and beyond `body_timeout`; 0: any number of bytes.
    pub(in crate::proxy) body_rate_min: u64,
}

/// Waits for an answer, as long as whoever it is up to, workspace or client, is not late.
pub(super) async fn patiently<F: Future>(
    answer: F,
    progress: Option<&Progress>,
    limits: Limits,
) -> Result<F::Output, SendError> {
    let mut answer = std::pin::pin!(answer);
    let began = Instant::now();
    loop {
        let (deadline, late, look_at) = match progress {
            Some(progress) => {
                let (deadline, late) = progress.deadline(began, limits);
                // Whose turn it is changes while nobody looks, and the deadline with it.
                let look_at = Instant::now() + limits.body_timeout / LOOKS_IN_A_TIMEOUT;
                (deadline, late, look_at.min(deadline))
            }
            None => {
                let deadline = began + limits.response_timeout;
                (deadline, SendError::TimedOut, deadline)
            }
        };
        if let Ok(answer) = timeout_at(look_at, answer.as_mut()).await {
            return Ok(answer);
        }
        if deadline <= Instant::now() {
            return Err(late);
        }
    }
}

/// How far a request's body has come.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct Progress(Rc<Passage>);

#[derive(Debug, Default)]
struct Passage {
    /// Bytes that have been passed on.
    bytes: Cell<u64>,
    /// When the last of them were.
    moved_at: Cell<Option<Instant>>,
    /// Since when the workspace has waited for more. `None`: it does not.
    waiting_since: Cell<Option<Instant>>,
    /// How long it has waited altogether, before that.
    waited: Cell<Duration>,
    /// The client left it unfinished or broke its framing.
    failed: Cell<bool>,
}

impl Progress {
    /// Whether the client left it unfinished or broke its framing.
    pub(super) fn failed(&self) -> bool {
        self.0.failed.get()
    }

    /// Until when something has to come of the request that was sent at `began`, and what it is if
    /// nothing does. It is the client's turn while the workspace waits for more of the body.
    fn deadline(&self, began: Instant, limits: Limits) -> (Instant, SendError) {
        let passage = &self.0;
        let Some(since) = passage.waiting_since.get() else {
            let last = passage.moved_at.get().unwrap_or(began);
            return (last + limits.response_timeout, SendError::TimedOut);
        };
        let earned = passage.bytes.get().checked_div(limits.body_rate_min);
        let patience = earned.map_or(limits.body_timeout, |seconds| {
            let allowed = limits.body_timeout.saturating_add(Duration::from_secs(seconds));
            allowed.saturating_sub(passage.waited.get()).min(limits.body_timeout)
        });
        (since + patience, SendError::BodyTooSlow)
    }

    /// Notes what came of a look for more of the body.
    pub(super) fn note(&self, frame: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        let (passage, now) = (&self.0, Instant::now());
        let Poll::Ready(frame) = frame else {
            if passage.waiting_since.get().is_none() {
                passage.waiting_since.set(Some(now));
            }
            return;
        };
        if let Some(since) = passage.waiting_since.take() {
            passage.waited.set(passage.waited.get() + now.saturating_duration_since(since));
        }
        passage.moved_at.set(Some(now));
        match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                passage.bytes.set(passage.bytes.get() + length as u64);
            }
            Some(Err(_)) => passage.failed.set(true),
            None => {}
        }
    }
}

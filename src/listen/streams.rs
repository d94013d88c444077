//! The streams of an HTTP/2 connection: each is a task on the thread of the connection.
//!
//! A client that reads its connection may still take nothing of a single stream, by giving it no
//! window. The connection goes on then, and the stream's answer waits, with a lease in it. So a
//! stream whose client takes nothing for too long is reset, as an HTTP/1 connection would be
//! closed ([`super::pace`]).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// Of the stream whose task it is.
    static WAITING: Rc<Waiting>;
}

/// Since when what was handed out for a stream waits to be taken; the next is asked for when it is.
#[derive(Debug, Default)]
struct Waiting(Cell<Option<Instant>>);

/// Runs the streams of a connection, and knows how many there are.
#[derive(Clone, Debug)]
pub(super) struct Streams(Rc<Open>);

#[derive(Debug)]
struct Open {
    count: Cell<usize>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
    send_timeout: Duration,
}

impl Streams {
    /// None yet.
    pub(super) fn new(send_timeout: Duration) -> Self {
        let (count, idle_since) = (Cell::new(0), Cell::new(Instant::now()));
        Self(Rc::new(Open { count, idle_since, send_timeout }))
    }

    /// Waits until there was no stream for that long.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let until = match self.0.count.get() {
                0 => self.0.idle_since.get() + limit,
                _ => Instant::now() + limit,
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let place = Place::take(self.0.clone());
        // It ends with the connection or the thread's `LocalSet`, whichever is first.
        tokio::task::spawn_local(async move {
            let waiting = Rc::new(Waiting::default());
            let mut deadline = None;
            let stream = pin!(WAITING.scope(waiting.clone(), stream));
            tokio::select! {
                biased;
                () = stream => {}
                // To drop a stream is to reset it.
                () = poll_fn(|context| {
                    waiting.poll_for(place.0.send_timeout, &mut deadline, context)
                }) => tracing::debug!("a stream's client takes nothing"),
            }
        });
    }
}

/// A stream's place among those that are open.
struct Place(Rc<Open>);

impl Place {
    fn take(open: Rc<Open>) -> Self {
        open.count.set(open.count.get() + 1);
        Self(open)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

impl Waiting {
    /// Ready when something has been waiting for that long.
    fn poll_for(
        &self,
        limit: Duration,
        timer: &mut Option<Pin<Box<Sleep>>>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(since) = self.0.get() else { return Poll::Pending };
        // One that was set for an earlier wait wakes us early, and is set anew then.
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(since + limit)));
        while timer.as_mut().poll(context).is_ready() {
            if since + limit <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(since + limit);
        }
        Poll::Pending
    }
}

/// The body of a stream's answer, which notes when it is asked for more.
#[derive(Debug)]
pub(super) struct Noted<B> {
    body: B,
    waiting: Option<Rc<Waiting>>,
}

/// An answer to the stream in whose task this is called.
pub(super) fn noted<B>(answer: Response<B>) -> Response<Noted<B>> {
    let waiting = WAITING.try_with(Rc::clone).ok();
    answer.map(|body| Noted { body, waiting })
}

impl<B: Body + Unpin> Body for Noted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Some(waiting) = &self.waiting {
            let is_handed_out = matches!(frame, Poll::Ready(Some(Ok(_))));
            waiting.0.set(is_handed_out.then(Instant::now));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

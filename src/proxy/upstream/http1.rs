//! HTTP/1: a connection has one request at a time, and lies in the pool between two.

use std::rc::Rc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::progress::{Limits, patiently};
use super::{Answer, RequestBody, Reuse, SendError, Upstreams};
use crate::lifecycle::Lease;

/// A request that can't be repeated goes over a pooled connection only if that was in use this
/// recently: servers close idle connections without a word, many after 2 s and most after 5, and a
/// request that crosses with the closing is lost.
const FRESH: Duration = Duration::from_secs(1);
/// How long a connection may take, after the end of an answer, until it can take the next request.
const TURNAROUND_MAX: Duration = Duration::from_secs(5);

pub(in crate::proxy) type Sender = http1::SendRequest<RequestBody>;

/// A connection that nobody uses.
pub(super) struct Idle {
    sender: Sender,
    since: Instant,
}

impl Upstreams {
    pub(super) async fn send_http1(
        self: &Rc<Self>,
        lease: &Lease,
        mut request: Request<RequestBody>,
        reuse: Reuse,
        limits: Limits,
    ) -> Result<Response<Answer>, SendError> {
        let progress = request.body().progress();
        loop {
            let (mut sender, pooled) = match self.take_idle(lease, reuse) {
                Some(sender) => (sender, true),
                None => match Box::pin(self.connect_http1(lease)).await {
                    Ok(sender) => (sender, false),
                    Err(reason) => {
                        return Err(SendError::Unsent { request: Box::new(request), reason });
                    }
                },
            };
            let answered = patiently(sender.try_send_request(request), progress.as_ref(), limits);
            match answered.await {
                Err(late) => return Err(late),
                Ok(Ok(response)) => {
                    return Ok(response.map(|incoming| Answer::Http1 { incoming, sender }));
                }
                Ok(Err(mut error)) => {
                    let reason = error.error().to_string();
                    let garbled = error.error().is_parse();
                    match error.take_message() {
                        // It was closed while it lay in the pool. There are others, or a new one.
                        Some(unsent) if pooled => request = unsent,
                        Some(unsent) => {
                            return Err(SendError::Unsent { request: Box::new(unsent), reason });
                        }
                        None if progress.is_some_and(|progress| progress.failed()) => {
                            return Err(SendError::BodyFailed);
                        }
                        None if garbled => return Err(SendError::Garbled { reason }),
                        None => return Err(SendError::Broken { reason, pooled }),
                    }
                }
            }
        }
    }

    fn take_idle(&self, lease: &Lease, reuse: Reuse) -> Option<Sender> {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&lease.workspace().serial())?;
        if pool.generation != lease.generation() || reuse == Reuse::Never {
            return None;
        }
        while let Some(Idle { sender, since }) = pool.idle.pop() {
            if sender.is_ready() && (reuse == Reuse::Any || since.elapsed() < FRESH) {
                return Some(sender);
            }
        }
        None
    }

    async fn connect_http1(self: &Rc<Self>, lease: &Lease) -> Result<Sender, String> {
        let stream = self.dial(lease).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let task = async move {
            // How it ended, the exchange that it was used for knows.
            drop(connection.with_upgrades().await);
        };
        self.keep_connection(lease, task)?;
        Ok(sender)
    }

    /// Takes a connection back whose answer has ended.
    pub(super) fn give_back(self: &Rc<Self>, serial: u64, generation: u32, mut sender: Sender) {
        if sender.is_ready() {
            self.keep(serial, generation, sender);
        } else if !sender.is_closed() {
            // The connection's own task has to see the end first.
            let upstreams = self.clone();
            tokio::task::spawn_local(async move {
                if let Ok(Ok(())) = timeout(TURNAROUND_MAX, sender.ready()).await {
                    upstreams.keep(serial, generation, sender);
                }
            });
        }
    }

    fn keep(&self, serial: u64, generation: u32, sender: Sender) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&serial) else { return };
        if pool.is_for(generation) && pool.idle.len() < self.idle_max.get() {
            pool.idle.push(Idle { sender, since: Instant::now() });
        }
    }
}

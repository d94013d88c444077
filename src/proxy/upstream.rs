//! Connections to workspaces: this thread's own, pooled per workspace and generation.
//!
//! A pool belongs to one generation and is thrown away when that ends, so no request ever meets a
//! connection to an earlier run of its workspace. Every connection that is open is known here by
//! its task, so that those in use can be closed when an admin's stop runs out of patience.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ahash::RandomState;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::lifecycle::{Ending, Lease};

/// A request that can't be repeated goes over a pooled connection only if that was in use this
/// recently: servers close idle connections without a word, many after 2 s and most after 5, and a
/// request that crosses with the closing is lost.
const FRESH: Duration = Duration::from_secs(1);
/// How long a connection may take, after the end of an answer, until it can take the next request.
const TURNAROUND_MAX: Duration = Duration::from_secs(5);

type Sender = http1::SendRequest<RequestBody>;

/// All connections of one thread.
pub(super) struct Upstreams {
    pools: RefCell<HashMap<u64, Pool, RandomState>>,
    next_connection: Cell<u64>,
    connect_timeout: Duration,
    idle_max: usize,
}

/// Connections to one generation of one workspace.
struct Pool {
    generation: u32,
    /// The generation has ended: those in use may finish, nothing is kept.
    retired: bool,
    endpoint: SocketAddr,
    /// Last in, first out: the rest may age and be closed.
    idle: Vec<Idle>,
    /// The tasks of all open connections and tunnels.
    live: HashMap<u64, AbortHandle, RandomState>,
}

struct Idle {
    sender: Sender,
    since: Instant,
}

/// A run of a workspace, and where it listens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    serial: u64,
    generation: u32,
    endpoint: SocketAddr,
}

impl Run {
    /// The run that a lease is for. `None`: an admin's stop has ended it already.
    pub(super) fn of(lease: &Lease) -> Option<Self> {
        let endpoint = lease.endpoint()?;
        let (serial, generation) = (lease.workspace().serial(), lease.generation());
        Some(Self { serial, generation, endpoint })
    }
}

/// A request that got an answer, and the connection that it came over.
pub(super) struct Exchange {
    pub(super) response: Response<Incoming>,
    pub(super) sender: Sender,
}

/// Which of the pooled connections will do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Any: the request can be sent once more if that one turns out to be dead.
    Any,
    /// One that was in use a moment ago.
    Fresh,
    /// None: one has just turned out to be dead, and the others may be as well.
    Never,
}

/// Why a request got no answer.
pub(super) enum SendError {
    /// Nothing of it was sent: it may be sent again, to wherever the workspace is then.
    Unsent { request: Box<Request<RequestBody>>, reason: String },
    /// The connection broke before an answer began. `pooled`: it had served others before.
    Broken { reason: String, pooled: bool },
    /// The client broke off or garbled the body, so the request was never whole.
    BodyFailed,
    /// No answer began in time.
    TimedOut,
}

impl Upstreams {
    /// None yet. Forgets what ends, as `endings` tell it; for that it must be called inside the
    /// thread's `LocalSet`, whose end is the end of the task.
    pub(super) fn new(
        endings: broadcast::Receiver<Ending>,
        connect_timeout: Duration,
        idle_max: usize,
    ) -> Rc<Self> {
        let upstreams = Rc::new(Self {
            pools: RefCell::default(),
            next_connection: Cell::new(0),
            connect_timeout,
            idle_max,
        });
        tokio::task::spawn_local(follow(endings, Rc::downgrade(&upstreams)));
        upstreams
    }

    /// Sends a request to where the lease is for, and waits until the answer begins.
    pub(super) async fn send(
        self: &Rc<Self>,
        lease: &Lease,
        mut request: Request<RequestBody>,
        reuse: Reuse,
        response_timeout: Duration,
    ) -> Result<Exchange, SendError> {
        let progress = request.body().progress();
        loop {
            let (mut sender, pooled) = match self.take_idle(lease, reuse) {
                Some(sender) => (sender, true),
                None => match Box::pin(self.connect(lease)).await {
                    Ok(sender) => (sender, false),
                    Err(reason) => {
                        return Err(SendError::Unsent { request: Box::new(request), reason });
                    }
                },
            };
            let answered =
                patiently(sender.try_send_request(request), progress.as_ref(), response_timeout);
            match answered.await {
                None => return Err(SendError::TimedOut),
                Some(Ok(response)) => return Ok(Exchange { response, sender }),
                Some(Err(mut error)) => {
                    let reason = error.error().to_string();
                    match error.take_message() {
                        // It was closed while it lay in the pool. There are others, or a new one.
                        Some(unsent) if pooled => request = unsent,
                        Some(unsent) => {
                            return Err(SendError::Unsent { request: Box::new(unsent), reason });
                        }
                        None if progress.is_some_and(|progress| progress.failed()) => {
                            return Err(SendError::BodyFailed);
                        }
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

    async fn connect(self: &Rc<Self>, lease: &Lease) -> Result<Sender, String> {
        let run = Run::of(lease).ok_or("its run has ended")?;
        let endpoint = run.endpoint;
        let stream = timeout(self.connect_timeout, TcpStream::connect(endpoint))
            .await
            .map_err(|_| format!("no connection to {endpoint} within {:?}", self.connect_timeout))?
            .map_err(|error| format!("could not connect to {endpoint}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        self.keep_track(run, async move {
            // How it ended, the exchange that it was used for knows.
            drop(connection.with_upgrades().await);
        });
        Ok(sender)
    }

    /// Runs a task that moves bytes to or from a run of a workspace, and ends it if that is
    /// severed.
    pub(super) fn keep_track(self: &Rc<Self>, run: Run, task: impl Future<Output = ()> + 'static) {
        let Run { serial, generation, endpoint } = run;
        let id = self.next_connection.replace(self.next_connection.get() + 1);
        let upstreams = Rc::downgrade(self);
        let handle = tokio::task::spawn_local(async move {
            task.await;
            if let Some(upstreams) = upstreams.upgrade() {
                upstreams.forget(serial, generation, id);
            }
        })
        .abort_handle();
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(serial).or_insert_with(|| Pool::new(generation, endpoint));
        if pool.generation < generation {
            *pool = Pool::new(generation, endpoint);
        }
        if pool.generation == generation {
            pool.live.insert(id, handle);
        }
    }

    fn forget(&self, serial: u64, generation: u32, id: u64) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&serial) else { return };
        if pool.generation == generation {
            pool.live.remove(&id);
            if pool.retired && pool.live.is_empty() {
                pools.remove(&serial);
            }
        }
    }

    /// Takes a connection back whose answer has ended.
    fn give_back(self: &Rc<Self>, serial: u64, generation: u32, mut sender: Sender) {
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
        let current = pool.generation == generation && !pool.retired;
        if current && pool.idle.len() < self.idle_max {
            pool.idle.push(Idle { sender, since: Instant::now() });
        }
    }

    fn end(&self, ending: Ending) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&ending.serial) else { return };
        if pool.generation > ending.generation {
            return;
        }
        pool.retired = true;
        pool.idle.clear();
        if ending.sever {
            for handle in pool.live.values() {
                handle.abort();
            }
            pool.live.clear();
        }
        if pool.live.is_empty() {
            pools.remove(&ending.serial);
        }
    }

    /// Endings were missed. Whatever lies idle may be of a run that has ended.
    fn forget_all_idle(&self) {
        for pool in self.pools.borrow_mut().values_mut() {
            pool.idle.clear();
        }
    }
}

impl Pool {
    fn new(generation: u32, endpoint: SocketAddr) -> Self {
        Self { generation, retired: false, endpoint, idle: Vec::new(), live: HashMap::default() }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({}, generation {})", self.endpoint, self.generation)
    }
}

async fn follow(mut endings: broadcast::Receiver<Ending>, upstreams: Weak<Upstreams>) {
    loop {
        let ending = endings.recv().await;
        let Some(upstreams) = upstreams.upgrade() else { return };
        match ending {
            Ok(ending) => upstreams.end(ending),
            Err(RecvError::Lagged(_)) => upstreams.forget_all_idle(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Waits for an answer, for `limit` after the last sign of the request's own progress. `None`: in
/// vain.
async fn patiently<F: Future>(
    answer: F,
    progress: Option<&Progress>,
    limit: Duration,
) -> Option<F::Output> {
    let mut answer = std::pin::pin!(answer);
    let mut seen = 0;
    loop {
        if let Ok(answer) = timeout(limit, answer.as_mut()).await {
            return Some(answer);
        }
        let now = progress.map_or(0, |progress| progress.0.frames.get());
        if now == seen {
            return None;
        }
        seen = now;
    }
}

/// How far a request's body has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Rc<Passage>);

#[derive(Debug, Default)]
struct Passage {
    /// Frames that have been passed on.
    frames: Cell<u64>,
    /// The client left it unfinished or broke its framing.
    failed: Cell<bool>,
}

impl Progress {
    fn failed(&self) -> bool {
        self.0.failed.get()
    }
}

/// The body of a request as it is passed on: read from the client when the workspace takes it.
pub(super) enum RequestBody {
    Empty,
    Streaming { incoming: Incoming, progress: Progress },
}

impl From<Incoming> for RequestBody {
    fn from(incoming: Incoming) -> Self {
        if incoming.is_end_stream() {
            Self::Empty
        } else {
            Self::Streaming { incoming, progress: Progress::default() }
        }
    }
}

impl RequestBody {
    fn progress(&self) -> Option<Progress> {
        match self {
            Self::Empty => None,
            Self::Streaming { progress, .. } => Some(progress.clone()),
        }
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
            Self::Streaming { incoming, progress } => {
                let frame = ready!(Pin::new(incoming).poll_frame(context));
                progress.0.frames.set(progress.0.frames.get() + 1);
                if matches!(frame, Some(Err(_))) {
                    progress.0.failed.set(true);
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// The body of an answer as it is passed on. Carries the lease: while it lives, bytes move.
pub struct ResponseBody {
    incoming: Incoming,
    finished: bool,
    sender: Option<Sender>,
    upstreams: Rc<Upstreams>,
    lease: Lease,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        sender: Sender,
        upstreams: Rc<Upstreams>,
        lease: Lease,
    ) -> Self {
        Self { incoming, finished: false, sender: Some(sender), upstreams, lease }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        self.finished = frame.is_none();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ResponseBody {
    /// Whoever sends the body drops it after its last byte, or when the client has gone. Only in
    /// the first case is the connection of further use.
    fn drop(&mut self) {
        if let (true, Some(sender)) =
            (self.finished || self.incoming.is_end_stream(), self.sender.take())
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

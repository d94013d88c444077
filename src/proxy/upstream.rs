//! Connections to workspaces: this thread's own, pooled per workspace and generation.
//!
//! A pool belongs to one generation and is thrown away when that ends, so no request ever meets a
//! connection to an earlier run of its workspace. Every connection that is open is known here by
//! its task, so that those in use can be closed when an admin's stop, or the end of the program,
//! runs out of patience: a connection at once, a tunnel after it has said goodbye.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ahash::RandomState;
use bytes::Bytes;
use http::response;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::headers;
use crate::lifecycle::{Ending, Lease, Notice, Workspace};

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
    next_task: Cell<u64>,
    /// The program ends, and so does everything that is still under way.
    closing: Cell<bool>,
    connect_timeout: Duration,
    idle_max: usize,
}

/// Connections to one workspace.
struct Pool {
    workspace: Arc<Workspace>,
    /// The generation that idle connections are of.
    generation: u32,
    /// The generation has ended: those in use may finish, nothing is kept.
    retired: bool,
    /// Last in, first out: the rest may age and be closed.
    idle: Vec<Idle>,
    /// All open connections and tunnels, those to earlier generations that still live included.
    live: HashMap<u64, Live, RandomState>,
}

/// A task that moves bytes to or from a run of a workspace.
struct Live {
    generation: u32,
    task: Task,
}

enum Task {
    Connection(AbortHandle),
    /// Told to look at how things are.
    Tunnel(Rc<Notify>),
}

struct Idle {
    sender: Sender,
    since: Instant,
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
    /// None yet. Forgets what ends, as `notices` tell it; for that it must be called inside the
    /// thread's `LocalSet`, whose end is the end of the task.
    pub(super) fn new(
        notices: broadcast::Receiver<Notice>,
        connect_timeout: Duration,
        idle_max: usize,
    ) -> Rc<Self> {
        let upstreams = Rc::new(Self {
            pools: RefCell::default(),
            next_task: Cell::new(0),
            closing: Cell::new(false),
            connect_timeout,
            idle_max,
        });
        tokio::task::spawn_local(follow(notices, Rc::downgrade(&upstreams)));
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
        let endpoint = lease.endpoint().ok_or("its run has ended")?;
        let stream = timeout(self.connect_timeout, TcpStream::connect(endpoint))
            .await
            .map_err(|_| format!("no connection to {endpoint} within {:?}", self.connect_timeout))?
            .map_err(|error| format!("could not connect to {endpoint}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let (workspace, generation) = (lease.workspace(), lease.generation());
        if self.is_severed(workspace, generation) {
            // Whoever severed it did not know of this connection.
            return Err("its run has ended".to_owned());
        }
        let task = async move {
            // How it ended, the exchange that it was used for knows.
            drop(connection.with_upgrades().await);
        };
        self.keep_track(workspace, generation, task, Task::Connection);
        Ok(sender)
    }

    /// Runs a tunnel to or from a run of a workspace. It is told to look when that may
    /// [be severed](Self::is_severed), and when the policy has changed.
    pub(super) fn keep_tunnel<T: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        workspace: &Arc<Workspace>,
        generation: u32,
        tunnel: impl FnOnce(Rc<Notify>) -> T,
    ) {
        let look = Rc::new(Notify::new());
        let tunnel = tunnel(look.clone());
        self.keep_track(workspace, generation, tunnel, |_| Task::Tunnel(look));
    }

    /// Whether the connections to that run are closed on purpose.
    pub(super) fn is_severed(&self, workspace: &Workspace, generation: u32) -> bool {
        self.closing.get() || workspace.is_severed(generation)
    }

    /// The program ends: severs everything.
    pub(super) fn close(&self) {
        self.closing.set(true);
        for pool in self.pools.borrow_mut().values_mut() {
            pool.idle.clear();
            pool.sever(|_| true);
        }
    }

    fn keep_track(
        self: &Rc<Self>,
        workspace: &Arc<Workspace>,
        generation: u32,
        task: impl Future<Output = ()> + 'static,
        tracked: impl FnOnce(AbortHandle) -> Task,
    ) {
        let id = self.next_task.replace(self.next_task.get() + 1);
        let (upstreams, serial) = (Rc::downgrade(self), workspace.serial());
        let handle = tokio::task::spawn_local(async move {
            task.await;
            if let Some(upstreams) = upstreams.upgrade() {
                upstreams.forget(serial, id);
            }
        })
        .abort_handle();
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(serial).or_insert_with(|| Pool::new(workspace.clone()));
        if pool.generation < generation {
            pool.renew(generation);
        }
        pool.live.insert(id, Live { generation, task: tracked(handle) });
    }

    fn forget(&self, serial: u64, id: u64) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&serial) else { return };
        pool.live.remove(&id);
        if pool.is_over() {
            pools.remove(&serial);
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
        if pool.generation <= ending.generation {
            pool.retired = true;
            pool.idle.clear();
        }
        if ending.sever {
            pool.sever_ended();
        }
        if pool.is_over() {
            pools.remove(&ending.serial);
        }
    }

    /// A policy has changed. What tunnels are worth is theirs to find out.
    fn have_tunnels_look(&self, serial: u64) {
        if let Some(pool) = self.pools.borrow().get(&serial) {
            pool.have_tunnels_look();
        }
    }

    /// Notices were missed. Whatever lies idle may be of a run that has ended.
    fn look_at_all(&self) {
        for pool in self.pools.borrow_mut().values_mut() {
            pool.idle.clear();
            pool.sever_ended();
        }
    }
}

impl Pool {
    fn new(workspace: Arc<Workspace>) -> Self {
        let (idle, live) = (Vec::new(), HashMap::default());
        Self { workspace, generation: 0, retired: false, idle, live }
    }

    /// From now on it is for a new generation.
    fn renew(&mut self, generation: u32) {
        self.generation = generation;
        self.retired = false;
        self.idle.clear();
    }

    fn is_over(&self) -> bool {
        self.retired && self.live.is_empty()
    }

    /// Ends what belongs to runs that are severed.
    fn sever_ended(&mut self) {
        let workspace = self.workspace.clone();
        self.sever(|generation| workspace.is_severed(generation));
    }

    /// Ends connections to such generations at once; tunnels look for themselves.
    fn sever(&mut self, concerns: impl Fn(u32) -> bool) {
        self.have_tunnels_look();
        self.live.retain(|_, Live { generation, task }| match task {
            Task::Connection(handle) if concerns(*generation) => {
                handle.abort();
                false
            }
            Task::Connection(_) | Task::Tunnel(_) => true,
        });
    }

    fn have_tunnels_look(&self) {
        for live in self.live.values() {
            if let Task::Tunnel(look) = &live.task {
                look.notify_one();
            }
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({:?}, generation {})", self.workspace, self.generation)
    }
}

async fn follow(mut notices: broadcast::Receiver<Notice>, upstreams: Weak<Upstreams>) {
    loop {
        let notice = notices.recv().await;
        let Some(upstreams) = upstreams.upgrade() else { return };
        match notice {
            Ok(Notice::Ended(ending)) => upstreams.end(ending),
            Ok(Notice::PolicyChanged { serial }) => upstreams.have_tunnels_look(serial),
            Err(RecvError::Lagged(_)) => upstreams.look_at_all(),
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
    /// It may end at any point: its client comes back for the rest by itself.
    is_event_stream: bool,
    finished: bool,
    sender: Option<Sender>,
    upstreams: Rc<Upstreams>,
    lease: Lease,
}

impl ResponseBody {
    /// `head` is the answer's.
    pub(super) fn new(
        head: &response::Parts,
        incoming: Incoming,
        sender: Sender,
        upstreams: Rc<Upstreams>,
        lease: Lease,
    ) -> Self {
        // A stream of events has no length; the others are not asked.
        let is_event_stream =
            incoming.size_hint().exact().is_none() && headers::is_event_stream(&head.headers);
        let sender = Some(sender);
        Self { incoming, is_event_stream, finished: false, sender, upstreams, lease }
    }

    /// Whether an end that came too soon may pass for an end.
    fn may_end_here(&self) -> bool {
        let lease = &self.lease;
        self.is_event_stream && self.upstreams.is_severed(lease.workspace(), lease.generation())
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
        if matches!(frame, Some(Err(_))) && self.may_end_here() {
            return Poll::Ready(None);
        }
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

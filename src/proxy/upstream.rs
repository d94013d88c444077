//! Connections to workspaces: this thread's own, pooled per workspace and generation.
//!
//! A pool belongs to one generation and is thrown away when that ends, so no request ever meets a
//! connection to an earlier run of its workspace. Every connection that is open is known here by
//! its task, so that those in use can be closed when an admin's stop, or the end of the program,
//! runs out of patience: a connection at once, a tunnel after it has said goodbye.
//!
//! What a workspace speaks decides between `http1` and `http2`. Requests come here as HTTP/1 would
//! have them, and so does what is given back unsent, for the next run may speak the other.

mod http1;
mod http2;
mod pool;
mod progress;
mod request_body;
mod response_body;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use hyper::{Request, Response};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::lifecycle::{Ending, Lease, Notice, Workspace};
use crate::model::Protocol;
use pool::{Live, Pool, Task};

pub(super) use progress::Limits;
pub(super) use request_body::RequestBody;
pub(super) use response_body::{Answer, ResponseBody};

/// All connections of one thread.
pub(super) struct Upstreams {
    pools: RefCell<HashMap<u64, Pool, RandomState>>,
    next_task: Cell<u64>,
    /// The program ends, and so does everything that is still under way.
    closing: Cell<bool>,
    connect_timeout: Cell<Duration>,
    idle_max: Cell<usize>,
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
    /// The workspace has done nothing with it: it may be sent again, to wherever that is then.
    Unsent { request: Box<Request<RequestBody>>, reason: String },
    /// The connection broke before an answer began. `pooled`: it had served others before.
    Broken { reason: String, pooled: bool },
    /// What came is no answer. Whoever says that has had the request, and would say it again.
    Garbled { reason: String },
    /// The client broke off or garbled the body, so the request was never whole.
    BodyFailed,
    /// The client took too long with the body.
    BodyTooSlow,
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
            connect_timeout: Cell::new(connect_timeout),
            idle_max: Cell::new(idle_max),
        });
        tokio::task::spawn_local(follow(notices, Rc::downgrade(&upstreams)));
        upstreams
    }

    /// From now on connecting may take that long, and so many are kept.
    pub(super) fn change_limits(&self, connect_timeout: Duration, idle_max: usize) {
        self.connect_timeout.set(connect_timeout);
        self.idle_max.set(idle_max);
    }

    /// Sends a request to where the lease is for, and waits until the answer begins.
    pub(super) async fn send(
        self: &Rc<Self>,
        lease: &Lease,
        request: Request<RequestBody>,
        reuse: Reuse,
        limits: Limits,
    ) -> Result<Response<Answer>, SendError> {
        match lease.workspace().protocol() {
            Protocol::Http1 => self.send_http1(lease, request, reuse, limits).await,
            // Apart, so that the others need no room for it.
            Protocol::H2c => Box::pin(self.send_http2(lease, request, reuse, limits)).await,
        }
    }

    /// A connection to where the lease is for, over which nothing has been said.
    async fn dial(&self, lease: &Lease) -> Result<TcpStream, String> {
        let endpoint = lease.endpoint().ok_or("its run has ended")?;
        let limit = self.connect_timeout.get();
        let stream = timeout(limit, TcpStream::connect(endpoint))
            .await
            .map_err(|_| format!("no connection to {endpoint} within {limit:?}"))?
            .map_err(|error| format!("could not connect to {endpoint}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(stream)
    }

    /// Runs a connection to where the lease is for, until it ends or is severed.
    fn keep_connection(
        self: &Rc<Self>,
        lease: &Lease,
        task: impl Future<Output = ()> + 'static,
    ) -> Result<(), String> {
        let (workspace, generation) = (lease.workspace(), lease.generation());
        if self.is_severed(workspace, generation) {
            // Whoever severed it did not know of this connection.
            return Err("its run has ended".to_owned());
        }
        self.keep_track(workspace, generation, task, Task::Connection);
        Ok(())
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
            pool.clear();
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
        self.with_pool(workspace, generation, |pool| {
            pool.live.insert(id, Live { generation, task: tracked(handle) });
        });
    }

    /// Does something with the pool of a workspace that has a run of that generation.
    fn with_pool<T>(
        &self,
        workspace: &Arc<Workspace>,
        generation: u32,
        change: impl FnOnce(&mut Pool) -> T,
    ) -> T {
        let mut pools = self.pools.borrow_mut();
        let pool = pools.entry(workspace.serial()).or_insert_with(|| Pool::new(workspace.clone()));
        pool.follow(generation);
        change(pool)
    }

    fn forget(&self, serial: u64, id: u64) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&serial) else { return };
        pool.live.remove(&id);
        if pool.is_over() {
            pools.remove(&serial);
        }
    }

    fn end(&self, ending: Ending) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&ending.serial) else { return };
        if pool.generation <= ending.generation {
            pool.retired = true;
            pool.clear();
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
            pool.clear();
            pool.sever_ended();
        }
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

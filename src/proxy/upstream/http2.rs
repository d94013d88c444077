//! HTTP/2 without TLS, by prior knowledge: one connection has many requests at a time.
//!
//! By the `h2` crate itself, not hyper's client over it: that tells neither when the peer has said
//! how many streams it takes, nor whether a request that failed was refused, and it can't end a
//! request whose body waits for room. Here a request is its [`Stream`]: whoever drops that ends all
//! that is done for it, and nothing else on its connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version, request};
use http_body::{Body, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::progress::{Limits, Progress, patiently};
use super::{Answer, RequestBody, Reuse, SendError, Upstreams};
use crate::lifecycle::Lease;
use crate::proxy::reply::BoxError;

/// Streams that a connection has at a time, however many its peer takes.
const STREAMS_MAX: usize = 256;
/// Bytes that may be under way to us in a stream.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The same in a connection: as much as all streams together, so that one whose client does not read
/// never holds up another.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX as u32;
/// Largest header list of an answer.
const HEAD_BYTES_MAX: u32 = 64 * 1024;
/// Of a request's body, so many bytes are kept until an answer begins. A workspace that is about to
/// end may refuse what it has been sent, and has done nothing with it then.
const KEPT_MAX: usize = 64 * 1024;
/// In at most so many frames: each costs more than what is in it.
const KEPT_FRAMES_MAX: usize = 64;
/// When a connection has turned out to be dead, those are trusted that are younger than this.
const FRESH: Duration = Duration::from_secs(1);

/// A connection that requests share.
pub(super) struct Shared {
    sender: RefCell<SendRequest<Bytes>>,
    made_at: Instant,
    /// Streams that are open.
    streams: Cell<usize>,
    /// Whether anything was ever answered over it.
    has_answered: Cell<bool>,
    /// Whether something was not answered in time: it may be dead, and nobody has noticed.
    is_doubtful: Cell<bool>,
}

impl Shared {
    /// Whether it gets no more streams, ever: it has ended or is about to, or should be.
    fn is_over(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.is_doubtful.get()
            || matches!(self.sender.borrow_mut().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        self.streams.get() < self.sender.borrow().current_max_send_streams().min(STREAMS_MAX)
    }
}

/// Room for one stream.
struct Place {
    connection: Rc<Shared>,
    serial: u64,
    upstreams: Weak<Upstreams>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connection.streams.set(self.connection.streams.get() - 1);
        if let (0, Some(upstreams)) = (self.connection.streams.get(), self.upstreams.upgrade()) {
            upstreams.close_surplus(self.serial);
        }
    }
}

/// Why there is no answer.
enum Failed {
    /// The workspace has not looked at it.
    Refused {
        body: RequestBody,
        reason: String,
    },
    Otherwise(SendError),
}

impl Upstreams {
    pub(super) async fn send_http2(
        self: &Rc<Self>,
        lease: &Lease,
        request: Request<RequestBody>,
        mut reuse: Reuse,
        limits: Limits,
    ) -> Result<Response<Answer>, SendError> {
        let (parts, mut body) = request.into_parts();
        let head = head(&parts, lease.workspace().id().as_str());
        loop {
            let found = self.find_place(lease, reuse).await;
            let (connection, failed) = match found {
                Ok(place) => {
                    let connection = place.connection.clone();
                    (Some(connection), place.exchange(head.clone(), body, limits).await)
                }
                Err(reason) => (None, Err(Failed::Refused { body, reason })),
            };
            match failed {
                Ok(response) => return Ok(response),
                // It said goodbye as this was on its way. There are others, or a new one.
                Err(Failed::Refused { body: unread, .. })
                    if reuse != Reuse::Never
                        && connection.is_some_and(|connection| {
                            connection.has_answered.get() && connection.is_over()
                        }) =>
                {
                    body = unread;
                    reuse = Reuse::Never;
                }
                Err(Failed::Refused { body, reason }) => {
                    let request = Box::new(Request::from_parts(parts, body));
                    return Err(SendError::Unsent { request, reason });
                }
                Err(Failed::Otherwise(error)) => return Err(error),
            }
        }
    }

    /// Room on a connection that there is, or on a new one.
    async fn find_place(self: &Rc<Self>, lease: &Lease, reuse: Reuse) -> Result<Place, String> {
        if let Some(place) = self.free_place(lease, reuse) {
            return Ok(place);
        }
        let (workspace, generation) = (lease.workspace(), lease.generation());
        let connecting = self.with_pool(workspace, generation, |pool| pool.connecting.clone());
        let limit = self.connect_timeout.get();
        let found = timeout(limit, async {
            // Those who come with nothing open yet are to share what is made.
            let _turn = connecting.lock().await;
            match self.free_place(lease, reuse) {
                Some(place) => Ok(place),
                None => self.connect_http2(lease).await,
            }
        });
        found.await.unwrap_or_else(|_| Err(format!("no HTTP/2 connection within {limit:?}")))
    }

    fn free_place(self: &Rc<Self>, lease: &Lease, reuse: Reuse) -> Option<Place> {
        let serial = lease.workspace().serial();
        let mut pools = self.pools.borrow_mut();
        let pool = pools.get_mut(&serial)?;
        if pool.generation != lease.generation() {
            return None;
        }
        pool.shared.retain(|connection| !connection.is_over());
        // To a request that can't be repeated any is as good: they don't close without a word.
        let is_trusted = |made_at: Instant| reuse != Reuse::Never || made_at.elapsed() < FRESH;
        let mut usable = pool.shared.iter().filter(|connection| is_trusted(connection.made_at));
        usable.find(|connection| connection.has_room()).map(|found| self.place_on(found, serial))
    }

    fn place_on(self: &Rc<Self>, connection: &Rc<Shared>, serial: u64) -> Place {
        connection.streams.set(connection.streams.get() + 1);
        Place { connection: connection.clone(), serial, upstreams: Rc::downgrade(self) }
    }

    async fn connect_http2(self: &Rc<Self>, lease: &Lease) -> Result<Place, String> {
        let stream = self.dial(lease).await?;
        let shaken = builder().handshake::<_, Bytes>(stream).await;
        let (sender, connection) = shaken.map_err(|error| error.to_string())?;
        let (knows, known) = oneshot::channel();
        self.keep_connection(lease, run(connection, knows))?;
        known.await.map_err(|_| "what listens there does not speak HTTP/2")?;
        let connection = Rc::new(Shared {
            sender: RefCell::new(sender),
            made_at: Instant::now(),
            streams: Cell::new(0),
            has_answered: Cell::new(false),
            is_doubtful: Cell::new(false),
        });
        let (workspace, generation) = (lease.workspace(), lease.generation());
        self.with_pool(workspace, generation, |pool| {
            if pool.is_for(generation) {
                pool.shared.push(connection.clone());
            }
        });
        Ok(self.place_on(&connection, workspace.serial()))
    }

    /// Lets go of connections without streams, short of as many as are kept.
    fn close_surplus(&self, serial: u64) {
        let mut pools = self.pools.borrow_mut();
        let Some(pool) = pools.get_mut(&serial) else { return };
        let mut idle = 0;
        pool.shared.retain(|connection| {
            idle += usize::from(connection.streams.get() == 0);
            connection.streams.get() > 0 || idle <= self.idle_max.get()
        });
    }
}

fn builder() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD_BYTES_MAX)
        // None before it has said how many it takes.
        .initial_max_send_streams(0)
        .enable_push(false);
    builder
}

/// Runs a connection until it ends, and tells when its peer has said how many streams it takes.
async fn run(connection: h2::client::Connection<TcpStream, Bytes>, knows: oneshot::Sender<()>) {
    let mut connection = pin!(connection);
    let mut knows = Some(knows);
    let ended = poll_fn(|context| {
        let ended = connection.as_mut().poll(context);
        if ended.is_pending()
            && connection.max_concurrent_send_streams() > 0
            && let Some(knows) = knows.take()
        {
            // Whoever waited for it may have given up.
            knows.send(()).ok();
        }
        ended
    });
    // How it ended, its streams know.
    drop(ended.await);
}

/// The head as HTTP/2 has it (RFC 9113 §8.2.2, §8.3.1). `id` stands for a host that nobody named.
fn head(parts: &request::Parts, id: &str) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = parts.method.clone();
    *head.version_mut() = Version::HTTP_2;
    *head.headers_mut() = parts.headers.clone();
    let headers = head.headers_mut();
    let host = headers.remove(HOST);
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut uri = parts.uri.clone().into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = authority.or_else(|| Authority::try_from(id).ok());
    *head.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    head
}

impl Place {
    /// Sends a request, and waits until the answer begins.
    async fn exchange(
        self,
        head: Request<()>,
        body: RequestBody,
        limits: Limits,
    ) -> Result<Response<Answer>, Failed> {
        let (progress, is_whole) = (body.progress(), body.is_end_stream());
        let mut sender = self.connection.sender.borrow().clone();
        let (answer, outgoing) = match sender.send_request(head, is_whole) {
            Ok(sent) => sent,
            Err(error) => {
                let reason = error.to_string();
                return Err(match error.is_io() || error.is_go_away() {
                    true => Failed::Refused { body, reason },
                    false => Failed::Otherwise(SendError::Broken { reason, pooled: false }),
                });
            }
        };
        let read = Rc::new(RefCell::new(Read::new(body)));
        let upload = (!is_whole).then(|| Upload::start(outgoing, read.clone()));
        let pooled = self.connection.has_answered.get();
        let answered = patiently(answer, progress.as_ref(), limits).await;
        if matches!(answered, Err(SendError::TimedOut)) {
            self.connection.is_doubtful.set(true);
        }
        match answered.map_err(Failed::Otherwise)? {
            Ok(response) => {
                self.connection.has_answered.set(true);
                read.borrow_mut().kept = None;
                Ok(Stream::answering(response, upload, self))
            }
            Err(error) => {
                drop(upload);
                let body = was_refused(&error).then(|| read.borrow_mut().take_back()).flatten();
                Err(failure(&error, body, progress.as_ref(), pooled))
            }
        }
    }
}

/// Whether its workspace has certainly not looked at it (RFC 9113 §8.7).
fn was_refused(error: &h2::Error) -> bool {
    let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    error.is_remote() && (is_refused || error.is_go_away())
}

/// `body`: of a request that was refused, if it is still there as a whole.
fn failure(
    error: &h2::Error,
    body: Option<RequestBody>,
    progress: Option<&Progress>,
    pooled: bool,
) -> Failed {
    let reason = error.to_string();
    match body {
        Some(body) => Failed::Refused { body, reason },
        None if progress.is_some_and(Progress::failed) => Failed::Otherwise(SendError::BodyFailed),
        None => Failed::Otherwise(SendError::Broken { reason, pooled }),
    }
}

/// A request's body, and what was read of it.
struct Read {
    body: RequestBody,
    /// `None`: it can't be sent again.
    kept: Option<Vec<Bytes>>,
}

impl Read {
    fn new(body: RequestBody) -> Self {
        Self { body, kept: Some(Vec::new()) }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(kept), Some(frame)) = (&mut self.kept, &frame) {
            let size: usize = kept.iter().map(Bytes::len).sum();
            let fits = |data: &Bytes| kept.len() < KEPT_FRAMES_MAX && size + data.len() <= KEPT_MAX;
            match frame.as_ref().ok().and_then(Frame::data_ref).filter(|data| fits(data)) {
                Some(data) => kept.push(data.clone()),
                None => self.kept = None,
            }
        }
        Poll::Ready(frame)
    }

    /// All of it, if it can be had.
    fn take_back(&mut self) -> Option<RequestBody> {
        let kept = self.kept.take()?;
        let mut body = std::mem::replace(&mut self.body, RequestBody::Empty);
        body.put_back(kept);
        Some(body)
    }
}

/// The task that sends a request's body, and ends with this.
struct Upload(AbortHandle);

impl Upload {
    fn start(outgoing: SendStream<Bytes>, read: Rc<RefCell<Read>>) -> Self {
        Self(tokio::task::spawn_local(send_body(outgoing, read)).abort_handle())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends a body as its workspace gives room for it, until that wants no more.
async fn send_body(mut outgoing: SendStream<Bytes>, read: Rc<RefCell<Read>>) {
    while has_room(&mut outgoing).await {
        let frame = poll_fn(|context| match outgoing.poll_reset(context) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => read.borrow_mut().poll_frame(context).map(Some),
        });
        let Some(frame) = frame.await else { return };
        let sent = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let is_last = read.borrow().body.is_end_stream();
                    outgoing.send_data(data, is_last).map(|()| is_last)
                }
                Err(frame) => {
                    outgoing.send_trailers(frame.into_trailers().unwrap_or_default()).map(|()| true)
                }
            },
            Some(Err(_)) => {
                outgoing.send_reset(Reason::CANCEL);
                return;
            }
            None => outgoing.send_data(Bytes::new(), true).map(|()| true),
        };
        if sent.unwrap_or(true) {
            return;
        }
    }
}

/// Whether there is room for more; waits for it.
async fn has_room(outgoing: &mut SendStream<Bytes>) -> bool {
    outgoing.reserve_capacity(1);
    while outgoing.capacity() == 0 {
        if !matches!(poll_fn(|context| outgoing.poll_capacity(context)).await, Some(Ok(_))) {
            return false;
        }
    }
    true
}

/// A request that is being answered. When it is dropped before the end, it is cancelled.
pub(in crate::proxy) struct Stream {
    incoming: RecvStream,
    /// Bytes that are still to come, where that is known.
    length: Option<u64>,
    data_ended: bool,
    _upload: Option<Upload>,
    _place: Place,
}

impl Stream {
    fn answering(
        response: Response<RecvStream>,
        upload: Option<Upload>,
        place: Place,
    ) -> Response<Answer> {
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        response.map(|incoming| {
            let (_upload, _place) = (upload, place);
            Answer::Http2(Box::new(Self { incoming, length, data_ended: false, _upload, _place }))
        })
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.data_ended {
            match ready!(self.incoming.poll_data(context)) {
                Some(Ok(data)) => {
                    // An error is that of a stream which has ended, as the next poll tells.
                    drop(self.incoming.flow_control().release_capacity(data.len()));
                    self.length =
                        self.length.map(|length| length.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(as_seen_by_client(error)))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.incoming.poll_trailers(context));
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(as_seen_by_client(error))),
        })
    }

    pub(super) fn is_end(&self) -> bool {
        self.incoming.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A client over HTTP/2 gets the reset with the reason that the workspace gave, if that means the
/// same to it: one that was answered in part was not refused.
fn as_seen_by_client(error: h2::Error) -> BoxError {
    let misleads = matches!(error.reason(), Some(Reason::REFUSED_STREAM | Reason::NO_ERROR) | None);
    match error.is_reset() && error.is_remote() && !misleads {
        true => error.into(),
        false => error.to_string().into(),
    }
}

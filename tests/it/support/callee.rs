//! What speaks HTTP/2 without TLS behind the gateway, as gRPC servers do.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response, request};

use super::{Connection, Origin};

/// What it has seen of those who called.
#[derive(Default)]
pub(crate) struct Seen {
    heads: Mutex<Vec<(usize, request::Parts)>>,
    /// Calls that their caller has reset.
    pub(crate) cancelled: AtomicUsize,
    /// Most calls that were open at a time over one connection.
    pub(crate) together: AtomicUsize,
}

impl Seen {
    /// The heads of all calls so far, each with the number of its connection.
    pub(crate) fn heads(&self) -> Vec<(usize, request::Parts)> {
        self.heads.lock().unwrap().clone()
    }

    /// The heads of calls of that path.
    pub(crate) fn calls(&self, path: &str) -> Vec<(usize, request::Parts)> {
        self.heads().into_iter().filter(|(_, head)| head.uri.path() == path).collect()
    }
}

/// One that takes so many calls at a time over a connection.
///
/// | path | answer |
/// |---|---|
/// | `/unary` | what was sent, when all has come |
/// | `/stream` | three messages |
/// | `/both` | every message as it comes; the head with the first |
/// | `/none` | a head that says why there is nothing |
/// | `/plain` | a body with its length, and no trailers |
/// | `/wait` | nothing |
/// | `/open` | one message, and no end |
/// | `/deaf` | the same, and nothing of the request is read |
/// | `/cut` | one message and a reset |
/// | `/refused` | at first nothing, as it is refused, then what was sent |
pub(crate) async fn callee(streams_max: u32) -> (Origin, Arc<Seen>) {
    let seen = Arc::<Seen>::default();
    let shared = seen.clone();
    let origin =
        Origin::start(move |connection| serve(connection, streams_max, shared.clone())).await;
    (origin, seen)
}

/// Takes calls over a connection until it ends.
pub(crate) async fn serve(connection: Connection, streams_max: u32, seen: Arc<Seen>) {
    let number = connection.number;
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams_max);
    let Ok(mut calls) = builder.handshake::<_, Bytes>(connection.stream).await else { return };
    let open = Arc::new(AtomicUsize::new(0));
    while let Some(Ok((request, respond))) = calls.accept().await {
        let (head, body) = request.into_parts();
        let together = open.fetch_add(1, Ordering::SeqCst) + 1;
        seen.together.fetch_max(together, Ordering::SeqCst);
        let is_first = seen.calls(head.uri.path()).is_empty();
        seen.heads.lock().unwrap().push((number, head.clone()));
        let (seen, open) = (seen.clone(), open.clone());
        tokio::spawn(async move {
            let request = Request::from_parts(head, body);
            // A caller that leaves is no news.
            if answer(request, respond, is_first).await.is_err() {
                seen.cancelled.fetch_add(1, Ordering::SeqCst);
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    is_first: bool,
) -> Result<(), h2::Error> {
    let head = || Response::builder().header("content-type", "application/grpc");
    let (parts, mut body) = request.into_parts();
    match parts.uri.path() {
        "/none" => {
            let head = head().header("grpc-status", "5").body(()).unwrap();
            respond.send_response(head, true)?;
        }
        "/plain" => {
            let head = Response::builder().header("content-length", "5").body(()).unwrap();
            respond.send_response(head, false)?.send_data(Bytes::from_static(b"plain"), true)?;
        }
        "/stream" => {
            let mut out = respond.send_response(head().body(()).unwrap(), false)?;
            for message in ["one ", "two ", "three"] {
                out.send_data(Bytes::from(message), false)?;
            }
            end(&mut out)?;
        }
        "/both" => {
            let mut out = None;
            while let Some(message) = next(&mut body).await? {
                if out.is_none() {
                    out = Some(respond.send_response(head().body(()).unwrap(), false)?);
                }
                out.as_mut().unwrap().send_data(message, false)?;
            }
            end(&mut out.unwrap())?;
        }
        "/wait" => until_reset(poll_fn(|context| respond.poll_reset(context)).await?)?,
        "/open" | "/deaf" | "/cut" => {
            let mut out = respond.send_response(head().body(()).unwrap(), false)?;
            out.send_data(Bytes::from_static(b"one"), false)?;
            if parts.uri.path() == "/cut" {
                // After what was sent, and not instead of it.
                out.reserve_capacity(1);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                out.send_reset(Reason::ENHANCE_YOUR_CALM);
                return Ok(());
            }
            until_reset(poll_fn(|context| out.poll_reset(context)).await?)?;
        }
        "/refused" if is_first => respond.send_reset(Reason::REFUSED_STREAM),
        _ => {
            let mut whole = Vec::new();
            while let Some(message) = next(&mut body).await? {
                whole.extend(message);
            }
            let mut out = respond.send_response(head().body(()).unwrap(), false)?;
            out.send_data(Bytes::from(whole), false)?;
            end(&mut out)?;
        }
    }
    Ok(())
}

fn until_reset(reason: Reason) -> Result<(), h2::Error> {
    Err(reason.into())
}

fn end(out: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    out.send_trailers(trailers)
}

/// What comes next in a body, for which there is room again then.
pub(crate) async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
    let Some(data) = body.data().await.transpose()? else { return Ok(None) };
    body.flow_control().release_capacity(data.len())?;
    Ok(Some(data))
}

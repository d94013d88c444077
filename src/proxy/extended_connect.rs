//! WebSockets over HTTP/2 (RFC 8441): a stream that is opened by an extended CONNECT.
//!
//! Workspaces open them by HTTP/1 only. So the request becomes the GET with `Upgrade` that it would have been
//! there, with a key of ours, and goes on as such; the switch is answered by a 200 on the stream.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Marks a request that was one, with what its workspace must answer to our key.
#[derive(Debug, Clone)]
pub(super) struct ExtendedConnect {
    accept: String,
}

impl ExtendedConnect {
    /// Makes the GET of it, if it is one for a WebSocket.
    pub(super) fn rewrite<B>(request: &mut Request<B>) {
        let protocol = request.extensions().get::<Protocol>();
        let is_one = request.method() == Method::CONNECT
            && protocol.is_some_and(|protocol| protocol.as_str() == "websocket");
        let mut random = [0; 16];
        if !is_one || getrandom::fill(&mut random).is_err() {
            return;
        }
        let key = STANDARD.encode(random);
        let Ok(value) = HeaderValue::from_str(&key) else { return };
        *request.method_mut() = Method::GET;
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, value);
        let accept = derive_accept_key(key.as_bytes());
        request.extensions_mut().insert(Self { accept });
    }

    /// Of a request that was one.
    pub(super) fn of<B>(request: &Request<B>) -> Option<&Self> {
        request.extensions().get()
    }

    /// Whether its client may be given that answer: a success opens a tunnel, so none but a switch
    /// may be one, and only a workspace that has understood what was asked switches.
    pub(super) fn allows<B>(&self, answer: &Response<B>) -> bool {
        match answer.status() {
            StatusCode::SWITCHING_PROTOCOLS => {
                let said = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
                said.is_some_and(|said| said.as_bytes() == self.accept.as_bytes())
            }
            status => !status.is_success(),
        }
    }
}

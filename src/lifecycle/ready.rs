//! Whether a workspace that runs is ready: asked of the workspace itself, over its own port.
//!
//! Raw bytes instead of an HTTP client, because all that is wanted is whether something answers.
//! A connection alone proves nothing: a published port accepts before the application listens, and
//! so does a frozen one. These probes never count as activity.

mod http2;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::model::Protocol;

/// Waits between attempts: from this, growing by half, to `PAUSE_MAX`. So the wait adds a third to
/// a fast start at most, and never more than 25 ms to a slow one.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(25);
/// How long one attempt may take to connect. On one machine, or to the next, a handshake that takes
/// longer has lost a packet, and a new one is faster than the resend after a second.
const CONNECT_MAX: Duration = Duration::from_millis(100);
/// An application that accepted and says nothing for this long is slow to answer, not absent.
const QUICK: Duration = Duration::from_millis(25);
/// The same where a forwarder accepts in its stead: time for that to find nobody and hang up.
const QUICK_BEHIND_FORWARDER: Duration = Duration::from_millis(200);
/// How long one answer may take when only an answer will do.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What to ask, and where.
#[derive(Debug, Clone)]
pub(super) struct Probe<'a> {
    pub(super) endpoint: SocketAddr,
    /// `Some`: a GET of it must be answered with 2xx or 3xx. `None`: any answer will do.
    pub(super) ready_path: Option<String>,
    /// For the `Host` field.
    pub(super) host: &'a str,
    pub(super) protocol: Protocol,
    /// See [`crate::driver::Driver::accepts_early`].
    pub(super) accepts_early: bool,
}

/// What an attempt came to.
enum Attempt {
    Answered,
    Silent,
    No,
}

/// Returns when it is ready, however long that takes.
pub(super) async fn until(probe: Probe<'_>) {
    let probe = &probe;
    // Whoever speaks HTTP/2 says so at once, so there silence means nothing.
    let silence_is_fine = probe.ready_path.is_none() && probe.protocol == Protocol::Http1;
    repeat(|| async move {
        let patience = match (silence_is_fine, probe.accepts_early) {
            (false, _) => ANSWER_MAX,
            (true, false) => QUICK,
            (true, true) => QUICK_BEHIND_FORWARDER,
        };
        match attempt(probe, patience).await {
            Attempt::Answered => true,
            Attempt::Silent => silence_is_fine,
            Attempt::No => false,
        }
    })
    .await;
}

/// Returns when it has answered: not only accepted, as a frozen one does.
pub(super) async fn answered(probe: Probe<'_>) {
    let probe = &probe;
    repeat(|| async move { matches!(attempt(probe, ANSWER_MAX).await, Attempt::Answered) }).await;
}

async fn repeat<Attempted: Future<Output = bool>>(attempt: impl Fn() -> Attempted) {
    let mut pause = PAUSE_FIRST;
    while !attempt().await {
        sleep(pause).await;
        pause = (pause * 3 / 2).min(PAUSE_MAX);
    }
}

async fn attempt(probe: &Probe<'_>, patience: Duration) -> Attempt {
    let Ok(Ok(stream)) = timeout(CONNECT_MAX, TcpStream::connect(probe.endpoint)).await else {
        return Attempt::No;
    };
    match probe.protocol {
        Protocol::Http1 => ask_by_http1(probe, stream, patience).await,
        Protocol::H2c => match timeout(patience, http2::is_ready(probe, stream)).await {
            Err(_) => Attempt::Silent,
            Ok(true) => Attempt::Answered,
            Ok(false) => Attempt::No,
        },
    }
}

async fn ask_by_http1(probe: &Probe<'_>, mut stream: TcpStream, patience: Duration) -> Attempt {
    // A path that was named for the purpose is meant to be got. Otherwise `OPTIONS *`, HTTP's own
    // ping (RFC 9110 §9.3.7): it has the application render nothing, and any answer will do.
    let (method, path) = match probe.ready_path.as_deref() {
        Some(path) => ("GET", path),
        None => ("OPTIONS", "*"),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: frostgate-probe\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n",
        probe.host
    );
    if stream.write_all(request.as_bytes()).await.is_err() {
        return Attempt::No;
    }
    // The first bytes of the status line, `HTTP/1.1 200`.
    let mut head = [0; 12];
    match timeout(patience, stream.read(&mut head)).await {
        Err(_) => Attempt::Silent,
        Ok(Err(_) | Ok(0)) => Attempt::No,
        Ok(Ok(read)) if probe.ready_path.is_none() || is_success(&head[..read]) => {
            Attempt::Answered
        }
        Ok(Ok(_)) => Attempt::No,
    }
}

fn is_success(head: &[u8]) -> bool {
    head.starts_with(b"HTTP/1.") && matches!(head.get(8..10), Some(b" 2" | b" 3"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_2xx_and_3xx_are_success() {
        assert!(is_success(b"HTTP/1.1 200"));
        assert!(is_success(b"HTTP/1.0 302"));
        assert!(!is_success(b"HTTP/1.1 503"));
        assert!(!is_success(b"HTTP/1.1"));
        assert!(!is_success(b"SSH-2.0-Open"));
    }

    #[tokio::test]
    async fn one_that_accepts_and_hangs_up_is_not_ready_until_it_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            for _ in 0..3 {
                drop(listener.accept().await.unwrap());
            }
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
            3
        });
        let protocol = Protocol::Http1;
        let probe = Probe { endpoint, ready_path: None, host: "a", protocol, accepts_early: false };
        timeout(Duration::from_secs(5), until(probe)).await.unwrap();
        assert_eq!(server.await.unwrap(), 3);
    }
}

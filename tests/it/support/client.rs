//! An HTTP/1 client that sends exactly the bytes it is told and reads what comes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long a reply may take.
const REPLY_MAX: Duration = Duration::from_secs(60);

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    unread: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body ended as its framing said.
    pub(crate) complete: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A GET over a connection of its own.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Reply {
    let mut client = Client::connect(address).await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    client.reply().await
}

/// The same, as a browser sends it when somebody opens a page.
pub(crate) async fn navigate(address: SocketAddr, host: &str, path: &str) -> Reply {
    let mut client = Client::connect(address).await;
    let fields = format!("Host: {host}\r\nSec-Fetch-Mode: navigate\r\n");
    client.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n")).await;
    client.reply().await
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// `None`: nobody listens there.
    pub(crate) async fn try_connect(address: SocketAddr) -> Option<Self> {
        Some(Self::over_tcp(TcpStream::connect(address).await.ok()?))
    }

    /// From an address of its own, which all of 127.0.0.0/8 are, and a port that neither the system
    /// gives to anybody nor Frostgate to a workspace.
    pub(crate) async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        for _ in 0..100 {
            let port = 2_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 8_000;
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            if socket.bind(SocketAddr::from((source, port))).is_ok() {
                return Self::over_tcp(socket.connect(address).await.unwrap());
            }
        }
        panic!("no port of {source} is free");
    }

    fn over_tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    /// A WebSocket to a workspace, if it is let in.
    pub(crate) async fn websocket(address: SocketAddr, id: &str) -> Option<Self> {
        let mut client = Self::try_connect(address).await?;
        client
            .send(format!(
                "GET /ws HTTP/1.1\r\nHost: {id}.localhost\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ))
            .await;
        client.head().await.starts_with("HTTP/1.1 101").then_some(client)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server may have hung up on us already; what it said is still to be read.
        drop(self.stream.write_all(bytes.as_ref()).await);
    }

    /// The head of the next reply, up to and without the empty line. Empty: the server hung up.
    pub(crate) async fn head(&mut self) -> String {
        timeout(REPLY_MAX, async {
            loop {
                if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                    self.unread.drain(..end + 4);
                    return head;
                }
                if !self.fill().await {
                    return String::new();
                }
            }
        })
        .await
        .expect("no head of a reply in time")
    }

    /// The next reply to a request that was not HEAD, final or not.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut reply = Reply { status, head, body: Vec::new(), complete: false };
        if status < 200 || matches!(status, 204 | 304) {
            reply.complete = status > 0;
            return reply;
        }
        let chunked = reply.header("transfer-encoding").is_some_and(|value| value == "chunked");
        let length = reply.header("content-length").map(|value| value.parse::<usize>().unwrap());
        let body = async {
            match (chunked, length) {
                (true, _) => self.chunked_body().await,
                (false, Some(length)) => self.sized_body(length).await,
                (false, None) => {
                    while self.fill().await {}
                    (std::mem::take(&mut self.unread), true)
                }
            }
        };
        (reply.body, reply.complete) = timeout(REPLY_MAX, body).await.expect("no body in time");
        reply
    }

    /// The same, if it came whole.
    pub(crate) async fn whole_reply(&mut self) -> Option<Reply> {
        Some(self.reply().await).filter(|reply| reply.complete)
    }

    async fn sized_body(&mut self, length: usize) -> (Vec<u8>, bool) {
        while self.unread.len() < length && self.fill().await {}
        let complete = self.unread.len() >= length;
        let rest = self.unread.split_off(length.min(self.unread.len()));
        (std::mem::replace(&mut self.unread, rest), complete)
    }

    async fn chunked_body(&mut self) -> (Vec<u8>, bool) {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line().await else { return (body, false) };
            let Ok(size) = usize::from_str_radix(line.trim(), 16) else { return (body, false) };
            if size == 0 {
                // Trailers, up to the empty line.
                while self.line().await.is_some_and(|line| !line.is_empty()) {}
                return (body, true);
            }
            let (chunk, complete) = self.sized_body(size).await;
            body.extend(chunk);
            if !complete || self.line().await.is_none() {
                return (body, false);
            }
        }
    }

    /// The next chunk of a body that goes on; empty: it has ended.
    pub(crate) async fn chunk(&mut self) -> String {
        let chunk = async {
            let line = self.line().await.unwrap_or_default();
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let (chunk, _) = self.sized_body(size).await;
            self.line().await;
            String::from_utf8(chunk).unwrap()
        };
        timeout(REPLY_MAX, chunk).await.expect("no chunk in time")
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Some(line);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Everything until the server hangs up, or until it has been silent for `limit`, which `None`
    /// says.
    pub(crate) async fn rest(&mut self, limit: Duration) -> Option<Vec<u8>> {
        while timeout(limit, self.fill()).await.ok()? {}
        Some(std::mem::take(&mut self.unread))
    }

    /// Exactly that many bytes, or fewer if the server hangs up.
    pub(crate) async fn bytes(&mut self, length: usize) -> Vec<u8> {
        timeout(REPLY_MAX, self.sized_body(length)).await.expect("no bytes in time").0
    }

    /// Whether the server has hung up, waiting for that up to `limit`.
    pub(crate) async fn is_hung_up_on(&mut self, limit: Duration) -> bool {
        timeout(limit, async { while self.fill().await {} }).await.is_ok()
    }

    async fn fill(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.unread).await, Ok(read) if read > 0)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

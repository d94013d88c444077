//! An upstream that keeps what it received, byte for byte, and answers with exactly the bytes that
//! a test wants. It reads requests as strictly as RFC 9112 allows and notes what is not right.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Received {
    /// Which of the upstream's connections it came over, from 0.
    pub(crate) connection: usize,
    /// Request line and fields, without the empty line.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: String,
    /// What another parser could have read differently.
    pub(crate) violation: Option<String>,
}

impl Received {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    /// The only field of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} twice in {}", self.head);
        all.first().copied()
    }

    fn check(mut self) -> Self {
        let hosts = self.all("host").len();
        let framings = self.all("content-length").len() + self.all("transfer-encoding").len();
        let wrong = if !self.line().ends_with(" HTTP/1.1") || self.line().split(' ').count() != 3 {
            Some(format!("request line {:?}", self.line()))
        } else if hosts != 1 || framings > 1 {
            Some(format!("{hosts} hosts, {framings} framings"))
        } else if self.head.replace("\r\n", "").contains(['\r', '\n', '\0']) {
            Some("control characters".to_owned())
        } else if self.head.lines().skip(1).any(|line| line.starts_with([' ', '\t', ':'])) {
            Some("a folded line".to_owned())
        } else {
            None
        };
        self.violation = self.violation.or(wrong);
        self
    }
}

type Log = Arc<Mutex<Vec<Received>>>;

pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    log: Log,
    accepting: JoinHandle<()>,
}

/// A connection that Frostgate made to the upstream.
pub(crate) struct Connection {
    pub(crate) number: usize,
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
    log: Log,
}

impl Origin {
    /// One that does with each connection what `serve` says.
    pub(crate) async fn start<Served>(serve: impl Fn(Connection) -> Served + Send + 'static) -> Self
    where
        Served: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Log::default();
        let shared = log.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let log = shared.clone();
                let connection = Connection { number, stream, unread: Vec::new(), log };
                number += 1;
                connections.spawn(serve(connection));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, log, accepting }
    }

    /// One that answers every request with those bytes; with none, it hangs up.
    pub(crate) async fn answering(
        answer: impl Fn(&Received) -> Vec<u8> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::start(move |mut connection| {
            let answer = answer.clone();
            async move {
                while let Some(request) = connection.request().await {
                    let bytes = answer(&request);
                    if bytes.is_empty() || !connection.send(bytes).await {
                        return;
                    }
                }
            }
        })
        .await
    }

    /// All requests so far, short of Frostgate's own probes.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.log.lock().unwrap().clone()
    }

    /// The requests since the last call.
    pub(crate) fn take(&self) -> Vec<Received> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Connection {
    /// The next request, body and all. `None`: hung up, or it was a probe and is answered.
    pub(crate) async fn request(&mut self) -> Option<Received> {
        let request = self.head().await?;
        self.body(request).await
    }

    /// The head of the next request; it is in the log once `body` has read the rest.
    pub(crate) async fn head(&mut self) -> Option<Received> {
        let head = self.until(b"\r\n\r\n").await?;
        if head.contains("frostgate-probe") {
            self.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
            return None;
        }
        Some(Received { connection: self.number, head, ..Received::default() })
    }

    pub(crate) async fn body(&mut self, mut request: Received) -> Option<Received> {
        if let Some(coding) = request.all("transfer-encoding").first() {
            if *coding != "chunked" {
                request.violation = Some(format!("coded {coding}"));
            }
            loop {
                let line = self.until(b"\r\n").await?;
                let size = usize::from_str_radix(&line, 16).ok();
                let Some(size) = size else {
                    request.violation = Some(format!("chunk size {line:?}"));
                    break;
                };
                if size == 0 {
                    break;
                }
                let chunk = self.bytes(size).await?;
                request.body.extend(chunk);
                self.until(b"\r\n").await?;
            }
            loop {
                match self.until(b"\r\n").await? {
                    end if end.is_empty() => break,
                    line => request.trailers.push_str(&format!("{line}\n")),
                }
            }
        } else if let Some(length) = request.all("content-length").first() {
            match length.parse() {
                Ok(length) => request.body = self.bytes(length).await?,
                Err(_) => request.violation = Some(format!("length {length}")),
            }
        }
        let request = request.check();
        self.log.lock().unwrap().push(request.clone());
        Some(request)
    }

    pub(crate) async fn bytes(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            self.fill().await?;
        }
        Some(self.unread.drain(..length).collect())
    }

    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            let found = self.unread.windows(end.len()).position(|window| window == end);
            if let Some(position) = found {
                let text = String::from_utf8_lossy(&self.unread[..position]).into_owned();
                self.unread.drain(..position + end.len());
                return Some(text);
            }
            self.fill().await?;
        }
    }

    /// Waits until the other side is gone; what it still sends is thrown away.
    pub(crate) async fn until_gone(&mut self) {
        while self.fill().await.is_some() {
            self.unread.clear();
        }
    }

    async fn fill(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.unread).await;
        matches!(read, Ok(read) if read > 0).then_some(())
    }

    /// Whether it could be sent.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }
}

/// A plain answer with that body.
pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

//! Clients that ask all the time, and notice every request that is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Client, PATIENCE};

/// Two kinds of clients: some ask over one connection until they are told that it ends, the others
/// over a new one each time.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// Begins to ask; `strict`: no connection may be refused either.
    pub(crate) fn on(address: SocketAddr, host: &str, path: &str, strict: bool) -> Self {
        let mut load =
            Self { over: Arc::default(), answered: Arc::default(), clients: JoinSet::new() };
        for number in 0..8 {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n");
            let request = match number % 2 {
                0 => format!("{request}\r\n"),
                _ => format!("{request}Connection: close\r\n\r\n"),
            };
            let (over, answered) = (load.over.clone(), load.answered.clone());
            load.clients.spawn(ask(address, request, strict, over, answered));
        }
        load
    }

    pub(crate) fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for so many more answers.
    pub(crate) async fn go_on(&self, more: usize) {
        let wanted = self.answered() + more;
        let deadline = Instant::now() + PATIENCE;
        while self.answered() < wanted {
            assert!(Instant::now() < deadline, "only {} of {wanted} answers", self.answered());
            sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// What went wrong, in all.
    pub(crate) async fn end(mut self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        let mut lost = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            lost.extend(client.unwrap());
        }
        assert!(self.answered.load(Ordering::Relaxed) > 0, "nobody asked");
        lost
    }
}

async fn ask(
    address: SocketAddr,
    request: String,
    strict: bool,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut lost = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let Some(mut client) = Client::try_connect(address).await else {
            if strict {
                lost.push("refused".to_owned());
            }
            sleep(std::time::Duration::from_millis(1)).await;
            continue;
        };
        let mut is_first = true;
        while !over.load(Ordering::Relaxed) {
            client.send(&request).await;
            let reply = client.reply().await;
            // One that was never accepted looks like that, and its client asks elsewhere.
            if reply.status == 0 && is_first && !strict {
                break;
            }
            if reply.status != 200 || !reply.complete {
                lost.push(format!("first: {is_first}; {reply:?}"));
                break;
            }
            answered.fetch_add(1, Ordering::Relaxed);
            if reply.header("connection") == Some("close") {
                break;
            }
            is_first = false;
        }
    }
    lost
}

//! Pooled connections that the workspace closes when it likes: what may be repeated never fails,
//! and what may not is never sent twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::support::{Client, Gateway, Origin, ok};

const HOST: &str = "Host: alice.localhost\r\n";

/// An upstream whose connections answer `answers` requests each. With `on_arrival` it hangs up as
/// the next one arrives, having read it; else right after the last answer, without a word.
async fn fickle(answers: usize, on_arrival: bool) -> Origin {
    Origin::start(move |mut connection| async move {
        for _ in 0..answers {
            let Some(request) = connection.request().await else { return };
            connection.send(ok(request.path())).await;
        }
        if on_arrival {
            connection.request().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_be_repeated_never_fails() {
    for (answers, on_arrival) in [(1, false), (1, true), (2, true), (3, false), (7, true)] {
        let origin = fickle(answers, on_arrival).await;
        let gateway = Gateway::before(&origin).await;
        let mut clients = JoinSet::new();
        for client in 0..8 {
            let address = gateway.public();
            clients.spawn(async move {
                let mut connection = Client::connect(address).await;
                for number in 0..50 {
                    let path = format!("/{client}/{number}");
                    let method = ["GET", "PUT", "DELETE", "OPTIONS"][number % 4];
                    connection.send(format!("{method} {path} HTTP/1.1\r\n{HOST}\r\n")).await;
                    let reply = connection.reply().await;
                    assert_eq!(
                        (reply.status, reply.text()),
                        (200, path),
                        "{method} {answers} {on_arrival}"
                    );
                }
            });
        }
        let mut served = 0;
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
            served += 1;
        }
        assert_eq!(served, 8);
        gateway.until_empty("alice", "fickle connections").await;
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_repeated_is_never_sent_twice() {
    let lost = Arc::new(AtomicUsize::new(0));
    for (answers, on_arrival) in [(1, false), (1, true), (2, true), (3, false)] {
        let origin = fickle(answers, on_arrival).await;
        let gateway = Gateway::before(&origin).await;
        let mut clients = JoinSet::new();
        for client in 0..8 {
            let (address, lost) = (gateway.public(), lost.clone());
            clients.spawn(async move {
                let mut connection = Client::connect(address).await;
                for number in 0..25 {
                    let path = format!("/{client}/{number}");
                    let (method, body) = match number % 3 {
                        0 => ("POST", "Content-Length: 3\r\n\r\nabc"),
                        1 => ("PUT", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
                        _ => ("PATCH", "Content-Length: 0\r\n\r\n"),
                    };
                    connection.send(format!("{method} {path} HTTP/1.1\r\n{HOST}{body}")).await;
                    let reply = connection.reply().await;
                    if reply.status == 200 {
                        assert_eq!(reply.text(), path);
                        continue;
                    }
                    assert_eq!(reply.status, 502, "{reply:?}");
                    lost.fetch_add(1, Ordering::Relaxed);
                    connection = Client::connect(address).await;
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended.unwrap();
        }
        let mut times: HashMap<String, usize> = HashMap::new();
        for request in origin.received() {
            *times.entry(request.line().to_owned()).or_default() += 1;
        }
        assert!(times.len() >= 100, "{}", times.len());
        let repeated: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(repeated.is_empty(), "sent more than once: {repeated:?}");
        gateway.stop().await;
    }
    assert!(lost.load(Ordering::Relaxed) > 0, "no connection was closed on arrival");
}

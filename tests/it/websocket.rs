//! Tunnels after a switch of protocols: every byte arrives, whoever sends it first, and nobody is
//! inside when it is over.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Client, Connection, Gateway, Origin, PATIENCE, until};

pub(crate) const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: alice.localhost\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub(crate) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An upstream that switches, then does what `serve` says.
pub(crate) async fn switching<Served>(
    serve: impl Fn(Connection) -> Served + Clone + Send + Sync + 'static,
) -> Origin
where
    Served: Future<Output = ()> + Send + 'static,
{
    Origin::start(move |mut connection| {
        let serve = serve.clone();
        async move {
            if connection.request().await.is_some() {
                connection.send(SWITCH).await;
                serve(connection).await;
            }
        }
    })
    .await
}

async fn echo(mut connection: Connection) {
    while let Some(byte) = connection.bytes(1).await {
        connection.send(byte).await;
    }
}

pub(crate) async fn opened(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.public()).await;
    client.send(UPGRADE).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(
        lower.contains("\nupgrade: websocket") && lower.contains("\nconnection: upgrade"),
        "{head}"
    );
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_together_with_the_switch_is_not_lost() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.send(format!("{SWITCH}first words")).await;
            echo(connection).await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    for _ in 0..20 {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("{UPGRADE}at once")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert_eq!(client.bytes(11).await, b"first words");
        assert_eq!(client.bytes(7).await, b"at once");
    }
    let request = &origin.received()[0];
    assert_eq!(request.header("connection"), Some("upgrade"));
    assert_eq!(request.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    gateway.until_empty("alice", "tunnels").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_message_passes_both_ways_at_once() {
    let origin = switching(|connection| async move {
        let (mut reading, mut writing) = connection.stream.into_split();
        drop(tokio::io::copy(&mut reading, &mut writing).await);
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let client = opened(&gateway).await;
    let message: Vec<u8> = (0..4_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let (mut reading, mut writing) = client.stream.into_split();
    let sent = message.clone();
    let upload = tokio::spawn(async move {
        writing.write_all(&sent).await.unwrap();
        writing
    });
    let mut echoed = vec![0; message.len()];
    timeout(PATIENCE, reading.read_exact(&mut echoed)).await.unwrap().unwrap();
    assert!(echoed == message);
    drop((upload.await.unwrap(), reading));
    gateway.until_empty("alice", "a large message").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_side_may_end_first() {
    let origin = switching(|mut connection| async move {
        connection.until_gone().await;
        connection.send("after your end").await;
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = opened(&gateway).await;
    client.send("bye").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest(PATIENCE).await.unwrap(), b"after your end");
    gateway.until_empty("alice", "a half-close").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_vanishes_takes_the_tunnel_along() {
    let origin = switching(|mut connection| async move {
        if connection.bytes(1).await.is_some_and(|byte| byte == b"!") {
            connection.stream.set_zero_linger().unwrap();
        } else {
            connection.until_gone().await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    for resets in [false, true] {
        let client = opened(&gateway).await;
        until("it is inside", || gateway.workspace("alice").view().tunnels == 1).await;
        if resets {
            client.stream.set_zero_linger().unwrap();
        }
        drop(client);
        gateway.until_empty("alice", "a client vanished").await;
    }
    let mut client = opened(&gateway).await;
    client.send("!").await;
    assert!(client.is_hung_up_on(PATIENCE).await);
    drop(client);
    gateway.until_empty("alice", "a workspace vanished").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_switch_is_an_ordinary_answer() {
    let origin = Origin::answering(|request| {
        let asked = request.header("upgrade").unwrap_or("nothing").to_owned();
        crate::support::ok(&asked)
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    for _ in 0..2 {
        client.send(UPGRADE).await;
        assert_eq!(client.reply().await.text(), "websocket");
    }
    // What can't become a WebSocket is not asked to.
    let host = "Host: alice.localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n";
    let plain = [
        format!("GET / HTTP/1.0\r\n{host}\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc"),
        format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ];
    for request in plain {
        let mut client = Client::connect(gateway.public()).await;
        client.send(&request).await;
        assert_eq!(client.reply().await.text(), "nothing", "{request}");
    }
    gateway.until_empty("alice", "no tunnels").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_to_something_else_is_refused() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection
                .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n")
                .await;
            connection.until_gone().await;
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut client = Client::connect(gateway.public()).await;
    client.send(UPGRADE).await;
    assert_eq!(client.reply().await.status, 502);
    gateway.until_empty("alice", "a refused switch").await;
    gateway.stop().await;
}

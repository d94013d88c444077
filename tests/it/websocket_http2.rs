//! WebSockets over HTTP/2 (RFC 8441), to workspaces that speak HTTP/1.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::admin_stop::GOING_AWAY;
use crate::support::{Connection, Gateway, Origin, PATIENCE, Received, ok, until};

async fn connect(gateway: &Gateway) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(gateway.public()).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let deadline = Instant::now() + PATIENCE;
    while !sender.is_extended_connect_protocol_enabled() {
        assert!(Instant::now() < deadline, "it offers no extended CONNECT");
        sleep(std::time::Duration::from_millis(1)).await;
    }
    sender
}

async fn open(
    sender: &mut SendRequest<Bytes>,
    host: &str,
    protocol: &'static str,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://{host}/ws?a=b"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    request.extensions_mut().insert(Protocol::from_static(protocol));
    let (response, stream) = sender.send_request(request, false).unwrap();
    (timeout(PATIENCE, response).await.unwrap().unwrap(), stream)
}

/// Switches as it should, then echoes.
async fn echo(mut connection: Connection) {
    let Some(request) = connection.request().await else { return };
    connection.send(switch(&request)).await;
    while let Some(byte) = connection.bytes(1).await {
        connection.send(byte).await;
    }
}

fn switch(request: &Received) -> String {
    let key = request.header("sec-websocket-key").unwrap();
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

async fn read(body: &mut RecvStream, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < length {
        let Some(data) = timeout(PATIENCE, body.data()).await.unwrap() else { return all };
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        all.extend(data);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_becomes_a_websocket_and_says_goodbye() {
    let origin = Origin::start(echo).await;
    let gateway = Gateway::before(&origin).await;
    let mut sender = connect(&gateway).await;
    let (response, mut stream) = open(&mut sender, "alice.localhost", "websocket").await;
    assert_eq!(response.status(), 200);
    for gone in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(response.headers().get(gone).is_none(), "{gone}: {response:?}");
    }
    let mut body = response.into_body();
    stream.send_data(Bytes::from_static(b"\x82\x03abc"), false).unwrap();
    assert_eq!(read(&mut body, 5).await, b"\x82\x03abc");
    // Another one beside it, over the same connection.
    let (second, mut more) = open(&mut sender, "alice.localhost", "websocket").await;
    until("both are inside", || gateway.workspace("alice").view().tunnels == 2).await;
    more.send_data(Bytes::new(), true).unwrap();
    assert_eq!(read(&mut second.into_body(), 1).await, b"");
    until("one is left", || gateway.workspace("alice").view().tunnels == 1).await;
    let received = &origin.received()[0];
    assert_eq!(received.line(), "GET /ws?a=b HTTP/1.1");
    assert_eq!(received.header("connection"), Some("upgrade"));
    assert_eq!(received.header("upgrade"), Some("websocket"));
    assert_eq!(received.header("host"), Some("alice.localhost"));
    let stopping = tokio::spawn(gateway.stop());
    assert_eq!(read(&mut body, GOING_AWAY.len()).await, GOING_AWAY);
    stopping.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_but_a_switch_opens_a_tunnel() {
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            let number = connection.number;
            let answer = match number {
                // Not what was asked for.
                0 => ok("fine").to_vec(),
                // To another key.
                1 => switch(&request).replace("Accept: ", "Accept: x").into_bytes(),
                _ => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".to_vec(),
            };
            connection.send(answer).await;
            if number < 2 {
                return;
            }
        }
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let mut sender = connect(&gateway).await;
    let before = origin.received().len();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let (response, _stream) = open(&mut sender, "alice.localhost", "websocket").await;
        statuses.push(response.status().as_u16());
    }
    assert!(origin.received().len() > before);
    assert!(statuses.iter().all(|status| [502, 403].contains(status)), "{statuses:?}");
    assert_eq!(statuses[3], 403, "{statuses:?}");
    // Other protocols, and places that are no workspace's.
    let (response, _stream) = open(&mut sender, "alice.localhost", "connect-udp").await;
    assert_eq!(response.status(), 405);
    let (response, _stream) = open(&mut sender, "nobody.localhost", "websocket").await;
    assert_eq!(response.status(), 405);
    gateway.until_empty("alice", "no tunnels").await;
    gateway.stop().await;
}

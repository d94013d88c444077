//! TLS: which certificate a client gets, what it may speak, and what it can't do to others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::support::{
    Authority, Client, Gateway, Origin, PATIENCE, get, gullible, ok, secure, tls, try_tls, until,
    upstream,
};
use crate::websocket::{SWITCH, UPGRADE};

const HOST: &str = "Host: alice.localhost\r\n";
const DEADLINE: Duration = Duration::from_millis(300);

/// In front of `alice`, by TLS too.
async fn gateway(origin: &Origin, authority: &Authority) -> Gateway {
    Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, authority);
    })
    .await
}

async fn echoing() -> Origin {
    Origin::answering(|request| ok(request.path())).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_the_certificate_for_the_host_that_it_names() {
    let (origin, authority) = (echoing().await, Authority::new());
    let usual = authority.certify("a", &["localhost"]);
    let alice = authority.certify("b", &["alice.localhost", "other.localhost"]);
    let wildcard = authority.certify("c", &["*.dev.localhost", "*.localhost"]);
    // Longer valid than the others that are for it.
    let year = std::time::SystemTime::now() + Duration::from_secs(365 * 24 * 60 * 60);
    let renewed =
        authority.certify_until(&authority.directory.join("a-2"), &["new.localhost"], year);
    authority.certify("d", &["new.localhost"]);
    let gateway = gateway(&origin, &authority).await;
    let rows = [
        ("localhost", &usual),
        ("alice.localhost", &alice),
        ("ALICE.localhost", &alice),
        ("other.localhost", &alice),
        ("bob.localhost", &wildcard),
        ("x.dev.localhost", &wildcard),
        ("x.y.dev.localhost", &usual),
        ("dev.localhost", &wildcard),
        ("example.com", &usual),
        ("new.localhost", &renewed),
        // Names nobody.
        ("127.0.0.1", &usual),
    ];
    for (host, expected) in rows {
        let stream = tls(&gullible(), gateway.tls(), host).await;
        let given = stream.get_ref().1.peer_certificates().unwrap();
        assert!(given[0] == *expected, "another certificate for {host}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protocol_is_what_both_agree_on() {
    let origin = echoing().await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = gateway(&origin, &authority).await;
    let rows: [(&[&str], Option<&str>); 4] = [
        (&["h2", "http/1.1"], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ];
    for (offered, agreed) in rows {
        let client = authority.client(offered);
        let stream = tls(&client, gateway.tls(), "alice.localhost").await;
        let alpn = stream.get_ref().1.alpn_protocol();
        assert_eq!(alpn, agreed.map(str::as_bytes), "{offered:?}");
        if agreed == Some("h2") {
            continue;
        }
        let mut client = Client::over(stream);
        client
            .send(format!("GET /{offered:?} HTTP/1.1\r\n{HOST}\r\n").replace([' ', '"'], ""))
            .await;
        assert_eq!(client.reply().await.status, 400);
    }
    let unknown = authority.client(&["spdy/3"]);
    let refused = try_tls(&unknown, gateway.tls(), "alice.localhost").await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    // Who agrees on one and speaks the other is hung up on.
    for (alpn, bytes) in
        [("h2", "GET / HTTP/1.1\r\n\r\n"), ("http/1.1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
    {
        let client = authority.client(&[alpn]);
        let mut client = Client::over(tls(&client, gateway.tls(), "alice.localhost").await);
        client.send(bytes).await;
        assert!(client.is_hung_up_on(PATIENCE).await, "{alpn}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workspaces_are_told_that_their_client_came_by_https() {
    let origin = Origin::answering(|request| ok(&request.body.len().to_string())).await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = gateway(&origin, &authority).await;
    let body = vec![b'x'; 300_000];

    let stream = tls(&authority.client(&["http/1.1"]), gateway.tls(), "alice.localhost").await;
    let mut client = Client::over(stream);
    for _ in 0..2 {
        client.send(format!("POST / HTTP/1.1\r\n{HOST}Content-Length: 300000\r\n\r\n")).await;
        client.send(&body).await;
        assert_eq!(client.reply().await.text(), "300000");
    }

    let stream = tls(&authority.client(&["h2"]), gateway.tls(), "alice.localhost").await;
    let (mut sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let request =
            Request::post("https://alice.localhost/").body(Full::<Bytes>::from(body.clone()));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.version(), http::Version::HTTP_2);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "300000");
    }

    let received = origin.received();
    assert_eq!(received.len(), 4);
    for request in received {
        assert_eq!(request.violation, None);
        assert_eq!(request.header("x-forwarded-proto"), Some("https"));
        let forwarded = "for=127.0.0.1;host=\"alice.localhost\";proto=https";
        assert_eq!(request.header("forwarded"), Some(forwarded));
        assert_eq!(request.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(request.header("host"), Some("alice.localhost"));
    }
    drop(sender);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_by_tls_passes_both_ways_and_may_end_on_one_side_first() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            connection.send(SWITCH).await;
            let message = connection.bytes(1_000_000).await.unwrap();
            connection.send(message).await;
            connection.until_gone().await;
            connection.send("after your end").await;
        }
    })
    .await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = gateway(&origin, &authority).await;
    let stream = tls(&authority.client(&["http/1.1"]), gateway.tls(), "alice.localhost").await;
    let mut client = Client::over(stream);
    client.send(UPGRADE).await;
    assert!(client.head().await.starts_with("HTTP/1.1 101"));
    until("the tunnel is counted", || gateway.workspace("alice").view().tunnels == 1).await;
    let message: Vec<u8> = (0..1_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    client.send(&message).await;
    assert!(client.bytes(message.len()).await == message);
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest(PATIENCE).await.unwrap(), b"after your end");
    gateway.until_empty("alice", "a WebSocket by TLS").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_is_seen_to_be() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            connection.send(format!("{head}3\r\nabc\r\n")).await;
        }
    })
    .await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = gateway(&origin, &authority).await;
    let connector = authority.client(&["http/1.1"]);
    let mut client = Client::over(tls(&connector, gateway.tls(), "alice.localhost").await);
    client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
    let reply = client.reply().await;
    assert!(reply.status == 502 || !reply.complete, "{reply:?}");
    // Where the end of the connection is the end of the answer, it is no good end.
    let mut stream = tls(&connector, gateway.tls(), "alice.localhost").await;
    stream.write_all(format!("GET / HTTP/1.0\r\n{HOST}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(read.is_err() || text.starts_with("HTTP/1.0 502"), "it looks whole: {text}");
    gateway.until_empty("alice", "answers that were cut").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_resumed_by_whichever_thread_gets_the_client() {
    let origin = echoing().await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = gateway(&origin, &authority).await;
    for (version, is) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let client = authority.client_of(&[version], &["http/1.1"]);
        for number in 0..20 {
            let stream = tls(&client, gateway.tls(), "alice.localhost").await;
            let connection = stream.get_ref().1;
            assert_eq!(connection.protocol_version(), Some(is));
            let kind = connection.handshake_kind();
            if number == 0 {
                assert_eq!(kind, Some(HandshakeKind::Full));
            } else {
                assert_eq!(kind, Some(HandshakeKind::Resumed), "{is:?}, connection {number}");
            }
            // In TLS 1.3 the ticket comes after the handshake.
            let mut client = Client::over(stream);
            client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
            assert_eq!(client.reply().await.status, 200);
        }
        // A new certificate is no reason to forget anybody.
        authority.certify("a", &["alice.localhost"]);
        gateway.app().reload_certificates();
        let stream = tls(&client, gateway.tls(), "alice.localhost").await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let mut config = (**client.config()).clone();
        let known = Resumption::in_memory_sessions(10);
        config.resumption = known.tls12_resumption(Tls12Resumption::SessionIdOnly);
        let without_tickets = TlsConnector::from(Arc::new(config));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = tls(&without_tickets, gateway.tls(), "alice.localhost").await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(expected), "{is:?}");
            let mut client = Client::over(stream);
            client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
            assert_eq!(client.reply().await.status, 200);
        }
        let stranger = authority.client_of(&[version], &["http/1.1"]);
        let stream = tls(&stranger, gateway.tls(), "alice.localhost").await;
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    gateway.stop().await;
}

/// The first bytes of a handshake that does not go on.
fn half_a_hello() -> Vec<u8> {
    [&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3][..], &[7; 60]].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_or_broken_handshake_ends_and_keeps_nobody_waiting() {
    let origin = echoing().await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.listen.first_byte_timeout = DEADLINE;
        config.listen.handshake_timeout = DEADLINE;
    })
    .await;
    let beginnings =
        [vec![], vec![0x16], half_a_hello(), [&[0x16, 3, 1, 0, 80], &[0; 80][..]].concat()];
    let mut crowd = Vec::new();
    for beginning in beginnings.iter().cycle().take(200) {
        let mut client = Client::connect(gateway.tls()).await;
        client.send(beginning).await;
        crowd.push(client);
    }
    let connector = authority.client(&["http/1.1"]);
    for _ in 0..20 {
        let stream = timeout(PATIENCE, tls(&connector, gateway.tls(), "alice.localhost")).await;
        let mut client = Client::over(stream.unwrap());
        client.send(format!("GET / HTTP/1.1\r\n{HOST}\r\n")).await;
        assert_eq!(client.reply().await.status, 200);
    }
    for mut client in crowd {
        assert!(client.is_hung_up_on(PATIENCE).await);
    }
    // A byte now and then makes a handshake no longer, and neither does silence after it.
    let mut client = Client::connect(gateway.tls()).await;
    let began = Instant::now();
    for byte in half_a_hello() {
        if client.stream.write_all(&[byte]).await.is_err() || began.elapsed() > PATIENCE {
            break;
        }
        tokio::time::sleep(DEADLINE / 10).await;
    }
    assert!(client.is_hung_up_on(PATIENCE).await && began.elapsed() < PATIENCE);
    for alpn in ["h2", "http/1.1"] {
        let silent = tls(&authority.client(&[alpn]), gateway.tls(), "alice.localhost").await;
        assert!(Client::over(silent).is_hung_up_on(PATIENCE).await, "{alpn}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_asked_for_nothing_holds_no_stop_up() {
    let origin = echoing().await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.listen.first_byte_timeout = PATIENCE * 3;
        config.listen.handshake_timeout = PATIENCE * 3;
        config.listen.drain_grace = PATIENCE * 3;
    })
    .await;
    let silent = Client::connect(gateway.public()).await;
    let mut halfway = Client::connect(gateway.tls()).await;
    halfway.send(half_a_hello()).await;
    let welcome = tls(&authority.client(&["h2"]), gateway.tls(), "alice.localhost").await;
    timeout(PATIENCE, gateway.stop()).await.expect("it waits for the silent");
    drop((silent, halfway, welcome));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_have_a_place_among_the_connections() {
    let origin = echoing().await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.listen.workers = 1;
        config.listen.connections_max = 4;
    })
    .await;
    let config = authority.client(&[]).config().clone();
    let mut handshakes = Vec::new();
    for _ in 0..4 {
        let name = ServerName::try_from("alice.localhost").unwrap();
        let mut hello = Vec::new();
        ClientConnection::new(config.clone(), name).unwrap().write_tls(&mut hello).unwrap();
        let mut client = Client::connect(gateway.tls()).await;
        client.send(hello).await;
        // Answered, so it has its place; and the handshake goes no further.
        assert_eq!(client.bytes(1).await, [0x16]);
        handshakes.push(client);
    }
    let mut fifth = Client::connect(gateway.public()).await;
    fifth.send(format!("GET /5 HTTP/1.1\r\n{HOST}\r\n")).await;
    assert!(timeout(DEADLINE, fifth.head()).await.is_err(), "it was served beyond the limit");
    handshakes.pop();
    assert_eq!(fifth.reply().await.text(), "/5");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_port_is_said_or_left_in_good_order() {
    let origin = echoing().await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.listen.admin_tls = true;
    })
    .await;
    for address in [gateway.tls(), gateway.admin()] {
        let reply = get(address, "alice.localhost", "/").await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.text().contains("https://"), "{reply:?}");
        let mut client = Client::connect(address).await;
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert_eq!(client.rest(PATIENCE).await.unwrap(), b"");
    }
    assert!(origin.received().is_empty());
    // TLS to the plain port: an end, not a reset, which would have come by the time we read.
    let mut stream = TcpStream::connect(gateway.public()).await.unwrap();
    stream.write_all(&half_a_hello()).await.unwrap();
    tokio::time::sleep(DEADLINE).await;
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
    assert!(matches!(read, Ok(0)), "{read:?}, {answer:?}");
    let refused = try_tls(&authority.client(&[]), gateway.public(), "alice.localhost").await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_served_by_tls_where_that_is_wanted() {
    let origin = echoing().await;
    let authority = Authority::with(&["alice.localhost", "127.0.0.1"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.listen.tls.clear();
        config.listen.admin_tls = true;
    })
    .await;
    let mut client = Client::over(tls(&authority.client(&[]), gateway.admin(), "127.0.0.1").await);
    let token = gateway.token();
    client
        .send(format!(
            "GET /workspaces/alice HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    let reply = client.reply().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let url = format!("http://alice.localhost:{}/", gateway.public().port());
    assert_eq!(reply.json()["url"], url.as_str());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_by_tls_ends_after_its_requests_when_the_gateway_stops() {
    let origin = Origin::start(|mut connection| async move {
        if connection.request().await.is_some() {
            tokio::time::sleep(DEADLINE).await;
            connection.send(ok("late")).await;
        }
    })
    .await;
    let authority = Authority::with(&["alice.localhost"]);
    let gateway = gateway(&origin, &authority).await;
    let address: SocketAddr = gateway.tls();
    let connector = authority.client(&["http/1.1"]);
    let mut idle = Client::over(tls(&connector, address, "alice.localhost").await);
    let stream = tls(&authority.client(&["h2"]), address, "alice.localhost").await;
    let (mut sender, connection) =
        handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://alice.localhost/").body(Empty::<Bytes>::new()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    until("it is inside", || gateway.workspace("alice").view().inside == 1).await;
    let stopped = tokio::spawn(gateway.stop());
    let response = response.await.unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "late");
    assert!(idle.is_hung_up_on(PATIENCE).await);
    stopped.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

//! What a proxy adds to a head, what ends at it, and what nobody can say in its name.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::support::{Client, Gateway, Origin, PATIENCE, Received, Reply, ok, upstream};

const HOST: &str = "Host: alice.localhost\r\n";

/// What the workspace received of a GET with these fields, and what the client got.
async fn sent(gateway: &Gateway, origin: &Origin, fields: &str) -> (Received, Reply) {
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET / HTTP/1.1\r\n{HOST}{fields}\r\n")).await;
    let reply = client.reply().await;
    let mut received = origin.take();
    assert_eq!((received.len(), reply.status), (1, 200), "{fields}: {reply:?}");
    assert_eq!(received[0].violation, None);
    (received.remove(0), reply)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_of_one_hop_end_here() {
    let origin = Origin::answering(|_| ok("")).await;
    let gateway = Gateway::before(&origin).await;
    let hop_by_hop = [
        "Connection: close\r\n",
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Proxy-Authorization: Basic eDp5\r\n",
        "TE: gzip\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Upgrade: websocket\r\n",
        "Upgrade: websocket, h2c\r\nConnection: upgrade\r\n",
        "Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
        "Connection: x-one\r\nConnection: ,X-Two ,, \r\nX-One: 1\r\nx-two: 2\r\n",
        "Connection: x-forwarded-for, forwarded, via, x-forwarded-host, x-forwarded-proto\r\n",
        "Connection: x-request-id\r\n",
    ];
    let ours = [
        "x-request-id",
        "host",
        "x-forwarded-for",
        "forwarded",
        "x-forwarded-proto",
        "x-forwarded-host",
        "via",
    ];
    for fields in hop_by_hop {
        let (received, _) = sent(&gateway, &origin, &format!("{fields}X-Kept: 1\r\n")).await;
        let mut names: Vec<_> =
            received.head.lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
        names.retain(|name| !ours.contains(name));
        assert_eq!(names, ["x-kept"], "{fields}: {}", received.head);
        for name in ours {
            assert!(received.header(name).is_some(), "{fields}: no {name}");
        }
    }
    let (received, _) =
        sent(&gateway, &origin, "TE: trailers, gzip;q=0.5\r\nConnection: TE\r\n").await;
    assert_eq!(
        (received.header("te"), received.header("connection")),
        (Some("trailers"), Some("te"))
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_workspace_means_for_one_hop_ends_here_too() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 Fine\r\nConnection: keep-alive, X-Inner\r\nX-Inner: secret\r\n\
          Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nProxy-Authenticate: Basic\r\n\
          Upgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nVia: 1.1 inner\r\n\
          Content-Length: 2\r\n\r\nok"
            .to_vec()
    })
    .await;
    let gateway = Gateway::before(&origin).await;
    let (_, reply) = sent(&gateway, &origin, "").await;
    for gone in
        ["connection", "x-inner", "keep-alive", "proxy-connection", "proxy-authenticate", "upgrade"]
    {
        assert_eq!(reply.header(gone), None, "{}", reply.head);
    }
    assert_eq!(reply.head.matches("set-cookie: ").count(), 2);
    let vias: Vec<_> = reply.head.lines().filter(|line| line.starts_with("via: ")).collect();
    assert_eq!(vias.len(), 2, "{vias:?}");
    assert!(vias[0] == "via: 1.1 inner" && vias[1].starts_with("via: 1.1 frostgate-"), "{vias:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_can_not_speak_in_our_name() {
    let origin = Origin::answering(|_| ok("")).await;
    let gateway = Gateway::before(&origin).await;
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Prefix",
        "X-Forwarded-Port",
        "X-Forwarded-Server",
        "X-Forwarded-Ssl",
        "X-Forwarded",
        "Forwarded",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "Proxy",
    ];
    let mut tried = 0;
    for name in names {
        let spellings =
            [name.to_owned(), name.replace('-', "_"), name.replace('-', "."), name.to_uppercase()];
        for spelling in spellings {
            let (received, _) = sent(&gateway, &origin, &format!("{spelling}: 6.6.6.6\r\n")).await;
            assert!(!received.head.contains("6.6.6.6"), "{spelling}: {}", received.head);
            assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
            tried += 1;
        }
    }
    assert_eq!(tried, 52);
    let (received, _) = sent(&gateway, &origin, "").await;
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert_eq!(received.header("x-forwarded-host"), Some("alice.localhost"));
    let forwarded = "for=127.0.0.1;host=\"alice.localhost\";proto=http";
    assert_eq!(received.header("forwarded"), Some(forwarded));
    assert!(received.header("via").unwrap().starts_with("1.1 frostgate-"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed() {
    let origin = Origin::answering(|_| ok("")).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.routing.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    let fields = "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Host: public.example\r\nForwarded: for=192.0.2.1\r\nVia: 1.1 outer\r\n\
                  X_Forwarded_For: 6.6.6.6\r\n";
    let (received, _) = sent(&gateway, &origin, fields).await;
    assert_eq!(received.header("x-forwarded-for"), Some("192.0.2.1, 192.0.2.2, 127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("x-forwarded-host"), Some("public.example"));
    assert!(received.header("forwarded").unwrap().starts_with("for=192.0.2.1, for=127.0.0.1;"));
    assert_eq!(received.all("via").len(), 2);
    assert!(!received.head.contains("6.6.6.6"), "an alias is nobody's: {}", received.head);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_goes_in_circles_ends_quickly() {
    // The gateway's own port is not known before it listens, so a free one is chosen.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start(|config| {
        config.listen.public = vec![free];
        upstream(config, "alice", free);
    })
    .await;
    let began = Instant::now();
    let reply = timeout(PATIENCE, gateway.get("alice", "/")).await.unwrap();
    assert_eq!(reply.status, 508, "{reply:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    gateway.until_empty("alice", "a loop").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_that_point_at_each_other_end_quickly() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let one = Gateway::start(|config| upstream(config, "alice", free)).await;
    let other = Gateway::start(|config| {
        config.listen.public = vec![free];
        upstream(config, "alice", one.public());
    })
    .await;
    let reply = timeout(PATIENCE, one.get("alice", "/")).await.unwrap();
    assert_eq!(reply.status, 508, "{reply:?}");
    one.until_empty("alice", "a loop").await;
    other.until_empty("alice", "a loop").await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_has_a_name_that_strangers_do_not_choose() {
    let origin = Origin::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Request-Id: the-workspaces\r\n\r\n".to_vec()
    })
    .await;
    for trusted in [false, true] {
        let gateway = Gateway::start(|config| {
            crate::support::upstream(config, "alice", origin.address);
            if trusted {
                config.routing.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            }
        })
        .await;
        let mut names = std::collections::HashSet::new();
        let given = "X-Request-Id: given-1\r\nX_Request_Id: given-2\r\n";
        for fields in ["", given, "X-Request-Id: no name\r\n"] {
            let (received, reply) = sent(&gateway, &origin, fields).await;
            let name = received.header("x-request-id").unwrap().to_owned();
            assert_eq!(reply.header("x-request-id"), Some(name.as_str()), "{fields}");
            assert_eq!(name == "given-1", trusted && fields == given, "{fields}: {name}");
            assert!(received.header("x_request_id").is_none());
            assert!(names.insert(name));
        }
        // Refusals and what is not for a workspace have one too.
        let elsewhere = crate::support::get(gateway.public(), "nobody.localhost", "/").await;
        assert_eq!(elsewhere.header("x-request-id").map(str::len), Some(32), "{elsewhere:?}");
        gateway.stop().await;
    }
}

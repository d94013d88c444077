//! HTTPS where it should be: redirects before anything is woken, HSTS, requests that came over a
//! connection for another host, and the URLs that the API tells.

use std::time::Duration;

use bytes::Bytes;
use frostgate::config::Config;
use frostgate::model::{FreezeMode, Phase, PublicUrl};
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Authority, Client, Gateway, Origin, PATIENCE, Reply, get, gullible, ok, process, secure, tls,
    upstream,
};

type Sender = SendRequest<Empty<Bytes>>;

async fn send(gateway: &Gateway, request: String) -> Reply {
    let mut client = Client::connect(gateway.public()).await;
    client.send(request).await;
    client.reply().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_request_is_redirected_and_wakes_nobody() {
    let authority = Authority::with(&["localhost"]);
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[]);
        secure(config, &authority);
        config.tls.redirect = true;
        config.routing.admin_host = Some("admin.localhost".to_owned());
    })
    .await;
    gateway.call("PUT", "/workspaces/alice/stop").await;
    gateway.until("alice", Phase::Frozen).await;
    let port = gateway.tls().port();
    let plain = gateway.public().port();
    let rows = [
        (
            "GET /x/../y?a=%2F&b HTTP/1.1",
            format!("alice.localhost:{plain}"),
            "alice.localhost",
            "/x/../y?a=%2F&b",
        ),
        ("GET / HTTP/1.1", "ALICE.localhost".to_owned(), "alice.localhost", "/"),
        ("DELETE /x HTTP/1.1", "alice.localhost".to_owned(), "alice.localhost", "/x"),
        (
            "GET http://alice.localhost/x HTTP/1.1",
            "alice.localhost".to_owned(),
            "alice.localhost",
            "/x",
        ),
        ("GET /w/alice/x HTTP/1.1", "localhost".to_owned(), "localhost", "/w/alice/x"),
        ("GET /w/alice HTTP/1.1", "[::1]:80".to_owned(), "[::1]", "/w/alice"),
        ("GET /healthz HTTP/1.1", "admin.localhost".to_owned(), "admin.localhost", "/healthz"),
        ("GET /nothing HTTP/1.1", "example.com".to_owned(), "example.com", "/nothing"),
        // On a workspace's host this is the workspace's own.
        (
            "POST /v1/check-in HTTP/1.1",
            "alice.localhost".to_owned(),
            "alice.localhost",
            "/v1/check-in",
        ),
    ];
    for (line, host, at, path) in rows {
        let reply =
            send(&gateway, format!("{line}\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(reply.status, 308, "{line}: {reply:?}");
        let location = format!("https://{at}:{port}{path}");
        assert_eq!(reply.header("location"), Some(location.as_str()), "{line}");
        assert!(reply.header("strict-transport-security").is_none());
    }
    // Who names no host is sent to the domain.
    let reply = send(&gateway, "GET /w/alice/ HTTP/1.0\r\n\r\n".to_owned()).await;
    let location = format!("https://localhost:{port}/w/alice/");
    assert_eq!((reply.status, reply.header("location")), (308, Some(location.as_str())));
    // What is no clear request is sent nowhere.
    let reply = send(&gateway, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned()).await;
    assert_eq!(reply.status, 400);
    assert_eq!(gateway.phase("alice"), Phase::Frozen, "a redirect has woken it");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_in_needs_no_https() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let authority = Authority::with(&["localhost"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.tls.redirect = true;
    })
    .await;
    let token = gateway.workspace("alice").blueprint().check_in.token.clone();
    let host = gateway.public();
    let reply = send(
        &gateway,
        format!("POST /v1/check-in?token={token}&active=1 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"),
    )
    .await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(gateway.workspace("alice").view().reports_activity);
    let near = format!(
        "POST /v1/check-in/?token={token} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(send(&gateway, near).await.status, 308);
    gateway.stop().await;
}

/// A gateway that is told of HTTPS by the proxy in front of it, or isn't.
async fn behind_a_proxy(origin: &Origin, trusted: bool) -> Gateway {
    Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.tls.redirect = true;
        config.tls.hsts = Duration::from_secs(3_600);
        config.routing.public_url =
            Some(PublicUrl { secure: true, domain: "example.com".to_owned(), port: 443 });
        if trusted {
            config.routing.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_by_https_to_a_trusted_proxy_is_not_redirected() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    for trusted in [true, false] {
        let gateway = behind_a_proxy(&origin, trusted).await;
        for (said, secure) in [("https", true), ("HTTPS, http", true), ("http", false), ("", false)]
        {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: alice.localhost\r\nX-Forwarded-Proto: {said}\r\n\r\n"
            );
            let reply = send(&gateway, request).await;
            if trusted && secure {
                assert_eq!(reply.status, 200, "{said}: {reply:?}");
                let hsts = reply.header("strict-transport-security");
                assert_eq!(hsts, Some("max-age=3600"));
            } else {
                assert_eq!(reply.status, 308, "{said}: {reply:?}");
                assert_eq!(reply.header("location"), Some("https://alice.localhost/"));
            }
        }
        let workspace = gateway.call("GET", "/workspaces/alice").await.json();
        assert_eq!(workspace["url"], "https://alice.example.com/");
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_are_told_to_come_by_https_only_over_https() {
    let origin = Origin::answering(|request| match request.path() {
        "/own" => {
            b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=7\r\nContent-Length: 0\r\n\r\n"
                .to_vec()
        }
        path => ok(path),
    })
    .await;
    let authority = Authority::with(&["alice.localhost", "localhost"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.tls.hsts = Duration::from_secs(180 * 24 * 60 * 60);
    })
    .await;
    assert_eq!(gateway.get("alice", "/").await.header("strict-transport-security"), None);
    let rows = [
        ("alice.localhost", "/", "max-age=15552000"),
        ("alice.localhost", "/own", "max-age=7"),
        // Our own words, too.
        ("localhost", "/nothing", "max-age=15552000"),
    ];
    for (host, path, expected) in rows {
        let mut client = Client::over(tls(&authority.client(&[]), gateway.tls(), host).await);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let reply = client.reply().await;
        assert_eq!(reply.header("strict-transport-security"), Some(expected), "{host}{path}");
    }
    let url = format!("https://alice.localhost:{}/", gateway.tls().port());
    assert_eq!(gateway.call("GET", "/workspaces/alice").await.json()["url"], url.as_str());
    gateway.stop().await;
}

async fn http2(stream: TlsStream<TcpStream>) -> Sender {
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn status(sender: &mut Sender, host: &str) -> StatusCode {
    let request = Request::get(format!("https://{host}/")).body(Empty::new()).unwrap();
    sender.send_request(request).await.unwrap().status()
}

fn three(config: &mut Config, origin: &Origin) {
    for id in ["alice", "bob", "carol"] {
        upstream(config, id, origin.address);
    }
    config.routing.domain = "dev.localhost".to_owned();
    config.routing.admin_host = Some("admin.test".to_owned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_for_the_hosts_of_its_certificate() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let authority = Authority::with(&["nobody.test"]);
    authority.certify("b", &["*.dev.localhost", "one.test"]);
    let gateway = Gateway::start(|config| {
        three(config, &origin);
        secure(config, &authority);
    })
    .await;
    let port = gateway.tls().port();
    let stream = tls(&authority.client(&["h2"]), gateway.tls(), "alice.dev.localhost").await;
    let mut sender = http2(stream).await;
    for id in ["alice", "bob", "carol"] {
        for host in [format!("{id}.dev.localhost"), format!("{id}.dev.localhost:{port}")] {
            assert_eq!(status(&mut sender, &host).await, StatusCode::OK, "{host}");
        }
    }
    // Covered, and nobody's.
    assert_eq!(status(&mut sender, "one.test").await, StatusCode::NOT_FOUND);
    origin.take();
    for host in ["admin.test", "nobody.test", "a.b.dev.localhost", "dev.localhost", "127.0.0.1"] {
        assert_eq!(status(&mut sender, host).await, StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
    assert!(origin.take().is_empty());
    // It goes on.
    assert_eq!(status(&mut sender, "bob.dev.localhost").await, StatusCode::OK);
    drop(sender);

    // The same in HTTP/1.
    let stream = tls(&authority.client(&["http/1.1"]), gateway.tls(), "one.test").await;
    let mut client = Client::over(stream);
    for (host, status) in [("bob.dev.localhost", 200), ("admin.test", 421), ("one.test", 404)] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.reply().await.status, status, "{host}");
    }

    // Who took the default certificate for the host that it named gets that host; and who named
    // none was promised none.
    for (server, hosts) in [
        ("admin.test", &[("admin.test", 200), ("bob.dev.localhost", 421)][..]),
        ("127.0.0.1", &[("admin.test", 200), ("bob.dev.localhost", 200)][..]),
    ] {
        let mut client = Client::over(tls(&gullible(), gateway.tls(), server).await);
        for (host, status) in hosts {
            client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(client.reply().await.status, *status, "{host} at {server}");
        }
    }
    assert_eq!(get(gateway.public(), "bob.dev.localhost", "/").await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_has_one_connection_for_all_hosts() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let authority = Authority::with(&["gateway.test"]);
    let gateway = Gateway::start(|config| {
        three(config, &origin);
        secure(config, &authority);
        config.routing.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
        config.tls.redirect = true;
    })
    .await;
    let mut sender =
        http2(tls(&authority.client(&["h2"]), gateway.tls(), "gateway.test").await).await;
    assert_eq!(status(&mut sender, "alice.dev.localhost").await, StatusCode::OK);
    // By TLS from there, and without it before.
    let request = Request::get("https://alice.dev.localhost/").header("x-forwarded-proto", "http");
    let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
    drop(sender);
    gateway.stop().await;
}

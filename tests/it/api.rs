//! The admin API as programs see it, and as those see it who should not.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use frostgate::model::{FreezeMode, Phase};

use crate::support::{Client, Gateway, Origin, PATIENCE, Reply, get, ok, process, until, upstream};

/// A call with these fields on top.
async fn call(address: std::net::SocketAddr, line: &str, fields: &str) -> Reply {
    call_over(Client::connect(address).await, line, fields).await
}

async fn call_over(mut client: Client, line: &str, fields: &str) -> Reply {
    client
        .send(format!(
            "{line} HTTP/1.1\r\nHost: admin.example\r\n{fields}Content-Length: 0\r\n\r\n"
        ))
        .await;
    client.reply().await
}

pub(crate) fn assert_problem(reply: &Reply, status: u16, what: &str) {
    assert_eq!(reply.status, status, "{what}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}");
    let document = reply.json();
    assert_eq!(document["status"], status, "{what}");
    for member in ["type", "title", "detail", "message", "error_code"] {
        assert!(document[member].is_string(), "{what}: no {member} in {document}");
    }
}

async fn both() -> (Gateway, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "fixed", origin.address);
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[]);
    })
    .await;
    (gateway, origin)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_of_the_moment() {
    let (gateway, _origin) = both().await;
    let mut inside = Client::connect(gateway.public()).await;
    inside.send("GET /wait?ms=60000 HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    until("alice is in use", || gateway.workspace("alice").view().inside == 1).await;
    let reply = call(gateway.admin(), "GET /metrics", "").await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)), "{reply:?}");
    let text = reply.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        &format!("frostgate_build_info{{version=\"{version}\"}} 1"),
        "frostgate_workspaces{phase=\"running\"} 2",
        "frostgate_workspaces{phase=\"frozen\"} 0",
        "frostgate_live_connections{kind=\"request\"} 1",
        "frostgate_live_connections{kind=\"tunnel\"} 0",
        "frostgate_held_requests 0",
        "frostgate_degraded{part=\"configuration\"} 0",
    ] {
        assert!(text.lines().any(|one| one == line), "no {line} in {text}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_token_opens_the_api() {
    let (gateway, _origin) = both().await;
    let token = gateway.token();
    let wrong = [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", &token[..token.len() - 1]),
        format!("Authorization: Bearer {token}0\r\n"),
        format!("Authorization: Bearer {}\r\n", token.to_uppercase()),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Token {token}\r\n"),
        format!("X-Authorization: Bearer {token}\r\n"),
        format!("Authorization: Bearer wrong\r\nAuthorization: Bearer {token}\r\n"),
        "Authorization: Bearer \u{fc}\r\n".to_owned(),
    ];
    let calls = [
        "GET /api/v1/workspaces",
        "GET /workspaces/alice",
        "PUT /api/v1/workspaces/alice/stop",
        "PUT /workspaces/alice/resume",
        "GET /workspaces/nobody",
    ];
    for (number, line) in calls.into_iter().enumerate() {
        // One address may fail that often before it is told to stop.
        let source = Ipv4Addr::new(127, 0, 1, number as u8);
        for fields in &wrong {
            let client = Client::connect_from(source, gateway.admin()).await;
            let reply = call_over(client, line, fields).await;
            assert_problem(&reply, 401, &format!("{line} with {fields:?}"));
            assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"));
            assert!(!reply.text().contains(&token));
        }
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let reply =
            call(gateway.admin(), calls[0], &format!("Authorization: {scheme} {token}\r\n")).await;
        assert_eq!(reply.status, 200, "{scheme}");
    }
    let mode = gateway.state_dir().join("token").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(gateway.state_dir().metadata().unwrap().permissions().mode() & 0o077, 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workspaces_are_listed_stopped_and_resumed_under_both_names() {
    let (gateway, _origin) = both().await;
    assert_eq!(gateway.get("fixed", "/").await.status, 200);
    for prefix in ["", "/api/v1"] {
        let list = gateway.call("GET", &format!("{prefix}/workspaces")).await;
        assert_eq!(list.status, 200);
        let ids: Vec<_> =
            list.json()["items"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
        assert_eq!(ids, ["alice", "fixed"]);
        let resumed = gateway.call("PUT", &format!("{prefix}/workspaces/alice/resume")).await;
        assert_eq!((resumed.status, resumed.json()["phase"].as_str()), (200, Some("running")));
        let again =
            gateway.call("PUT", &format!("{prefix}/workspaces/alice/resume?wait=true")).await;
        assert_eq!(again.status, 200);
        let one = gateway.call("GET", &format!("{prefix}/workspaces/alice")).await.json();
        assert_eq!(one["id"], "alice");
        assert_eq!(one["driver"], "process");
        assert!(one["url"].as_str().unwrap().starts_with("http://alice.localhost"));
        let stopped = gateway.call("PUT", &format!("{prefix}/workspaces/alice/stop")).await;
        assert_eq!((stopped.status, stopped.json()["phase"].as_str()), (200, Some("frozen")));
        let again = gateway.call("PUT", &format!("{prefix}/workspaces/alice/stop")).await;
        assert_eq!(again.status, 200);
        let at_once =
            gateway.call("PUT", &format!("{prefix}/workspaces/alice/resume?wait=false")).await;
        assert_eq!(at_once.status, 202);
        gateway.until("alice", Phase::Running).await;
        let at_once =
            gateway.call("PUT", &format!("{prefix}/workspaces/alice/stop?wait=false")).await;
        assert_eq!(at_once.status, 202);
        gateway.until("alice", Phase::Frozen).await;
        let fixed = gateway.call("PUT", &format!("{prefix}/workspaces/fixed/stop")).await;
        assert_problem(&fixed, 409, "a fixed upstream");
        let fixed =
            gateway.call("PUT", &format!("{prefix}/workspaces/fixed/stop?wait=false")).await;
        assert_problem(&fixed, 409, "a fixed upstream, without waiting");
        assert_eq!(gateway.phase("fixed"), Phase::Running);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_a_problem_document() {
    let (gateway, _origin) = both().await;
    let long = "a".repeat(5_000);
    let ids = [
        "nobody",
        "..%2f",
        "%2e%2e",
        "..",
        "ALICE",
        "alice.",
        "alice%00",
        "%ff%fe",
        "%zz",
        "%",
        "a%20b",
        "alice%2fstop",
        "alice%0d%0a",
        "<script>",
        &long,
    ];
    for id in ids {
        for line in [format!("GET /workspaces/{id}"), format!("PUT /api/v1/workspaces/{id}/stop")] {
            let token = format!("Authorization: Bearer {}\r\n", gateway.token());
            let reply = call(gateway.admin(), &line, &token).await;
            assert!(matches!(reply.status, 400 | 404), "{line}: {reply:?}");
            if reply.header("content-type").is_some() {
                assert_problem(&reply, reply.status, &line);
            }
        }
    }
    for path in [
        "/api",
        "/api/v1",
        "/workspaces/",
        "/workspaces/alice/",
        "/api/v2/workspaces",
        "/favicon.ico",
    ] {
        assert_problem(&gateway.call("GET", path).await, 404, path);
    }
    let wrong_methods = [
        ("PUT", "/workspaces"),
        ("DELETE", "/workspaces"),
        ("GET", "/workspaces/alice/stop"),
        ("POST", "/api/v1/workspaces/alice/resume"),
        ("GET", "/v1/check-in"),
        ("POST", "/healthz"),
    ];
    for (method, path) in wrong_methods {
        let reply = gateway.call(method, path).await;
        assert_problem(&reply, 405, &format!("{method} {path}"));
        assert!(reply.header("allow").is_some(), "{method} {path}: {reply:?}");
    }
    assert_problem(
        &gateway.call("PUT", "/workspaces/alice/stop?wait=maybe").await,
        400,
        "wait=maybe",
    );
    let health = get(gateway.admin(), "x", "/healthz").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("ok")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_listener_serves_the_api_at_its_own_host_alone() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.routing.admin_host = Some("admin.example".to_owned());
    })
    .await;
    let token = gateway.token();
    let ask = async |host: &str, path: &str| {
        let mut client = Client::connect(gateway.public()).await;
        let fields = format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n");
        client.send(format!("GET {path} HTTP/1.1\r\n{fields}\r\n")).await;
        client.reply().await
    };
    for host in ["localhost", "127.0.0.1", "example", "x.admin.example", "admin.example.x"] {
        for path in ["/workspaces", "/api/v1/workspaces/alice", "/healthz"] {
            assert_problem(&ask(host, path).await, 404, &format!("{host}{path}"));
        }
    }
    assert_eq!(ask("alice.localhost", "/workspaces").await.text(), "/workspaces");
    for host in ["admin.example", "ADMIN.example:80", "admin.example."] {
        assert_eq!(ask(host, "/workspaces").await.status, 200, "{host}");
    }
    // A page of a workspace must not be of one origin with the API.
    assert_problem(&ask("admin.example", "/w/alice/").await, 404, "a workspace at the API's host");
    assert_eq!(ask("localhost", "/w/alice/").await.text(), "/");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_requests_finish_within_the_grace_and_cuts_the_rest() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE, &[]);
        config.policy.drain_grace = Duration::from_millis(600);
    })
    .await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    let address = gateway.public();
    let short = tokio::spawn(get(address, "alice.localhost", "/wait?ms=200"));
    let long = tokio::spawn(get(address, "alice.localhost", "/wait?ms=30000"));
    until("both are inside", || gateway.workspace("alice").view().inside == 2).await;
    let stopped = gateway.call("PUT", "/workspaces/alice/stop").await;
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert_eq!(short.await.unwrap().status, 200);
    let cut = long.await.unwrap();
    assert_eq!(cut.status, 503, "it was sent again, and woke what was just stopped: {cut:?}");
    gateway.stop().await;
}

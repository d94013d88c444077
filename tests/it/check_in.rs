//! Check-ins: a workspace's own word of its activity, from whoever can be told to be that workspace.

use std::net::SocketAddr;

use frostgate::lifecycle::Workspace;

use crate::support::{Client, Gateway, Origin, Reply, ok, upstream};

async fn pair() -> (Gateway, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::before(&origin).await;
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    (gateway, origin)
}

fn token(workspace: &Workspace) -> String {
    workspace.blueprint().check_in.token.clone()
}

async fn post(address: SocketAddr, query: &str, kind: &str, body: &str) -> Reply {
    let mut client = Client::connect(address).await;
    let length = body.len();
    let fields = format!("Host: frostgate\r\n{kind}Content-Length: {length}\r\n");
    client.send(format!("POST /v1/check-in{query} HTTP/1.1\r\n{fields}\r\n{body}")).await;
    client.reply().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_may_be_written_in_many_ways() {
    let (gateway, _origin) = pair().await;
    let workspace = gateway.workspace("alice");
    let token = token(&workspace);
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
    const JSON: &str = "Content-Type: application/json\r\n";
    let ways = [
        ("", FORM, "active=@"),
        ("", FORM, "active-connections=@"),
        ("", FORM, "active_connections=@"),
        ("", FORM, "x=9&active=@&y=9"),
        ("", "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n", "active=@"),
        ("", "", "active=@"),
        ("", JSON, "{\"active\":@}"),
        ("", JSON, "{\"active\":\"@\"}"),
        ("", JSON, "{\"active-connections\": @, \"more\": [1, {\"x\": null}]}"),
        ("", "Content-Type: Application/JSON; charset=utf-8\r\n", "{\"active_connections\":@}"),
        ("&active=@", "", ""),
        ("&active-connections=@", "", ""),
        ("&active_connections=%20@", FORM, ""),
    ];
    let mut tried = 0;
    for (query, kind, body) in ways {
        for (value, active) in
            [("1", true), ("0", false), ("17", true), ("0.0", false), ("2.5", true), ("0", false)]
        {
            for address in [gateway.public(), gateway.admin()] {
                let query = format!("?token={token}{}", query.replace('@', value));
                let body = body.replace('@', value);
                let reply = post(address, &query, kind, &body).await;
                assert_eq!(reply.status, 200, "{kind}{query} {body}: {reply:?}");
                assert_eq!(workspace.view().reports_activity, active, "{kind}{query} {body}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 156);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_report_is_refused_and_changes_nothing() {
    let (gateway, _origin) = pair().await;
    let workspace = gateway.workspace("alice");
    let token = token(&workspace);
    let json = "Content-Type: application/json\r\n";
    let large = format!("active=1&x={}", "y".repeat(100_000));
    let cases = [
        ("", "", "", 400),
        ("", "", "inactive=1", 400),
        ("", "", "active=", 400),
        ("", json, "", 400),
        ("", json, "{}", 400),
        ("", json, "[1]", 400),
        ("", json, "{\"active\":", 400),
        ("", json, "null", 400),
        ("&active=", "", "", 400),
        ("", "", large.as_str(), 413),
    ];
    for (query, kind, body, status) in cases {
        let reply = post(gateway.public(), &format!("?token={token}{query}"), kind, body).await;
        let shown = format!("{kind}{query} {body:.40}: {reply:?}");
        assert_eq!(reply.status, status, "{shown}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{shown}");
        assert!(!workspace.view().reports_activity, "{shown}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_sender_is_told_so_and_nothing_else() {
    let (gateway, _origin) = pair().await;
    let workspace = gateway.workspace("alice");
    let token = token(&workspace);
    let other = token.replace("alice", "bob");
    let queries = [
        String::new(),
        "?token=".to_owned(),
        "?token=wrong".to_owned(),
        format!("?token={}", &token[..token.len() - 1]),
        format!("?token={token}0"),
        format!("?token={other}x"),
        format!("?Token={token}"),
        "?token=%00".to_owned(),
        format!("?token={}", "a".repeat(5_000)),
        format!("?token=wrong&token={token}"),
    ];
    for query in queries {
        let reply = post(gateway.public(), &query, "", "active=1").await;
        assert_eq!(reply.status, 404, "{query}: {reply:?}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert!(!reply.text().contains(&token));
        assert!(!workspace.view().reports_activity, "{query}");
    }
    // To a workspace's host it is an ordinary request, for that workspace.
    let mut client = Client::connect(gateway.public()).await;
    client
        .send("POST /v1/check-in HTTP/1.1\r\nHost: alice.localhost\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.reply().await.text(), "/v1/check-in");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forwarded_address_is_believed_from_trusted_proxies_alone() {
    for trusted in [false, true] {
        let origin = Origin::answering(|request| ok(request.path())).await;
        let gateway = Gateway::start(|config| {
            upstream(config, "alice", origin.address);
            if trusted {
                config.routing.trusted_proxies = vec!["127.0.0.1/32".parse().unwrap()];
            }
        })
        .await;
        // No workspace of this test has an address of its own, so what is told apart is only that
        // nobody is found, whatever is said.
        for said in ["10.0.0.9", "127.0.0.1", "::1, 10.0.0.9", "nonsense", "", "10.0.0.9, nonsense"]
        {
            let fields = format!(
                "X-Forwarded-For: {said}\r\nForwarded: for={said}\r\nX-Real-IP: {said}\r\n"
            );
            let reply = post(gateway.public(), "", &fields, "active=1").await;
            assert_eq!(reply.status, 404, "{said}");
        }
        gateway.stop().await;
    }
}

//! The API's description: what is served is what is stored, and what it promises holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::api::assert_problem;
use crate::support::{Client, Gateway, get};

const STORED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/openapi.json");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_is_what_is_served() {
    let gateway = Gateway::start(|_| {}).await;
    let served = get(gateway.admin(), "admin", "/openapi.json").await;
    assert_eq!((served.status, served.header("content-type")), (200, Some("application/json")));
    if std::env::var_os("FROSTGATE_BLESS").is_some() {
        std::fs::create_dir_all(Path::new(STORED).parent().unwrap()).unwrap();
        std::fs::write(STORED, &served.body).unwrap();
    }
    let stored = std::fs::read_to_string(STORED).unwrap_or_default();
    let served_text = served.text();
    let first = stored.lines().zip(served_text.lines()).find(|(stored, served)| stored != served);
    assert!(
        stored == served_text,
        "run FROSTGATE_BLESS=1 cargo test reference; the first difference: {first:#?}"
    );
    let again = get(gateway.admin(), "admin", "/api/v1/openapi.json").await;
    assert_eq!(again.body, served.body);
    gateway.stop().await;
}

/// Every call that the document has: its method, its path, and what it says of it.
async fn calls(gateway: &Gateway) -> Vec<(String, String, Value)> {
    let document = get(gateway.admin(), "admin", "/openapi.json").await.json();
    let mut calls = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, call) in methods.as_object().unwrap() {
            calls.push((method.to_uppercase(), path.clone(), call.clone()));
        }
    }
    assert!(calls.len() > 20, "{} calls are described", calls.len());
    calls
}

/// A path with nobody's id or name in it.
fn filled_in(path: &str) -> String {
    path.replace("{id}", "nobody").replace("{name}", "nobody")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_described_is_served_and_to_whom_it_says() {
    let gateway = Gateway::start(|_| {}).await;
    let read = "{\"name\":\"reader\",\"scope\":\"read\"}";
    let made = gateway.send("POST /api/v1/tokens", "application/json", read).await;
    let token = made.json()["token"].as_str().unwrap().to_owned();
    for (method, path, call) in calls(&gateway).await {
        let what = format!("{method} {path}");
        let ask = async |fields: &str| {
            let mut client = Client::connect(gateway.admin()).await;
            let head = format!("{method} {} HTTP/1.1\r\nHost: admin\r\n", filled_in(&path));
            client.send(format!("{head}{fields}Content-Length: 0\r\n\r\n")).await;
            // Some answers do not end.
            let head = client.head().await;
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
        };
        let needs_token = call["security"].is_array();
        assert_eq!(ask("").await == 401, needs_token, "{what} without a token");
        assert_eq!(call["responses"]["401"].is_object(), needs_token, "{what}");
        let status: u16 = ask(&format!("Authorization: Bearer {token}\r\n")).await;
        assert!(call["responses"][status.to_string()].is_object(), "{what}: {status}");
        assert_eq!(status == 403, call["responses"]["403"].is_object(), "{what}: {status}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_is_told_by_which_methods_there_is_a_call() {
    let gateway = Gateway::start(|_| {}).await;
    let mut methods: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (method, path, _) in calls(&gateway).await {
        let of_path = methods.entry(path).or_default();
        if method == "GET" {
            of_path.insert("HEAD".to_owned());
        }
        of_path.insert(method);
    }
    for (path, described) in methods {
        // Nobody needs a token for that.
        for (method, expected) in [("OPTIONS", 204), ("TRACE", 405), ("BREW", 405)] {
            let mut client = Client::connect(gateway.admin()).await;
            let path = filled_in(&path);
            client.send(format!("{method} {path} HTTP/1.1\r\nHost: admin\r\n\r\n")).await;
            let reply = client.reply().await;
            assert_eq!(reply.status, expected, "{method} {path}");
            let allowed = reply.header("allow").unwrap_or_default().split(',');
            let allowed: BTreeSet<_> = allowed.map(|method| method.trim().to_owned()).collect();
            assert_eq!(allowed, described, "{method} {path}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_is_that_of_the_get() {
    let gateway = Gateway::start(|_| {}).await;
    let token = gateway.token();
    let mut asked = 0;
    for (method, path, _) in calls(&gateway).await {
        if method != "GET" {
            continue;
        }
        let mut client = Client::connect(gateway.admin()).await;
        let fields = format!("Host: admin\r\nAuthorization: Bearer {token}\r\n\r\n");
        let path = filled_in(&path);
        client.send(format!("HEAD {path} HTTP/1.1\r\n{fields}")).await;
        let head = client.head().await;
        client.send(format!("GET {path} HTTP/1.1\r\n{fields}")).await;
        if head.contains("text/event-stream") {
            // It does not end.
            assert!(client.head().await.contains("text/event-stream"), "{path}");
            continue;
        }
        let get = client.reply().await;
        let same = |head: &str| -> Vec<String> {
            head.lines().filter(|line| !line.starts_with("date:")).map(str::to_owned).collect()
        };
        assert_eq!(same(&head), same(&get.head), "{path}");
        assert!(get.complete && get.body.ends_with(b"\n"), "{path}");
        asked += 1;
    }
    assert!(asked > 10, "{asked} calls were asked");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_an_unknown_kind_is_refused_by_every_call_that_reads_one() {
    let gateway = Gateway::start(|_| {}).await;
    let mut asked = 0;
    for (method, path, call) in calls(&gateway).await {
        let Some(kinds) = call["requestBody"]["content"].as_object() else { continue };
        let path = filled_in(&path);
        let reply = gateway.send(&format!("{method} {path}"), "text/plain", "x=1").await;
        assert_problem(&reply, 415, &path);
        for kind in kinds.keys() {
            assert!(reply.json()["message"].as_str().unwrap().contains(kind), "{reply:?}");
        }
        let empty = gateway.send(&format!("{method} {path}"), "text/plain", "").await;
        assert_ne!(empty.status, 415, "{method} {path}");
        asked += 1;
    }
    assert!(asked > 5, "{asked} calls were asked");
    gateway.stop().await;
}

//! Tokens: what each opens, how they are made, changed and revoked, and where they must never be.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use frostgate::config::Config;
use frostgate::model::{FreezeMode, Phase};
use frostgate::token::{Grant, Scope, TokenHash, TokenName};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::api::assert_problem;
use crate::http2::{END_HEADERS, END_STREAM, HEADERS, fields, frame, outcome_at};
use crate::support::{
    Client, Gateway, Origin, PATIENCE, Program, Reply, config, get, local_process, ok, process,
    project, unique_state_dir, upstream,
};

const TOKENS: &str = "/api/v1/tokens";

/// A call with these fields and that body, from an address of its own.
async fn call_from(
    source: Ipv4Addr,
    address: SocketAddr,
    line: &str,
    fields: &str,
    body: &str,
) -> Reply {
    let mut client = match source {
        Ipv4Addr::LOCALHOST => Client::connect(address).await,
        source => Client::connect_from(source, address).await,
    };
    let length = body.len();
    client
        .send(format!(
            "{line} HTTP/1.1\r\nHost: admin.example\r\n{fields}Content-Length: {length}\r\n\r\n\
             {body}"
        ))
        .await;
    client.reply().await
}

async fn call(gateway: &Gateway, line: &str, token: &str, body: &str) -> Reply {
    let fields = format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\n");
    call_from(Ipv4Addr::LOCALHOST, gateway.admin(), line, &fields, body).await
}

/// Whether a token opens the API.
async fn opens(gateway: &Gateway, token: &str) -> bool {
    let reply = call(gateway, "GET /api/v1/test", token, "").await;
    assert!(matches!(reply.status, 200 | 401 | 429), "{reply:?}");
    reply.status == 200
}

/// Makes a token and tells it.
async fn made(gateway: &Gateway, fields: Value) -> String {
    let line = format!("POST {TOKENS}");
    let reply = call(gateway, &line, &gateway.token(), &fields.to_string()).await;
    assert_eq!(reply.status, 201, "{fields}: {reply:?}");
    reply.json()["token"].as_str().unwrap().to_owned()
}

/// `alice` is of the project `mine`, `carol` of `theirs`, `bob` of none.
fn of_three_owners(config: &mut Config) {
    project(config, "mine", local_process());
    project(config, "theirs", local_process());
    process(config, "bob", FreezeMode::Stop, PATIENCE, &[]);
}

async fn create(gateway: &Gateway, id: &str, project: &str) {
    let fields = json!({ "id": id, "project_id": project, "max_inactive_storage_time": 60 });
    let line = "POST /api/v1/workspaces";
    let reply = call(gateway, line, &gateway.token(), &fields.to_string()).await;
    assert_eq!(reply.status, 201, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_scope_opens_its_own_calls_and_no_others() {
    let gateway = Gateway::start(of_three_owners).await;
    create(&gateway, "alice", "mine").await;
    create(&gateway, "carol", "theirs").await;
    let admin = made(&gateway, json!({ "name": "an-admin", "scope": "admin" })).await;
    let read = made(&gateway, json!({ "name": "a-reader", "scope": "read" })).await;
    let projects = made(&gateway, json!({ "name": "an-owner", "projects": ["mine"] })).await;
    let mine = "{\"id\":\"dave\",\"project_id\":\"mine\",\"max_inactive_storage_time\":60}";
    let theirs = "{\"project_id\":\"theirs\"}";
    let own_spec = "{\"spec\":{\"image\":\"x\"}}";
    // What whoever has `projects`, `read` and `admin` is answered, in this order.
    let rows = [
        ("GET /api/v1/test", "", [200, 200, 200]),
        ("GET /api/v1/stats", "", [200, 200, 200]),
        ("GET /api/v1/projects", "", [200, 200, 200]),
        ("GET /api/v1/workspaces", "", [200, 200, 200]),
        ("GET /workspaces/alice", "", [200, 200, 200]),
        ("GET /api/v1/workspaces/alice/activity", "", [200, 200, 200]),
        ("GET /workspaces/bob", "", [404, 200, 200]),
        ("GET /workspaces/bob/activity", "", [404, 200, 200]),
        ("GET /api/v1/workspaces/carol", "", [404, 200, 200]),
        ("GET /workspaces/nobody", "", [404, 404, 404]),
        ("PATCH /workspaces/alice", "{\"hold_max\":1}", [200, 403, 200]),
        ("PATCH /workspaces/carol", "{\"hold_max\":1}", [404, 403, 200]),
        ("PUT /workspaces/alice/stop", "", [200, 403, 200]),
        ("PUT /workspaces/alice/resume", "", [200, 403, 200]),
        ("PUT /api/v1/workspaces/bob/stop", "", [404, 403, 200]),
        ("PUT /workspaces/carol/resume", "", [404, 403, 200]),
        ("GET /v1/images", "", [200, 200, 200]),
        ("GET /v1/containers?audit=true", "", [200, 200, 200]),
        ("GET /v1/containers/alice", "", [200, 200, 200]),
        ("GET /v1/containers/carol", "", [404, 200, 200]),
        ("PATCH /v1/containers/alice", "{\"status\":\"running\"}", [200, 403, 200]),
        ("PATCH /v1/containers/carol", "{\"status\":\"running\"}", [404, 403, 200]),
        ("POST /v1/containers", "{\"image\":\"x\"}", [403, 403, 403]),
        ("DELETE /v1/containers/bob", "", [404, 403, 204]),
        // The third is told that the second has taken the id.
        ("POST /api/v1/workspaces", mine, [201, 403, 409]),
        ("POST /workspaces", theirs, [422, 403, 201]),
        // Which the configuration allows nobody.
        ("POST /workspaces", own_spec, [403, 403, 403]),
        ("PUT /workspaces/carol/remove", "", [404, 403, 200]),
        ("DELETE /workspaces/bob", "", [404, 403, 404]),
        ("DELETE /api/v1/workspaces/alice", "", [204, 403, 404]),
        ("GET /api/v1/tokens", "", [403, 403, 200]),
        ("POST /api/v1/tokens", "{}", [403, 403, 400]),
        ("POST /api/v1/tokens/nobody/rotate", "", [403, 403, 404]),
        ("DELETE /api/v1/tokens/nobody", "", [403, 403, 404]),
    ];
    for (number, (line, body, expected)) in rows.into_iter().enumerate() {
        for wrong in ["", "Authorization: Bearer wrong\r\n"] {
            let source = Ipv4Addr::new(127, 0, 2, number as u8);
            let reply = call_from(source, gateway.admin(), line, wrong, body).await;
            assert_eq!(reply.status, 401, "{line} with {wrong:?}");
        }
        for (token, expected) in [&projects, &read, &admin].into_iter().zip(expected) {
            let reply = call(&gateway, line, token, body).await;
            let what = format!("{line} {body} with the token of {expected}");
            assert_eq!(reply.status, expected, "{what}: {reply:?}");
            if expected >= 400 {
                assert_problem(&reply, expected, &what);
            }
            let is_forbidden = reply.text().contains("\"error_code\":\"forbidden\"");
            assert_eq!(is_forbidden, expected == 403, "{what}: {reply:?}");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_projects_sees_nothing_of_the_others() {
    let gateway = Gateway::start(of_three_owners).await;
    create(&gateway, "alice", "mine").await;
    create(&gateway, "carol", "theirs").await;
    let token = made(&gateway, json!({ "name": "owner", "scope": "projects", "projects": "mine" }));
    let token = token.await;
    let see = async |path: &str| call(&gateway, &format!("GET {path}"), &token, "").await;
    let ids = async |path: &str| -> Vec<Value> {
        let list = see(path).await.json();
        list["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect()
    };
    assert_eq!(ids("/api/v1/workspaces").await, ["alice"]);
    assert_eq!(ids("/workspaces?project_id=theirs").await, Vec::<Value>::new());
    assert_eq!(ids("/workspaces?limit=1").await, ["alice"]);
    let paging = see("/workspaces?limit=1").await.json()["paging"].clone();
    assert_eq!(paging, json!({ "next_page_token": null }), "there is no other page");
    assert_eq!(ids("/api/v1/projects").await, ["mine"]);
    let containers = see("/v1/containers").await.json();
    let names: Vec<_> = containers.as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["/alice"]);
    let missing = see("/workspaces/nobody").await;
    assert_eq!(missing.status, 404);
    for hidden in ["bob", "carol"] {
        let reply = see(&format!("/workspaces/{hidden}")).await;
        assert_eq!(reply.status, 404);
        assert_eq!(reply.text(), missing.text().replace("nobody", hidden));
    }
    // What an id stood for before is not told either.
    assert_eq!(gateway.call("DELETE", "/workspaces/carol").await.status, 204);
    create(&gateway, "carol", "mine").await;
    gateway.until("carol", Phase::Running).await;
    let lines = async |token: &str| {
        let activity = call(&gateway, "GET /workspaces/carol/activity", token, "").await.json();
        activity["journal"].as_array().unwrap().len()
    };
    let (all, own) = (lines(&gateway.token()).await, lines(&token).await);
    assert!(own == 2 && all > own, "{own} of {all} lines");
    let foreign = call(&gateway, "POST /workspaces", &token, "{\"project_id\":\"theirs\"}").await;
    let unknown = call(&gateway, "POST /workspaces", &token, "{\"project_id\":\"nowhere\"}").await;
    assert_eq!(foreign.status, 422);
    assert_eq!(foreign.text(), unknown.text().replace("nowhere", "theirs"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_made_listed_rotated_and_revoked_and_all_of_it_counts_at_once() {
    let gateway = Gateway::start(|_| {}).await;
    let admin = gateway.token();
    let post = async |kind: &str, body: &str| {
        let fields = format!("Authorization: Bearer {admin}\r\nContent-Type: {kind}\r\n");
        let line = format!("POST {TOKENS}");
        call_from(Ipv4Addr::LOCALHOST, gateway.admin(), &line, &fields, body).await
    };
    let multipart = "--x\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nthree\r\n\
                     --x\r\nContent-Disposition: form-data; name=\"projects[]\"\r\n\r\nb\r\n\
                     --x\r\nContent-Disposition: form-data; name=\"projects[]\"\r\n\r\na\r\n--x--\r\n";
    let rows = [
        ("application/json", "{\"name\":\"one\",\"scope\":\"read\"}"),
        ("application/x-www-form-urlencoded", "name=two&scope=projects&projects=b,a"),
        ("multipart/form-data; boundary=x", multipart),
    ];
    let mut tokens = Vec::new();
    for (kind, body) in rows {
        let reply = post(kind, body).await;
        assert_eq!(reply.status, 201, "{kind}: {reply:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        let token = reply.json()["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("frostgate_") && token.len() == 53, "{token}");
        assert!(opens(&gateway, &token).await);
        tokens.push(token);
    }
    let list = gateway.call("GET", TOKENS).await;
    let items = list.json()["items"].clone();
    let shown: Vec<_> = items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            assert!(item["created_at"].as_str().unwrap().ends_with('Z'), "{item}");
            (
                item["name"].clone(),
                item["scope"].clone(),
                item["projects"].clone(),
                item["source"].clone(),
            )
        })
        .collect();
    let both = json!(["a", "b"]);
    let row = |name: &str, scope: &str, projects: Value, source: &str| {
        (json!(name), json!(scope), projects, json!(source))
    };
    assert_eq!(
        shown,
        [
            row("admin", "admin", Value::Null, "file"),
            row("one", "read", Value::Null, "api"),
            row("three", "projects", both.clone(), "api"),
            row("two", "projects", both, "api"),
        ]
    );
    for token in tokens.iter().chain([&admin]) {
        let hash = TokenHash::of(token).to_string();
        assert!(!list.text().contains(token) && !list.text().contains(&hash[7..]));
    }

    let rotated = gateway.call("POST", &format!("{TOKENS}/one/rotate")).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    assert_eq!(
        (&rotated.json()["name"], &rotated.json()["scope"]),
        (&json!("one"), &json!("read"))
    );
    let fresh = rotated.json()["token"].as_str().unwrap().to_owned();
    assert!(opens(&gateway, &fresh).await && !opens(&gateway, &tokens[0]).await);
    assert_eq!(gateway.call("DELETE", &format!("{TOKENS}/one")).await.status, 204);
    assert!(!opens(&gateway, &fresh).await);
    assert!(opens(&gateway, &tokens[1]).await, "another was revoked too");

    let wrong = [
        ("{\"name\":\"two\",\"scope\":\"read\"}", 409, "two"),
        ("{\"name\":\"admin\",\"scope\":\"read\"}", 409, "admin"),
        ("{\"scope\":\"read\"}", 400, "name"),
        ("{\"name\":\"Not A Name\",\"scope\":\"read\"}", 400, "name"),
        ("{\"name\":\"x\"}", 400, "scope"),
        ("{\"name\":\"x\",\"scope\":\"root\"}", 400, "scope"),
        ("{\"name\":\"x\",\"scope\":\"admin\",\"projects\":[\"a\"]}", 400, "projects"),
        ("{\"name\":\"x\",\"scope\":\"admin\",\"project\":\"a\"}", 400, "project"),
        ("{\"name\":\"x\",\"projects\":[1]}", 400, "projects"),
    ];
    for (body, status, named) in wrong {
        let reply = post("application/json", body).await;
        assert_problem(&reply, status, body);
        assert!(reply.json()["message"].as_str().unwrap().contains(named), "{reply:?}");
    }
    for (method, path, status) in [
        ("DELETE", "one", 404),
        ("POST", "one/rotate", 404),
        ("DELETE", "Not%20A%20Name", 404),
        ("DELETE", "%ff", 400),
        ("DELETE", "admin", 409),
    ] {
        let reply = gateway.call(method, &format!("{TOKENS}/{path}")).await;
        assert_problem(&reply, status, path);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_outlive_a_crash_and_revoked_ones_do_not_come_back() {
    let gateway = Gateway::start(|_| {}).await;
    let admin = gateway.token();
    let kept = made(&gateway, json!({ "name": "kept", "projects": ["a"] })).await;
    let revoked = made(&gateway, json!({ "name": "revoked", "scope": "admin" })).await;
    let rotated = made(&gateway, json!({ "name": "rotated", "scope": "read" })).await;
    assert_eq!(gateway.call("DELETE", &format!("{TOKENS}/revoked")).await.status, 204);
    let again = gateway.call("POST", &format!("{TOKENS}/rotated/rotate")).await.json();
    let before = gateway.call("GET", TOKENS).await.json();
    let gateway = Gateway::start_as(config(gateway.crash().await)).await;
    assert!(
        opens(&gateway, &kept).await && opens(&gateway, again["token"].as_str().unwrap()).await
    );
    assert!(!opens(&gateway, &revoked).await && !opens(&gateway, &rotated).await);
    assert_eq!(gateway.token(), admin);
    assert_eq!(gateway.call("GET", TOKENS).await.json(), before);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_the_configuration_count_and_can_not_be_changed_by_calls() {
    let state_dir = unique_state_dir();
    let name = TokenName::parse("ci").unwrap();
    let gateway = Gateway::start_as(config(state_dir.clone())).await;
    let stored = made(&gateway, json!({ "name": "ci", "scope": "admin" })).await;
    let other = made(&gateway, json!({ "name": "other", "scope": "admin" })).await;
    gateway.crash().await;

    let configured = "a token of the operator's own making";
    let mut changed = config(state_dir.clone());
    let grant = Grant { hash: TokenHash::of(configured), scope: Scope::Read };
    changed.tokens.insert(name, grant);
    let gateway = Gateway::start_as(changed).await;
    assert!(opens(&gateway, configured).await);
    assert!(!opens(&gateway, &stored).await, "there are two of one name");
    let line = format!("POST {TOKENS}");
    for (line, body) in [
        (line.as_str(), "{\"name\":\"ci\",\"scope\":\"admin\"}"),
        ("POST /api/v1/tokens/ci/rotate", ""),
        ("DELETE /api/v1/tokens/ci", ""),
    ] {
        assert_problem(&call(&gateway, line, &other, body).await, 409, line);
    }
    assert_eq!(call(&gateway, "GET /api/v1/tokens", configured, "").await.status, 403);
    let list = gateway.call("GET", TOKENS).await.json();
    let ci = list["items"].as_array().unwrap().iter().find(|item| item["name"] == "ci").unwrap();
    let expected = json!({ "name": "ci", "scope": "read", "projects": null, "created_at": null,
                           "source": "config" });
    assert_eq!(*ci, expected);
    gateway.crash().await;

    let gateway = Gateway::start_as(config(state_dir)).await;
    assert!(!opens(&gateway, configured).await && opens(&gateway, &stored).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_in_the_state_directory_is_followed_and_rotated() {
    let gateway = Gateway::start(|_| {}).await;
    let file = gateway.state_dir().join("token");
    let first = gateway.token();
    let spare = made(&gateway, json!({ "name": "spare", "scope": "admin" })).await;
    let until_it_opens = async |token: &str, expected: bool| {
        let deadline = Instant::now() + PATIENCE;
        while opens(&gateway, token).await != expected {
            assert!(Instant::now() < deadline, "waited in vain until {token} opens: {expected}");
            sleep(Duration::from_millis(200)).await;
        }
    };
    // Replaced, and written over in place.
    let aside = gateway.state_dir().join("another");
    let second = "a second token, of an operator's own";
    std::fs::write(&aside, second).unwrap();
    std::fs::rename(&aside, &file).unwrap();
    until_it_opens(second, true).await;
    assert!(!opens(&gateway, &first).await);
    let third = second.replace("second", "worse3");
    std::fs::write(&file, &third).unwrap();
    until_it_opens(&third, true).await;
    assert!(!opens(&gateway, second).await);
    // Cut off, and gone: whatever was there counts no longer.
    std::fs::write(&file, &third[..20]).unwrap();
    until_it_opens(&third, false).await;
    assert!(!opens(&gateway, &third[..20]).await, "half a token opens");
    std::fs::write(&file, &third).unwrap();
    until_it_opens(&third, true).await;
    std::fs::remove_file(&file).unwrap();
    until_it_opens(&third, false).await;

    let line = format!("POST {TOKENS}/admin/rotate");
    let reply = call(&gateway, &line, &spare, "").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let fourth = reply.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.token(), fourth);
    assert!(opens(&gateway, &fourth).await && !opens(&gateway, &third).await);
    // It may rotate itself.
    let fifth = call(&gateway, &line, &fourth, "").await.json()["token"].clone();
    assert!(opens(&gateway, fifth.as_str().unwrap()).await && !opens(&gateway, &fourth).await);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_are_limited_and_right_ones_never_are() {
    let gateway = Gateway::start(|_| {}).await;
    let noisy = Ipv4Addr::new(127, 0, 3, 1);
    let try_with = async |source: Ipv4Addr, fields: String| {
        call_from(source, gateway.admin(), "GET /api/v1/test", &fields, "").await
    };
    let mut statuses = Vec::new();
    for number in 0..50 {
        // One window of a minute has ended in between at most, however slow the day is.
        let reply = try_with(noisy, format!("Authorization: Bearer wrong-{number}\r\n")).await;
        if reply.status == 429 {
            assert_problem(&reply, 429, "too many");
            assert_eq!(reply.json()["error_code"], "too_many_failures");
            let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=61).contains(&seconds), "{seconds}");
        }
        statuses.push(reply.status);
    }
    assert_eq!(statuses[..20], [401; 20], "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    let right = format!("Authorization: Bearer {}\r\n", gateway.token());
    assert_eq!(try_with(noisy, right).await.status, 200, "locked out by a neighbour");
    // To ask without a token is no failure: it is how browsers begin.
    assert_eq!(try_with(noisy, String::new()).await.status, 401);
    let quiet = Ipv4Addr::new(127, 0, 3, 2);
    let wrong = "Authorization: Bearer wrong\r\n".to_owned();
    assert_eq!(try_with(quiet, wrong).await.status, 401, "others are limited as well");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_told_in_the_same_words_every_time() {
    let gateway = Gateway::start(|_| {}).await;
    let read = made(&gateway, json!({ "name": "reader", "scope": "read" })).await;
    let source = Ipv4Addr::new(127, 0, 4, 1);
    let say = async |line: &str, fields: &str| {
        let reply = call_from(source, gateway.admin(), line, fields, "").await;
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        let mut document = reply.json();
        assert_eq!(document["message"], document["detail"]);
        assert_eq!(document["status"], reply.status);
        document.as_object_mut().unwrap().retain(|member, _| member != "detail");
        document
    };
    let wrong = "Authorization: Bearer wrong\r\n";
    let unauthorized = json!({
        "type": "about:blank", "title": "Unauthorized", "status": 401,
        "message": "send a token as \"Authorization: Bearer <token>\"",
        "error_code": "unauthorized",
    });
    assert_eq!(say("GET /api/v1/test", "").await, unauthorized);
    assert_eq!(say("GET /api/v1/test", wrong).await, unauthorized);
    assert_eq!(say("PUT /workspaces/nobody/stop", wrong).await, unauthorized);
    let read = format!("Authorization: Bearer {read}\r\n");
    assert_eq!(
        say("GET /api/v1/tokens", &read).await,
        json!({
            "type": "about:blank", "title": "Forbidden", "status": 403,
            "message": "this call needs a token of the scope \"admin\"; the token \"reader\" has the \
                        scope \"read\"",
            "error_code": "forbidden",
        })
    );
    assert_eq!(
        say("PUT /workspaces/nobody/stop", &read).await["message"],
        "this call needs a token of the scope \"admin\", or \"projects\" with the workspace's own; \
         the token \"reader\" has the scope \"read\""
    );
    assert_eq!(
        say("GET /workspaces/nobody", &read).await,
        json!({
            "type": "about:blank", "title": "Not Found", "status": 404,
            "message": "there is no workspace \"nobody\"",
            "error_code": "unknown_workspace",
        })
    );
    let limited = json!({
        "type": "about:blank", "title": "Too Many Requests", "status": 429,
        "message": "too many wrong tokens were sent; a right one is accepted at any time",
        "error_code": "too_many_failures",
    });
    let deadline = Instant::now() + PATIENCE;
    while say("GET /api/v1/test", wrong).await != limited {
        assert!(Instant::now() < deadline, "it is never too many");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_may_be_anybodys_and_is_not_for_other_sites_pages() {
    let gateway = Gateway::start(|_| {}).await;
    let token = gateway.token();
    let basic = |user: &str, password: &str| {
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        format!("Authorization: Basic {credentials}\r\n")
    };
    let ask = async |line: &str, fields: &str| {
        call_from(Ipv4Addr::LOCALHOST, gateway.admin(), line, fields, "").await
    };
    for user in ["admin", "", "somebody"] {
        assert_eq!(ask("GET /api/v1/test", &basic(user, &token)).await.status, 200, "{user}");
    }
    // Who came with a password, or with nothing, may ask a person for one.
    for (fields, ways) in [
        (String::new(), 2),
        (basic("admin", "wrong"), 2),
        ("Authorization: Bearer wrong\r\n".to_owned(), 1),
    ] {
        let reply = ask("GET /api/v1/test", &fields).await;
        let offered: Vec<_> =
            reply.head.lines().filter(|line| line.starts_with("www-authenticate: ")).collect();
        assert_eq!((reply.status, offered.len()), (401, ways), "{reply:?}");
        assert_eq!(offered[0], "www-authenticate: Bearer realm=\"frostgate\"");
        let second = "www-authenticate: Basic realm=\"frostgate\", charset=\"UTF-8\"";
        assert!(offered.get(1).is_none_or(|offer| *offer == second), "{offered:?}");
    }
    let rotate = format!("POST {TOKENS}/admin/rotate");
    for page in [
        "Origin: http://alice.localhost:8080\r\n",
        "Origin: null\r\n",
        "Origin: http://admin.example\r\nSec-Fetch-Site: same-site\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        let reply = ask(&rotate, &format!("{}{page}", basic("admin", &token))).await;
        assert_problem(&reply, 403, page);
        assert_eq!(gateway.token(), token, "{page}");
        // A bearer is nothing that a browser adds by itself.
        let bearer = format!("Authorization: Bearer {token}\r\n{page}");
        assert_eq!(ask("POST /api/v1/tokens/nobody/rotate", &bearer).await.status, 404, "{page}");
    }
    let own = "Origin: http://admin.example\r\n";
    assert_eq!(ask(&rotate, &format!("{}{own}", basic("admin", &token))).await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_users_own_access_token_is_passed_on_and_the_apis_never_is() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        config.routing.admin_host = Some("admin.example".to_owned());
    })
    .await;
    let own = "/page?access_token=of-the-workspace&a=%20b";
    assert_eq!(gateway.get("alice", own).await.text(), own);
    assert_eq!(get(gateway.public(), "localhost", &format!("/w/alice{own}")).await.text(), own);
    origin.take();
    let token = gateway.token();
    for (path, status) in [
        ("/api/v1/workspaces?limit=5&", 200),
        ("/workspaces/alice?", 200),
        ("/workspaces/nobody?", 404),
        ("/w/alice/?", 404),
        ("/w/alice?", 404),
        ("/page?", 404),
        // The dashboard, which everybody may load.
        ("/?", 200),
    ] {
        let target = format!("{path}access_token={token}");
        for address in [gateway.public(), gateway.admin()] {
            let reply = get(address, "admin.example", &target).await;
            assert_eq!(reply.status, status, "{path}: {reply:?}");
            assert!(!format!("{}{}", reply.head, reply.text()).contains(&token), "{reply:?}");
            assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{reply:?}");
        }
    }
    let received = origin.take();
    assert!(received.is_empty(), "{received:?}");
    gateway.stop().await;
}

/// The status of a GET over HTTP/2; `None`: it was answered by no response.
async fn get_by_http2(address: SocketAddr, host: &str, path: &str, token: &str) -> Option<u16> {
    let stream = TcpStream::connect(address).await.unwrap();
    let io = TokioIo::new(stream);
    let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (mut sender, connection) = connected.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{host}{path}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    response.into_body().collect().await.ok()?;
    Some(status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_is_in_anything_that_the_program_prints() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let more = "[routing]\nadmin_host = \"admin.example\"\n";
    // Whatever somebody asks for, and however insistently.
    let talkative = "export FROSTGATE_LOG=trace,h2=trace,h2::server=trace,hyper::proto=trace;";
    let program = Program::start_with(&origin, talkative, more).await;
    let admin = program.token();
    let source = Ipv4Addr::LOCALHOST;
    let bearer = format!("Authorization: Bearer {admin}\r\n");
    let form = format!("{bearer}Content-Type: application/x-www-form-urlencoded\r\n");
    let line = format!("POST {TOKENS}");
    let made = call_from(source, program.admin, &line, &form, "name=ci&scope=admin").await;
    let made = made.json()["token"].as_str().unwrap().to_owned();
    let rotate = format!("POST {TOKENS}/ci/rotate");
    let rotated = call_from(source, program.admin, &rotate, &bearer, "").await;
    let rotated = rotated.json()["token"].as_str().unwrap().to_owned();
    let secrets = [admin.clone(), made, rotated];

    let basic = STANDARD.encode(format!("admin:{admin}"));
    let paths = ["/api/v1/workspaces", "/workspaces/alice", "/workspaces/nobody", "/nothing", "/"];
    let mut statuses = Vec::new();
    for address in [program.public, program.admin] {
        for path in paths {
            for secret in &secrets {
                let target = format!("GET {path}?access_token={secret}&x=%zz");
                for fields in
                    [String::new(), format!("Referer: http://a/?access_token={secret}\r\n")]
                {
                    statuses.push(call_from(source, address, &target, &fields, "").await.status);
                }
                let query = format!("{path}?access_token={secret}");
                let told = get_by_http2(address, "admin.example", &query, secret).await;
                statuses.extend(told);
                // What HTTP/2 refuses by itself, and says so.
                let malformed = fields(&[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "admin.example"),
                    (":path", &format!("{path} ?access_token={secret}")),
                ]);
                let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &malformed);
                assert_eq!(outcome_at(address, &request).await, "reset");
            }
            let line = format!("PUT {path}");
            for fields in [format!("Authorization: Basic {basic}\r\n"), bearer.clone()] {
                statuses.push(call_from(source, address, &line, &fields, &secrets[1]).await.status);
            }
        }
        let wrong = format!("GET /{}\0 HTTP/1.1\r\n", secrets[0]);
        let mut client = Client::connect(address).await;
        client.send(format!("{wrong}\r\n")).await;
        client.reply().await;
    }
    for status in [200, 401, 404, 405] {
        assert!(statuses.contains(&status), "no call was answered with {status}: {statuses:?}");
    }
    let printed = program.log() + &program.output();
    assert!(printed.contains("rotated the token ci"), "{printed}");
    assert!(printed.contains("\"level\":\"DEBUG\""), "it is not talkative");
    for secret in secrets.iter().chain([&basic]) {
        let leaks: Vec<_> = printed.lines().filter(|line| line.contains(secret)).collect();
        assert!(leaks.is_empty(), "{leaks:?}");
    }
}

//! The dashboard without a browser: who gets in, for how long, what is told, and what the page is made
//! of.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use frostgate::dashboard;
use frostgate::model::{FreezeMode, Phase};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use crate::api::assert_problem;
use crate::support::{
    Authority, Client, Gateway, Origin, PATIENCE, Reply, get, local_process, ok, process, project,
    secure, tls, upstream,
};

const FORM: &str = "application/x-www-form-urlencoded";
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard/assets");
/// What all files of the page may weigh together.
const WEIGHT_MAX: usize = 150_000;

/// A request to a host, over a connection that there is.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Client<S>,
    line: &str,
    fields: &str,
    body: &str,
) -> Reply {
    let length = body.len();
    client.send(format!("{line} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}")).await;
    client.reply().await
}

/// The same to the admin listener, by its address.
async fn call(address: SocketAddr, line: &str, fields: &str, body: &str) -> Reply {
    let fields = format!("Host: {address}\r\n{fields}");
    ask(&mut Client::connect(address).await, line, &fields, body).await
}

async fn log_in(gateway: &Gateway, token: &str) -> Reply {
    let fields = format!("Content-Type: {FORM}\r\nSec-Fetch-Site: same-origin\r\n");
    call(gateway.admin(), "POST /api/v1/session", &fields, &format!("token={token}")).await
}

/// What a browser that was answered this sends from then on.
fn cookie(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:?}");
    let (pair, _) = reply.header("set-cookie").unwrap().split_once(';').unwrap();
    format!("Cookie: theme=x; {pair}\r\n")
}

/// A session of the token that the state directory has.
async fn session(gateway: &Gateway) -> String {
    cookie(&log_in(gateway, &gateway.token()).await)
}

async fn make_token(gateway: &Gateway, body: Value) -> String {
    let made = gateway.send("POST /api/v1/tokens", "application/json", &body.to_string()).await;
    assert_eq!(made.status, 201, "{made:?}");
    made.json()["token"].as_str().unwrap().to_owned()
}

/// Somebody who watches.
struct Watcher {
    client: Client,
    text: String,
}

impl Watcher {
    async fn begin(gateway: &Gateway, cookie: &str) -> Self {
        let mut client = Client::connect(gateway.admin()).await;
        let host = gateway.admin();
        client.send(format!("GET /dashboard/feed HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self { client, text: String::new() }
    }

    /// The next event and what it says; `None`: there are no more.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (name, data) = event.split_once('\n').unwrap();
                let name = name.strip_prefix("event: ").unwrap().to_owned();
                let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                self.text = rest.to_owned();
                return Some((name, data));
            }
            let chunk = self.client.chunk().await;
            if chunk.is_empty() {
                return None;
            }
            self.text.push_str(&chunk);
        }
    }

    /// The next event of that name that is as it is looked for.
    async fn until(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (found, data) = self.next().await.expect("it goes on");
            if found == name && is_it(&data) {
                return data;
            }
            assert!(Instant::now() < deadline, "waited in vain for {name}; last {found}: {data}");
        }
    }
}

/// The row of a workspace, if it is among those of an event.
fn row<'a>(rows: &'a Value, id: &str) -> Option<&'a Value> {
    rows["rows"].as_array()?.iter().find(|row| row["id"] == id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_begins_a_session_and_the_session_can_be_ended() {
    let gateway = Gateway::start(|_| {}).await;
    let begun = log_in(&gateway, &gateway.token()).await;
    assert_eq!(begun.json(), json!({ "token": "admin", "scope": "admin", "projects": null }));
    let set = begun.header("set-cookie").unwrap();
    assert!(set.starts_with("frostgate="), "{set}");
    assert!(set.ends_with("; HttpOnly; SameSite=Strict; Path=/; Max-Age=604800"), "{set}");
    assert!(!set.contains(&gateway.token()), "it is not the token");
    assert_eq!(begun.header("cache-control"), Some("no-store"));

    let cookie = cookie(&begun);
    let who = call(gateway.admin(), "GET /api/v1/session", &cookie, "").await;
    assert_eq!((who.status, who.json()["token"].as_str()), (200, Some("admin")));
    assert_eq!(call(gateway.admin(), "GET /workspaces", &cookie, "").await.status, 200);
    let ours = format!("{cookie}Origin: http://{}\r\n", gateway.admin());
    let ended = call(gateway.admin(), "DELETE /api/v1/session", &ours, "").await;
    assert_eq!(ended.status, 204, "{ended:?}");
    assert!(ended.header("set-cookie").unwrap().starts_with("frostgate=;"), "{ended:?}");
    let refused = call(gateway.admin(), "GET /api/v1/session", &cookie, "").await;
    assert_problem(&refused, 401, "unauthorized");
    // A browser would ask for a password in a window of its own.
    assert!(!refused.head.to_lowercase().contains("basic"), "{refused:?}");
    // Nor is it to do so for a script, whether it says itself that it is one or not.
    for fields in ["X-Requested-With: fetch\r\n", "Sec-Fetch-Mode: cors\r\n"] {
        for path in ["/dashboard/feed", "/workspaces"] {
            let refused = call(gateway.admin(), &format!("GET {path}"), fields, "").await;
            assert!(refused.status == 401 && !refused.head.contains("Basic"), "{refused:?}");
        }
    }
    let refused =
        call(gateway.admin(), "GET /workspaces", "Sec-Fetch-Mode: navigate\r\n", "").await;
    assert!(refused.head.contains("Basic"), "{refused:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_begin_nothing_and_are_counted() {
    let gateway = Gateway::start(|_| {}).await;
    for body in ["", "token=", "token=%20", "tokn=x", "token=x&more=y"] {
        let fields = format!("Content-Type: {FORM}\r\n");
        let reply = call(gateway.admin(), "POST /api/v1/session", &fields, body).await;
        assert_problem(&reply, 400, "invalid_request");
    }
    let wrong = log_in(&gateway, "wrong").await;
    assert_problem(&wrong, 403, "forbidden");
    assert_eq!(wrong.header("set-cookie"), None);
    for _ in 0..30 {
        log_in(&gateway, "wrong").await;
    }
    let many = log_in(&gateway, "wrong").await;
    assert_problem(&many, 429, "too_many_failures");
    assert!(many.header("retry-after").is_some());
    assert_eq!(log_in(&gateway, &gateway.token()).await.status, 200, "a right one passes");
    // Sessions that are guessed open nothing either.
    let fields = "Cookie: frostgate=guessed\r\n";
    assert_eq!(call(gateway.admin(), "GET /workspaces", fields, "").await.status, 401);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_tls_the_cookie_is_one_that_no_neighbour_can_set() {
    let origin = Origin::answering(|_| ok("")).await;
    let authority = Authority::with(&["alice.localhost", "127.0.0.1"]);
    let gateway = Gateway::start(|config| {
        upstream(config, "alice", origin.address);
        secure(config, &authority);
        config.listen.admin_tls = true;
    })
    .await;
    let admin = gateway.admin();
    let connect = async || Client::over(tls(&authority.client(&[]), admin, "127.0.0.1").await);
    let fields = format!("Host: {admin}\r\nOrigin: https://{admin}\r\nContent-Type: {FORM}\r\n");
    let body = format!("token={}", gateway.token());
    let begun = ask(&mut connect().await, "POST /api/v1/session", &fields, &body).await;
    let set = begun.header("set-cookie").unwrap();
    assert!(set.starts_with("__Host-frostgate=") && set.ends_with("; Secure"), "{set}");
    assert!(set.contains("; Path=/;") && !set.contains("Domain"), "{set}");
    let cookie = cookie(&begun);
    let other_name = cookie.replace("__Host-frostgate", "frostgate");
    for (cookie, status) in [(&cookie, 200), (&other_name, 401)] {
        let fields = format!("Host: {admin}\r\n{cookie}");
        let reply = ask(&mut connect().await, "GET /workspaces", &fields, "").await;
        assert_eq!(reply.status, status, "{cookie}");
    }
    // Of the same host, and not of the same origin.
    let fields = format!("Host: {admin}\r\n{cookie}Origin: http://{admin}\r\n");
    let reply = ask(&mut connect().await, "PUT /workspaces/alice/resume", &fields, "").await;
    assert_problem(&reply, 403, "forbidden");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_session_nothing_is_changed_for_a_page_of_another_site() {
    let origin = Origin::answering(|_| ok("")).await;
    let gateway = Gateway::before(&origin).await;
    let (admin, cookie) = (gateway.admin(), session(&gateway).await);
    let (own, neighbour) = (format!("http://{admin}"), format!("http://{}", gateway.public()));
    let rows = [
        (String::new(), 403, 200),
        ("Sec-Fetch-Site: same-origin\r\n".to_owned(), 200, 200),
        (format!("Origin: {own}\r\n"), 200, 200),
        (format!("Sec-Fetch-Site: same-site\r\nOrigin: {neighbour}\r\n"), 403, 403),
        ("Sec-Fetch-Site: cross-site\r\n".to_owned(), 403, 403),
        ("Sec-Fetch-Site: none\r\n".to_owned(), 403, 200),
        (format!("Origin: {neighbour}\r\n"), 403, 403),
        ("Origin: http://evil.test\r\n".to_owned(), 403, 403),
        ("Origin: null\r\n".to_owned(), 403, 403),
    ];
    for (fields, changing, looking) in rows {
        let fields = format!("{cookie}{fields}");
        for (line, status) in
            [("PUT /workspaces/alice/resume", changing), ("GET /workspaces/alice", looking)]
        {
            let reply = call(admin, line, &fields, "").await;
            assert_eq!(reply.status, status, "{line} {fields}: {reply:?}");
        }
    }
    // Nobody is logged in as somebody else by a page that they visit.
    let fields = format!("Content-Type: {FORM}\r\nSec-Fetch-Site: cross-site\r\n");
    let body = format!("token={}", gateway.token());
    let reply = call(admin, "POST /api/v1/session", &fields, &body).await;
    assert_problem(&reply, 403, "forbidden");
    // Whoever has the token itself needs to prove nothing.
    assert_eq!(gateway.call("PUT", "/workspaces/alice/resume").await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_good_for_hosts_that_are_ours_and_for_no_name_that_points_here() {
    let gateway = Gateway::start(|config| {
        config.api.hosts = vec!["gate.internal".to_owned()];
        config.routing.admin_host = Some("admin.test".to_owned());
        config.routing.domain = "apps.test".to_owned();
    })
    .await;
    let cookie = session(&gateway).await;
    let hosts = [
        ("localhost:8081", 200),
        ("[::1]:8081", 200),
        ("Gate.Internal", 200),
        ("admin.test", 200),
        ("apps.test:8081", 200),
        ("evil.test", 403),
        ("127.0.0.1.evil.test:8081", 403),
        ("alice.apps.test", 403),
    ];
    for (host, status) in hosts {
        for path in ["/workspaces", "/api/v1/session"] {
            let fields = format!("Host: {host}\r\n{cookie}Sec-Fetch-Site: same-origin\r\n");
            let mut client = Client::connect(gateway.admin()).await;
            let reply = ask(&mut client, &format!("GET {path}"), &fields, "").await;
            assert_eq!(reply.status, status, "{host}: {reply:?}");
        }
        let token = format!("token={}", gateway.token());
        let fields = format!("Host: {host}\r\nContent-Type: {FORM}\r\n");
        let mut client = Client::connect(gateway.admin()).await;
        let reply = ask(&mut client, "POST /api/v1/session", &fields, &token).await;
        assert_eq!(reply.status, status, "{host}: {reply:?}");
        let feed = format!("GET /dashboard/feed HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n");
        let mut client = Client::connect(gateway.admin()).await;
        client.send(feed).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {head}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_served_at_the_admin_host_of_the_public_listener_and_nowhere_else() {
    let gateway =
        Gateway::start(|config| config.routing.admin_host = Some("admin.test".to_owned())).await;
    let page = get(gateway.public(), "admin.test", "/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{page:?}");
    assert_eq!(get(gateway.public(), "admin.test", "/dashboard/app.js").await.status, 200);
    for path in ["/", "/dashboard/app.js", "/dashboard/feed"] {
        assert_eq!(get(gateway.public(), "other.test", path).await.status, 404, "{path}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_workspace_is_shown_the_session_of_an_admin() {
    let origin = Origin::answering(|_| ok("")).await;
    let gateway = Gateway::before(&origin).await;
    let cookie = session(&gateway).await;
    // A browser sends the cookies of 127.0.0.1 to every port of it.
    let fields = format!("Host: localhost\r\n{cookie}");
    let mut client = Client::connect(gateway.public()).await;
    assert_eq!(ask(&mut client, "GET /w/alice/", &fields, "").await.status, 200);
    let received = origin.take().pop().unwrap().head;
    assert!(received.contains("theme=x") && !received.contains("frostgate="), "{received}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_only_read_changes_nothing_by_a_session_either() {
    let origin = Origin::answering(|_| ok("")).await;
    let gateway = Gateway::before(&origin).await;
    let token = make_token(&gateway, json!({ "name": "reader", "scope": "read" })).await;
    let cookie = cookie(&log_in(&gateway, &token).await);
    let ours = format!("{cookie}Sec-Fetch-Site: same-origin\r\n");
    assert_eq!(call(gateway.admin(), "GET /workspaces/alice", &ours, "").await.status, 200);
    let refused = call(gateway.admin(), "PUT /workspaces/alice/resume", &ours, "").await;
    assert_problem(&refused, 403, "forbidden");
    let mut watcher = Watcher::begin(&gateway, &cookie).await;
    let hello = watcher.until("hello", |_| true).await;
    assert_eq!((&hello["scope"], &hello["may_change"]), (&json!("read"), &json!(false)));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_token_and_so_does_what_it_watches() {
    let gateway = Gateway::start(|_| {}).await;
    for (name, end) in
        [("one", "DELETE /api/v1/tokens/one"), ("two", "POST /api/v1/tokens/two/rotate")]
    {
        let token = make_token(&gateway, json!({ "name": name, "scope": "admin" })).await;
        let cookie = cookie(&log_in(&gateway, &token).await);
        let mut watcher = Watcher::begin(&gateway, &cookie).await;
        watcher.until("rows", |rows| rows["reset"] == true).await;
        assert_eq!(call(gateway.admin(), "GET /workspaces", &cookie, "").await.status, 200);
        let ended = gateway.send(end, "application/json", "{}").await;
        assert!(matches!(ended.status, 200 | 204), "{ended:?}");
        assert_eq!(call(gateway.admin(), "GET /workspaces", &cookie, "").await.status, 401);
        watcher.until("bye", |_| true).await;
        assert_eq!(watcher.next().await, None, "{name}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_is_told_everything_once_and_then_what_is_new() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
        process(config, "bob", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    let cookie = session(&gateway).await;
    let mut watcher = Watcher::begin(&gateway, &cookie).await;
    let hello = watcher.until("hello", |_| true).await;
    let url = format!("http://{{id}}.localhost:{}/", gateway.public().port());
    assert_eq!((&hello["name"], &hello["url"]), (&json!("admin"), &json!(url)));
    let told = hello["now"].as_u64().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    assert!(now.abs_diff(told) < 60_000, "{told} is not {now}");
    let all = watcher.until("rows", |rows| rows["reset"] == true).await;
    assert_eq!(all["rows"].as_array().unwrap().len(), 2, "{all}");
    assert_eq!(row(&all, "alice").unwrap()["phase"], "frozen");

    // Nobody is woken by being looked at, however long.
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(gateway.phase("alice"), Phase::Frozen);
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    let woken = watcher.until("phase", |phase| phase["phase"] == "running").await;
    assert_eq!((&woken["id"], &woken["reason"]), (&json!("alice"), &json!("a request")));
    let mut inside = Client::connect(gateway.public()).await;
    inside.send("GET /wait?ms=600000 HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    let is_inside = |rows: &Value| row(rows, "alice").is_some_and(|row| row["requests"] == 1);
    let busy = watcher.until("rows", is_inside).await;
    assert_eq!(row(&busy, "bob"), None, "nothing is new of it: {busy}");
    let alice = row(&busy, "alice").unwrap();
    assert_eq!((&alice["awake"], &alice["freeze_at"]), (&json!("inside"), &Value::Null));
    drop(inside);
    let is_idle = |rows: &Value| row(rows, "alice").is_some_and(|row| row["freeze_at"].is_u64());
    let idle = watcher.until("rows", is_idle).await;
    let alice = row(&idle, "alice").unwrap();
    assert_eq!(alice["activity"], "visit");
    let left = alice["freeze_at"].as_u64().unwrap() - alice["active"].as_u64().unwrap();
    assert_eq!(Duration::from_millis(left), PATIENCE * 9, "{alice}");

    assert_eq!(gateway.call("DELETE", "/workspaces/bob").await.status, 204);
    watcher.until("rows", |rows| rows["gone"] == json!(["bob"])).await;
    // Whoever comes later is told what there is now.
    let mut other = Watcher::begin(&gateway, &cookie).await;
    let all = other.until("rows", |rows| rows["reset"] == true).await;
    assert!(row(&all, "bob").is_none() && row(&all, "alice").is_some(), "{all}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_some_projects_is_told_of_those_and_of_no_others() {
    let gateway = Gateway::start(|config| {
        project(config, "mine", local_process());
        project(config, "theirs", local_process());
        process(config, "bob", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    let create = async |id: &str, project: &str| {
        let body = json!({ "id": id, "project_id": project, "max_inactive_storage_time": 60 });
        let made = gateway.send("POST /workspaces", "application/json", &body.to_string()).await;
        assert_eq!(made.status, 201, "{made:?}");
    };
    create("carol", "theirs").await;
    let token = make_token(&gateway, json!({ "name": "owner", "projects": ["mine"] })).await;
    let cookie = cookie(&log_in(&gateway, &token).await);
    let mut watcher = Watcher::begin(&gateway, &cookie).await;
    let all = watcher.until("rows", |rows| rows["reset"] == true).await;
    assert_eq!(all["rows"], json!([]));
    assert_eq!(gateway.call("DELETE", "/workspaces/carol").await.status, 204);
    create("dave", "theirs").await;
    create("alice", "mine").await;
    // What was never told is never told to be gone.
    let check = |event: &Value| {
        let text = event.to_string();
        let told = ["bob", "carol", "dave", "theirs"].iter().find(|other| text.contains(**other));
        assert_eq!(told, None, "{text}");
    };
    let is_there = |rows: &Value| {
        check(rows);
        row(rows, "alice").is_some()
    };
    watcher.until("rows", is_there).await;
    assert_eq!(gateway.call("DELETE", "/workspaces/alice").await.status, 204);
    let is_gone = |rows: &Value| {
        check(rows);
        rows["gone"] == json!(["alice"])
    };
    watcher.until("rows", is_gone).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_may_watch_and_a_place_is_free_again() {
    let gateway = Gateway::start(|_| {}).await;
    let cookie = session(&gateway).await;
    let mut watching = Vec::new();
    for _ in 0..200 {
        watching.push(Watcher::begin(&gateway, &cookie).await);
    }
    let refused = call(gateway.admin(), "GET /dashboard/feed", &cookie, "").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    watching.truncate(100);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = Client::connect(gateway.admin()).await;
        let host = gateway.admin();
        client.send(format!("GET /dashboard/feed HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\n")).await;
        if client.head().await.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < deadline, "no place is free");
        sleep(Duration::from_millis(20)).await;
    }
    // Who watches keeps nobody from stopping.
    let began = Instant::now();
    gateway.stop().await;
    println!("stopped after {:?}", began.elapsed());
    for mut watcher in watching {
        while watcher.next().await.is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watched_gateway_ends_before_its_grace_does() {
    let gateway = Gateway::start(|config| config.listen.drain_grace = PATIENCE * 9).await;
    let mut watcher = Watcher::begin(&gateway, &session(&gateway).await).await;
    watcher.until("rows", |_| true).await;
    let began = Instant::now();
    gateway.stop().await;
    assert!(began.elapsed() < PATIENCE * 8, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_a_browser_has_is_not_sent_again_and_none_may_do_more_than_it_has_to() {
    let gateway = Gateway::start(|_| {}).await;
    let page = call(gateway.admin(), "GET /", "", "").await;
    let policy = page.header("content-security-policy").unwrap();
    assert_eq!(
        policy,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert!(page.text().contains("src=\"/dashboard/app.js\""));
    let mut names = 0;
    for (name, weight) in dashboard::weights() {
        let line = format!("GET /dashboard/{name}");
        let file = call(gateway.admin(), &line, "", "").await;
        assert_eq!((file.status, file.body.len()), (200, weight), "{name}");
        assert_eq!(file.header("cache-control"), Some("no-cache"), "{name}");
        let tag = file.header("etag").unwrap();
        for known in [tag.to_owned(), format!("\"x\", W/{tag}")] {
            let fields = format!("If-None-Match: {known}\r\n");
            let again = call(gateway.admin(), &line, &fields, "").await;
            assert_eq!((again.status, again.header("etag")), (304, Some(tag)), "{name}");
        }
        let other = call(gateway.admin(), &line, "If-None-Match: \"x\"\r\n", "").await;
        assert_eq!(other.status, 200, "{name}");
        names += 1;
    }
    assert!(names > 5, "only {names} files");
    assert_eq!(call(gateway.admin(), "GET /dashboard/mod.rs", "", "").await.status, 404);
    gateway.stop().await;
}

#[test]
fn the_page_is_light_and_needs_nothing_from_elsewhere() {
    let weight: usize = dashboard::weights().map(|(_, weight)| weight).sum();
    println!("the page weighs {weight} bytes");
    assert!((1..WEIGHT_MAX).contains(&weight), "{weight} bytes");
    let mut files = 0;
    for entry in std::fs::read_dir(Path::new(ASSETS)).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(dashboard::weights().any(|(known, _)| known == name), "{name} is not served");
        let text = std::fs::read_to_string(&path).unwrap();
        let addresses = text.matches("http://").chain(text.matches("https://")).count();
        // The names of things, which nobody fetches.
        let names = text.matches("http://www.w3.org/").count();
        assert_eq!(addresses, names, "{name} names an address");
        for inline in ["<style", "style=\"", "onclick=", "javascript:", "innerHTML", "eval("] {
            assert!(!text.contains(inline), "{name} has {inline}, which our policy forbids");
        }
        files += 1;
    }
    assert_eq!(files, dashboard::weights().count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_can_be_begun_from_anywhere_by_a_program() {
    let gateway = Gateway::start(|_| {}).await;
    let mut client = Client::connect_from(Ipv4Addr::new(127, 0, 0, 9), gateway.admin()).await;
    let body = json!({ "token": format!(" {}\n", gateway.token()) }).to_string();
    let fields = format!("Host: {}\r\nContent-Type: application/json\r\n", gateway.admin());
    let begun = ask(&mut client, "POST /api/v1/session", &fields, &body).await;
    let cookie = cookie(&begun);
    assert_eq!(call(gateway.admin(), "GET /api/v1/test", &cookie, "").await.status, 200);
    gateway.stop().await;
}

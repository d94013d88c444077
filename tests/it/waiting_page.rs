//! The waiting page, as bytes: who is shown it, what it says, and that nobody is woken or kept awake
//! by looking at it.

use std::time::Duration;

use frostgate::config::Config;
use frostgate::model::{FreezeMode, Phase};

use crate::support::{Client, Gateway, Origin, PATIENCE, Reply, get, navigate, ok, process, until};

const HOST: &str = "Host: alice.localhost\r\n";
const EVENTS: &str = "/.well-known/frostgate/wake";
const AT_ONCE: Duration = Duration::ZERO;

fn slow(config: &mut Config, start_ms: &str, page_after: Duration) {
    let environment = [("START_DELAY_MS", start_ms)];
    process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &environment);
    config.policy.page_after = page_after;
    config.policy.hold_max = PATIENCE * 9;
}

/// Looks on; the first event comes with it.
async fn look_on(gateway: &Gateway, id: &str) -> (Client, String) {
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("GET {EVENTS} HTTP/1.1\r\nHost: {id}.localhost\r\n\r\n")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("text/event-stream") && head.contains("no-store"), "{head}");
    let event = client.chunk().await;
    (client, event)
}

fn assert_page(reply: &Reply, what: &str) {
    assert_eq!(reply.status, 503, "{what}: {reply:?}");
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"), "{what}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
    let seconds: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{what}: {seconds}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_opens_a_page_is_shown_one_and_the_wake_goes_on() {
    let gateway = Gateway::start(|config| slow(config, "2000", Duration::from_millis(300))).await;
    let page = navigate(gateway.public(), "alice.localhost", "/a?b=%3Cscript%3E").await;
    assert_page(&page, "a slow start");
    assert!(page.text().contains("alice is waking up"), "{page:?}");
    assert!(!page.text().contains("3Cscript"), "nothing of the request is on it");
    let policy = page.header("content-security-policy").unwrap();
    let (_, nonce) = policy.split_once("script-src 'nonce-").unwrap();
    let nonce = &nonce[..32];
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert_eq!(page.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2, "{policy}");
    assert!(page.text().contains("<noscript><meta http-equiv=\"refresh\""));
    assert_eq!(gateway.phase("alice"), Phase::Starting);

    let (mut events, first) = look_on(&gateway, "alice").await;
    assert!(first.contains("\"state\":\"waking\"") && first.contains("\"usual_ms\":0"), "{first}");
    let last = events.chunk().await;
    assert!(last.contains("\"state\":\"ready\""), "{last}");
    assert_eq!(events.chunk().await, "", "there is no more to tell");
    let view = gateway.workspace("alice").view();
    assert_eq!((view.phase, view.inside, view.last_left), (Phase::Running, 0, None));
    assert_eq!(navigate(gateway.public(), "alice.localhost", "/boot").await.status, 200);

    // The next time it is known how long it takes.
    assert_eq!(gateway.call("PUT", "/workspaces/alice/stop").await.status, 200);
    let other = navigate(gateway.public(), "alice.localhost", "/").await;
    assert_page(&other, "after a stop");
    assert!(other.text().contains("This usually takes about 2 seconds."), "{}", other.text());
    assert!(!other.text().contains(nonce), "a nonce is used once");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_frames_uploads_and_sockets_wait_for_the_workspace() {
    let gateway = Gateway::start(|config| slow(config, "1000", AT_ONCE)).await;
    let requests = [
        "GET /boot HTTP/1.1\r\n",
        "GET /boot HTTP/1.1\r\nAccept: application/json\r\n",
        "GET /boot HTTP/1.1\r\nSec-Fetch-Mode: cors\r\nAccept: text/html\r\n",
        "GET /boot HTTP/1.1\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
        "POST /echo HTTP/1.1\r\nSec-Fetch-Mode: navigate\r\nContent-Length: 0\r\n",
        "POST /echo HTTP/1.1\r\nAccept: text/html\r\nContent-Length: 0\r\n",
    ];
    let mut clients = Vec::new();
    for request in requests {
        let mut client = Client::connect(gateway.public()).await;
        client.send(format!("{request}{HOST}\r\n")).await;
        clients.push(client);
    }
    let socket = Client::websocket(gateway.public(), "alice");
    for (client, request) in clients.iter_mut().zip(requests) {
        assert_eq!(client.reply().await.status, 200, "{request}");
    }
    assert!(socket.await.is_some());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_shown_the_page_at_once_has_it_woken_though_a_freeze_has_to_end_first() {
    let gateway = Gateway::start(|config| {
        let environment = [("START_DELAY_MS", "300"), ("DYING_MS", "500")];
        process(config, "alice", FreezeMode::Stop, Duration::from_millis(200), &environment);
        config.policy.page_after = AT_ONCE;
    })
    .await;
    assert_page(&navigate(gateway.public(), "alice.localhost", "/").await, "frozen");
    gateway.until("alice", Phase::Running).await;
    gateway.until("alice", Phase::Freezing).await;
    let page = navigate(gateway.public(), "alice.localhost", "/").await;
    assert_page(&page, "being frozen");
    gateway.until("alice", Phase::Starting).await;
    gateway.until("alice", Phase::Running).await;
    // Nobody came for it, so it goes to sleep again, and stays asleep.
    gateway.until("alice", Phase::Freezing).await;
    gateway.until("alice", Phase::Frozen).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(gateway.phase("alice"), Phase::Frozen);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn to_look_on_wakes_nobody_and_keeps_nobody_awake() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, Duration::from_millis(700), &[]);
    })
    .await;
    let (mut events, asleep) = look_on(&gateway, "alice").await;
    assert!(asleep.contains("\"state\":\"asleep\""), "{asleep}");
    assert_eq!(events.chunk().await, "");
    assert_eq!(gateway.phase("alice"), Phase::Frozen);
    assert_eq!(gateway.get("alice", "/").await.status, 200);
    let left = gateway.workspace("alice").view().last_left;
    let mut looks = 0;
    while gateway.phase("alice") == Phase::Running {
        look_on(&gateway, "alice").await;
        looks += 1;
    }
    assert!(looks > 3, "{looks}");
    assert_eq!(gateway.workspace("alice").view().last_left, left);
    gateway.until("alice", Phase::Frozen).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_slot_is_told_the_place_and_keeps_it_while_looking() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 1;
        config.policy.page_after = Duration::from_millis(100);
        for id in ["a", "b", "c"] {
            process(config, id, FreezeMode::Stop, PATIENCE * 9, &[]);
        }
    })
    .await;
    let mut inside = Client::connect(gateway.public()).await;
    inside.send("GET /wait?ms=60000 HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    until("a is in use", || gateway.workspace("a").view().inside == 1).await;
    for (id, words) in [("b", "the next one that is free"), ("c", "One other is before it")] {
        let page = navigate(gateway.public(), &format!("{id}.localhost"), "/").await;
        assert_page(&page, id);
        assert!(page.text().contains(words), "{id}: {}", page.text());
    }
    // Whoever left without looking on has the place for some seconds.
    let leaves_at = || gateway.workspace("c").view().deadline;
    until("the place is kept for a time only", || leaves_at().is_some()).await;
    let (mut events, first) = look_on(&gateway, "c").await;
    assert!(first.contains("\"state\":\"queued\"") && first.contains("One other"), "{first}");
    until("the place is kept", || leaves_at().is_none()).await;
    let (other, _) = look_on(&gateway, "c").await;
    drop(other);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(leaves_at().is_none(), "one still looks");

    drop(inside);
    let mut heard = Vec::new();
    loop {
        let event = events.chunk().await;
        if event.is_empty() {
            break;
        }
        heard.push(event);
    }
    assert!(heard.last().is_some_and(|last| last.contains("\"state\":\"ready\"")), "{heard:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_place_that_nobody_looks_at_any_more_is_given_up_after_a_time() {
    let gateway = Gateway::start(|config| {
        config.limits.slots = 1;
        config.policy.page_after = AT_ONCE;
        for id in ["a", "b"] {
            process(config, id, FreezeMode::Stop, PATIENCE * 9, &[]);
        }
    })
    .await;
    assert_eq!(gateway.get("a", "/").await.status, 200);
    let mut inside = Client::connect(gateway.public()).await;
    inside.send("GET /wait?ms=60000 HTTP/1.1\r\nHost: a.localhost\r\n\r\n").await;
    until("a is in use", || gateway.workspace("a").view().inside == 1).await;
    assert_page(&navigate(gateway.public(), "b.localhost", "/").await, "b");
    let leaves_at = || gateway.workspace("b").view().deadline;
    until("it is to leave the queue", || leaves_at().is_some()).await;
    let before = leaves_at();
    // A browser without JavaScript looks again, and is shown the page at once each time.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_page(&navigate(gateway.public(), "b.localhost", "/").await, "b again");
    until("it stays for longer", || leaves_at() > before).await;
    let (events, _) = look_on(&gateway, "b").await;
    until("it stays", || leaves_at().is_none()).await;
    drop(events);
    until("it is to leave again", || leaves_at().is_some()).await;
    drop(inside);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_may_look_on_and_no_more() {
    let gateway = Gateway::start(|config| slow(config, "9000", AT_ONCE)).await;
    assert_page(&navigate(gateway.public(), "alice.localhost", "/").await, "frozen");
    gateway.until("alice", Phase::Starting).await;
    let mut looking = Vec::new();
    for _ in 0..100 {
        looking.push(look_on(&gateway, "alice").await);
    }
    let refused = get(gateway.public(), "alice.localhost", EVENTS).await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    looking.clear();
    let mut client = Client::connect(gateway.public()).await;
    loop {
        client.send(format!("GET {EVENTS} HTTP/1.1\r\n{HOST}\r\n")).await;
        let head = client.head().await;
        if head.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        client = Client::connect(gateway.public()).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ours_is_never_passed_on() {
    let origin = Origin::answering(|_| ok("the workspace's")).await;
    let gateway = Gateway::before(&origin).await;
    assert_eq!(gateway.get("alice", "/.well-known/acme").await.text(), "the workspace's");
    origin.take();
    for prefix in ["", "/w/alice"] {
        let host = if prefix.is_empty() { "alice.localhost" } else { "localhost" };
        let rows = [("wake", 200), ("", 404), ("wake/", 404), ("x/../..", 404)];
        for (rest, status) in rows {
            let path = format!("{prefix}/.well-known/frostgate/{rest}");
            let reply = get(gateway.public(), host, &path).await;
            assert_eq!(reply.status, status, "{path}: {reply:?}");
        }
    }
    let mut client = Client::connect(gateway.public()).await;
    client.send(format!("POST {EVENTS} HTTP/1.1\r\n{HOST}Content-Length: 0\r\n\r\n")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
    assert!(origin.received().is_empty(), "{:?}", origin.received());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_by_path_listens_below_its_path() {
    let gateway = Gateway::start(|config| slow(config, "3000", AT_ONCE)).await;
    let page = navigate(gateway.public(), "localhost", "/w/alice/").await;
    assert_page(&page, "by path");
    let events = format!("data-events=\"/w/alice{EVENTS}\"");
    assert!(page.text().replace("&#x2f;", "/").contains(&events), "{}", page.text());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_template_is_taken_over_and_a_broken_one_is_not() {
    let directory = crate::support::unique_state_dir().with_extension("page");
    std::fs::create_dir_all(&directory).unwrap();
    let write = |text: &str| {
        // As editors do it.
        std::fs::write(directory.join("new"), text).unwrap();
        std::fs::rename(directory.join("new"), directory.join("waiting.html")).unwrap();
    };
    write("<h1>one: {{ title }}</h1>");
    let gateway = Gateway::start(|config| {
        slow(config, "60000", AT_ONCE);
        config.policy.start_timeout = PATIENCE * 9;
        config.waiting_page.directory = Some(directory.clone());
    })
    .await;
    let page = async || navigate(gateway.public(), "alice.localhost", "/").await.text();
    let until_page = async |words: &str| {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !page().await.contains(words) {
            assert!(tokio::time::Instant::now() < deadline, "never {words}: {}", page().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(page().await, "<h1>one: alice is waking up</h1>");
    write("<h1>two: {{ name }}</h1>");
    until_page("two: alice").await;
    let broken = ["{{ title", "{% if failed %}", "{{ title|nosuchfilter }}", "{{ 1 / 0 }}"];
    for text in broken {
        write(text);
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert_eq!(page().await, "<h1>two: alice</h1>", "{text}");
    }
    write("<h1>three</h1>");
    until_page("three").await;
    std::fs::remove_file(directory.join("waiting.html")).unwrap();
    until_page("alice is waking up").await;
    gateway.stop().await;
    std::fs::remove_dir_all(&directory).unwrap();
}

//! What can be followed and read afterwards: events, logs, history, what a workspace uses, metrics.

use std::time::Duration;

use frostgate::model::{FreezeMode, Phase, PolicyOverrides, Spec};
use serde_json::Value;
use tokio::time::timeout;

use crate::support::{Client, Gateway, PATIENCE, Reply, add, local_process, process, until};

const IDLE: Duration = Duration::from_millis(300);

/// A client in the middle of an answer that does not end.
async fn follow(gateway: &Gateway, path: &str, more: &str) -> Client {
    let mut client = Client::connect(gateway.admin()).await;
    let token = gateway.token();
    client
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        ))
        .await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client
}

/// The next event that says anything: its id, its type, and its data.
async fn event(client: &mut Client) -> (String, String, Value) {
    let deadline = PATIENCE * 2;
    let event = async {
        loop {
            let chunk = client.chunk().await;
            let field = |name: &str| {
                let line = chunk.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim_start_matches(':').trim().to_owned())
            };
            if let (Some(kind), Some(data)) = (field("event"), field("data")) {
                let id = field("id").unwrap_or_default();
                return (id, kind, serde_json::from_str(&data).unwrap());
            }
        }
    };
    timeout(deadline, event).await.expect("an event")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_told_as_they_happen_and_again_to_who_was_away() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, IDLE, &[]);
        process(config, "bob", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    let mut phases = follow(&gateway, "/api/v1/events?workspace=alice&types=phase", "").await;
    assert_eq!(phases.chunk().await, "retry: 1000\n\n");
    gateway.get("bob", "/").await;
    gateway.get("alice", "/").await;
    let mut told = Vec::new();
    let mut first_id = String::new();
    while told.last().is_none_or(|phase| phase != "frozen") {
        let (id, kind, data) = event(&mut phases).await;
        assert_eq!((kind.as_str(), &data["workspace"]), ("phase", &"alice".into()), "{data}");
        told.push(data["phase"].as_str().unwrap().to_owned());
        if data["phase"] == "running" {
            assert!(data["took_ms"].is_u64() && data["at"].is_string(), "{data}");
        }
        if first_id.is_empty() {
            first_id = id;
        }
    }
    told.dedup();
    assert_eq!(told, ["starting", "running", "freezing", "frozen"]);
    // Who was away hears of the rest.
    let behind = format!("Last-Event-ID: {first_id}\r\n");
    let mut again = follow(&gateway, "/api/v1/events?workspace=alice", &behind).await;
    assert_eq!(again.chunk().await, "retry: 1000\n\n");
    assert_eq!(event(&mut again).await.2["phase"], "running");
    // And who was away for too long is told so.
    let long_ago = "Last-Event-ID: 1-1\r\n";
    let mut lost = follow(&gateway, "/api/v1/events", long_ago).await;
    assert_eq!(event(&mut lost).await.1, "lost");
    assert_eq!(gateway.call("GET", "/api/v1/events?types=weather").await.status, 400);
    drop((phases, again, lost));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_holds_no_end_of_the_program_up() {
    let gateway = Gateway::start(|config| {
        config.listen.drain_grace = PATIENCE * 9;
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    gateway.get("alice", "/").await;
    let mut events = follow(&gateway, "/api/v1/events", "").await;
    assert_eq!(events.chunk().await, "retry: 1000\n\n");
    let mut logs = follow(&gateway, "/api/v1/workspaces/alice/logs?follow=true", "").await;
    assert!(logs.chunk().await.starts_with("boot "));
    let ended = timeout(PATIENCE * 3, gateway.stop()).await;
    assert!(ended.is_ok(), "it waited for those who follow");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_that_differs_from_the_last_is_an_event() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    gateway.get("alice", "/").await;
    let mut reports = follow(&gateway, "/api/v1/events?types=check_in", "").await;
    for active in ["1", "1", "0"] {
        let workspace = gateway.workspace("alice");
        workspace.check_in(active == "1").await.unwrap();
    }
    for active in [true, false] {
        let (_, kind, data) = event(&mut reports).await;
        assert_eq!((kind.as_str(), &data["active"]), ("check_in", &active.into()), "{data}");
    }
    drop(reports);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_workspace_wrote_is_read_and_followed() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
        crate::support::upstream(config, "fixed", ([127, 0, 0, 1], 9).into());
    })
    .await;
    let logs = "/api/v1/workspaces/alice/logs";
    assert_eq!(gateway.call("GET", logs).await.body, b"");
    gateway.get("alice", "/").await;
    let written = gateway.call("GET", logs).await;
    assert_eq!(written.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(written.text().starts_with("boot ") && written.complete, "{written:?}");
    let mut follower = follow(&gateway, &format!("{logs}?lines=1&follow=true"), "").await;
    assert_eq!(follower.chunk().await, written.text());
    gateway.call("PUT", "/workspaces/alice/stop").await;
    gateway.call("PUT", "/workspaces/alice/resume").await;
    let next = timeout(PATIENCE, follower.chunk()).await.expect("more of it");
    assert!(next.starts_with("boot ") && next != written.text(), "{next}");
    let lines = gateway.call("GET", &format!("{logs}?lines=1")).await.text();
    assert_eq!(lines, next);
    for wrong in ["lines=0", "lines=10001", "lines=x", "follow=maybe"] {
        assert_eq!(gateway.call("GET", &format!("{logs}?{wrong}")).await.status, 400, "{wrong}");
    }
    assert_eq!(gateway.call("GET", "/api/v1/workspaces/fixed/logs").await.status, 409);
    drop(follower);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_workspace_uses_is_told_while_somebody_asks_and_kept_when_it_is_stopped() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
        process(config, "pat", FreezeMode::Pause, PATIENCE * 9, &[]);
    })
    .await;
    let told = async |id: &str| gateway.call("GET", &format!("/workspaces/{id}")).await.json();
    for id in ["alice", "pat"] {
        gateway.get(id, "/").await;
        let mut usage = told(id).await["usage"].take();
        for _ in 0..PATIENCE.as_millis() / 50 {
            if usage["cpu_percent"].is_number() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            usage = told(id).await["usage"].take();
        }
        assert!(usage["memory_bytes"].as_u64().unwrap() > 10_000, "{usage}");
        assert!(usage["cpu_percent"].as_f64().unwrap() >= 0.0, "{usage}");
        assert!(told(id).await["memory_saved_bytes"].is_null());
        gateway.call("PUT", &format!("/workspaces/{id}/stop")).await;
    }
    assert_eq!(told("pat").await["memory_saved_bytes"], 0);
    let saved = told("alice").await["memory_saved_bytes"].as_u64().unwrap();
    assert!(saved > 10_000, "{saved}");
    assert!(told("alice").await["usage"].is_null());
    // That outlives a restart.
    let directory = gateway.crash().await;
    let mut again = crate::support::config(directory);
    process(&mut again, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
    let gateway = Gateway::start_as(again).await;
    let told = gateway.call("GET", "/workspaces/alice").await.json();
    assert_eq!(told["memory_saved_bytes"], saved);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_has_the_wakes() {
    let gateway = Gateway::start(|config| {
        process(config, "alice", FreezeMode::Stop, IDLE, &[]);
        let spec = Spec {
            environment: [("START_DELAY_MS".to_owned(), "60000".to_owned())].into(),
            ..Spec::new(local_process())
        };
        let start_timeout = Some(Duration::from_millis(300));
        add(config, "late", spec, PolicyOverrides { start_timeout, ..Default::default() });
    })
    .await;
    for _ in 0..2 {
        gateway.get("alice", "/").await;
        gateway.until("alice", Phase::Frozen).await;
    }
    let failed: Reply = gateway.get("late", "/").await;
    assert!(failed.status >= 500, "{failed:?}");
    let told = gateway.call("GET", "/api/v1/history").await.json();
    assert_eq!(
        (&told["wakes"]["count"], &told["wakes"]["failed"]),
        (&2.into(), &1.into()),
        "{told}"
    );
    assert!(told["wakes"]["p50_ms"].as_u64() <= told["wakes"]["p95_ms"].as_u64(), "{told}");
    assert_eq!(told["step_seconds"], 60);
    for wrong in ["0", "169", "x"] {
        let path = format!("/api/v1/history?hours={wrong}");
        assert_eq!(gateway.call("GET", &path).await.status, 400, "{wrong}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_is_counted_under_the_names_of_the_reference() {
    use frostgate::metrics::described;
    let gateway = Gateway::start(|config| {
        config.metrics.per_workspace = true;
        config.limits.slots = 5;
        process(config, "alice", FreezeMode::Pause, IDLE, &[]);
        process(config, "bob", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    gateway.get("alice", "/").await;
    gateway.get("bob", "/").await;
    gateway.until("alice", Phase::Frozen).await;
    gateway.get("alice", "/").await;
    gateway.call("PUT", "/workspaces/bob/stop").await;
    gateway.get("nobody", "/").await;
    gateway.workspace("alice").check_in(true).await.unwrap();
    gateway.send("POST /v1/check-in?token=nobodys", "application/json", "{\"active\":1}").await;
    until("alice was looked at", || gateway.phase("alice") == Phase::Running).await;
    let text = gateway.call("GET", "/metrics").await.text();
    for line in [
        "frostgate_http_requests_total{code=\"200\"} 3",
        "frostgate_http_requests_total{code=\"404\"} 1",
        "frostgate_wake_duration_seconds_count{tier=\"stopped\",outcome=\"ready\"} 2",
        "frostgate_wake_duration_seconds_count{tier=\"paused\",outcome=\"ready\"} 1",
        "frostgate_freezes_total{tier=\"paused\",reason=\"idle\"} 1",
        "frostgate_freezes_total{tier=\"stopped\",reason=\"admin\"} 1",
        "frostgate_check_ins_total{result=\"unknown_sender\"} 1",
        "frostgate_driver_calls_total{driver=\"process\",call=\"start\",outcome=\"ok\"} 2",
        "frostgate_config_last_reload_successful 1",
        "frostgate_slots{state=\"free\"} 4",
        "frostgate_workspace_phase{workspace=\"bob\",phase=\"frozen\"} 1",
    ] {
        assert!(text.lines().any(|one| one == line), "no {line} in {text}");
    }
    let saved = text.lines().find_map(|line| line.strip_prefix("frostgate_memory_saved_bytes "));
    assert!(saved.unwrap().parse::<u64>().unwrap() > 10_000, "{saved:?}");
    // Nothing is told that the reference does not have.
    let mut samples = 0;
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = sample.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let known = described::ALL.iter().find(|described| {
            let full = described.full_name();
            let parts = ["", "_bucket", "_sum", "_count"];
            parts.iter().any(|part| name == format!("{full}{part}"))
        });
        let known = known.unwrap_or_else(|| panic!("{name} is not described"));
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (label, _) = label.split_once('=').unwrap();
            let described = known.labels.iter().any(|(one, _)| *one == label) || label == "le";
            assert!(described, "{name} has a label {label}");
        }
        samples += 1;
    }
    assert!(samples > 40, "{text}");
    gateway.stop().await;
}

//! What workspaces report of themselves, by their default gateway's port 80, without credentials.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::sleep;

use super::{Town, assert_about};
use crate::images::{SHELL, engine, unique};
use crate::support::Client;

const KEPT: &str = "1h";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_reports_its_activity_without_credentials() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let guest = town.guest(json!({ "max_inactive_storage_time": KEPT })).await;
    let active = async || town.told(&guest).await["reports_activity"].clone();
    assert_eq!(active().await, false);
    for name in ["active", "active-connections", "active_connections"] {
        for (value, expected) in [("1", true), ("0", false), ("-1", true), ("0.0", false)] {
            assert_eq!(town.reports(&guest, &format!("{name}={value}")), "200");
            assert_eq!(active().await, expected, "{name}={value}");
        }
    }
    assert_eq!(town.reports(&guest, "active=7"), "200");
    for form in ["", "active", "connections=1"] {
        assert_eq!(town.reports(&guest, form), "400", "{form:?}");
        assert_eq!(active().await, true, "{form:?} changed it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_no_workspace_reports_for_nobody() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let guest = town.guest(json!({ "max_inactive_storage_time": KEPT })).await;
    assert_eq!(town.reports(&guest, "active=1"), "200");
    let name = format!("frostgate-{}", unique("stranger"));
    let stranger = engine.container(&name, &["--network", &town.network.name]);
    engine.docker(&["start", &stranger.name]);
    let report = ["exec", &stranger.name, "/workspace", "report", "active=0"];
    assert_eq!(engine.docker(&report), "404");
    let mut client = Client::connect(town.program.public).await;
    client
        .send(
            "POST /v1/check-in?active=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\
             X-Forwarded-For: 10.0.0.1\r\n\r\n",
        )
        .await;
    assert_eq!(client.reply().await.status, 404);
    assert_eq!(town.told(&guest).await["reports_activity"], true);
}

/// The script is what such images run from cron, but for the language that it is written in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reporter_script_works_as_it_is() {
    const SCRIPT: &str = r#"
        set -- $(ip route show)
        gateway=$3
        form=active=1
        {
            printf 'POST /v1/check-in HTTP/1.0\r\nHost: %s\r\nContent-Length: %s\r\n' "$gateway" ${#form}
            printf 'Content-Type: application/x-www-form-urlencoded\r\n\r\n%s' "$form"
            sleep 1
        } | nc "$gateway" 80
    "#;
    let Some(engine) = engine() else { return };
    let Some(image) = engine.image_with_shell() else { return };
    let town = Town::start(engine, &format!("[projects.shell]\nimage = \"{image}\"\n")).await;
    let guest = town.guest_of("shell", json!({ "max_inactive_storage_time": KEPT })).await;
    let answer = engine.docker(&["exec", &guest.container.name, SHELL, "sh", "-c", SCRIPT]);
    assert!(answer.starts_with("HTTP/1.0 200 ") || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(town.told(&guest).await["reports_activity"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_reports_activity_is_never_stopped_and_one_that_ends_to_is() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let timeout = Duration::from_secs(1);
    let guest = town.guest(json!({ "max_inactive_storage_time": KEPT })).await;
    assert_eq!(town.reports(&guest, "active=1"), "200");
    town.patch(&guest, json!({ "inactivity_timeout": "1s" })).await;
    sleep(timeout * 4).await;
    assert_eq!(town.status(&guest), "running");
    let before = SystemTime::now();
    assert_eq!(town.reports(&guest, "active=0"), "200");
    town.until_status(&guest, "exited").await;
    assert_about(town.last(&guest, "die").duration_since(before).unwrap(), timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moment_of_activity_starts_the_clock_anew() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let timeout = Duration::from_secs(3);
    let policy = json!({ "max_inactive_storage_time": KEPT, "inactivity_timeout": "3s" });
    let guest = town.guest(policy).await;
    sleep(timeout / 2).await;
    assert_eq!(town.reports(&guest, "active=1"), "200");
    let before = SystemTime::now();
    assert_eq!(town.reports(&guest, "active=0"), "200");
    town.until_status(&guest, "exited").await;
    assert_about(town.last(&guest, "die").duration_since(before).unwrap(), timeout);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reporter_that_falls_silent_is_believed_until_its_report_expires() {
    let Some(engine) = engine() else { return };
    let town = Town::start(engine, "").await;
    let (ttl, timeout) = (Duration::from_secs(3), Duration::from_secs(1));
    let policy = json!({ "max_inactive_storage_time": KEPT, "check_in_ttl": "3s" });
    let guest = town.guest(policy).await;
    let before = SystemTime::now();
    assert_eq!(town.reports(&guest, "active=1"), "200");
    town.patch(&guest, json!({ "inactivity_timeout": "1s" })).await;
    town.until_status(&guest, "exited").await;
    assert_about(town.last(&guest, "die").duration_since(before).unwrap(), ttl + timeout);
}

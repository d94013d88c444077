//! spin-docker's own calls, as its clients make them.

use serde_json::{Value, json};

use super::{NEVER, Stage};
use crate::images::{Container, engine};
use crate::support::Reply;
use frostgate::model::FreezeMode;

const FORM: &str = "application/x-www-form-urlencoded";

fn assert_refused(reply: &Reply, status: u16, named: &str) {
    let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
    assert!(reply.status == status && message.contains(named), "{status} {named}: {reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_container_is_made_stopped_started_and_removed_by_calls_of_old() {
    let Some(engine) = engine() else { return };
    let image = engine.image_with_ssh();
    let stage = Stage::start(engine, |config| config.api.inline_specs = true).await;
    let gateway = &stage.gateway;
    let images = gateway.call("GET", "/v1/images").await.json();
    assert!(images.as_array().unwrap().contains(&json!(image)), "{images}");

    let created = gateway.send("POST /v1/containers", FORM, &format!("image={image}")).await;
    assert_eq!(created.status, 201, "{created:?}");
    let created = created.json();
    let id = created["container_id"].as_str().unwrap().to_owned();
    let container = Container { name: id.clone() };
    assert_eq!(id.len(), 64);
    assert_eq!(created["uri"], format!("/v1/containers/{id}"));
    assert_eq!(created["image"], image);
    assert_eq!((&created["status"], &created["active"]), (&json!("running"), &json!("0")));
    assert!(created["name"].as_str().unwrap().starts_with("/frostgate-"), "{created}");
    for member in created.as_object().unwrap().values() {
        assert!(member.is_string(), "{created}");
    }
    let port = |object: &Value, name: &str| object[name].as_str().unwrap().to_owned();
    assert!(port(&created, "ssh_port").parse::<u16>().is_ok(), "{created}");
    assert!(port(&created, "app_port").parse::<u16>().is_ok(), "{created}");

    let path = format!("/v1/containers/{id}");
    assert_eq!(gateway.call("GET", &path).await.json(), created);
    let list = gateway.call("GET", "/v1/containers").await.json();
    assert_eq!(list, json!([created]));
    let audited = gateway.send("GET /v1/containers", FORM, "audit=True").await.json();
    assert_eq!(audited, list);

    let stopping = gateway.send(&format!("PATCH {path}"), FORM, "status=stopped").await;
    assert_eq!(stopping.status, 200, "{stopping:?}");
    let word = stopping.json()["status"].as_str().unwrap().to_owned();
    assert!(matches!(word.as_str(), "stopping" | "stopped"), "{word}");
    let line = format!("PATCH {path}");
    let running = gateway.send(&line, "application/json", "{\"status\":\"running\"}").await.json();
    assert_eq!((&running["status"], &running["container_id"]), (&json!("running"), &json!(id)));
    assert!(!port(&running, "app_port").is_empty());
    let stopped = gateway.send(&format!("PATCH {path}?status=stopped"), FORM, "").await;
    assert_eq!(stopped.status, 200);
    // Whoever begins a stop need not see its end; the workspaces' own call waits for it.
    let workspace = stage.gateway.app().registry().all()[0].id().clone();
    gateway.call("PUT", &format!("/workspaces/{workspace}/stop")).await;
    let stopped = gateway.call("GET", &path).await.json();
    assert_eq!(stopped["status"], "stopped");
    assert_eq!((port(&stopped, "ssh_port"), port(&stopped, "app_port")), Default::default());

    assert_eq!(gateway.call("DELETE", &path).await.status, 204);
    assert_refused(&gateway.call("GET", &path).await, 404, "there is no workspace");
    assert!(!engine.tries(&["container", "inspect", &container.name]));
    assert_eq!(gateway.call("GET", "/v1/containers?audit=true").await.json(), json!([]));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_old_calls_got_wrong_is_told_apart() {
    let Some(engine) = engine() else { return };
    let image = engine.image();
    let stage = Stage::start(engine, |config| config.api.inline_specs = true).await;
    let gateway = &stage.gateway;
    let create = async |body: &str| gateway.send("POST /v1/containers", FORM, body).await;
    assert_refused(&create("").await, 400, "image");
    assert_refused(&create("image=").await, 400, "image");
    assert_refused(&create("image=localhost/frostgate-test-missing:1").await, 422, "image");
    assert_refused(&create("image=..%2f..%2fx").await, 422, "image");
    assert_eq!(gateway.call("GET", "/v1/containers").await.json(), json!([]), "nothing is left");
    for (method, path) in [
        ("GET", "/v1/containers/nobody"),
        ("DELETE", "/v1/containers/nobody"),
        ("PATCH", "/v1/containers/nobody?status=stopped"),
        ("PATCH", &format!("/v1/containers/{}", "0a".repeat(32))),
    ] {
        assert_refused(&gateway.call(method, path).await, 404, "no workspace");
    }
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    let path = format!("PATCH /v1/containers/{}", guest.id);
    for body in ["", "status=frozen", "state=stopped"] {
        assert_refused(&gateway.send(&path, FORM, body).await, 400, "status");
    }
    assert_refused(&gateway.call("GET", "/v1/containers?audit=maybe").await, 400, "audit");
    stage.stop().await;

    // Without leave to name images, those of projects alone.
    let stage = Stage::start(engine, |_| {}).await;
    let refused = stage.gateway.send("POST /v1/containers", FORM, &format!("image={image}")).await;
    assert_refused(&refused, 403, "inline_specs");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_audit_finds_what_no_event_told_of() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    stage.boot(&guest).await;
    engine.tries(&["stop", "--time", "0", &guest.container.name]);
    let listed = stage.gateway.call("GET", "/v1/containers?audit=true").await.json();
    assert_eq!(listed[0]["status"], "stopped", "{listed}");
    stage.stop().await;
}

//! What others do to the containers with the engine's own commands, while the gateway serves them.

use std::collections::BTreeMap;
use std::time::Duration;

use frostgate::model::{FreezeMode, Image, Phase, Runs, Tier};
use tokio::time::Instant;

use super::{Guest, IDLE, NEVER, Stage, assert_on_time, change, labels};
use crate::images::{Container, engine, unique};
use crate::support::{Client, get, project, until};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_stopped_or_killed_outside_is_frozen_and_thawed_by_a_request() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    let mut boot = stage.boot(&guest).await;
    for command in ["stop", "kill"] {
        stage.docker(&[command, &guest.container.name]);
        stage.until_frozen(&guest, Tier::Stopped).await;
        let next = stage.boot(&guest).await;
        assert_ne!(next, boot, "after {command}");
        boot = next;
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_started_outside_is_adopted_and_frozen_on_time() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, IDLE, &[]).await;
    let mut changes = stage.gateway.app().changes();
    stage.docker(&["start", &guest.container.name]);
    let running = change(&mut changes, &guest, Phase::Running).await;
    let freezing = change(&mut changes, &guest, Phase::Freezing).await;
    assert_on_time(freezing.at - running.at, IDLE);
    stage.until_frozen(&guest, Tier::Stopped).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_runs_when_the_gateway_starts_is_there_for_its_first_request() {
    let Some(engine) = engine() else { return };
    let scope = unique("scope");
    let id = unique("early");
    let labels = labels(&scope, &id, FreezeMode::Pause, IDLE);
    let arguments: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    let container = engine.container(&format!("frostgate-{id}"), &arguments);
    engine.docker(&["start", &container.name]);
    let stage = Stage::start(engine, |config| config.docker.scope = scope).await;
    let guest = Guest { id, container };
    let boot = stage.boot(&guest).await;
    stage.until_frozen(&guest, Tier::Paused).await;
    assert_eq!(stage.boot(&guest).await, boot);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_paused_outside_is_frozen_and_thawed_by_a_request_or_outside() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    let boot = stage.boot(&guest).await;
    stage.docker(&["pause", &guest.container.name]);
    stage.until_frozen(&guest, Tier::Paused).await;
    assert_eq!(stage.boot(&guest).await, boot);
    stage.docker(&["pause", &guest.container.name]);
    stage.until_frozen(&guest, Tier::Paused).await;
    stage.docker(&["unpause", &guest.container.name]);
    stage.until(&guest, Phase::Running).await;
    assert_eq!(stage.boot(&guest).await, boot);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_paused_one_that_is_stopped_outside_is_stopped_and_has_not_failed() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    // It takes its time, so that it is seen between the engine's unpause and its end.
    let guest = stage.guest(FreezeMode::Pause, IDLE, &["--env", "DYING_MS=300"]).await;
    let boot = stage.boot(&guest).await;
    stage.until_frozen(&guest, Tier::Paused).await;
    let mut changes = stage.gateway.app().changes();
    stage.docker(&["stop", &guest.container.name]);
    stage.until_frozen(&guest, Tier::Stopped).await;
    assert_ne!(stage.boot(&guest).await, boot);
    while let Ok(change) = changes.try_recv() {
        assert_ne!(change.phase, Phase::Failed, "{change:?}");
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_during_a_restart_outside_are_all_answered() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, MINUTE, &[]).await;
    let boot = stage.boot(&guest).await;
    let (address, host) = (stage.gateway.public(), format!("{}.localhost", guest.id));
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let requests = tokio::spawn(async move {
        let mut replies = Vec::new();
        while is_done.try_recv().is_err() {
            replies.push(get(address, &host, "/boot").await);
        }
        replies
    });
    let name = guest.container.name.clone();
    tokio::task::spawn_blocking(move || {
        engine.docker(&["restart", &name]);
        engine.docker(&["restart", &name]);
    })
    .await
    .unwrap();
    assert_ne!(stage.boot(&guest).await, boot);
    done.send(()).unwrap();
    let replies = requests.await.unwrap();
    assert!(replies.len() > 5, "only {} requests were made", replies.len());
    for reply in replies {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_removed_outside_has_no_route_any_more() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    stage.boot(&guest).await;
    let mut waiting = Client::connect(stage.gateway.public()).await;
    waiting
        .send(format!("GET /wait?ms=30000 HTTP/1.1\r\nHost: {}.localhost\r\n\r\n", guest.id))
        .await;
    let inside = || stage.gateway.workspace(&guest.id).view().inside == 1;
    until("the request is inside", inside).await;
    stage.docker(&["rm", "--force", &guest.container.name]);
    until("it is forgotten", || stage.workspace(&guest.id).is_none()).await;
    assert_eq!(stage.get(&guest, "/").await.status, 404);
    let began = Instant::now();
    let reply = waiting.reply().await;
    assert!(matches!(reply.status, 404 | 502), "{reply:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "it was left waiting");
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_engine_makes_late_of_one_that_was_removed_is_removed_too() {
    let Some(engine) = engine() else { return };
    let image = engine.image();
    let stage = Stage::start(engine, |config| {
        project(config, "app", Runs::Image(Image::new(image)));
    })
    .await;
    let id = unique("late");
    let name = format!("frostgate-{id}");
    let body = format!("project_id=app&id={id}");
    let kind = "application/x-www-form-urlencoded";
    assert_eq!(stage.gateway.send("POST /workspaces", kind, &body).await.status, 201);
    stage.gateway.until(&id, Phase::Running).await;
    let labels = stage.docker(&["inspect", "--format", "{{json .Config.Labels}}", &name]);
    assert_eq!(stage.gateway.call("DELETE", &format!("/workspaces/{id}")).await.status, 204);
    // As an attempt to make it would whose answer was lost.
    let labels: BTreeMap<String, String> = serde_json::from_str(&labels).unwrap();
    let labels: Vec<String> = labels
        .iter()
        .flat_map(|(key, value)| ["--label".to_owned(), format!("{key}={value}")])
        .collect();
    let arguments: Vec<&str> = labels.iter().map(String::as_str).collect();
    let _late = engine.container(&name, &arguments);
    until("it is gone", || !engine.tries(&["container", "inspect", &name])).await;
    until("nothing is known of it", || stage.workspace(&id).is_none()).await;
    // One that was not removed by us is taken in, whoever made it.
    let other = format!("{id}-other");
    let labels: Vec<String> = labels.iter().map(|label| label.replace(&id, &other)).collect();
    let arguments: Vec<&str> = labels.iter().map(String::as_str).collect();
    let container = engine.container(&format!("frostgate-{other}"), &arguments);
    let other = Guest { id: other, container };
    until("it is found", || stage.workspace(&other.id).is_some()).await;
    stage.boot(&other).await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_name_changes_nothing_for_one_with_an_id_and_the_id_of_one_without() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    let boot = stage.boot(&guest).await;
    let renamed = Container { name: format!("{}-renamed", guest.container.name) };
    stage.docker(&["rename", &guest.container.name, &renamed.name]);
    assert_eq!(stage.boot(&guest).await, boot);

    let before = unique("before");
    let after = format!("frostgate-{}", unique("after"));
    let scope = format!("frostgate.scope={}", stage.scope);
    let arguments = ["--label", "frostgate.enable=true", "--label", &scope];
    let container = engine.container(&format!("frostgate-{before}"), &arguments);
    let old = format!("frostgate-{before}");
    until("it is found", || stage.workspace(&old).is_some()).await;
    assert_eq!(stage.gateway.get(&old, "/boot").await.status, 200);
    let renamed_too = Container { name: after.clone() };
    stage.docker(&["rename", &container.name, &after]);
    until("it is found by its new name", || stage.workspace(&after).is_some()).await;
    until("its old name is forgotten", || stage.workspace(&old).is_none()).await;
    assert_eq!(stage.gateway.get(&after, "/boot").await.status, 200);
    assert_eq!(stage.gateway.get(&old, "/boot").await.status, 404);
    drop((renamed, renamed_too));
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_that_is_made_anew_under_its_id_takes_the_place_of_the_old_one() {
    let Some(engine) = engine() else { return };
    let stage = Stage::start(engine, |_| {}).await;
    let guest = stage.guest(FreezeMode::Stop, NEVER, &[]).await;
    let boot = stage.boot(&guest).await;
    // As compose does it: the new one is made beside the old one, which is then stopped, removed
    // and its name taken over. The labels are the same but for the policy.
    let labels = labels(&stage.scope, &guest.id, FreezeMode::Pause, IDLE);
    let arguments: Vec<&str> = labels.iter().flat_map(|label| ["--label", label]).collect();
    let beside = engine.container(&format!("{}-beside", guest.container.name), &arguments);
    stage.docker(&["stop", &guest.container.name]);
    stage.docker(&["rm", &guest.container.name]);
    stage.docker(&["rename", &beside.name, &guest.container.name]);
    stage.docker(&["start", &guest.container.name]);
    let new_policy = || {
        let known = stage.workspace(&guest.id);
        known.is_some_and(|known| known.policy().freeze_mode == FreezeMode::Pause)
    };
    until("the new labels count", new_policy).await;
    assert_ne!(stage.boot(&guest).await, boot);
    stage.until_frozen(&guest, Tier::Paused).await;
    stage.boot(&guest).await;
    stage.stop().await;
}

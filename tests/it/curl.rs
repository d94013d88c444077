//! The lines that people paste from the documentation of such systems into their shell: `curl`
//! itself, and a form of several parts, which no other test of ours sends.

use std::process::Stdio;

use frostgate::model::Phase;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Gateway, local_process, navigate, project, skipped};

const CREATE: &str = r#"curl -X POST -F "project_id=<project_id>" -F "max_inactive_storage_time=5" "https://<host>/api/v1/workspaces?access_token=<access_token>""#;
const CREATE_FOR_TWO_HOURS: &str = r#"curl -X POST -F "project_id=<project_id>" -F "max_inactive_storage_time=5" -F "max_storage_time=120" "https://<host>/api/v1/workspaces?access_token=<access_token>""#;
const STOP: &str = r#"curl -X PUT "https://<host>/api/v1/workspaces/<project_id>/stop?access_token=<access_token>""#;

/// What a line printed. `id` stands where the line says `<project_id>`.
async fn run(gateway: &Gateway, line: &str, id: &str) -> Value {
    let line = line
        .replace("https://<host>", &format!("http://{}", gateway.admin()))
        .replace("<project_id>", id)
        .replace("<access_token>", &gateway.token());
    let mut shell = Command::new("sh");
    let output = shell.arg("-c").arg(&line).stdin(Stdio::null()).output().await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{line}: {printed}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pasted_lines_do_as_they_say() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().await.is_err() {
        return skipped("there is no curl");
    }
    let gateway = Gateway::start(|config| {
        project(config, "web", local_process());
    })
    .await;
    for (line, age) in [(CREATE, Value::Null), (CREATE_FOR_TWO_HOURS, json!(120))] {
        let created = run(&gateway, line, "web").await;
        assert_eq!(created["message"], "Workspace has been created", "{created}");
        let workspace = &created["workspace"];
        assert_eq!(workspace["project"]["id"], "web");
        assert_eq!(workspace["inactivity_timeout"], 5, "frozen after 5 minutes of inactivity");
        assert_eq!(workspace["max_inactive_storage_time"], 5);
        assert_eq!(workspace["max_storage_time"], age);
        assert_eq!(workspace["remove_at"].is_null(), age.is_null());
        let id = workspace["id"].as_str().unwrap();
        gateway.until(id, Phase::Running).await;
        let boot = gateway.get(id, "/boot").await.body;
        for _ in 0..2 {
            assert_eq!(run(&gateway, STOP, id).await["phase"], "frozen");
            assert_eq!(gateway.phase(id), Phase::Frozen);
        }
        // To re-enter it is enough.
        let again = navigate(gateway.public(), &format!("{id}.localhost"), "/boot").await;
        assert_eq!(again.status, 200, "{again:?}");
        assert_ne!(again.body, boot);
    }
    let without = CREATE.replace(r#" -F "max_inactive_storage_time=5""#, "");
    let created = run(&gateway, &without, "web").await;
    let id = created["workspace"]["id"].as_str().unwrap();
    gateway.until(id, Phase::Running).await;
    assert_eq!(run(&gateway, STOP, id).await["status"], 409);
    assert_eq!(gateway.phase(id), Phase::Running);
    assert_eq!(run(&gateway, STOP, "nobody").await["status"], 404);
    gateway.stop().await;
}

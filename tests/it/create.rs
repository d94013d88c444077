//! Workspaces that calls create, list, filter and remove; and what a restart makes of them.

use frostgate::config::Config;
use frostgate::model::{FrozenStorage, Phase, Runs};
use serde_json::{Value, json};

use crate::support::{Gateway, Reply, config, local_process, project, unique_state_dir, until};

fn two_projects(config: &mut Config) {
    project(config, "python", local_process());
    project(config, "other", local_process());
    let argv = vec!["/nonexistent/program".to_owned()];
    project(config, "broken", Runs::Command { argv, directory: None });
}

async fn create(gateway: &Gateway, fields: &Value) -> Reply {
    gateway.send("POST /api/v1/workspaces", "application/json", &fields.to_string()).await
}

async fn created(gateway: &Gateway, fields: &Value) -> Value {
    let reply = create(gateway, fields).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.json()["workspace"].clone()
}

fn id(workspace: &Value) -> String {
    workspace["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_each_kind_creates_a_workspace_that_serves_without_being_asked_to_start() {
    let gateway = Gateway::start(two_projects).await;
    let multipart = "--x\r\nContent-Disposition: form-data; name=\"project_id\"\r\n\r\npython\r\n\
                     --x\r\nContent-Disposition: form-data; name=\"max_inactive_storage_time\"\r\n\
                     \r\n5\r\n--x--\r\n";
    for (kind, body) in [
        ("multipart/form-data; boundary=x", multipart),
        ("application/x-www-form-urlencoded", "project_id=python&max_inactive_storage_time=5"),
        ("application/json", "{\"project_id\":\"python\",\"max_inactive_storage_time\":5}"),
    ] {
        let reply = gateway.send("POST /workspaces", kind, body).await;
        assert_eq!(reply.status, 201, "{kind}: {reply:?}");
        let document = reply.json();
        assert_eq!(document["message"], "Workspace has been created");
        let workspace = &document["workspace"];
        assert_eq!(workspace["project"], json!({ "id": "python", "name": "The python" }));
        assert_eq!(workspace["max_inactive_storage_time"], 5);
        assert_eq!(workspace["inactivity_timeout"], 5, "the smaller of the default and 5");
        assert_eq!(workspace["max_storage_time"], Value::Null);
        assert_eq!(workspace["terminated_at"], Value::Null);
        let id = id(workspace);
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        gateway.until(&id, Phase::Running).await;
        assert_eq!(gateway.get(&id, "/").await.status, 200);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_creation_is_named() {
    let gateway = Gateway::start(two_projects).await;
    for (fields, status, named) in [
        (json!({}), 400, "project_id"),
        (json!({ "project_id": "nobody" }), 422, "project_id"),
        (json!({ "project_id": "python", "id": "Not An Id" }), 400, "id"),
        (json!({ "project_id": "python", "inactivity_timeout": -1 }), 400, "inactivity_timeout"),
        (json!({ "project_id": "python", "max_storage_time": "soon" }), 400, "max_storage_time"),
        (json!({ "project_id": "python", "colour": "red" }), 400, "colour"),
        (
            json!({ "project_id": "python", "max_inactive_storage_time": 1,
                    "max_inactivity_storage_time": 2 }),
            400,
            "max_inactivity_storage_time",
        ),
        (
            json!({ "project_id": "python", "stop_after": 9, "max_inactive_storage_time": 5 }),
            422,
            "stop_after",
        ),
        (json!({ "project_id": "python", "spec": { "image": "x" } }), 400, "spec"),
        (json!({ "spec": { "image": "x" } }), 403, "inline_specs"),
        (json!({ "spec": { "command": ["sh"] } }), 400, "image"),
    ] {
        let reply = create(&gateway, &fields).await;
        assert_eq!(reply.status, status, "{fields}: {reply:?}");
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(named), "{fields}: {message}");
    }
    let first = created(&gateway, &json!({ "project_id": "python", "id": "mine" })).await;
    assert_eq!(first["id"], "mine");
    let taken = create(&gateway, &json!({ "project_id": "python", "id": "mine" })).await;
    assert_eq!(taken.status, 409, "{taken:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_neither_project_nor_call_allows_to_freeze_keeps_running_and_goes_when_idle() {
    let gateway = Gateway::start(two_projects).await;
    let workspace = created(&gateway, &json!({ "project_id": "python" })).await;
    assert_eq!(workspace["max_inactive_storage_time"], 0);
    assert_eq!(workspace["inactivity_timeout"], 15);
    let id = id(&workspace);
    gateway.until(&id, Phase::Running).await;
    let stopped = gateway.call("PUT", &format!("/api/v1/workspaces/{id}/stop")).await;
    assert_eq!((stopped.status, gateway.phase(&id)), (409, Phase::Running));
    let line = format!("PATCH /api/v1/workspaces/{id}");
    let soon = "{\"inactivity_timeout\":\"200ms\"}";
    assert_eq!(gateway.send(&line, "application/json", soon).await.status, 200);
    let registry = gateway.app().registry();
    until("it is removed", || registry.get(&id).is_none()).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_filtered_and_comes_in_pages() {
    let gateway = Gateway::start(two_projects).await;
    for number in 0..12 {
        let project = if number % 3 == 0 { "other" } else { "python" };
        let fields = json!({ "project_id": project, "id": format!("w{number:02}"),
                             "max_inactive_storage_time": 60 });
        created(&gateway, &fields).await;
    }
    for number in 0..12 {
        gateway.until(&format!("w{number:02}"), Phase::Running).await;
    }
    let ids = async |query: &str| -> Vec<String> {
        let reply = gateway.call("GET", &format!("/api/v1/workspaces?{query}")).await.json();
        reply["items"].as_array().unwrap().iter().map(id).collect()
    };
    assert_eq!(ids("").await.len(), 10, "the default");
    assert_eq!(ids("limit=100").await.len(), 12);
    assert_eq!(ids("project_id=other").await, ["w00", "w03", "w06", "w09"]);
    assert_eq!(ids("project_id=nobody").await, Vec::<String>::new());
    assert_eq!(gateway.call("PUT", "/api/v1/workspaces/w05/stop").await.status, 200);
    assert_eq!(ids("states[]=4&limit=100").await, ["w05"]);
    assert_eq!(ids("states[]=1&states[]=2&limit=100").await.len(), 11);
    // Pages stay whole although one of the page before goes meanwhile.
    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let query = format!("limit=5&page_token={token}");
        let page = gateway.call("GET", &format!("/workspaces?{query}")).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().map(id));
        match page["paging"]["next_page_token"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
        let gone = gateway.call("DELETE", &format!("/workspaces/{}", seen[0])).await;
        assert!(matches!(gone.status, 204 | 404), "{gone:?}");
    }
    let all: Vec<String> = (0..12).map(|number| format!("w{number:02}")).collect();
    assert_eq!(seen, all);
    for bad in ["limit=0", "limit=101", "limit=x", "states[]=9", "page_token=!"] {
        let reply = gateway.call("GET", &format!("/workspaces?{bad}")).await;
        assert_eq!(reply.status, 400, "{bad}");
        let name = bad.split('=').next().unwrap();
        assert!(reply.text().contains(name), "{bad}: {}", reply.text());
    }
    let projects = gateway.call("GET", "/api/v1/projects").await.json();
    let expected = json!([
        { "id": "broken", "name": "The broken" },
        { "id": "other", "name": "The other" },
        { "id": "python", "name": "The python" },
    ]);
    assert_eq!(projects["items"], expected);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn created_workspaces_come_back_after_a_crash_without_their_project() {
    let mut before = config(unique_state_dir());
    two_projects(&mut before);
    let mut after = before.clone();
    after.projects.clear();
    let gateway = Gateway::start_as(before).await;
    let fields = json!({ "project_id": "python", "max_inactive_storage_time": 60,
                         "inactivity_timeout": 7 });
    let workspace = created(&gateway, &fields).await;
    let id = id(&workspace);
    gateway.until(&id, Phase::Running).await;
    let boot = gateway.get(&id, "/boot").await.body;
    let removed = created(&gateway, &fields).await["id"].as_str().unwrap().to_owned();
    assert_eq!(gateway.call("DELETE", &format!("/workspaces/{removed}")).await.status, 204);
    gateway.crash().await;

    let gateway = Gateway::start_as(after).await;
    assert!(gateway.app().registry().get(&removed).is_none(), "it was removed");
    let again = gateway.call("GET", &format!("/api/v1/workspaces/{id}")).await.json();
    assert_eq!(again["project"], json!({ "id": "python", "name": "python" }));
    assert_eq!(again["created_at"], workspace["created_at"]);
    assert_eq!(again["inactivity_timeout"], 7);
    let storage = gateway.workspace(&id).policy().storage;
    assert_eq!(storage, FrozenStorage::Limited(std::time::Duration::from_secs(3_600)));
    assert_eq!(gateway.get(&id, "/boot").await.body, boot, "it ran on all the while");
    gateway.stop().await;
}

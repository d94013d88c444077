//! The access log: a line for each request, and what it does not say.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use frostgate::model::FreezeMode;
use serde_json::Value;

use crate::support::{Client, Gateway, Origin, PATIENCE, Program, ok, process, until};
use crate::websocket;

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn until_lines(path: &PathBuf, number: usize) -> Vec<Value> {
    until(&format!("{number} lines are written"), || lines(path).len() >= number).await;
    lines(path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_has_one_line_that_says_how_long_it_waited_and_no_secret() {
    let path = crate::support::unique_state_dir().with_extension("access");
    let gateway = Gateway::start(|config| {
        config.log.access = Some(path.clone());
        process(config, "alice", FreezeMode::Stop, PATIENCE * 9, &[]);
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client
        .send(
            "GET /boot?access_token=hunter2 HTTP/1.1\r\nHost: alice.localhost\r\n\
             User-Agent: \"a\"\\\r\nX-Request-Id: theirs\r\n\r\n",
        )
        .await;
    let first = client.reply().await;
    client.send("GET /boot HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    client.reply().await;
    client.send("GET / HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n").await;
    client.reply().await;
    let lines = until_lines(&path, 3).await;
    let (held, warm, nobody) = (&lines[0], &lines[1], &lines[2]);
    for (key, value) in [
        ("method", "GET".into()),
        ("host", "alice.localhost".into()),
        ("path", "/boot".into()),
        ("protocol", "HTTP/1.1".into()),
        ("client", "127.0.0.1".into()),
        ("workspace", "alice".into()),
        ("user_agent", "\"a\"\\".into()),
        ("status", Value::from(200)),
        ("bytes", first.body.len().into()),
        ("request_id", first.header("x-request-id").unwrap().into()),
    ] {
        assert_eq!(held[key], value, "{key} of {held}");
    }
    let number = |line: &Value, key: &str| line[key].as_f64();
    assert!(number(held, "hold_ms") > Some(0.0) && number(held, "wake_ms") > Some(0.0), "{held}");
    assert!(number(held, "duration_ms") >= number(held, "hold_ms"), "{held}");
    assert!(held["at"].as_str().unwrap().ends_with('Z'), "{held}");
    assert!(warm["hold_ms"].is_null() && warm["wake_ms"].is_null(), "{warm}");
    assert_eq!((&nobody["status"], &nobody["workspace"]), (&404.into(), &Value::Null), "{nobody}");
    assert!(!fs::read_to_string(&path).unwrap().contains("hunter2"));
    gateway.stop().await;
    fs::remove_file(path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_is_written_when_the_answer_has_been_sent_and_at_once_for_a_tunnel() {
    let path = crate::support::unique_state_dir().with_extension("access");
    let origin = Origin::start(|mut connection| async move {
        while let Some(request) = connection.request().await {
            if request.path() == "/half" {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
                connection.send(head).await;
                return connection.until_gone().await;
            }
            connection.send(ok("fine")).await;
        }
    })
    .await;
    let gateway = Gateway::start(|config| {
        config.log.access = Some(path.clone());
        crate::support::upstream(config, "alice", origin.address);
    })
    .await;
    let mut client = Client::connect(gateway.public()).await;
    client.send("GET /half HTTP/1.1\r\nHost: alice.localhost\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.bytes(4).await, b"half");
    assert_eq!(lines(&path).len(), 0, "it is not over yet");
    drop(client);
    let line = until_lines(&path, 1).await.remove(0);
    assert_eq!((&line["bytes"], &line["status"]), (&4.into(), &200.into()), "{line}");
    gateway.stop().await;

    let origin = websocket::switching(|mut connection| async move {
        connection.send([0x81, 0]).await;
        connection.until_gone().await;
    })
    .await;
    let gateway = Gateway::start(|config| {
        config.log.access = Some(path.clone());
        crate::support::upstream(config, "alice", origin.address);
    })
    .await;
    let client = websocket::opened(&gateway).await;
    let line = until_lines(&path, 2).await.remove(1);
    assert_eq!(line["status"], 101, "{line}");
    drop(client);
    gateway.stop().await;
    fs::remove_file(path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_set_aside_has_a_successor_after_a_reload() {
    let origin = Origin::answering(|_| ok("fine")).await;
    let mut program = Program::start_with(&origin, "", "").await;
    let file = program.directory().join("access.json");
    let text = |access: &str| {
        let upstream = origin.address;
        format!(
            "workers = 2\n[docker]\nenable = false\n[log]\naccess = {access:?}\n\
             [workspaces.alice]\nupstream = \"{upstream}\"\n"
        )
    };
    program.configure(&text(file.to_str().unwrap()));
    let reload = async |program: &Program| {
        let reply = program.call("POST /api/v1/reload", "").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    reload(&program).await;
    program.get("alice", "/one").await;
    until_lines(&file, 1).await;
    let aside = program.directory().join("access.json.1");
    fs::rename(&file, &aside).unwrap();
    reload(&program).await;
    program.get("alice", "/two").await;
    assert_eq!(until_lines(&file, 1).await[0]["path"], "/two");
    assert_eq!(lines(&aside).len(), 1);
    // One that can't be opened is refused, and the old one stays.
    program.configure(&text("/nowhere/access.json"));
    let refused = program.call("POST /api/v1/reload", "").await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text().contains("log.access"), "{refused:?}");
    program.get("alice", "/three").await;
    until_lines(&file, 2).await;
    program.terminate();
    assert_eq!(program.ended(Duration::from_secs(60)).await, Some(0));
}

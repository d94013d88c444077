//! The API's socket: who may call by it, and who has it when several Frostgates want it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use frostgate::app::App;
use frostgate::config::AdminSocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::support::{
    Gateway, Origin, PATIENCE, Program, Setup, config, get, ok, skipped, unique_state_dir,
};

/// What a call by the socket is answered: the status, and all that came. `None`: nobody answers.
async fn try_call(path: &Path, line: &str, fields: &str) -> Option<(u16, String)> {
    let mut stream = UnixStream::connect(path).await.ok()?;
    let request = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\n{fields}Connection: close\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}

async fn call(path: &Path, line: &str, fields: &str) -> u16 {
    try_call(path, line, fields).await.expect("somebody answers").0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_owns_it_is_an_admin_without_a_token() {
    let gateway = Gateway::start(|_| {}).await;
    let path = gateway.state_dir().join("admin.sock");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(call(&path, "GET /api/v1/test", "").await, 200);
    assert_eq!(call(&path, "GET /api/v1/tokens", "").await, 200, "which takes an admin");
    assert_eq!(get(gateway.admin(), "admin", "/api/v1/test").await.status, 401, "by TCP");
    assert_eq!(get(gateway.public(), "admin", "/api/v1/test").await.status, 404, "in public");
    // Whoever presents a token is taken by it.
    let reader = "{\"name\":\"reader\",\"scope\":\"read\"}";
    let made = gateway.send("POST /api/v1/tokens", "application/json", reader).await.json();
    let token = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let reader = token(made["token"].as_str().unwrap());
    assert_eq!(call(&path, "GET /api/v1/test", &reader).await, 200);
    assert_eq!(call(&path, "GET /api/v1/tokens", &reader).await, 403);
    assert_eq!(call(&path, "GET /api/v1/test", &token("wrong")).await, 401);
    // It has no address that a workspace could have.
    assert_eq!(call(&path, "POST /v1/check-in?active=1", "").await, 404);
    gateway.stop().await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_user_needs_a_token_even_where_the_file_lets_him_in() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can be somebody else");
    }
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped("there is no curl");
    }
    let directory = unique_state_dir();
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.join("admin.sock");
    let gateway = Gateway::start(|config| {
        config.listen.admin_socket = AdminSocket::At(path.clone());
    })
    .await;
    let ask = |fields: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]);
        curl.arg("--unix-socket").arg(&path).args(["--header", fields]);
        let output = curl.arg("http://localhost/api/v1/test").uid(65_534).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(ask("X: x"), "000", "the file is closed to him");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(ask("X: x"), "401");
    assert_eq!(ask(&format!("Authorization: Bearer {}", gateway.token())), "200");
    gateway.stop().await;
    fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_behind_is_replaced_and_what_is_in_use_is_not() {
    let directory = unique_state_dir();
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("shared.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists() && UnixStream::connect(&path).await.is_err());
    let start = |path: PathBuf| {
        let mut config = config(unique_state_dir());
        config.listen.admin_socket = AdminSocket::At(path);
        Gateway::start_as(config)
    };
    let first = start(path.clone()).await;
    assert_eq!(call(&path, "GET /api/v1/test", "").await, 200);
    first.stop().await;
    assert!(!path.exists());

    let origin = Origin::answering(|request| ok(request.path())).await;
    let line = format!("admin_socket = {path:?}\n[docker]\nenable = false\n");
    let setup = Setup { configuration: line, log: "info", ..Setup::default() };
    let mut owner = Program::run(setup).await;
    // Another process, of another state directory.
    let mut config = config(unique_state_dir());
    config.listen.admin_socket = AdminSocket::At(path.clone());
    let Err(refused) = App::start(config.clone()).await else { panic!("it was taken away") };
    let words = format!("{refused:#}");
    assert!(
        words.contains("another program, of the pid ") && words.contains("admin_socket"),
        "{words}"
    );
    assert_eq!(call(&path, "GET /api/v1/test", "").await, 200);
    // As kill -9 does.
    owner.kill();
    assert!(path.exists());
    let second = Gateway::start_as(config.clone()).await;
    assert_eq!(call(&path, "GET /api/v1/test", "").await, 200);
    second.stop().await;
    // What is no socket is nobody's to take away.
    fs::write(&path, "precious").unwrap();
    let Err(refused) = App::start(config).await else { panic!("it was taken away") };
    assert!(format!("{refused:#}").contains("is no socket"), "{refused:#}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_dir_all(directory).unwrap();
    drop(origin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_one_everything_else_is_served() {
    for socket in [AdminSocket::Nowhere, AdminSocket::InStateDir] {
        // A name that no socket can have.
        let state_dir = unique_state_dir().join("a".repeat(100));
        let mut config = config(state_dir.clone());
        config.listen.admin_socket = socket;
        let gateway = Gateway::start_as(config).await;
        assert!(!state_dir.join("admin.sock").exists());
        assert_eq!(gateway.call("GET", "/api/v1/test").await.status, 200);
        gateway.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stays_through_a_reload_and_a_takeover_and_goes_with_the_last() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let mut old = Program::start(&origin, "").await;
    let path = old.state_dir().join("admin.sock");
    let vouched =
        async || try_call(&path, "GET /api/v1/tokens", "").await.map(|(status, _)| status);
    assert_eq!(vouched().await, Some(200));
    assert_eq!(call(&path, "POST /api/v1/reload", "").await, 200);
    assert_eq!(vouched().await, Some(200));
    let mut new = old.taken_over().await;
    assert_eq!(vouched().await, Some(200));
    assert_eq!(old.ended(PATIENCE).await, Some(0));
    assert_eq!(vouched().await, Some(200), "the old one took it along: {}", new.log());
    assert_eq!(call(&path, "POST /api/v1/reload", "").await, 200);
    // One that comes to nothing leaves it to the one before.
    let mut killed = new.beside();
    let deadline = Instant::now() + PATIENCE;
    while new.log().matches("another Frostgate takes over").count() < 2 {
        assert!(Instant::now() < deadline && !killed.has_ended(), "{}", new.log());
        sleep(std::time::Duration::from_millis(2)).await;
    }
    killed.kill();
    let deadline = Instant::now() + PATIENCE * 4;
    while vouched().await != Some(200) {
        assert!(Instant::now() < deadline, "{}", new.log());
        sleep(std::time::Duration::from_millis(5)).await;
    }
    new.terminate();
    assert_eq!(new.ended(PATIENCE).await, Some(0), "{}", new.log());
    assert!(!path.exists(), "{}", new.log());
}

//! The program itself, as an operator runs it: a process of its own, with a file of configuration.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Client, Origin, PATIENCE, Reply, get, unique_state_dir};

/// How it is run.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    /// Where end users arrive; empty: on a port of the system's choice.
    pub(crate) public: Vec<SocketAddr>,
    /// The file, without `state_dir`, `listen.public` and `listen.admin`. What stands before its
    /// first table belongs to `[listen]`.
    pub(crate) configuration: String,
    /// What the shell is to do before.
    pub(crate) first: String,
    /// `FROSTGATE_LOG`; empty: as usual.
    pub(crate) log: &'static str,
}

/// A running program. Dropped, it is killed, and its state with it.
pub(crate) struct Program {
    child: Killed,
    directory: Directory,
    setup: Setup,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
}

struct Killed(Child);

impl Killed {
    fn end(&mut self) {
        // SIGKILL on Unix. It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}

/// Holds the configuration, the log and the state.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl Program {
    /// Starts it in front of that upstream, after what the shell is to do first.
    pub(crate) async fn start(origin: &Origin, first: &str) -> Self {
        Self::start_with(origin, first, "").await
    }

    /// The same, with more in its configuration.
    pub(crate) async fn start_with(origin: &Origin, first: &str, more: &str) -> Self {
        let configuration = format!(
            "workers = 2\ndrain_grace = \"5s\"\n[docker]\nenable = false\n\
             [workspaces.alice]\nupstream = \"{}\"\n{more}",
            origin.address
        );
        let first = first.to_owned();
        Self::run(Setup { configuration, first, log: "trace", ..Setup::default() }).await
    }

    pub(crate) async fn run(setup: Setup) -> Self {
        let directory = unique_state_dir();
        fs::create_dir_all(&directory).unwrap();
        Self::start_in(Directory(directory), setup).await
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.child.end();
    }

    /// It is killed, and started again as it was.
    pub(crate) async fn kill_and_start(self) -> Self {
        let Self { child, directory, setup, .. } = self;
        drop(child);
        Self::start_in(directory, setup).await
    }

    async fn start_in(directory: Directory, setup: Setup) -> Self {
        let file = directory.0.join("frostgate.toml");
        fs::write(&file, setup.text(&directory.0)).unwrap();
        let log = File::options().create(true).append(true).open(directory.0.join("log")).unwrap();
        let output = File::create(directory.0.join("output")).unwrap();
        let said_before = usize::try_from(log.metadata().unwrap().len()).unwrap();
        let child = Command::new("sh")
            .arg("-c")
            .arg(format!("{} exec \"$0\" serve --config \"$1\"", setup.first))
            .arg(env!("CARGO_BIN_EXE_frostgate"))
            .arg(&file)
            .env("FROSTGATE_LOG", setup.log)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = Killed(child);
        let mut program = Self { child, directory, setup, public: nowhere, admin: nowhere };
        let deadline = Instant::now() + PATIENCE;
        while !program.has_said_where(said_before) {
            let ended = program.child.0.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < deadline, "it serves not: {}", program.log());
            sleep(Duration::from_millis(2)).await;
        }
        program
    }

    /// Whether it serves, and where, in what it has logged since.
    fn has_said_where(&mut self, said_before: usize) -> bool {
        let log = self.log();
        let mut lines =
            log[said_before..].lines().filter_map(|line| serde_json::from_str(line).ok());
        let serving = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.starts_with("serving") && line["public"].is_string()
        };
        let Some(line) = lines.find(serving) else { return false };
        let public = line["public"].as_str().unwrap().trim_matches(['[', ']']);
        self.public = public.split(", ").next().unwrap().parse().unwrap();
        self.admin = line["admin"].as_str().unwrap().parse().unwrap();
        true
    }

    /// Where its configuration, its log and its state are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory.0
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        state_dir(&self.directory.0)
    }

    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.state_dir().join("token")).unwrap().trim().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.0.join("log")).unwrap_or_default()
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.directory.0.join("output")).unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_some()
    }

    /// Resident bytes.
    pub(crate) fn memory(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.0.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.child.0), Signal::TERM).unwrap();
    }

    /// How it ended, within the limit.
    pub(crate) async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(5)).await;
        }
        None
    }

    /// A GET of a workspace, over a connection of its own.
    pub(crate) async fn get(&self, id: &str, path: &str) -> Reply {
        get(self.public, &format!("{id}.localhost"), path).await
    }

    /// A call of the admin API with the admin's token and, perhaps, a JSON body.
    pub(crate) async fn call(&self, line: &str, body: &str) -> Reply {
        call(self.admin, &self.token(), line, body).await.unwrap()
    }

    /// The phase of a workspace; `unknown` if there is none.
    pub(crate) async fn phase(&self, id: &str) -> String {
        let reply = self.call(&format!("GET /workspaces/{id}"), "").await;
        match reply.status {
            200 => reply.json()["phase"].as_str().unwrap().to_owned(),
            _ => "unknown".to_owned(),
        }
    }

    pub(crate) async fn until(&self, id: &str, phase: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.phase(id).await != phase {
            assert!(Instant::now() < deadline, "{id} is never {phase}:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Setup {
    fn text(&self, directory: &Path) -> String {
        let state_dir = state_dir(directory);
        let mut public: Vec<String> = self.public.iter().map(SocketAddr::to_string).collect();
        if public.is_empty() {
            public.push("127.0.0.1:0".to_owned());
        }
        let configuration = &self.configuration;
        format!(
            "state_dir = {state_dir:?}\n\
             [listen]\npublic = {public:?}\nadmin = \"127.0.0.1:0\"\n{configuration}"
        )
    }
}

fn state_dir(directory: &Path) -> PathBuf {
    directory.join("state")
}

/// A call of the admin API, over a connection of its own. `None`: it was not answered.
pub(crate) async fn call(admin: SocketAddr, token: &str, line: &str, body: &str) -> Option<Reply> {
    let mut client = Client::try_connect(admin).await?;
    let length = body.len();
    client
        .send(format!(
            "{line} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.whole_reply().await
}

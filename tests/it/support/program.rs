//! The program itself, as an operator runs it: a process of its own, with a file of configuration.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
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
    /// Its standard input, for the shell to do something with; `None`: nothing.
    pub(crate) input: Option<Arc<TcpListener>>,
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
struct Directory {
    path: PathBuf,
    /// Whether it goes when this does; another program may be in it.
    is_ours: bool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_ours {
            drop(fs::remove_dir_all(&self.path));
        }
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
        let directory = Directory { path: directory, is_ours: true };
        Self::start_in(directory, setup).await
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

    /// Starts another one beside it, which takes over. It is up when it serves; both have one log.
    pub(crate) async fn taken_over(&self) -> Self {
        let said_before = self.log().len();
        let mut successor = self.beside();
        successor.serves(said_before).await;
        successor
    }

    /// The same, without waiting for anything.
    pub(crate) fn beside(&self) -> Self {
        let directory = Directory { path: self.directory.path.clone(), is_ours: false };
        Self::spawn(directory, self.setup.clone(), " --takeover")
    }

    /// Waits until it says that it serves, in what is in the log after so many bytes.
    pub(crate) async fn serves(&mut self, said_before: usize) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_said_where(said_before) {
            let ended = self.child.0.try_wait().unwrap().is_some();
            assert!(!ended && Instant::now() < deadline, "it serves not: {}", self.log());
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn start_in(directory: Directory, setup: Setup) -> Self {
        let said_before = fs::metadata(directory.path.join("log")).map_or(0, |log| log.len());
        let mut program = Self::spawn(directory, setup, "");
        program.serves(usize::try_from(said_before).unwrap()).await;
        program
    }

    fn spawn(directory: Directory, setup: Setup, how: &str) -> Self {
        let file = directory.path.join("frostgate.toml");
        fs::write(&file, setup.text(&directory.path)).unwrap();
        let log =
            File::options().create(true).append(true).open(directory.path.join("log")).unwrap();
        let output = File::create(directory.path.join("output")).unwrap();
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars_os() {
            // Those that are about the tests, and whatever somebody has set for a Frostgate here.
            if name.as_encoded_bytes().starts_with(b"FROSTGATE_") {
                command.env_remove(name);
            }
        }
        let child = command
            .arg("-c")
            .arg(format!("{} exec \"$0\" serve --config \"$1\"{how}", setup.first))
            .arg(env!("CARGO_BIN_EXE_frostgate"))
            .arg(&file)
            .env("FROSTGATE_LOG", setup.log)
            .stdin(match &setup.input {
                Some(socket) => Stdio::from(OwnedFd::from(socket.try_clone().unwrap())),
                None => Stdio::null(),
            })
            .stdout(output)
            .stderr(log)
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let child = Killed(child);
        Self { child, directory, setup, public: nowhere, admin: nowhere }
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

    /// Writes another configuration, which it has to be told of.
    pub(crate) fn configure(&mut self, configuration: &str) {
        self.setup.configuration = configuration.to_owned();
        fs::write(self.file(), self.setup.text(&self.directory.path)).unwrap();
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path.join("frostgate.toml")
    }

    /// Where its configuration, its log and its state are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory.path
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        state_dir(&self.directory.path)
    }

    pub(crate) fn token(&self) -> String {
        fs::read_to_string(self.state_dir().join("token")).unwrap().trim().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path.join("log")).unwrap_or_default()
    }

    /// What it printed.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.directory.path.join("output")).unwrap()
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
        self.signal(Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.0), signal).unwrap();
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

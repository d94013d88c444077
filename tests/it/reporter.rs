//! `frostgate check-in`: reports of a workspace's own activity, as the real program sends them.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cli::frostgate;
use crate::fixture;
use crate::support::{Origin, PATIENCE, Program, Setup, ok, unique_state_dir};

/// A reporter, and what it logs. Dropped, it is killed.
struct Reporter {
    child: Child,
    log: PathBuf,
}

impl Reporter {
    fn start(arguments: &[&str]) -> Self {
        let log = unique_state_dir().with_extension("log");
        let child = Command::new(env!("CARGO_BIN_EXE_frostgate"))
            .args(["check-in", "--watch"])
            .args(arguments)
            .env_clear()
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn until_logged(&self, words: &str, times: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.log().matches(words).count() < times {
            assert!(Instant::now() < deadline, "{words:?} is not {times} times in {}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// As `kill` does; how it ended, and what it logged.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, self.log())
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_file(&self.log));
    }
}

/// Somebody that reports go to: heads and bodies of what arrives, each answered with that status.
fn gateway(listener: TcpListener, status: &'static str) -> Receiver<(String, String)> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
            }
            let length = head.to_ascii_lowercase();
            let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            // The other one hangs up first: it has said that it would.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            if tell.send((head, String::from_utf8(body).unwrap())).is_err() {
                return;
            }
        }
    });
    told
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_change_is_reported_at_once_and_the_last_one_is_taken_back() {
    let (home, address) = listener();
    let reports = gateway(home, "200 OK");
    let next = || reports.recv_timeout(PATIENCE).expect("a report");
    let (watched, port) = listener();
    let url = format!("http://{address}/v1/check-in?token=alice.secret");
    let port = port.port().to_string();
    let connect = || TcpStream::connect(watched.local_addr().unwrap()).unwrap();
    // Only what changes is reported within an hour.
    let arguments = ["--port", &port, "--interval", "1h", "--url", &url];
    let reporter = Reporter::start(&arguments);
    let (head, body) = next();
    assert!(head.starts_with("POST /v1/check-in?token=alice.secret HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("connection: close\r\n"), "{head}");
    assert_eq!(body, "active=0");
    let guests = [connect(), connect()];
    assert!(["active=1", "active=2"].contains(&next().1.as_str()));
    reporter.until_logged("active: ", 1);
    drop(guests);
    assert_eq!(next().1, "active=0");
    let _guest = connect();
    assert_eq!(next().1, "active=1");
    let (code, log) = reporter.end(Signal::TERM);
    assert_eq!((code, next().1.as_str()), (Some(0), "active=0"), "{log}");
    assert!(!log.contains("secret"), "{log}");
    assert_eq!(log.matches("\"active: ").count(), 2, "a line for each change: {log}");
    // An idle one has nothing to take back.
    let except = [&arguments[..], &["--except", "127.0.0.0/8"]].concat();
    let reporter = Reporter::start(&except);
    assert_eq!(next().1, "active=0");
    reporter.until_logged("idle", 1);
    let (code, log) = reporter.end(Signal::INT);
    assert_eq!(code, Some(0), "{log}");
    assert!(reports.try_recv().is_err(), "{log}");
}

#[test]
fn it_is_repeated_every_interval_and_until_somebody_answers() {
    let (nobody, address) = listener();
    drop(nobody);
    let url = format!("http://{address}/");
    let name = format!("frostgate-sleeper-{}", std::process::id());
    let reporter =
        Reporter::start(&["--process", &name, "--interval", "1s", "--ssh=1", "--url", &url]);
    reporter.until_logged("could not report", 1);
    let mut sleeper = Command::new("sleep").arg0(&name).arg("300").spawn().unwrap();
    reporter.until_logged("active: 1 process", 1);
    let reports = gateway(TcpListener::bind(address).unwrap(), "200 OK");
    let next = || reports.recv_timeout(PATIENCE).expect("a report").1;
    for _ in 0..3 {
        assert_eq!(next(), "active=1");
    }
    reporter.until_logged("reports arrive again", 1);
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    while next() != "active=0" {}
    assert_eq!(reporter.log().matches("could not report").count(), 1, "{}", reporter.log());
}

#[test]
fn one_that_is_refused_is_told_and_tried_again() {
    let (home, address) = listener();
    let reports = gateway(home, "404 Not Found");
    let url = format!("http://{address}/");
    let reporter = Reporter::start(&["--cpu", "1000000", "--interval", "1s", "--url", &url]);
    for _ in 0..2 {
        assert_eq!(reports.recv_timeout(PATIENCE).expect("a report").1, "active=0");
    }
    reporter.until_logged("the answer was 404 Not Found; is that Frostgate?", 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_report_says_how_it_went_by_its_code() {
    let home = unique_state_dir();
    fs::create_dir_all(&home).unwrap();
    let (listening, address) = listener();
    let reports = gateway(listening, "200 OK");
    let url = format!("http://{address}/v1/check-in");
    let variable = [("FROSTGATE_CHECK_IN_URL", url.as_str())];
    for (arguments, body) in [("--active 7", "active=7"), ("--idle", "active=0")] {
        let said = frostgate(&home, &format!("check-in {arguments}"), &variable).await;
        assert_eq!((said.code, said.output.as_str(), said.error.as_str()), (Some(0), "", ""));
        assert_eq!(reports.recv_timeout(PATIENCE).unwrap().1, body);
    }
    let (nobody, closed) = listener();
    drop(nobody);
    let said = frostgate(&home, &format!("check-in --idle --url http://{closed}/"), &[]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.error.contains(&format!("could not report to {closed}: ")), "{said:?}");
    let rows = [
        ("check-in --watch", "say what is to be watched"),
        ("check-in --watch --ssh --interval 10ms", "a second at least"),
        ("check-in --idle --url https://a/?token=secret", "has to begin with http://"),
    ];
    for (arguments, words) in rows {
        let said = frostgate(&home, arguments, &[]).await;
        assert_eq!((said.code, said.error.contains(words)), (Some(2), true), "{said:?}");
        assert!(!said.error.contains("secret"), "{said:?}");
    }
    fs::remove_dir_all(home).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_past_the_gateway_keeps_a_workspace_awake_until_it_ends() {
    let (watched, port) = listener();
    let program = env!("CARGO_BIN_EXE_frostgate");
    let port = port.port();
    let entry = format!(
        "{program} check-in --watch --port {port} --interval 1s & exec {}",
        fixture::binary().display()
    );
    let origin = Origin::answering(|request| ok(request.path())).await;
    let configuration = format!(
        "workers = 2\n[docker]\nenable = false\n\
         [workspaces.box]\ncommand = [\"sh\", \"-c\", {entry:?}]\ninactivity_timeout = \"2s\"\n\
         [workspaces.wiki]\nupstream = \"{}\"\n",
        origin.address
    );
    let program = Program::run(Setup { configuration, log: "info", ..Setup::default() }).await;
    let guest = TcpStream::connect(watched.local_addr().unwrap()).unwrap();
    assert_eq!(program.get("box", "/").await.status, 200);
    let told = async || {
        let reply = program.call("GET /workspaces/box", "").await.json();
        (reply["phase"].as_str().unwrap().to_owned(), reply["reports_activity"] == true)
    };
    let deadline = Instant::now() + PATIENCE;
    while !told().await.1 {
        assert!(Instant::now() < deadline, "it never reports: {}", program.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Long enough to be frozen twice.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(told().await, ("running".to_owned(), true), "{}", program.log());
    drop(guest);
    program.until("box", "frozen").await;
}

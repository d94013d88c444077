//! `frostgate doctor`: every check, provoked; and with nothing wrong, nothing to say.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::{Origin, Program, ok, skipped, unique_state_dir};

/// A directory with a configuration for a gateway that could be started, which goes with it.
struct Patient(PathBuf);

impl Patient {
    fn new() -> Self {
        let directory = unique_state_dir();
        fs::create_dir_all(&directory).unwrap();
        let patient = Self(directory);
        patient.configure("", "");
        patient
    }

    /// With more in `[listen]`, and behind everything.
    fn configure(&self, listen: &str, more: &str) {
        let state = self.state_dir();
        let enable = if more.contains("[docker]") { "" } else { "[docker]\nenable = false\n" };
        let text = format!(
            "state_dir = {state:?}\n[listen]\npublic = [\"127.0.0.1:0\"]\n\
             admin = \"127.0.0.1:0\"\nconnections_max = 50\n{listen}\n{enable}{more}"
        );
        fs::write(self.0.join("frostgate.toml"), text).unwrap();
    }

    fn state_dir(&self) -> PathBuf {
        self.0.join("state")
    }

    fn make_state_dir(&self) {
        fs::create_dir_all(self.state_dir()).unwrap();
        fs::set_permissions(self.state_dir(), fs::Permissions::from_mode(0o700)).unwrap();
    }

    fn findings(&self) -> Findings {
        Findings::of(doctor(&self.0, "").output().unwrap())
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// By a shell, after what that is to do first.
fn doctor(home: &Path, first: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{first} exec \"$0\" doctor --output json"));
    shell.arg(env!("CARGO_BIN_EXE_frostgate")).current_dir(home);
    shell.env_clear().env("HOME", home).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    shell
}

#[derive(Debug)]
struct Findings {
    code: Option<i32>,
    report: Value,
}

impl Findings {
    fn of(output: Output) -> Self {
        let report = serde_json::from_slice(&output.stdout);
        let report: Value = report.unwrap_or_else(|_| panic!("{output:?}"));
        let found = Self { code: output.status.code(), report };
        let problems = found.report["problems"].as_u64().unwrap();
        assert_eq!(found.code, Some(i32::from(problems > 0)), "{found:?}");
        for check in found.checks() {
            assert_eq!(check["fix"].is_null(), check["status"] == "ok", "{check}");
        }
        found
    }

    fn checks(&self) -> &[Value] {
        self.report["checks"].as_array().unwrap()
    }

    /// Whether a check has found this.
    fn have(&self, check: &str, status: &str, words: &str) -> bool {
        let mut of_check = self.checks().iter().filter(|one| one["check"] == check);
        of_check.any(|one| {
            let detail = one["detail"].as_str().unwrap();
            one["status"] == status && detail.contains(words)
        })
    }

    fn assert(&self, check: &str, status: &str, words: &str) {
        assert!(self.have(check, status, words), "no {status} {words:?} of {check} in {self:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_is_well_it_says_so_of_everything() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let program = Program::start(&origin, "").await;
    let home = program.directory();
    let found = Findings::of(doctor(home, "").output().unwrap());
    assert_eq!(found.report["problems"], 0, "{found:#?}");
    for check in [
        "configuration",
        "state directory",
        "gateway",
        "admin socket",
        "wildcard DNS",
        "certificates",
        "engine",
        "clock",
    ] {
        found.assert(check, "ok", "");
    }
    for check in ["cgroup freezer", "descriptors"] {
        assert!(found.checks().iter().any(|one| one["check"] == check), "{found:#?}");
    }
    found.assert("gateway", "ok", "it answers at unix://");
    // In words, with what to do.
    let mut command = Command::new(env!("CARGO_BIN_EXE_frostgate"));
    command.arg("doctor").env_clear().env("HOME", home).current_dir(home);
    let told = command.output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("ok       configuration") && !told.contains('\u{1b}'), "{told}");
    // Its own ports are no problem, whether it is asked by HTTP or TLS.
    let (public, admin) = (program.public, program.admin);
    let patient = Patient::new();
    let config = fs::read_to_string(patient.0.join("frostgate.toml")).unwrap();
    let config = config.replacen("127.0.0.1:0", &public.to_string(), 1);
    let config = config.replacen("127.0.0.1:0", &admin.to_string(), 1);
    fs::write(patient.0.join("frostgate.toml"), config).unwrap();
    let found = patient.findings();
    found.assert("ports", "ok", &format!("{public} (listen.public) is Frostgate's"));
    found.assert("ports", "ok", &format!("{admin} (listen.admin) is Frostgate's"));
}

#[test]
fn without_a_gateway_everything_is_looked_at_all_the_same() {
    let patient = Patient::new();
    let found = patient.findings();
    assert_eq!(found.report["problems"], 0, "{found:#?}");
    found.assert("state directory", "ok", "the first start makes it");
    found.assert("admin socket", "ok", "is made when a gateway starts");
    assert!(!patient.state_dir().exists(), "a look changes nothing");
    patient.configure("admin_tls = false\n", "");
    let text = fs::read_to_string(patient.0.join("frostgate.toml")).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = text.replacen("admin = \"127.0.0.1:0\"", &format!("admin = \"{free}\""), 1);
    fs::write(patient.0.join("frostgate.toml"), text).unwrap();
    patient.findings().assert("gateway", "warning", "none answers at http://127.0.0.1:");
}

#[test]
fn a_configuration_that_can_not_be_used_is_all_that_is_told() {
    let patient = Patient::new();
    patient.configure("adnim = 1\n", "[limits]\nslots = \"many\"\n");
    let found = patient.findings();
    assert_eq!(found.report["problems"], 2, "{found:#?}");
    found.assert("configuration", "problem", "unknown key \"adnim\"");
    found.assert("configuration", "problem", "slots");
}

#[test]
fn a_state_directory_that_can_not_be_used_is_a_problem() {
    let patient = Patient::new();
    fs::write(patient.state_dir(), "a file").unwrap();
    patient.findings().assert("state directory", "problem", "is no directory");
    fs::remove_file(patient.state_dir()).unwrap();
    patient.make_state_dir();
    patient.findings().assert("state directory", "ok", "can be written to");
    fs::set_permissions(patient.state_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    patient.findings().assert("state directory", "warning", "can be entered by others");
    // What is above it is no directory either.
    fs::remove_dir(patient.state_dir()).unwrap();
    fs::write(patient.0.join("file"), "").unwrap();
    let text = fs::read_to_string(patient.0.join("frostgate.toml")).unwrap();
    let text = text.replacen("/state\"", "/file/state\"", 1);
    fs::write(patient.0.join("frostgate.toml"), text).unwrap();
    assert_eq!(patient.findings().code, Some(1));
}

#[test]
fn a_port_that_another_program_has_is_a_problem() {
    let patient = Patient::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    // It speaks, but not as Frostgate does.
    let speaker = thread::spawn(move || {
        for stream in taken.incoming().take(3) {
            drop(stream.unwrap().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    patient.configure(&format!("tls = [\"{address}\", \"192.0.2.1:80\"]\n"), "");
    let found = patient.findings();
    let words = format!("{address} (listen.tls) is taken by another program");
    found.assert("ports", "problem", &words);
    found.assert("ports", "problem", "192.0.2.1:80 (listen.tls) is no address of this machine");
    drop(speaker);
}

#[test]
fn names_that_lead_nowhere_are_a_problem() {
    let patient = Patient::new();
    patient.configure("", "[routing]\ndomain = \"frostgate.invalid\"\n");
    patient.findings().assert("wildcard DNS", "problem", "*.frostgate.invalid leads nowhere");
}

#[test]
fn certificates_have_to_be_there_and_for_the_names_of_workspaces() {
    let patient = Patient::new();
    let workspace = "[workspaces.alice]\nupstream = \"127.0.0.1:9\"\n";
    let more = format!("[routing]\ndomain = \"dev.localhost\"\n{workspace}");
    patient.configure("tls = [\"127.0.0.1:0\"]\n", &more);
    patient.findings().assert("certificates", "problem", "the certificates for TLS can't be used");
    let certs = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frostgate"));
        command.arg("certs").args(arguments).env_clear().env("HOME", &patient.0);
        assert!(command.current_dir(&patient.0).output().unwrap().status.success());
    };
    certs(&["--domain", "other.localhost"]);
    let found = patient.findings();
    found.assert("certificates", "problem", "none is for alice.dev.localhost");
    found.assert("certificates", "warning", "none is for *.dev.localhost");
    found.assert("certificates", "ok", "expires in 36");
    certs(&[]);
    let found = patient.findings();
    found.assert("certificates", "ok", "every workspace below dev.localhost has one");
    assert!(!found.have("certificates", "problem", ""), "{found:#?}");
    // What is made for the names of workspaces serves those alone, directly below a top-level name.
    patient.configure("tls = [\"127.0.0.1:0\"]\n", workspace);
    certs(&[]);
    let found = patient.findings();
    found.assert("certificates", "warning", "browsers accept none for *.localhost");
    assert!(!found.have("certificates", "problem", ""), "{found:#?}");
}

#[test]
fn an_engine_that_does_not_answer_is_a_problem_unless_none_is_wanted() {
    let patient = Patient::new();
    let socket = patient.0.join("engine.sock");
    let engine = |enable: &str| format!("[docker]\nenable = {enable}\nsocket = {socket:?}\n");
    patient.configure("", &engine("true"));
    patient.findings().assert("engine", "problem", "engine.sock");
    drop(UnixListener::bind(&socket).unwrap());
    patient.findings().assert("engine", "problem", "Connection refused");
    patient.configure("", &engine("false"));
    patient.findings().assert("engine", "ok", "none is wanted");
    patient.configure("", "[docker]\nenable = true\nsocket = \"ssh://host\"\n");
    patient.findings().assert("engine", "problem", "ssh://host");
}

#[test]
fn an_engine_tells_its_version_and_whether_the_clocks_differ() {
    let patient = Patient::new();
    let socket = patient.0.join("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let body = match line.contains("/info") {
                true => r#"{"SystemTime":"2020-01-01T00:00:00.5Z","CgroupVersion":"2"}"#,
                false => r#"{"Version":"29.3.1","ApiVersion":"1.53"}"#,
            };
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    patient.configure("", &format!("[docker]\nenable = true\nsocket = {socket:?}\n"));
    let found = patient.findings();
    found.assert("engine", "ok", "version 29.3.1, API 1.53, cgroups of version 2");
    found.assert("engine", "warning", "everybody on this machine may open");
    found.assert("clock", "warning", "s apart from it");
}

#[test]
fn a_clock_that_stands_before_what_was_written_is_a_problem() {
    let patient = Patient::new();
    patient.make_state_dir();
    let record = fs::File::create(patient.state_dir().join("frostgate.db")).unwrap();
    record.set_modified(SystemTime::now() + Duration::from_secs(3_600)).unwrap();
    patient.findings().assert("clock", "problem", "but the state directory is from");
    record.set_modified(SystemTime::now() - Duration::from_secs(3_600)).unwrap();
    patient.findings().assert("clock", "ok", "it shows ");
}

#[test]
fn too_few_descriptors_are_a_warning() {
    let patient = Patient::new();
    patient.configure("", "");
    let found = Findings::of(doctor(&patient.0, "ulimit -n 256;").output().unwrap());
    found.assert("descriptors", "warning", "may open 256; 50 connections take up to 600");
    let found = Findings::of(doctor(&patient.0, "ulimit -n 1024;").output().unwrap());
    found.assert("descriptors", "ok", "may open 1024");
}

#[test]
fn a_freezer_that_can_not_be_used_is_a_problem_only_where_it_is_wanted() {
    let patient = Patient::new();
    // Nothing but an empty disk where cgroups are.
    let apart = "mount -t tmpfs none /sys/fs/cgroup && ";
    let inside = |first: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c"]).arg(first);
        unshare
    };
    if !inside(&format!("{apart} true")).output().is_ok_and(|output| output.status.success()) {
        return skipped("this user can't have mounts of its own");
    }
    let found = || {
        let line = format!("{apart} exec {} doctor --output json", env!("CARGO_BIN_EXE_frostgate"));
        let mut command = inside(&line);
        command.current_dir(&patient.0).env_clear().env("HOME", &patient.0);
        Findings::of(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap())
    };
    found().assert("cgroup freezer", "warning", "by signals, which they notice");
    patient.configure("", "[process]\nfreezer = \"cgroup\"\n");
    found().assert("cgroup freezer", "problem", "so Frostgate does not start");
    patient.configure("", "[process]\nfreezer = \"signal\"\n");
    found().assert("cgroup freezer", "ok", "not wanted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_wants_somebody_to_look_and_an_open_socket_are_told() {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let mut program = Program::start(&origin, "").await;
    let home = program.directory().to_owned();
    let config = fs::read_to_string(program.file()).unwrap();
    program.configure("nonsense = 1\n");
    assert_eq!(program.call("POST /api/v1/reload", "").await.status, 422);
    fs::write(program.file(), config).unwrap();
    let socket = program.state_dir().join("admin.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let found = Findings::of(doctor(&home, "").output().unwrap());
    found.assert(
        "gateway",
        "warning",
        "its configuration: the last one that was read has mistakes",
    );
    found.assert("admin socket", "problem", "can be opened by others (mode 666)");
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "").unwrap();
    let found = Findings::of(doctor(&home, "").output().unwrap());
    found.assert("admin socket", "problem", "is no socket");
}

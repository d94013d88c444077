//! A day of work by commands alone, as the real program: what they do, print, and end with.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::cli::{Said, frostgate};
use crate::fixture;
use crate::support::{Origin, PATIENCE, Program, Setup, ok, skipped};

/// A gateway with a project of local processes, one workspace of it, and a fixed upstream. Commands
/// that run in its directory find it by its configuration.
async fn served(more: &str) -> (Program, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let configuration = format!(
        "workers = 2\n[docker]\nenable = false\n\
         [projects.desk]\ncommand = [{:?}]\ninactivity_timeout = \"1h\"\n\
         max_inactive_storage_time = \"unlimited\"\n\
         [workspaces.alice]\nproject = \"desk\"\n\
         [workspaces.wiki]\nupstream = \"{}\"\n{more}",
        fixture::binary(),
        origin.address
    );
    let program = Program::run(Setup { configuration, log: "info", ..Setup::default() }).await;
    (program, origin)
}

/// What a command prints that does what it is asked for.
async fn done(home: &Path, arguments: &str) -> String {
    let Said { code, output, error } = frostgate(home, arguments, &[]).await;
    assert_eq!((code, error.as_str()), (Some(0), ""), "{arguments}: {output}");
    output
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_work_needs_no_dashboard() {
    let (program, _origin) = served("").await;
    let home = program.directory();
    let list = done(home, "ls").await;
    let lines: Vec<_> = list.lines().map(words).collect();
    assert_eq!(lines[0], ["ID", "STATE", "SINCE", "INSIDE", "NEXT", "MEMORY", "URL"], "{list}");
    assert_eq!(lines[1][..3], ["alice", "frozen", "(stopped)"], "{list}");
    assert_eq!(lines[2][..2], ["wiki", "running"], "{list}");
    assert_eq!(lines.len(), 3, "{list}");

    let created = done(home, "create desk --id bob --wait --freeze-mode pause").await;
    let url = format!("http://bob.localhost:{}/", program.public.port());
    assert_eq!(created, format!("bob: running at {url}\n"));
    assert_eq!(program.get("bob", "/").await.status, 200);
    let shown = done(home, "show bob").await;
    let row = |name: &str| -> Vec<&str> {
        let row = shown.lines().map(words).find(|row| row.first() == Some(&name));
        row.unwrap_or_else(|| panic!("no {name} in {shown}"))
    };
    assert_eq!(row("state"), ["state", "running"]);
    assert_eq!(row("url"), ["url", url.as_str()]);
    assert_eq!(row("project"), ["project", "desk"]);
    assert_eq!(row("freeze_mode"), ["freeze_mode", "pause"]);
    assert_eq!(row("inactivity_timeout"), ["inactivity_timeout", "1h"]);
    assert!(row("next").join(" ").starts_with("next freezes in "), "{shown}");

    let changed = done(home, "set bob --inactivity-timeout never --max-storage-time 2h").await;
    assert!(changed.starts_with("bob: changed: removed in "), "{changed}");
    let shown: Value = serde_json::from_str(&done(home, "show bob --output json").await).unwrap();
    assert_eq!(shown["policy"]["inactivity_timeout"], Value::Null);
    assert_eq!(shown["policy"]["max_storage_time"], 120);

    let both = done(home, "stop bob alice --wait").await;
    assert_eq!(both, "bob: frozen (paused)\nalice: frozen (stopped)\n");
    assert_eq!(done(home, "ls -q --phase frozen").await, "alice\nbob\n");
    assert_eq!(done(home, "resume alice bob --wait").await, "alice: running\nbob: running\n");
    assert_eq!(done(home, "ls --quiet --project desk --phase running").await, "alice\nbob\n");
    assert!(done(home, "why bob").await.starts_with("bob: awake: "));
    // Without waiting it has begun, and comes about.
    assert!(done(home, "stop bob").await.starts_with("bob: "));
    program.until("bob", "frozen").await;

    let events = done(home, "events bob").await;
    let states: Vec<&str> = events.lines().map(|line| words(line)[3]).collect();
    let last = states.iter().rev().take(2).copied().collect::<Vec<_>>();
    assert_eq!(last, ["frozen", "freezing"], "{events}");
    let of_all = done(home, "events -n 1000 --output json").await;
    let of_all: Vec<Value> =
        of_all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let dates: Vec<&str> = of_all.iter().map(|event| event["at"].as_str().unwrap()).collect();
    assert!(dates.is_sorted() && of_all.len() > states.len(), "{of_all:?}");
    assert!(of_all.iter().all(|event| event["event"] == "phase"), "{of_all:?}");
    assert_eq!(done(home, "events -n 2").await.lines().count(), 2);

    assert_eq!(done(home, "rm bob --yes").await, "bob: removed\n");
    assert_eq!(done(home, "ls -q").await, "alice\nwiki\n");
    assert_eq!(done(home, "stop alice --wait").await, "alice: frozen (stopped)\n");
}

/// A command that goes on until it is killed, and the lines that it prints.
struct Follower {
    child: tokio::process::Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Follower {
    fn start(home: &Path, arguments: &str) -> Self {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_frostgate"));
        command.args(arguments.split(' ')).env_clear().env("HOME", home).current_dir(home);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that has this.
    async fn until(&mut self, words: &str) -> String {
        let found = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it goes on");
                if line.contains(words) {
                    return line;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{words:?} is never printed"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_told_as_it_does_also_by_the_gateway_after_this_one() {
    let (program, _origin) = served("").await;
    let home = program.directory().to_owned();
    let mut all = Follower::start(&home, "events -f --output json");
    let mut of_bob = Follower::start(&home, "events bob --follow --types phase");
    done(&home, "create desk --id bob --wait").await;
    // Whoever began to listen too late is told of the next.
    for _ in 0..20 {
        done(&home, "stop bob --wait").await;
        done(&home, "resume bob --wait").await;
        let line = timeout(std::time::Duration::from_secs(1), all.until("\"running\"")).await;
        let Ok(line) = line else { continue };
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&event["event"], &event["workspace"]), (&"phase".into(), &"bob".into()));
        break;
    }
    done(&home, "stop bob --wait").await;
    let line = of_bob.until("frozen (stopped)").await;
    assert_eq!(words(&line)[2..5], ["bob", "frozen", "(stopped)"], "{line}");
    let next = program.taken_over().await;
    // Both find the new one, and go on.
    done(&home, "resume bob --wait").await;
    of_bob.until("running").await;
    all.until("\"running\"").await;
    assert!(all.child.try_wait().unwrap().is_none() && of_bob.child.try_wait().unwrap().is_none());
    done(&home, "rm bob alice --yes").await;
    drop(next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workspace_is_kept_awake_and_what_it_wrote_is_printed() {
    let talk = "echo first; echo second >&2; while read -r line; do :; done < /dev/null; ";
    let more = format!(
        "[workspaces.talker]\ncommand = [\"sh\", \"-c\", \"{talk} exec {}\"]\n\
         inactivity_timeout = \"1h\"\n",
        fixture::binary().display()
    );
    let (program, _origin) = served(&more).await;
    let home = program.directory();
    done(home, "resume talker --wait").await;
    let logs = done(home, "logs talker").await;
    assert!(logs.contains("first\n") && logs.contains("second\n"), "{logs}");
    assert!(!done(home, "logs talker -n 1").await.contains("first"));
    let mut follower = Follower::start(home, "logs talker --follow");
    follower.until("second").await;
    done(home, "stop talker --wait").await;
    done(home, "resume talker --wait").await;
    follower.until("second").await;
    let said = frostgate(home, "logs wiki", &[]).await;
    assert_eq!((said.code, said.output.as_str()), (Some(1), ""), "{said:?}");

    let kept = done(home, "keep talker").await;
    assert!(kept.starts_with("talker: not frozen before "), "{kept}");
    let next = done(home, "show talker").await;
    assert!(next.contains("kept awake for "), "{next}");
    assert_eq!(done(home, "keep talker --for 0").await, "talker: frozen when idle\n");
    let said = frostgate(home, "keep talker --for 30d", &[]).await;
    assert_eq!((said.code, said.error.contains("seven days")), (Some(1), true), "{said:?}");
    done(home, "rm talker --yes").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_whole_however_many_pages_it_has() {
    let many: String = (0..230)
        .map(|number| format!("[workspaces.w{number:03}]\nupstream = \"127.0.0.1:9\"\n"))
        .collect();
    let (program, _origin) = served(&many).await;
    let home = program.directory();
    let ids = done(home, "ls -q").await;
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!((ids.len(), ids[0], ids[231]), (232, "alice", "wiki"));
    assert!(ids.is_sorted());
    let list: Value = serde_json::from_str(&done(home, "ls --output json").await).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 232);
    assert_eq!(done(home, "ls -q --project desk").await, "alice\n");
    assert_eq!(done(home, "ls -q --phase running --phase failed").await.lines().count(), 231);
    // Whoever has read enough is no error.
    let program = env!("CARGO_BIN_EXE_frostgate");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{{ {program} ls; echo $? >code; }} | head -1")).current_dir(home);
    let head = shell.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").output().unwrap();
    assert!(head.stdout.starts_with(b"ID ") && head.stderr.is_empty(), "{head:?}");
    assert_eq!(std::fs::read_to_string(home.join("code")).unwrap(), "0\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_done_is_told_of_each_and_keeps_none_of_the_others() {
    let (program, _origin) = served("[workspaces.broken]\ncommand = [\"false\"]\n").await;
    let home = program.directory();
    let run = async |arguments: &str| frostgate(home, arguments, &[]).await;
    let said = run("stop nobody alice wiki").await;
    assert_eq!((said.code, said.output.as_str()), (Some(5), "alice: frozen (stopped)\n"));
    assert!(said.error.contains("there is no workspace \"nobody\"\n"), "{said:?}");
    assert_eq!(said.error.lines().count(), 2, "{said:?}");
    let said = run("resume broken --wait").await;
    assert_eq!((said.code, said.output.as_str()), (Some(1), ""), "{said:?}");
    let said = run("create nothing").await;
    assert_eq!((said.code, said.error.contains("nothing")), (Some(1), true), "{said:?}");
    let said = run("set alice").await;
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.error.contains("such as --inactivity-timeout 30m"), "{said:?}");
    let said = run("set alice --stop-after 2h --max-inactive-storage-time 1h").await;
    assert_eq!((said.code, said.error.contains("stop_after is 2h")), (Some(1), true), "{said:?}");
    // There is nobody to ask.
    let said = run("rm alice").await;
    assert_eq!((said.code, said.error.contains("say --yes")), (Some(2), true), "{said:?}");
    assert_eq!(program.phase("alice").await, "frozen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_it_asks_before_it_removes_and_shows_colours() {
    let (program, _origin) = served("").await;
    let home = program.directory();
    if Command::new("script").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skipped("there is no script(1) to be a terminal");
    }
    // As somebody at a terminal would, who has typed ahead.
    let typed = |arguments: &str, keys: &str, variables: &[(&str, &str)]| {
        let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_frostgate"));
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(home);
        script.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").env("TERM", "xterm");
        script.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), keys.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(done(home, "create desk --id bob --wait").await.lines().count(), 1);
    let (code, said) = typed("rm bob", "n\n", &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Remove bob with all that is in it? [y/N]"), "{said}");
    assert!(said.contains("nothing was removed"), "{said}");
    assert_eq!(program.phase("bob").await, "running");
    let (_, colourful) = typed("ls", "", &[]);
    assert!(colourful.contains("\u{1b}[32mrunning\u{1b}[0m"), "{colourful:?}");
    let (_, plain) = typed("ls", "", &[("NO_COLOR", "1")]);
    assert!(plain.contains("bob") && !plain.contains('\u{1b}'), "{plain:?}");
    assert!(!done(home, "ls").await.contains('\u{1b}'), "through a pipe");
    // What is waited for is told there.
    let (code, waited) = typed("stop bob --wait", "", &[]);
    assert_eq!((code, waited.contains("bob: frozen (stopped)")), (Some(0), true), "{waited}");
    let (code, said) = typed("rm bob", "y\n", &[]);
    assert_eq!((code, said.contains("bob: removed")), (Some(0), true), "{said}");
    assert_eq!(program.phase("bob").await, "unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_a_health_check_all_that_it_needs() {
    let (mut program, _origin) = served("").await;
    let home = program.directory().to_owned();
    let url = format!("http://{}", program.admin);
    // Where there is neither a configuration nor a token, as in a container's health check.
    let nowhere = home.join("nowhere");
    std::fs::create_dir(&nowhere).unwrap();
    let health = format!("health --url {url}");
    let said = done(&nowhere, &health).await;
    assert_eq!(words(said.lines().next().unwrap()), ["ready", "gateway", url.as_str()]);
    let json: Value = serde_json::from_str(&done(&home, "health --output json").await).unwrap();
    assert_eq!((&json["alive"], &json["ready"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(json["checks"][0]["name"], "configuration");
    program.terminate();
    assert_eq!(program.ended(PATIENCE).await, Some(0));
    let said = frostgate(&nowhere, &health, &[]).await;
    assert_eq!((said.code, said.output.as_str()), (Some(3), ""), "{said:?}");
    drop(program);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completions_and_manual_pages_are_what_their_readers_read() {
    let home = crate::support::unique_state_dir();
    std::fs::create_dir_all(&home).unwrap();
    for (shell, first) in [("bash", "_frostgate()"), ("zsh", "#compdef frostgate"), ("fish", "")] {
        let script = done(&home, &format!("completions {shell}")).await;
        assert!(script.trim_start().starts_with(first) && script.contains("check-in"), "{shell}");
        let file = home.join(shell);
        std::fs::write(&file, script).unwrap();
        match Command::new(shell).arg("-n").arg(&file).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
            Err(_) => skipped(&format!("there is no {shell}")),
        }
    }
    let page = done(&home, "man token add").await;
    assert!(page.contains(".TH frostgate-token-add 1"), "{page}");
    let said = frostgate(&home, "man nothing", &[]).await;
    assert_eq!((said.code, said.error.contains("\"nothing\"")), (Some(2), true), "{said:?}");
    assert_eq!(done(&home, "man --directory pages").await, "");
    let pages: Vec<_> = std::fs::read_dir(home.join("pages")).unwrap().flatten().collect();
    assert!(pages.len() > 20, "{pages:?}");
    for page in pages {
        let (name, text) = (page.file_name(), std::fs::read_to_string(page.path()).unwrap());
        assert!(name != "frostgate-sample.1" && text.contains(".SH SYNOPSIS"), "{name:?}");
        assert_eq!(page.metadata().unwrap().permissions().mode() & 0o400, 0o400);
    }
    std::fs::remove_dir_all(home).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_are_told_of_every_mistake_in_a_configuration() {
    let home = crate::support::unique_state_dir();
    std::fs::create_dir_all(&home).unwrap();
    let check = async |text: &str| {
        std::fs::write(home.join("frostgate.toml"), text).unwrap();
        let said = frostgate(&home, "check-config --output json", &[]).await;
        (said.code, serde_json::from_str::<Value>(&said.output).unwrap())
    };
    let (code, fine) = check("[workspaces.wiki]\nupstream = \"127.0.0.1:9\"\n").await;
    assert_eq!((code, &fine["valid"], &fine["workspaces"]), (Some(0), &true.into(), &1.into()));
    assert_eq!(fine["file"], "frostgate.toml");
    let (code, wrong) = check("one = 1\ntwo = 2\n").await;
    assert_eq!((code, &wrong["valid"]), (Some(2), &false.into()));
    assert_eq!(wrong["problems"].as_array().unwrap().len(), 2, "{wrong}");
    let (code, wrong) = check("[listen]\ntls = [\"127.0.0.1:0\"]\n").await;
    assert_eq!((code, wrong["problems"].as_array().unwrap().len()), (Some(2), 1), "{wrong}");
    std::fs::remove_dir_all(home).unwrap();
}

//! The commands that ask a running gateway for something, as the real program.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::support::{Client, Origin, PATIENCE, Program, get, ok};

pub(crate) type Variables<'a> = &'a [(&'a str, &'a str)];

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) error: String,
}

/// Runs the program with these arguments and variables, and none of this process's own.
pub(crate) async fn frostgate(home: &Path, arguments: &str, variables: Variables<'_>) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_frostgate"));
    command.args(arguments.split(' ')).env_clear().env("HOME", home).current_dir(home);
    command.envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE * 4, command.output()).await;
    let ended = ended.expect("it does not end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Said { code: ended.status.code(), output: text(ended.stdout), error: text(ended.stderr) }
}

/// A gateway, and a second configuration that says where it is.
async fn served() -> (Program, Origin) {
    let origin = Origin::answering(|request| ok(request.path())).await;
    let program = Program::start(&origin, "").await;
    let (state, admin) = (program.directory().join("state"), program.admin);
    let text = format!("state_dir = {state:?}\n[listen]\nadmin = \"{admin}\"\n");
    std::fs::create_dir(program.directory().join("home")).unwrap();
    std::fs::write(program.directory().join("home/frostgate.toml"), text).unwrap();
    (program, origin)
}

async fn opens(program: &Program, token: &str) -> bool {
    let mut client = Client::connect(program.admin).await;
    let fields = format!("Host: a\r\nAuthorization: Bearer {token}\r\n");
    client.send(format!("GET /api/v1/test HTTP/1.1\r\n{fields}\r\n")).await;
    client.reply().await.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_made_listed_rotated_and_revoked() {
    let (program, _origin) = served().await;
    let home = program.directory().join("home");
    let run = async |arguments: &str| frostgate(&home, arguments, &[]).await;
    let added = run("token add ci --scope read").await;
    assert_eq!((added.code, added.error.as_str()), (Some(0), ""), "{added:?}");
    let token = added.output.trim_end();
    assert!(token.starts_with("frostgate_") && opens(&program, token).await, "{added:?}");
    assert_eq!(run("token add owner --project b --project a").await.code, Some(0));

    let list = run("token list").await.output;
    let words: Vec<Vec<&str>> =
        list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "OPENS", "KEPT", "IN", "MADE"], "{list}");
    assert_eq!(words[1][..3], ["admin", "admin", "file"], "{list}");
    assert_eq!(words[2][..3], ["ci", "read", "api"], "{list}");
    assert_eq!(words[3][..5], ["owner", "projects", "a,", "b", "api"], "{list}");
    assert_eq!(words.len(), 4, "{list}");
    let json: Value = serde_json::from_str(&run("token list --output json").await.output).unwrap();
    assert_eq!(json["items"][1]["name"], "ci");

    let rotated = run("token rotate ci").await.output;
    assert!(opens(&program, rotated.trim_end()).await && !opens(&program, token).await);
    let revoked = run("token revoke ci").await;
    assert_eq!((revoked.code, revoked.output.as_str()), (Some(0), ""));
    assert!(!opens(&program, rotated.trim_end()).await);
    // The token that the command itself is known by.
    let before = program.token();
    let rotated = run("token rotate admin").await.output;
    assert_eq!(
        (program.token(), program.token() == before),
        (rotated.trim_end().to_owned(), false)
    );
    assert_eq!(run("token list").await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_tells_what_keeps_a_workspace_awake_in_local_time() {
    let (program, _origin) = served().await;
    let home = program.directory().join("home");
    assert_eq!(get(program.public, "alice.localhost", "/").await.status, 200);
    // Five and a half hours ahead of UTC.
    let there = [("TZ", "XYZ-5:30")];
    let said = frostgate(&home, "why alice", &there).await;
    assert_eq!((said.code, said.error.as_str()), (Some(0), ""), "{said:?}");
    let first = said.output.lines().next().unwrap();
    assert_eq!(first, "alice: awake: it is a fixed upstream, which can't be frozen");
    for line in ["requests inside    0", "tunnels inside     0", "monitoring         on"] {
        assert!(said.output.contains(line), "no {line:?} in {}", said.output);
    }
    let json = frostgate(&home, "why alice --output json", &there).await;
    let activity: Value = serde_json::from_str(&json.output).unwrap();
    let at: jiff::Timestamp = activity["journal"][0]["at"].as_str().unwrap().parse().unwrap();
    let there = at.to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(5)));
    let there = there.checked_add(jiff::ToSpan::minutes(30)).unwrap();
    let line = format!("{}  running", there.strftime("%Y-%m-%d %H:%M:%S"));
    assert!(said.output.contains(&line), "no {line:?} in {}", said.output);
    let short = frostgate(&home, "why alice --lines 0", &[]).await;
    assert!(!short.output.contains("newest first"), "{short:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_can_not_be_helped_is_told_what_to_do_and_by_which_code() {
    let (mut program, _origin) = served().await;
    let (home, token) = (program.directory().join("home"), program.token());
    let nowhere = home.join("nowhere");
    std::fs::create_dir(&nowhere).unwrap();
    let url = format!("http://{}", program.admin);
    let added = frostgate(&home, "token add reader --scope read", &[]).await.output;
    let reader = added.trim_end();
    // Another machine needs no configuration; and one that names this machine finds its token.
    let both = [("FROSTGATE_URL", url.as_str()), ("FROSTGATE_TOKEN", token.as_str())];
    assert_eq!(frostgate(&nowhere, "why alice", &both).await.code, Some(0));
    assert_eq!(frostgate(&home, "token list", &both[..1]).await.code, Some(0));
    let config = home.join("frostgate.toml");
    let named = format!("why alice --config {} --url {url}", config.display());
    assert_eq!(frostgate(&nowhere, &named, &[]).await.code, Some(0));

    let elsewhere = "http://frostgate.invalid:8081";
    let unset = format!("state_dir = {:?}\n", nowhere.join("state"));
    std::fs::write(nowhere.join("frostgate.toml"), unset).unwrap();
    let unknown =
        [("FROSTGATE_LISTEN__ADMIN", "127.0.0.1:0"), ("FROSTGATE_LISTEN__ADMIN_SOCKET", "false")];
    let rows: [(&Path, &str, Variables<'_>, i32, &str); 9] = [
        (&home, "why nobody", &[], 5, "there is no workspace \"nobody\""),
        (&home, "token revoke nobody", &[], 5, "there is no token \"nobody\""),
        (&home, "token revoke admin", &[], 1, "rotate it instead"),
        (&home, "token list", &[("FROSTGATE_TOKEN", reader)], 4, "the scope \"admin\""),
        (&home, "token list", &[("FROSTGATE_TOKEN", "wrong")], 4, "send a token"),
        (&home, "why alice", &[("FROSTGATE_URL", elsewhere)], 2, "set FROSTGATE_TOKEN"),
        (&home, "why alice", &[("FROSTGATE_URL", "localhost:8081")], 2, "http://127.0.0.1:8081"),
        (&home, "why alice", &unknown, 2, "FROSTGATE_URL"),
        (&nowhere, "why alice", &[], 2, "there is no token in "),
    ];
    for (home, arguments, variables, code, words) in rows {
        let said = frostgate(home, arguments, variables).await;
        assert_eq!((said.code, said.output.as_str()), (Some(code), ""), "{arguments}: {said:?}");
        assert!(said.error.starts_with("frostgate: "), "{arguments}: {said:?}");
        assert!(said.error.contains(words), "{arguments}: {said:?}");
        assert!(!said.error.contains(&token), "{arguments}: {said:?}");
    }
    program.terminate();
    assert_eq!(program.ended(PATIENCE).await, Some(0));
    let said = frostgate(&home, "why alice", &[]).await;
    assert_eq!(said.code, Some(3), "{said:?}");
    let words = format!("frostgate: no gateway answers at {url}: ");
    assert!(said.error.starts_with(&words), "{said:?}");
    assert!(said.error.contains("start it with `frostgate serve`"), "{said:?}");
}

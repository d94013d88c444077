//! Every kind of mistake, with the exact words that the operator reads.

use super::*;
use crate::model::{FreezeMode, Image, Mount, Protocol, Pull, Runs};
use crate::token::Scope;

/// A file of the test's own, removed at its end.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let name = format!("frostgate-config-{:016x}", getrandom::u64().expect("randomness"));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("a directory");
        let path = directory.join("frostgate.toml");
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(directory) = self.0.parent() {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

fn load(text: &str, variables: &[(&str, &str)], flags: &Flags) -> Result<Config, ConfigError> {
    let file = File::new(text);
    let home = [("HOME", "/home/frost")];
    let variables = home.iter().chain(variables);
    let owned = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&file.0), owned, flags)
}

fn loaded(text: &str) -> Config {
    load(text, &[], &Flags::default()).expect("a right configuration")
}

/// The problems, without the directory that the test put the file into.
fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match load(text, variables, &Flags::default()) {
        Err(ConfigError::Invalid { problems }) => problems
            .iter()
            .map(|problem| {
                let line = problem.to_string();
                match line.find("/frostgate.toml") {
                    Some(at) => line[at + 1..].to_owned(),
                    None => line,
                }
            })
            .collect(),
        other => panic!("expected problems, found {other:?}"),
    }
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = loaded("");
    let directory = config.tls.directory.clone();
    let usual = Config {
        state_dir: config.state_dir.clone(),
        tls: Tls { directory, ..Tls::default() },
        ..Config::default()
    };
    assert_eq!(config, usual);
}

#[test]
fn certificates_are_beside_the_file_unless_it_says_where() {
    let directory = |text: &str| loaded(text).tls.directory;
    assert!(directory("").is_some_and(|path| path.is_absolute() && path.ends_with("certs")));
    let named = "certificates = [{ cert = \"a.crt\", key = \"a.key\" }]";
    assert_eq!(directory(&format!("[tls]\n{named}")), None);
    let both = format!("[tls]\ndirectory = \"/etc/x\"\n{named}");
    assert_eq!(directory(&both), Some(PathBuf::from("/etc/x")));
    let config = loaded("[[tls.certificates]]\ncert = \"a.crt\"\nkey = \"a.key\"");
    let pair = CertificatePair { cert: "a.crt".into(), key: "a.key".into() };
    assert_eq!(config.tls.certificates, [pair]);
}

#[test]
fn a_public_url_has_a_scheme_a_host_and_perhaps_a_port() {
    let url = |text: &str| {
        let config = loaded(&format!("[routing]\npublic_url = {text:?}"));
        config.routing.public_url.map(|url| url.to_string())
    };
    assert_eq!(url(""), None);
    assert_eq!(url("https://Dev.example.com/").as_deref(), Some("https://dev.example.com"));
    assert_eq!(url("http://dev.example.com:80").as_deref(), Some("http://dev.example.com"));
    assert_eq!(url("https://a.test:80").as_deref(), Some("https://a.test:80"));
}

#[test]
fn each_mistake_is_told_with_its_place_and_what_is_accepted() {
    let rows = [
        (
            "\n[policy]\ninactivty_timeout = \"5m\"",
            "frostgate.toml:3: unknown key \"inactivty_timeout\" in [policy]; \
             did you mean \"inactivity_timeout\"?",
        ),
        (
            "[process]\ncolour = 1",
            "frostgate.toml:2: unknown key \"colour\" in [process]; known keys: freezer",
        ),
        (
            "[polcy]\nhold_max = 1",
            "frostgate.toml:1: unknown key \"polcy\" at the top level; did you mean \"policy\"?",
        ),
        (
            "listen = 80",
            "frostgate.toml:1: \"listen\" at the top level: expected a table [listen], found 80",
        ),
        (
            "[policy]\nno_wake_paths = [\"/a\", \"b\"]",
            "frostgate.toml:2: \"no_wake_paths\" in [policy]: expected a list of paths without \
             a query such as [\"/robots.txt\", \"/health/*\"], found [\"/a\", \"b\"]",
        ),
        (
            "[policy]\nno_wake_clients = [\"home\"]",
            "frostgate.toml:2: \"no_wake_clients\" in [policy]: expected a list of networks \
             such as [\"10.0.0.0/8\", \"fd00::/8\"], found [\"home\"]",
        ),
        (
            "[policy]\nhold_max = \"soon\"",
            "frostgate.toml:2: \"hold_max\" in [policy]: \
             expected a duration above zero such as \"1.5s\" or \"15m\", found \"soon\"",
        ),
        (
            "[policy]\nhold_max = 0",
            "frostgate.toml:2: \"hold_max\" in [policy]: \
             expected a duration above zero such as \"1.5s\" or \"15m\", found 0",
        ),
        (
            "[policy]\nstop_grace = -1",
            "frostgate.toml:2: \"stop_grace\" in [policy]: expected a duration such as \
             \"1.5s\", \"15m\" or \"1h30m\", or a number of seconds, found -1",
        ),
        (
            "[policy]\nfreeze_mode = \"freeze\"",
            "frostgate.toml:2: \"freeze_mode\" in [policy]: \
             expected \"stop\" or \"pause\", found \"freeze\"",
        ),
        (
            "[workspaces.a]\nupstream = \"a:1\"\nprotocol = \"h2\"",
            "frostgate.toml:3: \"protocol\" in [workspaces.a]: \
             expected \"http1\" or \"h2c\", found \"h2\"",
        ),
        (
            "[policy]\nmonitoring = \"yes\"",
            "frostgate.toml:2: \"monitoring\" in [policy]: expected true or false, found \"yes\"",
        ),
        (
            "[docker]\nenable = 1",
            "frostgate.toml:2: \"enable\" in [docker]: \
             expected \"auto\", true or false, found 1",
        ),
        (
            "[limits]\nstarts_max = 0",
            "frostgate.toml:2: \"starts_max\" in [limits]: \
             expected a whole number from 1 to 10000000, found 0",
        ),
        (
            "[limits]\nstarts_max = 99999999999999999999",
            "frostgate.toml:2: \"starts_max\" in [limits]: \
             expected a whole number from 1 to 10000000, found 99999999999999999999",
        ),
        (
            "[listen]\npublic = [\"0.0.0.0\"]",
            "frostgate.toml:2: \"public\" in [listen]: expected a list of addresses with ports \
             such as [\"0.0.0.0:80\", \"[::]:80\"], found [\"0.0.0.0\"]",
        ),
        (
            "[listen]\nadmin = 1979-05-27",
            "frostgate.toml:2: \"admin\" in [listen]: expected an address with a port such as \
             \"127.0.0.1:8081\" or \"[::1]:8081\", found 1979-05-27",
        ),
        (
            "[routing]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            "frostgate.toml:2: \"trusted_proxies\" in [routing]: expected a list of networks \
             such as [\"10.0.0.0/8\", \"fd00::/8\"], found [\"10.0.0.0/33\"]",
        ),
        (
            "[workspaces.a]\ncommand = \"sleep 9\"",
            "frostgate.toml:2: \"command\" in [workspaces.a]: expected a program and its \
             arguments such as [\"python3\", \"server.py\"], found \"sleep 9\"",
        ),
        (
            "[workspaces.a]\nport = 8000",
            "frostgate.toml:1: workspace \"a\" needs exactly one of \"command\", \"image\", \
             \"upstream\" and \"project\", and has none",
        ),
        (
            "[workspaces.a]\ncommand = [\"x\"]\nupstream = \"y:1\"",
            "frostgate.toml:1: workspace \"a\" needs exactly one of \"command\", \"image\", \
             \"upstream\" and \"project\", and has \"command\" and \"upstream\"",
        ),
        (
            "[projects.a]\nimage = \"y\"\n[workspaces.a]\nproject = \"a\"\nimage = \"y\"",
            "frostgate.toml:3: workspace \"a\" needs exactly one of \"command\", \"image\", \
             \"upstream\" and \"project\", and has \"image\" and \"project\"",
        ),
        (
            "[projects.a]\nport = 80",
            "frostgate.toml:1: project \"a\" needs exactly one of \"command\" and \"image\", \
             and has none",
        ),
        (
            "[projects.a]\nimage = \"y\"\nupstream = \"y:1\"",
            "frostgate.toml:3: \"upstream\" in [projects.a]: a service that is only routed to \
             can't be made from a template",
        ),
        (
            "[projects.a]\nimage = \"y\"\nhosts = [\"x.test\"]",
            "frostgate.toml:3: \"hosts\" in [projects.a]: a host name leads to one workspace, \
             which has to claim it itself",
        ),
        (
            "[projects.A]\nimage = \"y\"",
            "frostgate.toml:1: \"A\" is not a project id: 1 to 63 of the characters a-z, \
             0-9 and '-', beginning and ending with a letter or digit",
        ),
        (
            "[workspaces.a]\nproject = \"b\"",
            "frostgate.toml:2: \"project\" in [workspaces.a]: there is no [projects.b]",
        ),
        (
            "[projects.b]\nimage = 1\n[workspaces.a]\nproject = \"b\"",
            "frostgate.toml:2: \"image\" in [projects.b]: \
             expected a text in quotes that isn't empty, found 1",
        ),
        (
            "[projects.b]\nimage = \"y\"\n[workspaces.a]\nproject = \"b\"\nisolate = true",
            "frostgate.toml:5: \"isolate\" in [workspaces.a]: does not go with \"project\"",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\nisolate = true\nnetwork = \"back\"",
            "frostgate.toml:4: \"network\" in [workspaces.a]: does not go with \"isolate\", \
             which makes one",
        ),
        (
            "[workspaces.a]\ncommand = [\"x\"]\nmounts = [\"/srv:/srv\"]",
            "frostgate.toml:3: \"mounts\" in [workspaces.a]: does not go with \"command\"",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\nmounts = [\"./data:/data\"]",
            "frostgate.toml:3: \"mounts\" in [workspaces.a]: expected a list of mounts such as \
             [\"/srv/data:/data:ro\", \"cache-{id}:/var/cache\"], found [\"./data:/data\"]",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\nmounts = [\"/a:/data\", \"/b:/data\"]",
            "frostgate.toml:3: \"mounts\" in [workspaces.a]: expected mounts that have a target \
             each, found [\"/a:/data\", \"/b:/data\"]",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\nmemory = \"5MiB\"",
            "frostgate.toml:3: \"memory\" in [workspaces.a]: expected a size from 6MiB such as \
             \"512MiB\" or \"2g\", or a number of bytes, found \"5MiB\"",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\ncpus = 0",
            "frostgate.toml:3: \"cpus\" in [workspaces.a]: expected a number of processors from \
             0.01 such as 0.5 or 2, found 0",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\npull = true",
            "frostgate.toml:3: \"pull\" in [workspaces.a]: expected \"missing\", \"never\" or \
             \"always\", found true",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\ndirectory = \"/srv\"",
            "frostgate.toml:3: \"directory\" in [workspaces.a]: does not go with \"image\"",
        ),
        (
            "[workspaces.Alice]\nimage = \"y\"",
            "frostgate.toml:1: \"Alice\" is not a workspace id: 1 to 63 of the characters a-z, \
             0-9 and '-', beginning and ending with a letter or digit",
        ),
        (
            "[workspaces]\na = 1",
            "frostgate.toml:2: \"a\" in [workspaces]: expected a table [workspaces.a], found 1",
        ),
        (
            "[workspaces.a]\nupstream = \"nowhere\"",
            "frostgate.toml:2: \"upstream\" in [workspaces.a]: expected a host and a port such \
             as \"127.0.0.1:9000\", found \"nowhere\"",
        ),
        (
            "[listen]\nadmin = \"127.0.0.1:8080\"",
            "frostgate.toml:2: \"admin\" in [listen]: 127.0.0.1:8080 is taken by the public \
             address 0.0.0.0:8080; the two need different ports",
        ),
        (
            "[listen]\ntls = [\"0.0.0.0:8080\"]",
            "frostgate.toml:2: \"tls\" in [listen]: 0.0.0.0:8080 is taken by the public address \
             0.0.0.0:8080; the two need different ports",
        ),
        (
            "[tls]\nredirect = true",
            "frostgate.toml:2: \"redirect\" in [tls]: there is no HTTPS to redirect to; set \
             \"tls\" in [listen], or \"public_url\" in [routing] where a proxy in front speaks it",
        ),
        (
            "[[tls.certificates]]\ncert = \"a\"\nkye = \"b\"",
            "frostgate.toml:1: \"certificates\" in [tls]: expected a list of pairs such as \
             [{ cert = \"a.crt\", key = \"a.key\" }], found [a table]",
        ),
        (
            "[routing]\npublic_url = \"example.com/x\"",
            "frostgate.toml:2: \"public_url\" in [routing]: expected a URL without a path such as \
             \"https://dev.example.com\", found \"example.com/x\"",
        ),
        (
            "[limits]\nheld_max = 10",
            "frostgate.toml:2: \"held_per_workspace_max\" in [limits]: 1000 is more than \
             \"held_max\", which is 10",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\n[workspaces.b]\nimage = \"y\"\n\
             hosts = [\"A.localhost\"]",
            "frostgate.toml:5: \"hosts\" in [workspaces.b]: \"a.localhost\" leads to workspace \
             \"a\" already",
        ),
        (
            "[workspaces.a]\nimage = \"y\"\nhosts = [\"x.test\", \"x.test\"]",
            "frostgate.toml:3: \"hosts\" in [workspaces.a]: \"x.test\" leads to workspace \
             \"a\" already",
        ),
        (
            "[routing]\nadmin_host = \"x.test\"\n[workspaces.a]\nimage = \"y\"\n\
             hosts = [\"x.test\"]",
            "frostgate.toml:5: \"hosts\" in [workspaces.a]: \"x.test\" leads to the API \
             (\"admin_host\" in [routing]) already",
        ),
    ];
    for (text, message) in rows {
        assert_eq!(problems(text, &[]), [message], "{text}");
    }
}

#[test]
fn each_mistake_in_a_token_is_told() {
    let digits = "0123456789abcdef".repeat(4);
    let hash = format!("hash = \"sha256:{digits}\"");
    let rows = [
        (
            "[tokens.a]\nscope = \"read\"".to_owned(),
            "frostgate.toml:1: token \"a\" needs its \"hash\"",
        ),
        (
            format!("[tokens.a]\nscope = \"read\"\nhash = \"{digits}\""),
            "frostgate.toml:3: \"hash\" in [tokens.a]: expected \"sha256:\" and the 64 \
             hexadecimal digits that sha256sum prints, found \
             \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab…\"",
        ),
        (
            format!("[tokens.a]\n{hash}"),
            "frostgate.toml:1: token \"a\" needs exactly one of \"scope\" and \"projects\"",
        ),
        (
            format!("[tokens.a]\n{hash}\nscope = \"read\"\nprojects = [\"x\"]"),
            "frostgate.toml:1: token \"a\" needs exactly one of \"scope\" and \"projects\"",
        ),
        (
            format!("[tokens.a]\n{hash}\nscope = \"write\""),
            "frostgate.toml:3: \"scope\" in [tokens.a]: \
             expected \"admin\" or \"read\", found \"write\"",
        ),
        (
            format!("[tokens.a]\n{hash}\nprojects = []"),
            "frostgate.toml:3: \"projects\" in [tokens.a]: expected a list of names of projects \
             such as [\"courses\"], found []",
        ),
        (
            format!("[tokens.admin]\n{hash}\nscope = \"read\""),
            "frostgate.toml:1: \"admin\" is the name of the token in the state directory; \
             choose another",
        ),
        (
            format!("[tokens.CI]\n{hash}\nscope = \"read\""),
            "frostgate.toml:1: \"CI\" is not a name for a token: 1 to 63 of the characters a-z, \
             0-9 and '-', beginning and ending with a letter or digit",
        ),
        (
            format!("[tokens.a]\n{hash}\nscope = \"read\"\n[tokens.b]\n{hash}\nprojects = [\"x\"]"),
            "frostgate.toml:5: \"hash\" in [tokens.b]: token \"a\" has the same",
        ),
    ];
    for (text, message) in rows {
        assert_eq!(problems(&text, &[]), [message], "{text}");
    }
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let found = problems("[policy]\nhold_max = \n", &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("frostgate.toml:2: not valid TOML: "), "{found:?}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let text = "\
[workspaces.-bad-]
image = \"y\"
[policy]
hold_max = \"x\"
holdmax = 1
[listen]
admin = \"127.0.0.1:8080\"
workers = true";
    let found = problems(text, &[("FROSTGATE_LIMITS__HELD_MAX", "many")]);
    let places: Vec<&str> = found.iter().filter_map(|line| line.split(": ").next()).collect();
    let expected = [
        "frostgate.toml:1",
        "frostgate.toml:4",
        "frostgate.toml:5",
        "frostgate.toml:7",
        "frostgate.toml:8",
        "FROSTGATE_LIMITS__HELD_MAX",
    ];
    assert_eq!(places, expected, "{found:#?}");
}

#[test]
fn a_list_of_many_lines_and_a_dotted_key_keep_their_lines() {
    let found = problems("[listen]\npublic = [\n  \"0.0.0.0:80\",\n  \"nonsense\",\n]", &[]);
    assert!(found[0].starts_with("frostgate.toml:2: \"public\" in [listen]"), "{found:?}");
    let found = problems("\npolicy.hold_max = 0", &[]);
    assert!(found[0].starts_with("frostgate.toml:2: \"hold_max\" in [policy]"), "{found:?}");
}

#[test]
fn variables_win_over_the_file_and_flags_over_both() {
    let text = "[policy]\nhold_max = \"1s\"\nstop_grace = \"2s\"\n[listen]\nadmin = \"[::1]:1\"\n\
                [workspaces.a-b]\ncommand = [\"x\"]\n[tokens.a-b]\nhash = \"sha256:0123456789abcdef\
                0123456789abcdef0123456789abcdef0123456789abcdef\"";
    let variables = [
        ("FROSTGATE_POLICY__HOLD_MAX", "1.5"),
        ("FROSTGATE_LISTEN__ADMIN", "[::1]:2"),
        ("FROSTGATE_LISTEN__PUBLIC", "0.0.0.0:80, [::]:80"),
        ("FROSTGATE_ROUTING__PATHS", "false"),
        ("FROSTGATE_STATE_DIR", "/srv/frost"),
        ("FROSTGATE_WORKSPACES__A_B__PORT", "9000"),
        ("FROSTGATE_WORKSPACES__A_B__ENVIRONMENT__My_NAME", "x"),
        ("FROSTGATE_TOKENS__A_B__SCOPE", "read"),
        ("FROSTGATE_LOG", "debug"),
        ("FROSTGATE_TOKEN", "secret"),
    ];
    let flags = Flags {
        listen: vec!["127.0.0.1:9".to_owned(), "[::1]:9".to_owned()],
        listen_tls: vec!["127.0.0.1:7".to_owned()],
        admin: Some("[::1]:3".to_owned()),
        ..Flags::default()
    };
    let config = load(text, &variables, &flags).expect("a right configuration");
    assert_eq!(config.policy.hold_max, Duration::from_millis(1500));
    assert_eq!(config.policy.stop_grace, Duration::from_secs(2));
    assert_eq!(config.listen.admin.to_string(), "[::1]:3");
    let public: Vec<String> = config.listen.public.iter().map(SocketAddr::to_string).collect();
    assert_eq!(public, ["127.0.0.1:9", "[::1]:9"]);
    assert_eq!(config.listen.tls, ["127.0.0.1:7".parse::<SocketAddr>().expect("an address")]);
    assert!(!config.routing.paths);
    assert_eq!(config.state_dir, PathBuf::from("/srv/frost"));
    let workspace = config.workspaces.values().next().expect("the workspace");
    assert_eq!(workspace.spec.port, Some(9000));
    assert_eq!(workspace.spec.environment.get("My_NAME").map(String::as_str), Some("x"));
    let token = config.tokens.values().next().expect("the token");
    assert_eq!(token.scope, Scope::Read);
}

#[test]
fn a_misspelled_variable_or_a_wrong_flag_is_told_by_its_name() {
    let rows = [
        (
            "FROSTGATE_POLICY__HOLDMAX",
            "FROSTGATE_POLICY__HOLDMAX: unknown key \"holdmax\" in [policy]; \
             did you mean FROSTGATE_POLICY__HOLD_MAX?",
        ),
        (
            "FROSTGATE_LOGS",
            "FROSTGATE_LOGS: unknown key \"logs\" at the top level; did you mean FROSTGATE_LOG?",
        ),
        (
            "FROSTGATE_POLICY__MONITORING",
            "FROSTGATE_POLICY__MONITORING: \"monitoring\" in [policy]: \
             expected true or false, found \"1s\"",
        ),
        (
            "FROSTGATE_LISTEN",
            "FROSTGATE_LISTEN: \"listen\" at the top level: \
             expected a table [listen], found \"1s\"",
        ),
    ];
    for (variable, message) in rows {
        assert_eq!(problems("", &[(variable, "1s")]), [message]);
    }
    let flags = Flags { admin: Some("8081".to_owned()), ..Flags::default() };
    let error = load("", &[], &flags).expect_err("a port is no address");
    assert!(error.to_string().starts_with("--admin: \"admin\" in [listen]: "), "{error}");
}

#[test]
fn a_workspace_overrides_the_policy_that_the_file_sets() {
    let config = loaded(
        "[policy]\ninactivity_timeout = \"5m\"\nhold_max = 9\n[workspaces.a]\nimage = \"img:1\"\n\
         network = \"dev\"\nfreeze_mode = \"pause\"\ninactivity_timeout = 0",
    );
    let workspace = config.workspaces.values().next().expect("the workspace");
    let policy = workspace.policy.over(&config.policy);
    assert_eq!(policy.inactivity_timeout, None);
    assert_eq!(policy.freeze_mode, FreezeMode::Pause);
    assert_eq!(policy.hold_max, Duration::from_secs(9));
    let image = Image { network: Some("dev".to_owned()), ..Image::new("img:1") };
    assert_eq!(workspace.spec.runs, Runs::Image(image));
}

/// A project with everything, and two workspaces of it.
const TEMPLATE: &str = r#"
[projects.web]
name = "Web, for all"
image = "img:1"
command = ["serve", "--all"]
port = 80
isolate = true
mounts = ["/srv/homes/{id}:/home", "cache-{id}:/var/cache:ro"]
memory = "1536MiB"
cpus = 0.3
pull = "always"
publish_ports = true
environment = { A = "1", WHO = "{id}" }
ready_path = "/ok"
protocol = "h2c"
inactivity_timeout = "5m"
hold_max = "9s"
[projects.local]
command = ["x"]
directory = "/srv"
memory = 6291456
[workspaces.a]
project = "web"
[workspaces.b]
project = "web"
hosts = ["b.test"]
port = 81
protocol = "http1"
memory = "2g"
environment = { A = "2", B = "3" }
hold_max = "8s"
"#;

#[test]
fn a_project_is_read_as_a_workspace_is() {
    let config = loaded(TEMPLATE);
    let project = &config.projects["web"];
    assert_eq!(project.name, "Web, for all");
    let mounts = ["/srv/homes/{id}:/home", "cache-{id}:/var/cache:ro"];
    let image = Image {
        name: "img:1".to_owned(),
        command: vec!["serve".to_owned(), "--all".to_owned()],
        network: None,
        isolate: true,
        mounts: mounts.iter().map(|text| Mount::parse(text).expect("a mount")).collect(),
        nano_cpus: Some(300_000_000),
        pull: Pull::Always,
        publish_ports: true,
    };
    assert_eq!(project.spec.runs, Runs::Image(image));
    assert_eq!(project.spec.memory, Some(1536 << 20));
    assert_eq!(project.policy.hold_max, Some(Duration::from_secs(9)));
    // Its key is its name where it has none.
    assert_eq!(config.projects["local"].name, "local");
    assert_eq!(config.projects["local"].spec.memory, Some(6 << 20));
}

#[test]
fn a_workspace_has_what_its_project_says_and_its_own_on_top() {
    let config = loaded(TEMPLATE);
    let project = &config.projects["web"];
    let plain = &config.workspaces["a"];
    assert_eq!((&plain.spec, &plain.policy), (&project.spec, &project.policy.clone().into()));
    let own = &config.workspaces["b"];
    assert_eq!(own.project.as_ref().map(ToString::to_string).as_deref(), Some("web"));
    assert_eq!(own.spec.runs, project.spec.runs);
    assert_eq!((own.spec.port, own.spec.memory), (Some(81), Some(2 << 30)));
    assert_eq!((project.spec.protocol, own.spec.protocol), (Protocol::H2c, Protocol::Http1));
    assert_eq!(own.spec.hosts, ["b.test"]);
    let environment: Vec<(&str, &str)> =
        own.spec.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(environment, [("A", "2"), ("B", "3"), ("WHO", "{id}")]);
    assert_eq!(own.policy.hold_max, Some(Duration::from_secs(8)));
    assert_eq!(own.policy.inactivity_timeout, Some(Duration::from_secs(5 * 60)));
}

#[test]
fn variables_reach_into_projects() {
    let variables = [
        ("FROSTGATE_PROJECTS__MY_WEB__MEMORY", "64m"),
        ("FROSTGATE_PROJECTS__MY_WEB__CPUS", "1.5"),
        ("FROSTGATE_PROJECTS__MY_WEB__MOUNTS", "/srv:/srv:ro, cache:/c"),
        ("FROSTGATE_PROJECTS__MY_WEB__ENVIRONMENT__My_NAME", "x"),
    ];
    let text = "[projects.my-web]\nimage = \"i\"";
    let config = load(text, &variables, &Flags::default()).expect("a right configuration");
    let spec = &config.projects["my-web"].spec;
    assert_eq!(spec.memory, Some(64 << 20));
    assert_eq!(spec.environment["My_NAME"], "x");
    let Runs::Image(image) = &spec.runs else { panic!("{spec:?}") };
    assert_eq!((image.nano_cpus, image.mounts.len()), (Some(1_500_000_000), 2));
}

#[test]
fn the_printed_configuration_reads_back_to_the_same_one() {
    let config = loaded(
        "[listen]\nfirst_byte_timeout = \"250ms\"\nheader_timeout = 61.5\n[policy]\n\
         inactivity_timeout = 0\nno_wake_clients = [\"10.0.0.1\", \"fd00::1/8\"]\ncheck_in_ttl = \"1d2h3m4s\"\n\
         [tls]\ncertificates = [{ cert = \"a\", key = \"b\" }]\nhsts = \"180d\"\n\
         [routing]\npublic_url = \"https://a.test:8443\"\n[waiting_page]\ndirectory = \"/etc/page\"\n\
         [log]\naccess = \"/var/log/access.json\"\n[metrics]\nper_workspace = true\n\
         [docker]\nenable = false\nsocket = \"/run/\\\"x\\\".sock\"\n\
         [workspaces.a]\ncommand = [\"sh\", \"-c\", \"echo '\\n\\\"'\"]\ndirectory = \"/srv\"\n\
         environment = { \"a b\" = \"c\" }\nhosts = [\"x.test\"]\nready_path = \"/ok\"\n\
         [workspaces.b]\nupstream = \"[::1]:9000\"\nhold_max = 0.001\n\
         [workspaces.c]\nimage = \"i\"\nport = 80\nnetwork = \"n\"\n\
         [tokens.a]\nscope = \"admin\"\nhash = \"sha256:00000000000000000000000000000000\
         00000000000000000000000000000000\"\n[tokens.b]\nprojects = [\"y\", \"x\"]\n\
         hash = \"sha256:11111111111111111111111111111111\
         11111111111111111111111111111111\"",
    );
    assert_eq!((config.tokens.len(), config.workspaces.len()), (2, 3));
    assert_eq!(loaded(&config.to_toml()), config, "{}", config.to_toml());
    assert_eq!(loaded(&Config::default().to_toml()), Config::default());
    let projects = loaded(TEMPLATE);
    assert_eq!(projects.projects.len(), 2);
    assert_eq!(loaded(&projects.to_toml()), projects, "{}", projects.to_toml());
}

#[test]
fn a_file_that_was_named_has_to_be_there() {
    let path = Path::new("/nonexistent/frostgate.toml");
    let error = Config::load(Some(path), std::iter::empty(), &Flags::default());
    let error = error.expect_err("there is no such file");
    assert_eq!(error.to_string(), "could not read the configuration /nonexistent/frostgate.toml");
    let variable = ("FROSTGATE_CONFIG".to_owned(), "/nonexistent/f".to_owned());
    let environment = BTreeMap::from([variable]);
    assert_eq!(Config::find(None, &environment), Some(PathBuf::from("/nonexistent/f")));
    assert_eq!(Config::find(Some(path), &environment), Some(path.to_owned()));
}

#[test]
fn without_a_home_a_user_has_to_name_the_state_directory() {
    let file = File::new("");
    let result = Config::load(Some(&file.0), std::iter::empty(), &Flags::default());
    if rustix::process::geteuid().is_root() {
        assert_eq!(result.expect("root needs none").state_dir, Path::new("/var/lib/frostgate"));
        return;
    }
    let error = result.expect_err("there is no place for the state").to_string();
    assert!(error.contains("\"state_dir\" at the top level: must be set"), "{error}");
}

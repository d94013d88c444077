//! The pages of the reference that are made from what they describe: stale ones are told.
//!
//! `configuration.md` comes from `examples/full.toml`, of which `config_files` shows that it has every
//! option and its default, and from what the program itself says that each option accepts. `api.md`
//! comes from `openapi.json`, of which `openapi` shows that it is what is served.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use frostgate::config::{Config, Flags};
use serde_json::Value;

use crate::support::pages::root;

/// Compares a page with what is stored, or stores it.
fn check(name: &str, page: &str) {
    let path = root().join("docs/reference").join(name);
    if std::env::var_os("FROSTGATE_BLESS").is_some() {
        std::fs::write(&path, page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    let first = stored.lines().zip(page.lines()).find(|(stored, made)| stored != made);
    let is_the_same = stored == page;
    assert!(
        is_the_same,
        "run FROSTGATE_BLESS=1 cargo test reference; first difference: {first:#?}"
    );
}

/// The words of somebody who writes a nonsense: a date, which no option takes.
const NONSENSE: &str = "1979-05-27";

/// One option as the full example has it.
#[derive(Debug, Clone)]
struct Entry {
    key: String,
    value: String,
    /// The comment before it; empty: it belongs to the one before.
    comment: String,
}

/// A table of the full example.
#[derive(Debug)]
struct Table {
    name: String,
    comment: String,
    entries: Vec<Entry>,
}

impl Table {
    /// All of them, in their order; the first has what stands before any.
    fn all(text: &str) -> Vec<Self> {
        let top = Self { name: String::new(), comment: String::new(), entries: Vec::new() };
        let (mut tables, mut comment) = (vec![top], String::new());
        for line in text.lines() {
            if let Some(words) = line.strip_prefix('#') {
                comment.push_str(words.trim_start_matches(' ').trim_end());
                comment.push('\n');
            } else if let Some(name) =
                line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
            {
                let comment = std::mem::take(&mut comment);
                tables.push(Self { name: name.to_owned(), comment, entries: Vec::new() });
            } else if let Some((key, value)) = line.split_once(" = ") {
                let (key, value) = (key.to_owned(), value.to_owned());
                let table = tables.last_mut().unwrap();
                table.entries.push(Entry { key, value, comment: std::mem::take(&mut comment) });
            } else {
                assert!(line.is_empty(), "what is {line:?}?");
                // What stands before an empty line is about what comes, if anything.
                if tables.len() == 1 && tables[0].entries.is_empty() {
                    comment.clear();
                } else if !comment.is_empty() {
                    comment.push('\n');
                }
            }
        }
        tables
    }

    /// `projects` of `projects.notebook`
    fn family(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }
}

fn load(text: &str, variables: Vec<(String, String)>) -> Result<Config, String> {
    let name = format!("frostgate-reference-{:?}.toml", std::thread::current().id());
    let file = std::env::temp_dir().join(name.replace(['(', ')'], "-"));
    std::fs::write(&file, text).unwrap();
    let home = ("HOME".to_owned(), "/home/frost".to_owned());
    let variables = variables.into_iter().chain([home]);
    let loaded = Config::load(Some(&file), variables, &Flags::default());
    std::fs::remove_file(&file).unwrap();
    loaded.map_err(|error| error.to_string())
}

/// What an option accepts, in the words in which a mistake is answered.
fn accepted(table: &str, key: &str) -> String {
    let header = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
    let error =
        load(&format!("{header}{key} = {NONSENSE}\n"), vec![]).expect_err("no date is right");
    let begin = format!("\"{key}\" ");
    let line = error.lines().find(|line| line.contains(&begin) && line.contains("expected "));
    let line = line.unwrap_or_else(|| panic!("{table}.{key}: {error}"));
    let (_, rest) = line.split_once("expected ").unwrap();
    rest.split(", found ").next().unwrap().to_owned()
}

/// The variable of an option, which has to be known.
fn variable(table: &str, key: &str) -> String {
    let keys: Vec<String> = table
        .split('.')
        .filter(|part| !part.is_empty())
        .chain([key])
        .map(str::to_uppercase)
        .collect();
    let name = format!("FROSTGATE_{}", keys.join("__"));
    if let Err(error) = load("", vec![(name.clone(), "?".to_owned())]) {
        assert!(!error.contains("unknown key"), "{error}");
    }
    name
}

/// A comment as text of a cell.
fn cell(comment: &str) -> String {
    comment
        .trim()
        .replace("\n\n", "<br>")
        .replace('\n', " ")
        .replace('|', "\\|")
        .replace("<style>", "`<style>`")
        .replace("<script>", "`<script>`")
}

fn rows(page: &mut String, table: &str, entries: &[Entry]) {
    page.push_str("| option | default | what it takes | meaning |\n|---|---|---|---|\n");
    let mut last = "";
    for Entry { key, value, comment } in entries {
        let variable = variable(table, key);
        let takes = accepted(table, key).replace('|', "\\|");
        let meaning = match comment.is_empty() {
            true => format!("see `{last}`"),
            false => cell(comment),
        };
        if !comment.is_empty() {
            last = key;
        }
        writeln!(page, "| `{key}`<br>`{variable}` | `{value}` | {takes} | {meaning} |").unwrap();
    }
}

/// The keys of projects and workspaces that are no options of a policy, once each.
fn makings(tables: &[Table], family: &str, policy: &BTreeSet<&str>) -> Vec<Entry> {
    let mut seen = BTreeSet::new();
    let entries = tables.iter().filter(|table| table.family() == family);
    let entries = entries.flat_map(|table| &table.entries);
    let own = entries.filter(|entry| !policy.contains(&*entry.key));
    own.filter(|entry| seen.insert(entry.key.clone())).cloned().collect()
}

const HEAD: &str = "\
# Configuration

<!-- Made of examples/full.toml and of what the program says; FROSTGATE_BLESS=1 cargo test reference -->

`frostgate serve` reads the first of these that is there: what `--config` names, what the variable
`FROSTGATE_CONFIG` names, `./frostgate.toml`, `~/.config/frostgate/frostgate.toml`,
`/etc/frostgate/frostgate.toml`. It works without any. `frostgate check-config` says whether the file is
right, and with `--print` what is in force. [`examples/full.toml`](../../examples/full.toml) has
everything that stands here.

Every option can be set by a variable: `hold_max` in `[policy]` by `FROSTGATE_POLICY__HOLD_MAX`, and
`port` of the workspace `my-site` by `FROSTGATE_WORKSPACES__MY_SITE__PORT`. In variables, the items
of a list are separated by commas. Flags win over variables, and variables over the file.
`FROSTGATE_LOG` says what is logged, such as `debug` or `frostgate::proxy=trace`.

Durations are texts (`\"1.5s\"`, `\"250ms\"`, `\"15m\"`, `\"1h30m\"`, `\"7d\"`) or numbers of seconds. An
empty text means \"none\".

";

/// The last paragraph of the example's own head.
fn what_a_reload_applies(text: &str) -> String {
    let head = text.lines().take_while(|line| line.starts_with('#'));
    let lines: Vec<&str> = head.map(|line| line.trim_start_matches(['#', ' '])).collect();
    let paragraph = lines.rsplit(|line| line.is_empty()).next().unwrap_or_default().join("\n");
    assert!(paragraph.contains("frostgate reload"), "{paragraph}");
    paragraph
}

fn configuration() -> String {
    let text = std::fs::read_to_string(root().join("examples/full.toml")).unwrap();
    let tables = Table::all(&text);
    let policy = tables.iter().find(|table| table.name == "policy").unwrap();
    let policy: BTreeSet<&str> = policy.entries.iter().map(|entry| &*entry.key).collect();
    let mut page = format!("{HEAD}{}\n", what_a_reload_applies(&text));
    for table in tables.iter().filter(|table| !table.name.contains('.')) {
        let name = &table.name;
        let title = if name.is_empty() { "At the top" } else { name };
        write!(page, "\n## {title}\n\n").unwrap();
        if !table.comment.trim().is_empty() {
            write!(page, "{}\n\n", table.comment.trim()).unwrap();
        }
        rows(&mut page, name, &table.entries);
    }
    page.push_str(
        "\n## tokens\n\nTokens that open the API, beside the one in the state directory, and those made by \
         `frostgate token add`. The key is the name: `[tokens.monitor]`. \
         [How to give teams tokens of their own](../how-to/tokens.md)\n\n",
    );
    others(&mut page, "tokens", makings(&tables, "tokens", &policy), &BTreeSet::new());
    page.push_str(
        "\n## projects and workspaces\n\nA project (`[projects.notebook]`) is a template that workspaces are made \
         from; a workspace (`[workspaces.alice]`) is a command, an image, an upstream or one of a \
         project's. The key is the id, and of a workspace the first part of its host name. Both may set \
         every option of [policy](#policy) for themselves.\n\n",
    );
    let of_projects = makings(&tables, "projects", &policy);
    let of_workspaces = makings(&tables, "workspaces", &policy);
    let both =
        |entries: &[Entry]| entries.iter().map(|entry| entry.key.clone()).collect::<BTreeSet<_>>();
    let (in_projects, in_workspaces) = (both(&of_projects), both(&of_workspaces));
    let mut all = of_projects;
    all.extend(of_workspaces.into_iter().filter(|entry| !in_projects.contains(&entry.key)));
    let only: BTreeSet<(String, &str)> = all
        .iter()
        .filter_map(|entry| {
            match (in_projects.contains(&entry.key), is_known("workspaces", &entry.key)) {
                (false, _) => Some((entry.key.clone(), "of a workspace only")),
                (true, false) => Some((entry.key.clone(), "of a project only")),
                (true, true) => None,
            }
        })
        .collect();
    assert!(in_workspaces.len() > 5);
    others(&mut page, "workspaces", all, &only);
    page
}

fn is_known(family: &str, key: &str) -> bool {
    let error = load(&format!("[{family}.a]\n{key} = {NONSENSE}\n"), vec![]).expect_err("a date");
    !error.contains(&format!("unknown key \"{key}\""))
}

fn others(page: &mut String, family: &str, entries: Vec<Entry>, only: &BTreeSet<(String, &str)>) {
    page.push_str("| key | such as | what it takes | meaning |\n|---|---|---|---|\n");
    for Entry { key, value, comment } in entries {
        let restriction = only.iter().find(|(known, _)| *known == key).map(|(_, words)| *words);
        let family = if restriction == Some("of a project only") { "projects" } else { family };
        let takes = accepted(&format!("{family}.a"), &key).replace('|', "\\|");
        let restriction = restriction.map(|words| format!(" ({words})")).unwrap_or_default();
        let meaning = cell(&comment);
        writeln!(page, "| `{key}`{restriction} | `{value}` | {takes} | {meaning} |").unwrap();
    }
}

#[test]
fn the_reference_of_the_configuration_is_that_of_this_program() {
    let page = configuration();
    assert!(page.lines().filter(|line| line.starts_with("| `")).count() > 80);
    check("configuration.md", &page);
}

const API_HEAD: &str = "\
# API

<!-- Made of openapi.json; FROSTGATE_BLESS=1 cargo test reference -->

It is served at `listen.admin`, by default `127.0.0.1:8081`, and on the public listener at the host
`routing.admin_host`, if you set that. [`openapi.json`](openapi.json) has the same for programs, with
every field, and is served at `/openapi.json`.

- **Tokens**: the first start puts one into the state directory, and `serve` says where that is.
  `Authorization: Bearer TOKEN`, the password of any user, or `access_token` in the query.
  [More of them](../how-to/tokens.md)
- **Bodies** are JSON, urlencoded or multipart, as you like.
- **Times** are minutes as numbers, or texts such as `\"90s\"` and `\"1h30m\"`.
- **Errors** are `application/problem+json`, with a word for programs: [error codes](error-codes.md).
- `/workspaces…` is the same as `/api/v1/workspaces…`.
";

fn api(document: &Value) -> String {
    let mut page = API_HEAD.to_owned();
    for tag in document["tags"].as_array().unwrap() {
        let name = tag["name"].as_str().unwrap();
        let words = tag["description"].as_str().unwrap();
        write!(page, "\n## {name}\n\n{words}.\n").unwrap();
        for (path, calls) in document["paths"].as_object().unwrap() {
            for (method, call) in calls.as_object().unwrap() {
                if call["tags"][0] == name {
                    describe(&mut page, document, method, path, call);
                }
            }
        }
    }
    page
}

fn describe(page: &mut String, document: &Value, method: &str, path: &str, call: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().replace('\n', " ");
    let method = method.to_uppercase();
    write!(page, "\n### {method} {path}\n\n{}", text(&call["summary"])).unwrap();
    let more = text(&call["description"]);
    if !more.is_empty() {
        write!(page, " {}", more.trim()).unwrap();
    }
    let token = if call["security"].is_array() { "" } else { " No token is needed." };
    writeln!(page, "{token}").unwrap();
    let parameters = call["parameters"].as_array().cloned().unwrap_or_default();
    let fields = fields(document, call);
    if !parameters.is_empty() || !fields.is_empty() {
        page.push_str("\n| | in | |\n|---|---|---|\n");
    }
    for parameter in parameters {
        let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
        let words = text(&parameter["description"]);
        let words = if words.is_empty() { said_of(document, &parameter["schema"]) } else { words };
        let words = words.replace('|', "\\|");
        writeln!(page, "| `{name}` | {place} | {words} |").unwrap();
    }
    for (name, words) in fields {
        writeln!(page, "| `{name}` | body | {} |", words.replace('|', "\\|")).unwrap();
    }
    page.push('\n');
    for (status, answer) in call["responses"].as_object().unwrap() {
        if let Some(reference) = answer["$ref"].as_str() {
            // One of several is described as one.
            let codes = reference.rsplit('/').next().unwrap().split("_or_");
            let links = codes.map(|code| format!("[`{code}`](error-codes.md#{code})"));
            let links = links.collect::<Vec<_>>().join(" or ");
            writeln!(page, "- {status}: {links}").unwrap();
        } else {
            writeln!(page, "- {status}: {}", text(&answer["description"])).unwrap();
        }
    }
}

/// The fields of a call's body, and what they say.
fn fields(document: &Value, call: &Value) -> Vec<(String, String)> {
    let Some(kinds) = call["requestBody"]["content"].as_object() else { return vec![] };
    let Some(kind) = kinds.get("application/json").or(kinds.values().next()) else { return vec![] };
    let mut fields = Vec::new();
    gather(document, &kind["schema"], &mut fields, 0);
    fields
}

/// Schemas may be of several parts, and stand elsewhere.
fn gather(document: &Value, schema: &Value, fields: &mut Vec<(String, String)>, depth: u8) {
    assert!(depth < 8, "a schema that holds itself: {schema}");
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        gather(document, &document["components"]["schemas"][name], fields, depth + 1);
    }
    for kind in ["allOf", "oneOf", "anyOf"] {
        for part in schema[kind].as_array().into_iter().flatten() {
            gather(document, part, fields, depth + 1);
        }
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let words = said_of(document, field).replace('\n', " ");
        if !fields.iter().any(|(known, _)| known == name) {
            fields.push((name.clone(), words));
        }
    }
}

/// What is said of a field, or else what it may be.
fn said_of(document: &Value, field: &Value) -> String {
    if let Some(words) = field["description"].as_str() {
        return words.to_owned();
    }
    if let Some(reference) = field["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return said_of(document, &document["components"]["schemas"][name]);
    }
    if let Some(words) = field["enum"].as_array() {
        let words = words.iter().filter_map(Value::as_str).map(|word| format!("`{word}`"));
        return words.collect::<Vec<_>>().join(", ");
    }
    let parts = ["allOf", "oneOf", "anyOf"].iter().flat_map(|kind| field[kind].as_array());
    let parts = parts.flatten().chain(field.get("items"));
    parts.map(|part| said_of(document, part)).find(|words| !words.is_empty()).unwrap_or_default()
}

#[test]
fn the_reference_of_the_api_is_that_of_its_description() {
    let stored = Path::new(root()).join("docs/reference/openapi.json");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(stored).unwrap()).unwrap();
    let page = api(&document);
    let calls = document["paths"].as_object().unwrap().values();
    let calls: usize = calls.map(|calls| calls.as_object().unwrap().len()).sum();
    assert_eq!(page.lines().filter(|line| line.starts_with("### ")).count(), calls);
    check("api.md", &page);
}

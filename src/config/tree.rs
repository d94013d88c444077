//! The sources of the configuration, put on top of each other.
//!
//! A value keeps its origin to the end, so that whatever is found wrong with it, however late, can
//! be told with the place where the operator wrote it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Flags, Problem};

/// What the names of our variables begin with.
const PREFIX: &str = "FROSTGATE_";

/// Variables that are no configuration: they choose the file, belong to clients and logs, or are
/// what a workspace finds in its own environment (Frostgate may run inside one).
pub(super) const OTHER_VARIABLES: [&str; 7] = [
    "FROSTGATE_CHECK_IN_URL",
    "FROSTGATE_CONFIG",
    "FROSTGATE_LOG",
    "FROSTGATE_RUN",
    "FROSTGATE_TOKEN",
    "FROSTGATE_URL",
    "FROSTGATE_WORKSPACE",
];

/// Where a value was written. In the order in which problems are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A line of the file, counted from 1.
    File { path: String, line: usize },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
    /// Nowhere.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("by default"),
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// The keys of one table.
pub(super) type Keys = BTreeMap<String, Node>;

/// A value as it was written.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Table(Keys),
    List(Vec<Node>),
    Text(String),
    Integer(i64),
    Float(f64),
    Switch(bool),
    /// A date, or a number that no key of ours takes: its source text is all that is needed.
    Odd(String),
    /// From outside TOML, without quotes or brackets: what it is depends on the key that reads it.
    Bare(String),
}

/// All sources so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) keys: Keys,
}

impl Tree {
    /// Adds the text of the file at `path`, or tells every place where it is not TOML.
    pub(super) fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let name = path.strip_prefix("./").unwrap_or(path).display().to_string();
        let file = File::new(name, text);
        let (table, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            self.keys = file.keys(table.get_ref());
            return Ok(());
        }
        let problem = |error: &toml::de::Error| Problem {
            origin: file.origin(error.span().map_or(0, |span| span.start)),
            text: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
        };
        Err(ConfigError::Invalid { problems: errors.iter().map(problem).collect() })
    }

    /// Adds every variable that is ours: `FROSTGATE_POLICY__HOLD_MAX` is `hold_max` in `[policy]`.
    pub(super) fn add_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, value) in environment {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let node =
                Node { origin: Origin::Variable(name.clone()), value: Value::Bare(value.clone()) };
            put(&mut self.keys, &keys_of_variable(rest), node);
        }
    }

    /// Adds the flags.
    pub(super) fn add_flags(&mut self, flags: &Flags) {
        let bare = |flag, text: &String| Node {
            origin: Origin::Flag(flag),
            value: Value::Bare(text.clone()),
        };
        let mut put_flag = |keys: &[&str], flag, value: &Option<String>| {
            if let Some(text) = value {
                let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
                put(&mut self.keys, &keys, bare(flag, text));
            }
        };
        let list = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
        put_flag(&["listen", "public"], "--listen", &list(&flags.listen));
        put_flag(&["listen", "tls"], "--listen-tls", &list(&flags.listen_tls));
        put_flag(&["listen", "admin"], "--admin", &flags.admin);
        put_flag(&["state_dir"], "--state-dir", &flags.state_dir);
        put_flag(&["routing", "domain"], "--domain", &flags.domain);
    }
}

/// The variable that sets `keys`.
pub(super) fn variable_name(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| key.to_ascii_uppercase()).collect();
    format!("{PREFIX}{}", keys.join("__").replace('-', "_"))
}

/// The keys that a variable's name stands for. Names in an environment have no `-`, and ids have
/// no `_`, so that the one can stand for the other; a workspace's own variables keep their case.
fn keys_of_variable(name: &str) -> Vec<String> {
    let lower = |part: &str| part.to_ascii_lowercase();
    let id = |part: &str| lower(part).replace('_', "-");
    let parts: Vec<&str> = name.splitn(4, "__").collect();
    match parts[..] {
        [table @ ("WORKSPACES" | "PROJECTS" | "TOKENS"), name, key] => {
            vec![lower(table), id(name), lower(key)]
        }
        [table @ ("WORKSPACES" | "PROJECTS"), name, "ENVIRONMENT", own] => {
            vec![lower(table), id(name), "environment".to_owned(), own.to_owned()]
        }
        _ => name.split("__").map(lower).collect(),
    }
}

/// Puts a value on top of what is there. Where the way there leads through something that is no
/// table, that something stays: it is wrong, and will be told.
fn put(keys: &mut Keys, path: &[String], node: Node) {
    let [key, rest @ ..] = path else {
        return;
    };
    if rest.is_empty() {
        keys.insert(key.clone(), node);
        return;
    }
    let origin = node.origin.clone();
    let inner = keys
        .entry(key.clone())
        .or_insert_with(|| Node { origin, value: Value::Table(Keys::new()) });
    if let Value::Table(inner) = &mut inner.value {
        put(inner, rest, node);
    }
}

/// A file while it is read.
struct File {
    name: String,
    /// The offsets of all line ends.
    line_ends: Vec<usize>,
}

impl File {
    fn new(name: String, text: &str) -> Self {
        Self { name, line_ends: text.match_indices('\n').map(|(offset, _)| offset).collect() }
    }

    fn origin(&self, offset: usize) -> Origin {
        let before = self.line_ends.partition_point(|end| *end < offset);
        Origin::File { path: self.name.clone(), line: 1 + before }
    }

    fn keys(&self, table: &DeTable<'_>) -> Keys {
        let node = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
            let key: &toml::Spanned<toml::de::DeString<'_>> = key;
            let node =
                Node { origin: self.origin(key.span().start), value: self.value(value.get_ref()) };
            (key.get_ref().to_string(), node)
        };
        table.iter().map(node).collect()
    }

    fn value(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::Table(table) => Value::Table(self.keys(table)),
            DeValue::Array(items) => {
                let node = |item: &toml::Spanned<DeValue<'_>>| Node {
                    origin: self.origin(item.span().start),
                    value: self.value(item.get_ref()),
                };
                Value::List(items.iter().map(node).collect())
            }
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(on) => Value::Switch(*on),
            DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix())
                .map_or_else(|_| Value::Odd(digits.to_string()), Value::Integer),
            DeValue::Float(digits) => digits
                .as_str()
                .parse()
                .map_or_else(|_| Value::Odd(digits.to_string()), Value::Float),
            DeValue::Datetime(date) => Value::Odd(date.to_string()),
        }
    }
}

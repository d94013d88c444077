//! The example files are right, and `full.toml` is the whole truth.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use frostgate::config::{Config, ConfigError, Flags, Tls};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn load(path: &Path) -> Result<Config, ConfigError> {
    let home = ("HOME".to_owned(), "/home/frost".to_owned());
    Config::load(Some(path), [home].into_iter(), &Flags::default())
}

/// The sections whose keys are names, and how each of their tables may begin.
const NAMED: [(&str, &str); 3] =
    [("tokens", "hash = \"x\""), ("projects", "image = \"i\""), ("workspaces", "image = \"i\"")];

/// The keys of every table; those of all workspaces count as one table's, and so on.
fn keys(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let table: toml::Table = text.parse().expect("TOML");
    let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in table {
        match value.as_table() {
            Some(named) if NAMED.iter().any(|(section, _)| *section == name) => {
                let inner = named.values().filter_map(|one| one.as_table());
                let keys = inner.flat_map(|one| one.keys().cloned());
                sections.insert(name, keys.collect());
            }
            Some(section) => {
                sections.insert(name, section.keys().cloned().collect());
            }
            None => {
                sections.entry(String::new()).or_default().insert(name);
            }
        }
    }
    sections
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the examples");
    let below = entries.map(|entry| entry.expect("an entry").path());
    below.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn every_example_loads() {
    let mut loaded = 0;
    for path in files_below(&examples()) {
        if path.extension().is_some_and(|extension| extension == "toml") {
            if let Err(error) = load(&path) {
                panic!("{}:\n{error}", path.display());
            }
            loaded += 1;
        }
    }
    assert!(loaded >= 5, "only {loaded} examples were found");
}

#[test]
fn the_full_example_sets_every_option_to_its_default() {
    let full = load(&examples().join("full.toml")).expect("the full example");
    let empty = load(Path::new("/dev/null")).expect("no options at all");
    assert_eq!(full.tokens.len(), 2, "one of each kind");
    assert_eq!(full.projects.len(), 2, "one of each kind");
    assert_eq!(full.workspaces.len(), 4, "one of each kind");
    let (tokens, projects, workspaces) = Default::default();
    let bare = Config { tokens, projects, workspaces, ..full };
    // Certificates are beside the file.
    assert_eq!(bare.tls.directory, Some(examples().join("certs")));
    let usual = Config {
        state_dir: empty.state_dir.clone(),
        tls: Tls { directory: bare.tls.directory.clone(), ..Tls::default() },
        ..Config::default()
    };
    assert_eq!(bare, usual);
    assert_eq!(Config { tls: usual.tls.clone(), ..empty }, usual);
}

#[test]
fn the_full_example_names_every_option() {
    let text = std::fs::read_to_string(examples().join("full.toml")).expect("the full example");
    let mut named = keys(&text);
    for (section, begin) in NAMED {
        assert_eq!(named.remove(section), Some(keys_of_one(section, begin)), "{section}");
    }
    assert_eq!(named, keys(&Config::default().to_toml()));
}

/// What one of these tables may set, as the list in the error for a key that resembles none.
fn keys_of_one(section: &str, begin: &str) -> BTreeSet<String> {
    let name = format!("frostgate-keys-{section}-{}.toml", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, format!("[{section}.a]\n{begin}\nzzzzzzzz = 1")).expect("a file");
    let error = load(&file).expect_err("an unknown key").to_string();
    std::fs::remove_file(&file).expect("the file is there");
    let (_, known) = error.split_once("known keys: ").expect("the known keys");
    known.split(", ").map(str::to_owned).collect()
}

//! The layering table of `src/lib.rs` and the code can't differ: every module uses those that the
//! table allows it, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A crate that only some files may name, and which those are: prefixes of paths below `src`.
const CONFINED: [(&str, &[&str]); 5] = [
    ("bollard", &["driver/docker"]),
    ("rustls", &["listen/tls", "cli/"]),
    ("notify", &["app/"]),
    ("h2", &["proxy/upstream/http2", "lifecycle/ready"]),
    ("hyper", &["listen/", "proxy/", "api/", "app", "cli/"]),
];

/// What a module may use.
#[derive(Debug)]
enum Allowed {
    All,
    These(BTreeSet<String>),
}

/// The rows of the table below `# Layering`, one entry for each module.
fn table(lib: &str) -> BTreeMap<String, Allowed> {
    let (_, section) = lib.split_once("//! # Layering").expect("src/lib.rs has the heading");
    let rows = section
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("//!") && !line.starts_with("//! # "))
        .filter_map(|line| line.strip_prefix("//! |"))
        .skip(2);
    let names = |cell: &str| -> Vec<String> {
        cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect()
    };
    let mut table = BTreeMap::new();
    for row in rows {
        let (modules, allowed) = row.trim_end_matches('|').split_once('|').unwrap();
        for module in names(modules) {
            let allowed = match allowed.trim() {
                "all" => Allowed::All,
                "none" => Allowed::These(BTreeSet::new()),
                list => Allowed::These(names(list).into_iter().collect()),
            };
            assert!(table.insert(module.clone(), allowed).is_none(), "{module} stands there twice");
        }
    }
    table
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The lines that are compiled into the program: no comments, and nothing from the first
/// `#[cfg(test)]` that opens a module on, as tests stand last.
fn code(text: &str) -> impl Iterator<Item = (usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |number: &usize| {
        lines[*number].trim() == "#[cfg(test)]"
            && lines.get(number + 1).is_some_and(|next| next.contains("mod tests {"))
    };
    let end = (0..lines.len()).find(opens_tests).unwrap_or(lines.len());
    let kept = lines[..end].iter().enumerate().map(|(number, line)| {
        let line = line.split("//").next().unwrap_or_default();
        (number + 1, line.to_owned())
    });
    kept.collect::<Vec<_>>().into_iter()
}

/// The modules of ours that a line names: `crate::x`, `crate::{x, y}` and `frostgate::x`.
fn used(line: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (position, start) in line.match_indices("crate::") {
        // `pub(crate)` is followed by no path, and `another_crate::` is another name.
        let before = line[..position].chars().next_back();
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let rest = &line[position + start.len()..];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match rest.strip_prefix('{') {
            // Of a list that goes on below, the rest can't be seen: it is an offence of its own.
            Some(list) if !list.contains('}') => used.push("a list over several lines".to_owned()),
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                let firsts =
                    list.split(',').map(|item| item.trim().split("::").next().unwrap_or_default());
                used.extend(firsts.filter(|name| !name.is_empty()).map(str::to_owned));
            }
            None => used.push(rest.chars().take_while(|c| is_name(*c)).collect()),
        }
    }
    used
}

/// Everything that is where it must not be.
fn offences(root: &Path, files: &[PathBuf], table: &BTreeMap<String, Allowed>) -> Vec<String> {
    let mut offences = Vec::new();
    for file in files {
        let relative = file.strip_prefix(root).unwrap().to_str().unwrap();
        if matches!(relative, "lib.rs" | "main.rs") || relative.ends_with("tests.rs") {
            continue;
        }
        let module = relative.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(allowed) = table.get(module) else {
            offences.push(format!("src/{relative}: the module {module} is not in the table"));
            continue;
        };
        let is_top = !relative.contains('/') || relative.ends_with("/mod.rs");
        for (number, line) in code(&fs::read_to_string(file).unwrap()) {
            // Above the top of a module is the crate.
            let line = if is_top { line.replace("super::", "crate::") } else { line };
            for name in used(&line) {
                let is_fine = match allowed {
                    Allowed::All => true,
                    Allowed::These(names) => name == module || names.contains(&name),
                };
                if !is_fine {
                    offences.push(format!("src/{relative}:{number}: {module} uses {name}: {line}"));
                }
            }
            for (name, places) in CONFINED {
                let names_it = [format!("{name}::"), format!("use {name}")].iter().any(|naming| {
                    let is_in_a_word = |c: char| c.is_alphanumeric() || c == '_';
                    let is_word = |at: usize| !line[..at].ends_with(is_in_a_word);
                    line.match_indices(naming).any(|(at, _)| is_word(at))
                });
                if names_it && !places.iter().any(|place| relative.starts_with(place)) {
                    offences
                        .push(format!("src/{relative}:{number}: {name} is not for here: {line}"));
                }
            }
        }
    }
    offences
}

#[test]
fn every_module_uses_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(root.join("lib.rs")).unwrap();
    let table = table(&lib);
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 30, "only {} files", files.len());
    let modules: BTreeSet<_> = lib
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("pub ").strip_prefix("mod "))
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect();
    assert!(modules.len() > 8, "{modules:?}");
    let rows: BTreeSet<_> = table.keys().cloned().collect();
    assert_eq!(rows, modules, "the table and the modules of src/lib.rs differ");
    let offences = offences(&root, &files, &table);
    assert!(offences.is_empty(), "\n{}", offences.join("\n"));
}

#[test]
fn a_use_is_found_however_it_is_written() {
    assert_eq!(used("use crate::model::{Phase, Tier};"), ["model"]);
    assert_eq!(used("use crate::{clock, driver::Driver};"), ["clock", "driver"]);
    assert_eq!(used("    asked: impl Future<Output = crate::lifecycle::Answer>,"), ["lifecycle"]);
    assert_eq!(used("fn f(a: crate::model::A) -> crate::clock::B {"), ["model", "clock"]);
    assert!(used("pub(crate) fn x() { other_crate::y() }").is_empty());
    let text = "use a;\n// use crate::b;\n#[cfg(test)]\nmod tests {\n    use crate::c;\n}\n";
    let kept: Vec<_> = code(text).flat_map(|(_, line)| used(&line)).collect();
    assert!(kept.is_empty(), "{kept:?}");
}

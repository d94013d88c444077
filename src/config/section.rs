//! Reads the keys of one table and notes what is wrong with them.
//!
//! A key is known because somebody asked for it: there is no list of keys beside the code that
//! reads them, and so none that could be out of date.

use std::collections::BTreeMap;

use super::Problem;
use super::tree::{Keys, Node, OTHER_VARIABLES, Origin, Value, variable_name};
use super::values::{Read, described};

/// Names this similar, by Jaro-Winkler, are taken for misspellings of each other.
const SIMILAR: f64 = 0.8;

/// What was found so far: problems, and where each value stands, for the checks across sections.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    origins: BTreeMap<String, Origin>,
}

impl Findings {
    /// Notes a problem.
    pub(super) fn add(&mut self, origin: &Origin, text: String) {
        self.problems.push(Problem { origin: origin.clone(), text });
    }

    /// Where the value at `keys`, such as `listen.admin`, was written.
    pub(super) fn origin(&self, keys: &str) -> Origin {
        self.origins.get(keys).cloned().unwrap_or(Origin::Default)
    }
}

/// One table while it is read.
pub(super) struct Section<'a> {
    path: Vec<String>,
    origin: Origin,
    keys: Keys,
    known: Vec<&'static str>,
    findings: &'a mut Findings,
}

impl<'a> Section<'a> {
    /// The outermost table.
    pub(super) fn top(keys: Keys, findings: &'a mut Findings) -> Self {
        Self { path: vec![], origin: Origin::Default, keys, known: vec![], findings }
    }

    /// Reads `key` into `target`, or leaves the default there.
    pub(super) fn read<T>(&mut self, key: &'static str, target: &mut T, read: Read<T>) {
        if let Some(value) = self.optional(key, read) {
            *target = value;
        }
    }

    /// Reads `key`, if it is there and right.
    pub(super) fn optional<T>(&mut self, key: &'static str, read: Read<T>) -> Option<T> {
        let node = self.take(key)?;
        match read(&node.value) {
            Ok(value) => Some(value),
            Err(expected) => {
                let found = described(&node.value);
                let text = format!("{}: expected {expected}, found {found}", self.name_of(key));
                self.findings.add(&node.origin, text);
                None
            }
        }
    }

    /// Which of `keys` somebody wrote, rightly or not, of those that have not been read yet.
    pub(super) fn present(&self, keys: &[&'static str]) -> Vec<&'static str> {
        keys.iter().copied().filter(|key| self.keys.contains_key(*key)).collect()
    }

    /// Takes out a key that tables like this one have, and that makes no sense in this one.
    pub(super) fn refuse(&mut self, key: &'static str, why: &str) {
        if let Some(node) = self.keys.remove(key) {
            self.findings.add(&node.origin, format!("{}: {why}", self.name_of(key)));
        }
    }

    /// Notes that something is wrong with the value of `key`.
    pub(super) fn problem(&mut self, key: &str, text: &str) {
        let origin = self.findings.origin(&self.full_key(key));
        let text = format!("{}: {text}", self.name_of(key));
        self.findings.add(&origin, text);
    }

    /// Notes that something is wrong with the table itself.
    pub(super) fn problem_here(&mut self, text: String) {
        self.findings.add(&self.origin, text);
    }

    /// Reads the table below `key`; one that isn't there reads as an empty one, so that its keys
    /// keep their defaults.
    pub(super) fn inner(&mut self, key: &'static str, read: impl FnOnce(Section<'_>)) {
        let (origin, keys) = match self.take(key) {
            None => (Origin::Default, Keys::new()),
            Some(node) => match self.table(key, node) {
                Some(table) => table,
                None => return,
            },
        };
        read(self.below(key, origin, keys));
    }

    /// Reads a table whose keys are names that the operator chose, each with a table of its own.
    pub(super) fn each(&mut self, key: &'static str, mut read: impl FnMut(&str, Section<'_>)) {
        self.inner(key, |mut outer| {
            for (name, node) in std::mem::take(&mut outer.keys) {
                if let Some((origin, keys)) = outer.table(&name, node) {
                    read(&name, outer.below(&name, origin, keys));
                }
            }
        });
    }

    /// Tells which of the table's keys nobody asked for.
    pub(super) fn finish(mut self) {
        for (key, node) in std::mem::take(&mut self.keys) {
            let hint = match &node.origin {
                Origin::Variable(name) => self.hint_for_variable(name),
                Origin::File { .. } | Origin::Flag(_) | Origin::Default => {
                    hint(&key, self.known.iter().map(|known| format!("{known:?}")))
                }
            };
            let text = format!("unknown key {key:?} {}; {hint}", self.place());
            self.findings.add(&node.origin, text);
        }
    }

    fn hint_for_variable(&self, name: &str) -> String {
        let variable = |known: &&str| {
            let mut keys: Vec<&str> = self.path.iter().map(String::as_str).collect();
            keys.push(known);
            variable_name(&keys)
        };
        let ours = self.known.iter().map(variable);
        if self.path.is_empty() {
            hint(name, ours.chain(OTHER_VARIABLES.map(str::to_owned)))
        } else {
            hint(name, ours)
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let node = self.keys.remove(key)?;
        let keys = self.full_key(key);
        self.findings.origins.insert(keys, node.origin.clone());
        Some(node)
    }

    /// The keys of a node that has to be a table.
    fn table(&mut self, key: &str, node: Node) -> Option<(Origin, Keys)> {
        if let Value::Table(keys) = node.value {
            return Some((node.origin, keys));
        }
        let header = self.full_key(key);
        let found = described(&node.value);
        let text = format!("{}: expected a table [{header}], found {found}", self.name_of(key));
        self.findings.add(&node.origin, text);
        None
    }

    fn below(&mut self, key: &str, origin: Origin, keys: Keys) -> Section<'_> {
        let mut path = self.path.clone();
        path.push(key.to_owned());
        Section { path, origin, keys, known: vec![], findings: self.findings }
    }

    fn full_key(&self, key: &str) -> String {
        let mut keys = self.path.clone();
        keys.push(key.to_owned());
        keys.join(".")
    }

    /// `"hold_max" in [policy]`
    fn name_of(&self, key: &str) -> String {
        format!("{key:?} {}", self.place())
    }

    fn place(&self) -> String {
        if self.path.is_empty() {
            "at the top level".to_owned()
        } else {
            format!("in [{}]", self.path.join("."))
        }
    }
}

/// What could have been meant, or what there is if nothing is near.
fn hint(name: &str, known: impl Iterator<Item = String>) -> String {
    let known: Vec<String> = known.collect();
    let bare = |known: &str| known.trim_matches('"').to_owned();
    let nearest = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, &bare(known)), known))
        .filter(|(similarity, known)| {
            // A shared prefix makes any two of our variables similar; letters must agree as well.
            let length = name.len().max(known.len());
            *similarity >= SIMILAR && strsim::damerau_levenshtein(name, &bare(known)) * 3 <= length
        })
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((_, nearest)) => format!("did you mean {nearest}?"),
        None => format!("known keys: {}", known.join(", ").replace('"', "")),
    }
}

//! What differs between two configurations, for people: a line for each key.

use toml::{Table, Value};

use super::Config;

/// Variables of workspaces may be secrets: that they differ is told, and not how.
const HIDDEN: &str = "environment";

/// The lines, in the order of the keys: `limits.slots: 4 -> 8`, `workspaces.alice: added`.
pub(super) fn between(before: &Config, after: &Config) -> Vec<String> {
    let table = |config: &Config| config.to_toml().parse::<Table>().unwrap_or_default();
    let mut lines = Vec::new();
    compare("", &table(before), &table(after), &mut lines);
    lines
}

fn compare(path: &str, before: &Table, after: &Table, lines: &mut Vec<String>) {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let place = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (before.get(key), after.get(key)) {
            (Some(before), Some(after)) if before == after => {}
            _ if key == HIDDEN => lines.push(format!("{place}: changed")),
            (Some(Value::Table(before)), Some(Value::Table(after))) => {
                compare(&place, before, after, lines);
            }
            // A section that has nothing in it is not written.
            (None, Some(Value::Table(after))) if path.is_empty() => {
                compare(&place, &Table::new(), after, lines);
            }
            (Some(Value::Table(before)), None) if path.is_empty() => {
                compare(&place, before, &Table::new(), lines);
            }
            (Some(before), Some(after)) => lines.push(format!("{place}: {before} -> {after}")),
            (None, Some(Value::Table(_))) => lines.push(format!("{place}: added")),
            (Some(Value::Table(_)), None) => lines.push(format!("{place}: removed")),
            (None, Some(after)) => lines.push(format!("{place}: {after}")),
            (Some(before), None) => lines.push(format!("{place}: no longer {before}")),
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Workspace;
    use crate::model::{PolicyOverrides, Runs, Spec, WorkspaceId};

    #[test]
    fn each_key_that_differs_has_a_line_and_variables_keep_their_secrets() {
        let before = Config { state_dir: PathBuf::from("/a"), ..Config::default() };
        let mut after = before.clone();
        after.limits.slots = 8;
        let mut spec = Spec::new(Runs::Upstream("127.0.0.1:1".to_owned()));
        let id = WorkspaceId::parse("alice").unwrap();
        let policy = PolicyOverrides::default();
        let workspace =
            Workspace { project: None, spec: spec.clone().into(), policy: policy.into() };
        after.workspaces.insert(id.clone(), workspace.clone());
        assert_eq!(between(&before, &before), [""; 0]);
        let lines = ["limits.slots: 0 -> 8", "workspaces.alice: added"];
        assert_eq!(between(&before, &after), lines);
        let mut again = after.clone();
        spec.environment.insert("PASSWORD".to_owned(), "hunter2".to_owned());
        again.workspaces.insert(id, Workspace { spec: spec.into(), ..workspace });
        assert_eq!(between(&after, &again), ["workspaces.alice.environment: changed"]);
        assert_eq!(between(&after, &before)[1], "workspaces.alice: removed");
    }
}

//! The examples for Prometheus and Grafana: they speak of metrics and labels that there are.

use std::path::{Path, PathBuf};
use std::process::Command;

use frostgate::metrics::described;
use serde_json::Value;

use crate::support::skipped;

/// What Prometheus itself and its language say, beside metrics and their labels.
const WORDS_OF_PROMETHEUS: [&str; 4] = ["up", "job", "instance", "le"];

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/monitoring").join(name)
}

/// Every expression of the dashboard.
fn of_the_dashboard() -> Vec<String> {
    let text = std::fs::read_to_string(example("grafana.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// Every expression of the alerts.
fn of_the_alerts() -> Vec<String> {
    let text = std::fs::read_to_string(example("alerts.yml")).unwrap();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    lines.map(str::to_owned).collect()
}

/// The metrics that an expression names, each with the labels that stand in its braces.
fn named(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for (at, _) in expression.match_indices("frostgate_") {
        let rest = &expression[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        let labels = labels.unwrap_or_default().split("\",").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.chars().take_while(|c| is_name(*c)).collect());
        found.push((name.to_owned(), labels.collect()));
    }
    found
}

#[test]
fn examples_name_metrics_and_labels_that_there_are() {
    let (dashboard, alerts) = (of_the_dashboard(), of_the_alerts());
    assert!(dashboard.len() > 15 && alerts.len() > 5, "{dashboard:?} {alerts:?}");
    let mut checked = 0;
    for expression in dashboard.iter().chain(&alerts) {
        for (name, labels) in named(expression) {
            let parts = ["", "_bucket", "_sum", "_count"];
            let known = described::ALL.iter().find(|described| {
                let full = described.full_name();
                parts.iter().any(|part| name == format!("{full}{part}"))
            });
            let known = known.unwrap_or_else(|| panic!("there is no {name}: {expression}"));
            for label in labels {
                let is_known = known.labels.iter().any(|(one, _)| *one == label)
                    || WORDS_OF_PROMETHEUS.contains(&label.as_str());
                assert!(is_known, "{name} has no label {label}: {expression}");
            }
            checked += 1;
        }
        for by in expression.split("by (").skip(1) {
            for label in by.split(')').next().unwrap().split(',').map(str::trim) {
                let is_known = WORDS_OF_PROMETHEUS.contains(&label)
                    || named(expression).iter().all(|(name, _)| {
                        let of = |one: &&&described::Described| {
                            name.starts_with(one.full_name().trim_end_matches("_total"))
                        };
                        let known = described::ALL.iter().filter(of);
                        known.flat_map(|one| one.labels).any(|(one, _)| *one == label)
                    });
                assert!(is_known, "nothing has a label {label}: {expression}");
            }
        }
    }
    assert!(checked > 25, "{checked} names");
}

#[test]
fn prometheus_takes_the_alerts_and_every_expression_of_the_dashboard() {
    let promtool = |arguments: &[&str]| Command::new("promtool").args(arguments).output();
    if promtool(&["--version"]).is_err() {
        let required = std::env::var_os("FROSTGATE_REQUIRE_PROMTOOL").is_some();
        assert!(!required, "promtool is not installed");
        return skipped("promtool, of Debian's package prometheus, is not installed");
    }
    let directory = std::env::temp_dir().join(format!("frostgate-rules-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let rules = directory.join("dashboard.yml");
    let rule = |(number, expression): (usize, String)| {
        // Grafana puts times into these.
        let expression = expression.replace("$__rate_interval", "5m").replace("$__range", "6h");
        format!("      - record: panel:{number}\n        expr: {}\n", Value::from(expression))
    };
    let written: String = of_the_dashboard().into_iter().enumerate().map(rule).collect();
    std::fs::write(&rules, format!("groups:\n  - name: dashboard\n    rules:\n{written}")).unwrap();
    for file in [example("alerts.yml"), rules] {
        let checked = promtool(&["check", "rules", file.to_str().unwrap()]).unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    let configuration = example("prometheus.yml");
    let checked = promtool(&["check", "config", configuration.to_str().unwrap()]).unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    std::fs::remove_dir_all(directory).unwrap();
}

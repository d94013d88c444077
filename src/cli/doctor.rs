//! `frostgate doctor`: looks at everything that Frostgate needs on this machine, and says how to fix
//! what is wrong. A gateway need not run.
//!
//! A check looks, and changes nothing that lasts. What it finds is as it should be (ok), works and
//! wants somebody to look after it (warning), or keeps something from working (problem).

mod certificates;
mod clock;
mod descriptors;
mod engine;
mod freezer;
mod gateway;
mod names;
mod ports;
mod state_dir;

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::client::Output;
use super::table::{BAD, DUBIOUS, GOOD};
use super::{Environment, FAILED, Overrides, Told};
use crate::config::{Config, ConfigError};

/// What is looked at, and how it is told.
#[derive(Debug, Args)]
#[command(after_help = "It ends with 0 where there is no problem, and with 1 where there is one.")]
pub(super) struct Doctor {
    /// The configuration [default: as for serve]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is printed: a list for people, or JSON
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Output,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Problem,
}

/// What a check has found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    detail: String,
    /// `None`: there is nothing to fix.
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), fix: None }
    }

    fn warning(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let (detail, fix) = (detail.into(), Some(fix.into()));
        Self { check, status: Status::Warning, detail, fix }
    }

    fn problem(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        let (detail, fix) = (detail.into(), Some(fix.into()));
        Self { check, status: Status::Problem, detail, fix }
    }
}

/// Looks at everything, prints what it finds, and ends with 1 where there is a problem.
pub(super) fn run(doctor: &Doctor, environment: &Environment) -> anyhow::Result<()> {
    let findings = findings(doctor, environment)?;
    let mut out = anstream::stdout();
    match doctor.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string(&report(&findings))?)?,
        Output::Table => write!(out, "{}", told(&findings))?,
    }
    if count(&findings, Status::Problem) > 0 {
        return Err(Told { code: FAILED }.into());
    }
    Ok(())
}

fn findings(doctor: &Doctor, environment: &Environment) -> anyhow::Result<Vec<Finding>> {
    let overrides = Overrides { config: doctor.config.clone(), ..Overrides::default() };
    let config = match overrides.load(environment) {
        Ok(config) => config,
        Err(error) => return Ok(misread(&error)),
    };
    let file = Config::find(doctor.config.as_deref(), environment);
    let place = file.map_or("there is no file, so the defaults count".to_owned(), |file| {
        format!("{} can be used", file.display())
    });
    let mut findings = vec![Finding::ok("configuration", place)];
    let gateway = gateway::look(doctor.config.clone(), &config, environment)?;
    findings.extend(state_dir::check(&config.state_dir));
    findings.extend(gateway.findings);
    findings.extend(ports::check(&config));
    findings.push(names::check(&config));
    findings.extend(certificates::check(&config));
    let (found, engine) = engine::check(&config)?;
    findings.extend(found);
    findings.extend(clock::check(&config.state_dir, engine));
    findings.push(freezer::check(&config));
    findings.push(descriptors::check(&config, gateway.process));
    Ok(findings)
}

/// Nothing else can be looked at without it.
fn misread(error: &ConfigError) -> Vec<Finding> {
    let problem = |detail: String, fix: &str| Finding::problem("configuration", detail, fix);
    match error {
        ConfigError::Invalid { problems } => {
            let fix = "correct it; `frostgate check-config --print` shows every option";
            problems.iter().map(|wrong| problem(wrong.to_string(), fix)).collect()
        }
        ConfigError::Unreadable { source, .. } => {
            let fix = "name another file by --config, or let this user read it";
            vec![problem(format!("{error}: {source}"), fix)]
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    problems: usize,
    warnings: usize,
    checks: &'a [Finding],
}

fn report(findings: &[Finding]) -> Report<'_> {
    let [problems, warnings] =
        [Status::Problem, Status::Warning].map(|status| count(findings, status));
    Report { problems, warnings, checks: findings }
}

fn count(findings: &[Finding], status: Status) -> usize {
    findings.iter().filter(|finding| finding.status == status).count()
}

/// A line for each, what to do below it, and a last one that sums up.
fn told(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    let mut text = String::new();
    for Finding { check, status, detail, fix } in findings {
        let (style, word) = match status {
            Status::Ok => (GOOD, "ok"),
            Status::Warning => (DUBIOUS, "warning"),
            Status::Problem => (BAD, "problem"),
        };
        text.push_str(&format!("{style}{word:<7}{style:#}  {check:<width$}  {detail}\n"));
        if let Some(fix) = fix {
            text.push_str(&format!("{:>indent$}{fix}\n", "fix: ", indent = width + 16));
        }
    }
    let Report { problems, warnings, .. } = report(findings);
    text.push_str(&match (problems, warnings) {
        (0, 0) => "\nAll is well.\n".to_owned(),
        _ => format!("\nproblems: {problems}, warnings: {warnings}\n"),
    });
    text
}

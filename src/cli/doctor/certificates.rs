//! Whether certificates are there, for long enough, and for the names of workspaces.

use std::ops::Deref;
use std::time::{Duration, SystemTime};

use super::Finding;
use crate::app::App;
use crate::cli::certs::takes_wildcards;
use crate::clock::{Clock, rfc3339};
use crate::config::Config;
use crate::listen::tls::Certificate;

const CHECK: &str = "certificates";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Who renews automatically does it a month before, and has tried for two weeks then.
const SOON: Duration = DAY.saturating_mul(14);

const RENEW: &str = "renew it; `frostgate certs --force` makes one for development";

pub(super) fn check(config: &Config) -> Vec<Finding> {
    let certificates = match App::certificates(config) {
        Ok(Some(certificates)) => certificates.status(),
        Ok(None) => return vec![Finding::ok(CHECK, "none is needed: nothing speaks TLS")],
        Err(error) => {
            let fix = "put them there, or have some made for development: `frostgate certs`";
            return vec![Finding::problem(CHECK, format!("{error:#}"), fix)];
        }
    };
    let now = Clock::MACHINE.now();
    let mut findings: Vec<Finding> = certificates
        .used
        .iter()
        .map(|one| of_time(&one.name(), one.not_before(), one.not_after(), now))
        .collect();
    let unusable = certificates.problems.into_iter();
    findings.extend(
        unusable
            .map(|problem| Finding::warning(CHECK, problem, "correct the file, or take it away")),
    );
    findings.extend(names(config, &certificates.used));
    findings
}

fn of_time(name: &str, from: SystemTime, until: SystemTime, now: SystemTime) -> Finding {
    if now < from {
        let detail = format!("{name} counts from {} on", rfc3339(from));
        return Finding::problem(CHECK, detail, "look at this machine's clock, or wait");
    }
    let Ok(left) = until.duration_since(now) else {
        let detail = format!("{name} has expired at {}", rfc3339(until));
        return Finding::problem(CHECK, detail, RENEW);
    };
    let days = left.as_secs() / DAY.as_secs();
    let detail = format!("{name} expires in {days} days, at {}", rfc3339(until));
    if left < SOON { Finding::warning(CHECK, detail, RENEW) } else { Finding::ok(CHECK, detail) }
}

/// The wildcard is for every workspace that may come; those that are configured are looked at one by
/// one.
fn names(config: &Config, used: &[impl Deref<Target = Certificate>]) -> Vec<Finding> {
    let domain = &config.routing.domain;
    let takes_wildcards = takes_wildcards(domain);
    let covered = |host: &str| {
        let by_wildcard = |one: &Certificate| takes_wildcards && one.covers(host);
        used.iter().any(|one| by_wildcard(one) || one.hosts().iter().any(|own| own == host))
    };
    let of_workspaces = config.workspaces.iter().flat_map(|(id, workspace)| {
        let own = workspace.spec.hosts.iter().cloned();
        own.chain([format!("{id}.{domain}")])
    });
    let hosts = of_workspaces.chain(config.routing.admin_host.clone());
    let missing = hosts.filter(|host| !covered(host)).map(|host| {
        let fix = format!("have one made for it, as by `frostgate certs --force {host}`");
        Finding::problem(CHECK, format!("none is for {host}"), fix)
    });
    let mut findings: Vec<Finding> = missing.collect();
    let later = "so workspaces that are made later have none";
    if !takes_wildcards {
        let detail = format!("browsers accept none for *.{domain}, {later}");
        let fix = format!("use a domain such as dev.{domain} (domain in [routing])");
        findings.push(Finding::warning(CHECK, detail, fix));
    } else if !covered(&format!("doctor.{domain}")) {
        let fix = format!("get one for *.{domain}; `frostgate certs` makes one for development");
        findings.push(Finding::warning(CHECK, format!("none is for *.{domain}, {later}"), fix));
    } else if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("every workspace below {domain} has one")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    #[test]
    fn certificates_are_judged_by_the_time_that_they_have_left() {
        let now = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        let rows = [
            (now - DAY, now + 90 * DAY, Status::Ok),
            (now - DAY, now + 13 * DAY, Status::Warning),
            (now - 2 * DAY, now - DAY, Status::Problem),
            (now + DAY, now + 90 * DAY, Status::Problem),
        ];
        for (from, until, status) in rows {
            let finding = of_time("a.crt", from, until, now);
            assert_eq!(finding.status, status, "{finding:?}");
        }
    }
}

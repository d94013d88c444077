//! What the program is shipped in: units of systemd, a Debian package, an image, a compose file.

use std::collections::BTreeSet;
use std::process::Command;

use frostgate::config::{Config, Flags};

use crate::support::pages::root;
use crate::support::{skipped, unique_state_dir};

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a program is here; if not, that is said.
fn is_here(program: &str, what: &str) -> bool {
    let is_here = Command::new(program).arg("--version").output().is_ok();
    if !is_here {
        skipped(&format!("there is no {program} here, which would have checked {what}"));
    }
    is_here
}

fn succeeded(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{errors}");
    format!("{said}{errors}")
}

#[test]
fn systemd_understands_the_units() {
    if !is_here("systemd-analyze", "the units of systemd") {
        return;
    }
    let directory = unique_state_dir();
    std::fs::create_dir_all(&directory).unwrap();
    let mut units = Vec::new();
    for name in ["frostgate.service", "sockets/frostgate.socket"] {
        // What it executes has to be there.
        let unit = text(&format!("packaging/systemd/{name}"));
        assert!(name.ends_with("socket") || unit.contains("=/usr/bin/frostgate serve"));
        let unit = unit.replace("/usr/bin/frostgate", env!("CARGO_BIN_EXE_frostgate"));
        let file = directory.join(name.trim_start_matches("sockets/"));
        std::fs::write(&file, unit).unwrap();
        units.push(file);
    }
    let said = succeeded(Command::new("systemd-analyze").arg("verify").args(&units));
    // Other units of the machine may have faults of their own.
    assert!(!said.contains("frostgate"), "{said}");
    let rated = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .arg(&units[0])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&rated.stdout);
    assert!(rated.status.success(), "it is exposed more than 2.0: {said}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn compose_understands_the_example() {
    if !is_here("docker-compose", "examples/compose") {
        return;
    }
    let file = root().join("examples/compose/compose.yaml");
    let said = succeeded(Command::new("docker-compose").arg("--file").arg(file).arg("config"));
    assert!(said.contains("/var/run/docker.sock"), "{said}");
}

#[test]
fn what_the_compose_file_sets_is_a_configuration() {
    let mut variables = vec![("HOME".to_owned(), "/".to_owned())];
    for line in text("examples/compose/compose.yaml").lines() {
        let line = line.trim_start().trim_start_matches("# ");
        if let Some((name, value)) =
            line.split_once(": ").filter(|(name, _)| name.starts_with("FROSTGATE_"))
        {
            variables.push((name.to_owned(), value.trim_matches('"').to_owned()));
        }
    }
    assert!(variables.len() > 4, "{variables:?}");
    let loaded = Config::load(Some("/dev/null".as_ref()), variables.into_iter(), &Flags::default());
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn the_image_has_what_the_documentation_says_of_it() {
    let dockerfile = text("Dockerfile");
    let (_, image) = dockerfile.split_once("\nFROM scratch\n").expect("an image of nothing else");
    for line in [
        "VOLUME /var/lib/frostgate",
        "HEALTHCHECK --interval=10s --timeout=6s --start-period=30s CMD [\"/frostgate\", \"health\"]",
        "EXPOSE 8080",
        "ENTRYPOINT [\"/frostgate\"]",
        "CMD [\"serve\"]",
        "ENV FROSTGATE_STATE_DIR=/var/lib/frostgate",
    ] {
        assert!(image.lines().any(|found| found == line), "{line}");
    }
    assert!(!image.contains("\nRUN "), "there is nothing in it that could run");
    // What is built has to be sent to the engine.
    let sent: BTreeSet<String> = text(".dockerignore")
        .lines()
        .filter_map(|line| line.strip_prefix('!'))
        .map(str::to_owned)
        .collect();
    for needed in ["Cargo.toml", "Cargo.lock", "src", "benches"] {
        assert!(sent.contains(needed), "{needed} is not sent");
    }
}

#[test]
fn the_package_has_files_that_are_there_and_a_configuration_that_is_right() {
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    let package = &manifest["package"]["metadata"]["deb"];
    let mut files = 0;
    for asset in package["assets"].as_array().unwrap() {
        let source = asset[0].as_str().unwrap();
        // What is built is not there yet.
        if !source.starts_with("target/") {
            let directory = source.trim_end_matches(|c| c != '/');
            let found = if source.contains('*') { directory } else { source };
            assert!(root().join(found).exists(), "{source}");
            files += 1;
        }
    }
    assert!(files > 3, "only {files} files");
    for file in package["conf-files"].as_array().unwrap() {
        assert_eq!(file.as_str(), Some("/etc/frostgate/frostgate.toml"));
    }
    let file = root().join("packaging/debian/frostgate.toml");
    let loaded = Config::load(Some(&file), std::iter::empty(), &Flags::default()).unwrap();
    assert_eq!(loaded.state_dir.to_str(), Some("/var/lib/frostgate"));
}

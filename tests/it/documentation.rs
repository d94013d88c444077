//! The documentation is right: what README and tutorials say to do is done, every configuration that is
//! shown is one, every command is understood, and every link leads somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use clap::Parser as _;
use frostgate::cli::CommandLine;
use frostgate::config::{Config, Flags};

use crate::support::pages::{Page, Reader, root};

/// Commands that no reader here follows, and who does.
const NOT_RUN: [(&str, &str); 3] = [
    // `.ci/run` builds the program, `.ci/package` makes the image of it, and `packages` looks at what
    // the package is made of.
    (
        "install",
        "cargo install --path .            # ~/.cargo/bin/frostgate\n\
                 docker build --tag frostgate .    # a static image, of this one program\n\
                 packaging/debian/make             # a Debian package with a systemd unit, by cargo-deb\n",
    ),
    ("install", "cargo install --path .\n"),
    // This is it.
    ("the tests", "cargo test\n"),
];

fn followed(name: &str) {
    let page = Page::read(name);
    let mut reader = Reader::new(&[("FROSTGATE_DOCKER__ENABLE", "false")]);
    reader.replace_by_own("/tmp/frostgate-work");
    let blocks: Vec<_> = page.blocks.iter().filter(|block| is_for_readers_here(block)).collect();
    assert!(!blocks.is_empty(), "{name} says nothing to do");
    reader.follow(blocks);
}

fn is_for_readers_here(block: &crate::support::pages::Block) -> bool {
    let is_command = block.language == "sh";
    let is_file = block.note("file").is_some();
    (is_command || is_file) && !block.needs_docker() && block.note("not run").is_none()
}

#[test]
fn the_readme_can_be_followed() {
    followed("README.md");
}

#[test]
fn the_first_steps_can_be_followed() {
    followed("docs/tutorials/first-steps.md");
}

#[test]
fn the_tutorial_about_reports_can_be_followed() {
    followed("docs/tutorials/reports.md");
}

#[test]
fn no_command_is_left_out() {
    let tutorials = Page::all().into_iter().filter(|page| page.name.starts_with("docs/tutorials/"));
    let mut left_out = Vec::new();
    let (mut pages, mut commands) = (BTreeSet::new(), 0);
    for page in tutorials.chain([Page::read("README.md")]) {
        for block in page.blocks.iter().filter(|block| block.language == "sh") {
            commands += 1;
            if let Some(why) = block.note("not run") {
                left_out.push((why.to_owned(), block.text.clone()));
            }
        }
        pages.insert(page.name);
    }
    let known = [
        "README.md",
        "docs/tutorials/containers.md",
        "docs/tutorials/first-steps.md",
        "docs/tutorials/reports.md",
    ];
    assert!(pages.iter().eq(known), "{pages:?}: a new page wants a test that follows it");
    assert!(commands > 20, "only {commands} commands");
    for (why, text) in left_out {
        let is_known = NOT_RUN.iter().any(|(reason, known)| (*reason, *known) == (&why, &text));
        assert!(is_known, "who runs this?\n{text}");
    }
}

#[test]
fn every_command_line_is_understood() {
    let mut understood = 0;
    for page in Page::all() {
        let of_shell = page.blocks.iter().filter(|block| matches!(&*block.language, "sh" | "text"));
        for line in of_shell.flat_map(|block| block.text.lines()) {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if !line.starts_with("frostgate ") || line.contains(['…', ':']) && !line.contains("--")
            {
                continue;
            }
            let parsed = CommandLine::try_parse_from(line.split_whitespace());
            assert!(parsed.is_ok(), "{}: {line}: {}", page.name, parsed.unwrap_err());
            understood += 1;
        }
    }
    assert!(understood > 10, "only {understood} command lines");
}

#[test]
fn every_configuration_that_is_shown_is_one() {
    let mut shown = 0;
    for page in Page::all() {
        for block in page.blocks.iter().filter(|block| block.language == "toml") {
            let name = format!("frostgate-shown-{}-{shown}.toml", std::process::id());
            let file = std::env::temp_dir().join(name);
            std::fs::write(&file, &block.text).unwrap();
            let home = ("HOME".to_owned(), "/home/frost".to_owned());
            let loaded = Config::load(Some(&file), [home].into_iter(), &Flags::default());
            std::fs::remove_file(&file).unwrap();
            assert!(loaded.is_ok(), "{}:\n{}", block.place, loaded.unwrap_err());
            shown += 1;
        }
    }
    assert!(shown > 15, "only {shown} configurations");
}

/// What links on a page lead to: the text behind `](` up to `)`, or behind `src="`.
fn links(page: &Page) -> Vec<String> {
    let mut links = Vec::new();
    for line in &page.prose {
        let line = without_code(line);
        for (at, opening) in line.match_indices("](") {
            let rest = &line[at + opening.len()..];
            links.push(rest.split(')').next().unwrap_or_default().to_owned());
        }
    }
    links
}

/// What stands between backticks is no link.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The places on a page that links may name, as those who show it make them of headings.
fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in &page.prose {
        for rest in line.split("<a id=\"").skip(1) {
            anchors.insert(rest.split('"').next().unwrap_or_default().to_owned());
        }
        let Some(heading) = line.strip_prefix('#') else { continue };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        anchors.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
    }
    anchors
}

/// A path without its dots, relative to the repository.
fn resolved(page: &str, link: &str) -> PathBuf {
    let mut path = Path::new(page).parent().unwrap().to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

#[test]
fn every_link_leads_somewhere_and_every_page_is_linked_to() {
    let pages: BTreeMap<String, Page> =
        Page::all().into_iter().map(|page| (page.name.clone(), page)).collect();
    let (mut checked, mut linked) = (0, BTreeMap::<String, BTreeSet<String>>::new());
    for (name, page) in &pages {
        for link in links(page) {
            if link.starts_with("http://") || link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { PathBuf::from(name) } else { resolved(name, path) };
            assert!(root().join(&target).exists(), "{name}: {link} leads nowhere");
            let target = target.to_str().unwrap().to_owned();
            if !anchor.is_empty() {
                let page = pages.get(&target).unwrap_or_else(|| panic!("{name}: {link}"));
                assert!(anchors(page).contains(anchor), "{name}: {link}: {:?}", anchors(page));
            }
            linked.entry(name.clone()).or_default().insert(target);
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} links");
    let mut found = BTreeSet::from(["README.md".to_owned()]);
    let mut news = vec!["README.md".to_owned()];
    while let Some(name) = news.pop() {
        for target in linked.get(&name).into_iter().flatten() {
            if found.insert(target.clone()) {
                news.push(target.clone());
            }
        }
    }
    let lost: Vec<_> = pages.keys().filter(|name| !found.contains(*name)).collect();
    assert!(
        lost.is_empty(),
        "no way leads from the README to {lost:?}; docs/README.md is the index"
    );
}

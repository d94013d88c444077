//! What README and tutorials say to do with Docker is done, on a real engine.

use crate::images::{Container, engine, unique};
use crate::support::pages::{Block, Page, Reader};

/// Images that nobody can be sure to get, which ours stands in for.
const IMAGES: [&str; 2] = ["traefik/whoami", "nginx:alpine"];

fn followed(name: &str) {
    let Some(engine) = engine() else { return };
    let page = Page::read(name);
    let blocks: Vec<&Block> = page.blocks.iter().filter(|block| block.needs_docker()).collect();
    assert!(!blocks.is_empty(), "{name} needs no Docker");
    let scope = unique("page");
    let mut variables =
        vec![("FROSTGATE_DOCKER__ENABLE", "true"), ("FROSTGATE_DOCKER__SCOPE", &*scope)];
    let host = std::env::var("DOCKER_HOST");
    variables.extend(host.as_ref().ok().map(|host| ("DOCKER_HOST", &**host)));
    let mut reader = Reader::new(&variables);
    // Other tests are on the engine too, and whatever else the machine has.
    let label = "--label frostgate.enable=true";
    reader.replace(label, &format!("{label} --label frostgate.scope={scope}"));
    for image in IMAGES {
        reader.replace(image, &engine.image());
    }
    let mut left = Vec::new();
    for container in ["frostgate-first", "frostgate-whoami"] {
        let own = format!("{container}-{scope}");
        reader.replace(container, &own);
        left.push(Container { name: own });
    }
    reader.follow(blocks);
}

#[test]
fn the_readme_can_be_followed() {
    followed("README.md");
}

#[test]
fn the_tutorial_about_containers_can_be_followed() {
    followed("docs/tutorials/containers.md");
}

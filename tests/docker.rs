//! What only a real container engine can show. Without one, every test here says so and passes,
//! unless `FROSTGATE_REQUIRE_DOCKER=1` says that there must be one.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

#[path = "docker/conformance.rs"]
mod conformance;
#[path = "docker/documentation.rs"]
mod documentation;
#[path = "docker/driver.rs"]
mod driver;
#[path = "docker/endurance.rs"]
mod endurance;
#[path = "docker/events.rs"]
mod events;
#[path = "fixture/mod.rs"]
mod fixture;
#[path = "docker/gateway.rs"]
mod gateway;
#[path = "docker/images.rs"]
mod images;
#[path = "docker/registry.rs"]
mod registry;
#[path = "docker/relay.rs"]
mod relay;
#[expect(dead_code, unused_imports, reason = "shared with the tests that need no engine")]
#[path = "it/support/mod.rs"]
mod support;

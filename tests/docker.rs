//! What only a real container engine can show. Without one, every test here says so and passes,
//! unless `FROSTGATE_REQUIRE_DOCKER=1` says that there must be one.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

#[path = "docker/driver.rs"]
mod driver;
#[path = "fixture/mod.rs"]
mod fixture;
#[path = "docker/images.rs"]
mod images;

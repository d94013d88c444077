//! Frostgate: a reverse proxy that freezes idle workspaces and thaws them when somebody comes back.
pub mod clock;
pub mod driver;
pub mod duration;
pub mod model;

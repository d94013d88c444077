//! Frostgate: a reverse proxy that freezes idle workspaces and thaws them when somebody comes back.
pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod driver;
pub mod duration;
pub mod lifecycle;
pub mod listen;
pub mod model;
pub mod proxy;

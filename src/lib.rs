//! Frostgate: a reverse proxy that freezes idle workspaces and thaws them when somebody comes back.
//!
//! # Layering
//!
//! A module uses those that stand beside it here, and itself. A test reads this table and the code.
//! bollard stays in `driver/docker`; hyper in `listen`, `proxy`, `api`, `app` and `cli`.
//!
//! | module | may use |
//! |---|---|
//! | `clock`, `duration`, `listen` | none |
//! | `model` | `duration` |
//! | `driver` | `model`, `clock`, `duration` |
//! | `lifecycle` | `model`, `clock`, `driver` |
//! | `proxy` | `lifecycle`, `listen`, `model` |
//! | `api` | `lifecycle`, `model`, `clock` |
//! | `config` | `model`, `duration` |
//! | `app`, `cli` | all |

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

//! Everything that needs no container engine, as one binary; each module is one behaviour.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod activity;
mod admin_stop;
mod api;
mod certificates;
mod certs_command;
mod check_in;
mod cli;
mod config_files;
mod create;
mod curl;
mod endurance;
#[path = "../fixture/mod.rs"]
mod fixture;
mod freeze_and_wake;
mod gate_model;
mod gate_stress;
mod headers;
mod hold_off;
mod hostile_workspace;
mod http1;
mod http2;
mod https_only;
mod layering;
mod leases;
mod lifecycle_model;
mod limits;
mod openapi;
mod policies;
mod pool;
mod process_driver;
mod program;
mod quiet_tunnels;
mod race_sweep;
mod slots;
mod smuggling;
mod store_durability;
mod support;
mod tls;
mod tokens;
mod websocket;

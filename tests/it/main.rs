//! Everything that needs no container engine, as one binary; each module is one behaviour.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod activity;
mod admin_stop;
mod api;
mod browser;
mod certificates;
mod certs_command;
mod check_in;
mod cli;
mod config_files;
mod create;
mod curl;
mod dashboard;
mod dashboard_browser;
mod endurance;
#[path = "../fixture/mod.rs"]
mod fixture;
mod freeze_and_wake;
mod fuzz_seeds;
mod gate_model;
mod gate_stress;
mod grpc;
mod headers;
mod hold_off;
mod holding;
mod hostile_workspace;
mod http1;
mod http2;
mod http2_floods;
mod https_only;
mod layering;
mod leases;
mod lifecycle_model;
mod limits;
mod multitude;
mod no_wake;
mod openapi;
mod policies;
mod pool;
mod process_driver;
mod program;
mod proxy_protocol;
mod quiet_tunnels;
mod race_sweep;
mod reload;
mod slots;
mod smuggling;
mod store_durability;
mod support;
mod takeover;
mod tls;
mod tokens;
mod waiting_page;
mod websocket;
mod websocket_http2;

//! Everything that needs no container engine, as one binary; each module is one behaviour.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod config_files;
#[path = "../fixture/mod.rs"]
mod fixture;
mod freeze_and_wake;
mod gate_model;
mod gate_stress;
mod process_driver;
mod race_sweep;
mod store_durability;
mod support;

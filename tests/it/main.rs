//! Everything that needs no container engine, as one binary.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

#[path = "../fixture/mod.rs"]
mod fixture;
mod freeze_and_wake;
mod gate_model;
mod gate_stress;
mod process_driver;
mod support;

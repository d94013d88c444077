//! Everything that needs no container engine, as one binary.

#![expect(clippy::unwrap_used, reason = "a test that can't go on should say where")]

mod gate_model;
mod gate_stress;
mod process_driver;

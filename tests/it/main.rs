//! One binary for all tests that need more than one module; each module is one behaviour.
#![expect(
    clippy::unwrap_used,
    reason = "a test that can't go on should say where"
)]

mod process_driver;

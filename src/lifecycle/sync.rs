//! The primitives that the gate is made of, in one place, so that `tests/it/gate_model.rs` can put
//! loom's in their stead and try every order in which threads can use them.

pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

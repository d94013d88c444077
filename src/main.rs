//! The `frostgate` command: a shell around [`frostgate`], where everything can be tested.
fn main() {}

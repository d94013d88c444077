//! One binary for all behaviours, a module for each.

mod config_files;

//! The template of the waiting page, kept up to date.

use std::collections::BTreeSet;
use std::path::{self, PathBuf};

use super::files::Reloads;
use crate::proxy::Template;

impl Reloads for Template {
    fn directories(&self) -> BTreeSet<PathBuf> {
        self.directory().and_then(|directory| path::absolute(directory).ok()).into_iter().collect()
    }

    fn reload(&self) {
        self.reload();
    }
}

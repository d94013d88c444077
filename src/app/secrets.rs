//! Secrets that are made on the first start and kept, readable by their owner alone.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Bytes of a secret; nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;

/// Makes the state directory if need be, open to its owner alone.
pub(super) fn make_state_dir(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("could not make the state directory {}", path.display()))
}

/// Reads a secret of the state directory, 64 hexadecimal digits; makes it if it isn't there.
pub(super) fn read_or_make(state_dir: &Path, name: &str) -> anyhow::Result<String> {
    let path = state_dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => {
            close_to_others(&path)?;
            let secret = text.trim();
            if secret.len() < 2 * SECRET_BYTES {
                bail!("{} is damaged; delete it to have a new one made", path.display());
            }
            Ok(secret.to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => make(&path),
        Err(error) => Err(error).with_context(|| format!("could not read {}", path.display())),
    }
}

fn make(path: &Path) -> anyhow::Result<String> {
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random).context("the system has no random bytes")?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // Written aside and renamed, so that no half-written secret is ever found.
    let aside = aside(path);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| {
            writeln!(file, "{secret}")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, path));
    written.with_context(|| format!("could not write {}", path.display()))?;
    Ok(secret)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn close_to_others(path: &Path) -> anyhow::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("{} was readable by others; it no longer is", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// A secret as the key that it spells.
pub(super) fn as_key(secret: &str) -> anyhow::Result<[u8; 32]> {
    let mut key = [0; 32];
    let digits = secret.as_bytes().chunks_exact(2);
    for (byte, digits) in key.iter_mut().zip(digits) {
        let digits = std::str::from_utf8(digits)?;
        *byte = u8::from_str_radix(digits, 16).context("a secret is not hexadecimal")?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_its_owners_alone() {
        let directory =
            std::env::temp_dir().join(format!("frostgate-secrets-{}", std::process::id()));
        make_state_dir(&directory).unwrap();
        let first = read_or_make(&directory, "token").unwrap();
        let mode = fs::metadata(directory.join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(directory.join("token"), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_or_make(&directory, "token").unwrap(), first);
        let mode = fs::metadata(directory.join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(as_key(&first).unwrap().len(), 32);
        fs::remove_dir_all(directory).unwrap();
    }
}

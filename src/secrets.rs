//! Secrets in files: made on the first start and kept, readable by their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Bytes of a secret; nobody guesses 256 bits.
pub const SECRET_BYTES: usize = 32;

/// Fewest characters of a secret in a file, which may be an operator's own: 128 bits in
/// hexadecimal. What is shorter was not written to the end.
const CHARACTERS_MIN: usize = 32;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The state directory can't be made.
    #[error("could not make the state directory {path}")]
    NoDirectory {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is there and can't be read.
    #[error("could not read {path}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file can't be written.
    #[error("could not write {path}")]
    Unwritable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in the file is no secret.
    #[error("{path} is damaged; delete it to have a new one made at the next start")]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
    /// The system gives none.
    #[error("the system has no random bytes")]
    NoRandomBytes,
}

/// Makes the state directory if need be, open to its owner alone.
pub fn make_state_dir(path: &Path) -> Result<(), SecretError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| SecretError::NoDirectory { path: path.to_owned(), source })
}

/// New random bytes.
pub fn random() -> Result<[u8; SECRET_BYTES], SecretError> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| SecretError::NoRandomBytes)?;
    Ok(bytes)
}

/// Reads the secret in a file, and closes the file to others. `None`: there is no such file.
pub fn read(path: &Path) -> Result<Option<String>, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    close_to_others(path).map_err(unreadable)?;
    let secret = text.trim();
    if secret.len() < CHARACTERS_MIN {
        return Err(SecretError::Damaged { path: path.to_owned() });
    }
    Ok(Some(secret.to_owned()))
}

/// Reads the secret in a file; if there is none, writes the one that `make` makes of random bytes.
pub fn read_or_make(
    path: &Path,
    make: impl FnOnce([u8; SECRET_BYTES]) -> String,
) -> Result<String, SecretError> {
    if let Some(secret) = read(path)? {
        return Ok(secret);
    }
    let secret = make(random()?);
    write(path, &secret)?;
    Ok(secret)
}

/// Writes a secret to a file, in place of what is there. Durable when it returns.
pub fn write(path: &Path, secret: &str) -> Result<(), SecretError> {
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
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| File::open(directory(path))?.sync_all());
    written.map_err(|source| SecretError::Unwritable { path: path.to_owned(), source })
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if directory != Path::new("") => directory,
        Some(_) | None => Path::new("."),
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn close_to_others(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!("{} was readable by others; it no longer is", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that 64 hexadecimal digits spell.
pub fn from_hex(digits: &str) -> Option<[u8; SECRET_BYTES]> {
    let digits = digits.as_bytes();
    if digits.len() != 2 * SECRET_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; SECRET_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_secret_is_made_once_and_is_its_owners_alone() {
        let directory =
            std::env::temp_dir().join(format!("frostgate-secrets-{}", std::process::id()));
        make_state_dir(&directory).unwrap();
        let path = directory.join("token");
        assert_eq!(read(&path).unwrap(), None);
        let first = read_or_make(&path, |random| hex(&random)).unwrap();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read_or_make(&path, |_| panic!("there is one")).unwrap(), first);
        assert_eq!(mode(&path), 0o600);
        write(&path, "another secret, of an operator's own").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), "another secret, of an operator's own");
        fs::write(&path, &first[..31]).unwrap();
        assert!(matches!(read(&path), Err(SecretError::Damaged { .. })));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn bytes_are_spelt_in_64_digits_and_in_no_other_way() {
        let bytes = [0xa5; SECRET_BYTES];
        let digits = hex(&bytes);
        assert_eq!(from_hex(&digits), Some(bytes));
        assert_eq!(from_hex(&digits.to_uppercase()), Some(bytes));
        for wrong in ["", &digits[1..], &format!("{digits}a5"), &digits.replace("a5", "+5")] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }
}

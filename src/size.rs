//! Amounts of memory as people write them: `512MiB`, `2GiB`, and as Docker has them, `512m`, `2g`.
//!
//! One parser for the configuration and the API, so that a size that works in one place works in
//! both. Every unit is a power of 1024, `MB` included, as with `docker run --memory`: who writes
//! `512MB` for a container has always got 512 MiB.

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a size: a whole number of bytes, or with a unit such as \"512MiB\" or \"2g\""
)]
pub struct InvalidSize {
    text: String,
}

/// Parses a whole number with a unit, in bytes. Without one it is a number of bytes.
pub fn parse(text: &str) -> Result<u64, InvalidSize> {
    let invalid = || InvalidSize { text: text.chars().take(100).collect() };
    let number_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(invalid()),
    };
    let number: u64 = number.parse().map_err(|_| invalid())?;
    number.checked_mul(unit).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        let rows = [
            ("0", 0),
            ("4096", 4096),
            ("7b", 7),
            ("1k", 1024),
            ("64 KiB", 64 << 10),
            ("512MiB", 512 << 20),
            ("512mb", 512 << 20),
            ("2 GiB ", 2 << 30),
            ("1g", 1 << 30),
            ("1T", 1 << 40),
        ];
        for (text, bytes) in rows {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_or_too_large_is_refused() {
        for text in
            ["", "g", "-1g", "1.5g", "1x", "1gg", "1 g b", "99999999999999999999", "17000000t"]
        {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?} is not a size")), "{error}");
        }
    }
}

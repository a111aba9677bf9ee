//! The bytes of a key in a file or an environment variable.

use std::{fs::File, io::Read, path::Path};

/// Longest key, in bytes: RSA keys of 16,384 bits have some 13 KB in PEM.
pub const MAX_KEY_BYTES: usize = 64 * 1024;

/// The key is unreadable.
#[derive(Debug, thiserror::Error)]
pub enum KeyTextError {
    #[error("the file can't be read: {0}")]
    File(#[from] std::io::Error),
    #[error("it has more than {0} bytes")]
    TooLong(usize),
    #[error("the environment variable is not set")]
    NotSet,
}

/// Reads a key. Editors and `echo` end a text with a line end: one is dropped from a text, none
/// from other bytes.
///
/// # Errors
/// The file is unreadable or too long.
pub fn key_of_file(path: &Path) -> Result<Vec<u8>, KeyTextError> {
    Ok(without_line_end(read_bounded(path, MAX_KEY_BYTES)?))
}

/// Reads a file of at most `max_bytes`.
///
/// # Errors
/// The file is unreadable or too long.
pub fn read_bounded(path: &Path, max_bytes: usize) -> Result<Vec<u8>, KeyTextError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max_bytes { Err(KeyTextError::TooLong(max_bytes)) } else { Ok(bytes) }
}

/// Reads a key from a variable of this process, as [`key_of_file`] does.
///
/// # Errors
/// The variable is not set, or too long.
pub fn key_of_environment(name: &str) -> Result<Vec<u8>, KeyTextError> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = std::env::var_os(name).ok_or(KeyTextError::NotSet)?.into_vec();
    if bytes.len() > MAX_KEY_BYTES {
        return Err(KeyTextError::TooLong(MAX_KEY_BYTES));
    }
    Ok(without_line_end(bytes))
}

fn without_line_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if std::str::from_utf8(&bytes).is_ok() && bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_of_a_text_is_no_part_of_the_key() {
        for (written, key) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"secret\r\n", b"secret"),
            (b"secret\n\n", b"secret\n"),
            (b"\xff\x00\n", b"\xff\x00\n"),
            (b"", b""),
        ] {
            assert_eq!(without_line_end(written.to_vec()), key);
        }
    }
}

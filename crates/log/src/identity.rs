//! The file `HEADER`: format, epoch, salt and number of partitions of a log.
//!
//! It is text, written once: `fanfare-log 1`, then one `name value` a line, then its checksum.

use std::{fs, io, path::Path};

use crate::{directory, error::OpenError};

/// The format of the directory, its segments and records.
pub const FORMAT: u32 = 1;

pub const FILE_NAME: &str = "HEADER";
const TITLE: &str = "fanfare-log ";

/// The facts fixed for the life of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub epoch: u64,
    pub salt: u64,
    pub partition_count: u16,
}

impl Identity {
    /// The start of the checksums of all headers.
    pub fn checksum_start(&self) -> u32 {
        crc32c::crc32c(&self.salt.to_le_bytes())
    }

    fn text(&self) -> String {
        let Self { epoch, salt, partition_count } = self;
        let text = format!(
            "{TITLE}{FORMAT}\nepoch {epoch:016x}\nsalt {salt:016x}\npartitions {partition_count}\n"
        );
        format!("{text}checksum {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }

    /// `None` if a line is missing or invalid.
    fn of_text(text: &str) -> Option<Self> {
        let (facts, checksum) = text.split_at_checked(text.find("checksum ")?)?;
        let checksum = u32::from_str_radix(checksum.strip_prefix("checksum ")?.trim(), 16).ok()?;
        if checksum != crc32c::crc32c(facts.as_bytes()) {
            return None;
        }
        let value = |name: &str| facts.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            epoch: u64::from_str_radix(value("epoch ")?, 16).ok()?,
            salt: u64::from_str_radix(value("salt ")?, 16).ok()?,
            partition_count: value("partitions ")?.parse().ok()?,
        })
    }

    /// The identity of the log in `directory`; `None` without the file.
    pub fn read(directory: &Path) -> Result<Option<Self>, OpenError> {
        let path = directory.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        let bad = |reason: &str| OpenError::BadHeader { path: path.clone(), reason: reason.into() };
        let found = text.lines().next().and_then(|line| line.strip_prefix(TITLE));
        let found = found.and_then(|format| format.parse().ok());
        let found: u32 = found.ok_or_else(|| bad("it does not begin with the format"))?;
        if found != FORMAT {
            let directory = directory.to_owned();
            return Err(OpenError::OtherVersion { directory, found, known: FORMAT });
        }
        Self::of_text(&text).map(Some).ok_or_else(|| bad("its checksum does not match"))
    }

    /// Writes the file; it is there completely or not at all.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        directory::write_whole_file(directory, FILE_NAME, self.text().as_bytes())
    }
}

/// The epoch of the log in `directory`; `None` without a readable log.
pub fn epoch_of(directory: &Path) -> Option<u64> {
    Some(Identity::read(directory).ok()??.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_written_and_any_changed_byte_is_noticed() {
        let identity = Identity { epoch: 0xABC, salt: u64::MAX, partition_count: 16 };
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Identity::read(directory.path()).unwrap(), None);
        identity.write(directory.path()).unwrap();
        assert_eq!(Identity::read(directory.path()).unwrap(), Some(identity));
        let bytes = fs::read(directory.path().join(FILE_NAME)).unwrap();
        for index in 0..bytes.len() - 1 {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            fs::write(directory.path().join(FILE_NAME), changed).unwrap();
            Identity::read(directory.path()).expect_err("a changed byte");
        }
    }

    #[test]
    fn another_format_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE_NAME), "fanfare-log 2\nsomething new\n").unwrap();
        let error = Identity::read(directory.path()).unwrap_err();
        assert!(matches!(error, OpenError::OtherVersion { found: 2, known: 1, .. }), "{error}");
    }
}

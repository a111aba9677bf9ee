//! The directory of a log: its lock, its files, the marker of a clean stop.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::Path,
};

use crate::{error::OpenError, segment::SegmentId};

const LOCK: &str = "LOCK";
const CLEAN: &str = "CLEAN";
/// The end of a name until its file is whole.
const NEW: &str = ".new";
/// The root of a file system of its own has this directory.
const LOST_AND_FOUND: &str = "lost+found";

/// Locks the directory for this process. The kernel releases the lock at the end of the process.
pub fn lock(directory: &Path) -> Result<File, OpenError> {
    let not_writable = |path: &Path, source| OpenError::NotWritable { path: path.into(), source };
    fs::create_dir_all(directory).map_err(|error| not_writable(directory, error))?;
    let path = directory.join(LOCK);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| not_writable(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { directory: directory.into() }),
        Err(TryLockError::Error(source)) => Err(not_writable(&path, source)),
    }
}

/// The segments, ascending.
pub fn segments(directory: &Path) -> io::Result<Vec<SegmentId>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    let numbers = names.iter().filter_map(|name| SegmentId::of_file_name(name.to_str()?));
    let mut segments: Vec<SegmentId> = numbers.collect();
    segments.sort_unstable();
    Ok(segments)
}

/// Whether a new log may be created here: nothing is there but the rest of an interrupted creation.
pub fn is_free(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| [LOCK, LOST_AND_FOUND].contains(&name) || name.ends_with(NEW));
        if !is_ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates or replaces a file; it is there completely or not at all.
pub fn write_whole_file(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let new = format!("{name}{NEW}");
    write_file(directory, &new, content)?;
    fs::rename(directory.join(new), directory.join(name))?;
    sync(directory)
}

/// Creates or replaces a file and syncs its content; the caller syncs the directory.
fn write_file(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(directory.join(name))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Syncs the names in the directory.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

pub fn was_stopped_cleanly(directory: &Path) -> bool {
    directory.join(CLEAN).exists()
}

/// Marks a clean stop: everything appended is on disk.
pub fn mark_clean(directory: &Path) -> io::Result<()> {
    write_file(directory, CLEAN, b"")?;
    sync(directory)
}

/// Removes the mark before the first append.
pub fn mark_unclean(directory: &Path) -> io::Result<()> {
    remove(directory, CLEAN)
}

/// Removes a file, if it is there, and syncs the directory.
pub fn remove(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Ok(()) => sync(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

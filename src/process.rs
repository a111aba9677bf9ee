//! The kernel's figures for this process. Zero if unavailable (not on Linux).

use std::fs;

/// Memory and files of this process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Process {
    pub resident_bytes: u64,
    pub open_files: usize,
}

impl Process {
    /// Reads the current figures: two reads below `/proc/self`.
    pub fn now() -> Self {
        Self { resident_bytes: resident_bytes().unwrap_or(0), open_files: open_files() }
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

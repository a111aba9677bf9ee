//! Copies a log, also one in use.
//!
//! The copy is the log up to one moment. All segments are open before the first is copied, so
//! cleaning takes none away: it removes the oldest only after its needed records are further behind.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{directory, error::OpenError, identity::Identity, segment::SegmentId};

/// A running hub can remove segments between the listing and the opening. Each time the listing is
/// read again; a removal takes longer than a listing.
const MAX_LISTINGS: usize = 100;

/// The log was not copied. The rest of a copy is no log.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error(transparent)]
    Source(#[from] OpenError),
    #[error("{} is not empty", target.display())]
    TargetNotEmpty { target: PathBuf },
    #[error("cannot copy to {}: {source}", target.display())]
    Failed { target: PathBuf, source: io::Error },
}

/// The size of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    pub segment_count: usize,
    pub bytes: u64,
}

/// Copies the log in `directory` to `target`, a new or empty directory, and syncs it.
///
/// # Errors
/// See [`CopyError`].
pub fn copy(directory: &Path, target: &Path) -> Result<Copied, CopyError> {
    let identity = Identity::read(directory)?;
    let identity = identity.ok_or_else(|| OpenError::NotALog { directory: directory.into() })?;
    let failed = |source| CopyError::Failed { target: target.into(), source };
    fs::create_dir_all(target).map_err(failed)?;
    if !directory::is_free(target).map_err(failed)? {
        return Err(CopyError::TargetNotEmpty { target: target.into() });
    }
    let segments = open_all(directory);
    let segments = segments.map_err(|source| OpenError::Io { path: directory.into(), source })?;
    let mut copied = Copied { segment_count: segments.len(), bytes: 0 };
    for segment in segments {
        copied.bytes += copy_segment(segment, target).map_err(failed)?;
    }
    // The last file: without it, the directory is no log.
    identity.write(target).map_err(failed)?;
    Ok(copied)
}

struct OpenSegment {
    id: SegmentId,
    file: File,
    bytes: u64,
}

fn open_all(directory: &Path) -> io::Result<Vec<OpenSegment>> {
    let mut result = try_open_all(directory);
    for _ in 1..MAX_LISTINGS {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                result = try_open_all(directory);
            }
            _ => break,
        }
    }
    result
}

fn try_open_all(directory: &Path) -> io::Result<Vec<OpenSegment>> {
    let open = |id: SegmentId| {
        let file = File::open(directory.join(id.file_name()))?;
        let bytes = file.metadata()?.len();
        Ok(OpenSegment { id, file, bytes })
    };
    directory::segments(directory)?.into_iter().map(open).collect()
}

fn copy_segment(segment: OpenSegment, target: &Path) -> io::Result<u64> {
    let mut copy = File::create_new(target.join(segment.id.file_name()))?;
    let bytes = io::copy(&mut segment.file.take(segment.bytes), &mut copy)?;
    copy.sync_all()?;
    Ok(bytes)
}

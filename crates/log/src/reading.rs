//! Reads and verifies all segments at open. The visitor gets each record out of the read's buffer, so it
//! hands its work to other threads.

use std::{fs::File, io, path::Path};

use crate::{
    directory,
    record::Record,
    scan::{Damage, Found, Scan},
    segment::{LastSequences, SegmentId, raise, read_head_of},
};

/// The facts about all segments after reading them.
#[derive(Debug, Default)]
pub struct Read {
    pub segments: Vec<(SegmentId, u64)>,
    pub damage: Vec<Damage>,
    pub last: LastSequences,
    pub record_count: u64,
    /// The end of the last segment, if no valid record is in it. Only an unclean stop tears an end.
    pub torn: Vec<Damage>,
}

/// Reads all segments; `visit` gets each valid record in the order of the log.
pub fn read(directory: &Path, salt: u32, visit: impl FnMut(Record<'_>)) -> io::Result<Read> {
    let mut reader = Reader { salt, read: Read::default(), visit };
    reader.read_directory(directory)?;
    Ok(reader.read)
}

struct Reader<V> {
    salt: u32,
    read: Read,
    visit: V,
}

impl<V: FnMut(Record<'_>)> Reader<V> {
    fn read_directory(&mut self, directory: &Path) -> io::Result<()> {
        let segments = directory::segments(directory)?;
        let mut expected = segments.first().copied();
        for segment in &segments {
            while let Some(missing) = expected.filter(|expected| expected < segment) {
                self.read.damage.push(Damage::of_segment(missing));
                expected = Some(missing.next());
            }
            expected = Some(segment.next());
            let file = match File::open(directory.join(segment.file_name())) {
                // A running hub cleans its log during a check.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let torn = self.read_segment(&file, *segment)?;
            self.end_segment(&file, *segment, torn, segments.last() == Some(segment))?;
        }
        Ok(())
    }

    /// Reads one segment; its torn end is the result.
    fn read_segment(&mut self, file: &File, segment: SegmentId) -> io::Result<Vec<Damage>> {
        // A segment without a valid head is searched for records.
        let offset = self.read_head(file, segment).unwrap_or(0);
        let mut scan = Scan::new(file, segment, offset, self.salt);
        while let Some(found) = scan.next()? {
            match found {
                Found::Damage(damage) => self.read.damage.push(damage),
                Found::Record(record) => self.on_record(record),
            }
        }
        Ok(scan.torn())
    }

    fn read_head(&mut self, file: &File, segment: SegmentId) -> Option<u64> {
        let (last, length) = read_head_of(file, segment, self.salt)?;
        last.into_iter().for_each(|(lane, sequence)| raise(&mut self.read.last, lane, sequence));
        Some(length)
    }

    fn on_record(&mut self, record: Record<'_>) {
        self.read.record_count += 1;
        raise(&mut self.read.last, record.lane, record.sequence);
        (self.visit)(record);
    }

    fn end_segment(
        &mut self,
        file: &File,
        segment: SegmentId,
        torn: Vec<Damage>,
        is_last: bool,
    ) -> io::Result<()> {
        let length = file.metadata()?.len();
        if is_last && length == 0 {
            // An interrupted creation: not even a part of the head.
            self.read.torn = vec![Damage::of_segment(segment)];
        } else if is_last {
            self.read.torn = torn;
        } else {
            self.read.damage.extend(torn);
        }
        self.read.segments.push((segment, length));
        Ok(())
    }
}

//! Reads all segments at open: one thread reads and verifies, the caller visits.

use std::{
    fs::File,
    io,
    ops::Range,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use crate::{
    directory,
    options::Lane,
    record::Record,
    scan::{Damage, Found, Scan},
    segment::{LastSequences, SegmentId, raise, read_head_of},
};

/// Records go to the visitor in batches of this size.
const BATCH_BYTES: usize = 1 << 20;

/// Batches between the two threads.
const BATCH_COUNT: usize = 4;

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

/// A few records, with their bytes.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<(Lane, u64, u8, Range<usize>)>,
}

impl Batch {
    fn push(&mut self, record: &Record<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record.payload);
        let range = start..self.bytes.len();
        self.records.push((record.lane, record.sequence, record.kind, range));
    }

    fn visit(self, visit: &mut impl FnMut(Record<'_>)) {
        for (lane, sequence, kind, range) in self.records {
            visit(Record { lane, sequence, kind, payload: &self.bytes[range] });
        }
    }
}

/// Reads all segments; `visit` gets each valid record in the order of the log.
pub fn read(directory: &Path, salt: u32, mut visit: impl FnMut(Record<'_>)) -> io::Result<Read> {
    let (sender, receiver): (_, Receiver<Batch>) = sync_channel(BATCH_COUNT);
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut reader =
                Reader { salt, read: Read::default(), batch: Batch::default(), sender };
            reader.read_directory(directory)?;
            Ok(reader.read)
        });
        for batch in receiver {
            batch.visit(&mut visit);
        }
        reader.join().unwrap_or_else(|_| Err(io::Error::other("the log's reader panicked")))
    })
}

struct Reader {
    salt: u32,
    read: Read,
    batch: Batch,
    sender: SyncSender<Batch>,
}

impl Reader {
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
        self.send();
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
                Found::Record(record) => self.on_record(&record),
            }
        }
        Ok(scan.torn())
    }

    fn read_head(&mut self, file: &File, segment: SegmentId) -> Option<u64> {
        let (last, length) = read_head_of(file, segment, self.salt)?;
        last.into_iter().for_each(|(lane, sequence)| raise(&mut self.read.last, lane, sequence));
        Some(length)
    }

    fn on_record(&mut self, record: &Record<'_>) {
        self.read.record_count += 1;
        raise(&mut self.read.last, record.lane, record.sequence);
        self.batch.push(record);
        if self.batch.bytes.len() >= BATCH_BYTES {
            self.send();
        }
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        self.batch.bytes.reserve(BATCH_BYTES);
        // Without a receiver, the visitor panicked.
        let _ = self.sender.send(batch);
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

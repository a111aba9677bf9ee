//! Cleaning: the oldest segment goes after all its needed records have copies at the end of the log.
//!
//! One thread reads the segment and offers each lane its own records in pages. The lane decides, and
//! appends the copies itself, in order with its other appends. So a removed value cannot come back
//! behind the record of its removal.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use bytes::Bytes;

use crate::{
    directory,
    error::WriteError,
    figures::Counters,
    options::Lane,
    queue::Origin,
    record::{Entry, HEADER_BYTES, Record},
    scan::{Found, Scan},
    segment::{SegmentId, head_bytes},
    shared::Shared,
};

/// A lane decides about a page in one turn of a few milliseconds.
const PAGE_BYTES: usize = 256 << 10;

/// The time between two looks at the end of the store while a lane decides.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

type Verdict = Result<(), WriteError>;

/// Records of one lane in the segment to be cleaned.
///
/// A page dropped without [`keep`](Self::keep) leaves the segment as it is. The store offers the
/// segment again later.
pub struct Page {
    pub lane: Lane,
    /// In the order of the log.
    pub entries: Vec<Entry>,
    attempt: Attempt,
    shared: Arc<Shared>,
    verdict: Sender<Verdict>,
}

/// Whether a segment's pages are offered for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    First,
    Repeated,
}

impl Page {
    /// Whether pages of this segment were offered before: a lane did not decide, or its copies found
    /// no room. Entries kept then may be in the log already, or not.
    pub fn is_repeated(&self) -> bool {
        self.attempt == Attempt::Repeated
    }

    /// Appends the still needed entries of this page, unchanged, and gives up all others. The lane
    /// can add records of its own.
    pub fn keep(self, entries: Vec<Entry>) {
        let Self { lane, shared, verdict, .. } = self;
        let done = move |result| {
            // Without a receiver, the store is closing.
            let _ = verdict.send(result);
        };
        if entries.is_empty() {
            done(Ok(()));
        } else {
            shared.append(lane, entries, Origin::Cleaning, Box::new(done));
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lane, entries, .. } = self;
        f.debug_struct("Page").field("lane", lane).field("entries", entries).finish()
    }
}

/// Gets each page; it passes the page to the lane's owner.
pub type OnPage = Box<dyn Fn(Page) + Send>;

pub struct Cleaner {
    pub shared: Arc<Shared>,
    pub directory: PathBuf,
    pub salt: u32,
    pub on_page: OnPage,
}

/// Why a segment stays.
enum Kept {
    /// A lane did not decide, or its copies found no room.
    NotNow,
    Unreadable(
        #[expect(dead_code, reason = "the next open reports unreadable segments")] io::Error,
    ),
}

impl From<io::Error> for Kept {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

impl Cleaner {
    /// Works until the store's end.
    pub fn run(self) {
        let mut failed = None;
        while let Some(segment) = self.shared.ledger.next_to_clean() {
            if self.shared.state.failure().is_some() {
                self.shared.ledger.pause();
                continue;
            }
            let attempt = match failed == Some(segment) {
                true => Attempt::Repeated,
                false => Attempt::First,
            };
            if self.clean(segment, attempt).is_err() {
                failed = Some(segment);
                self.shared.ledger.pause();
            }
        }
    }

    fn clean(&self, segment: SegmentId, attempt: Attempt) -> Result<(), Kept> {
        let file = File::open(self.directory.join(segment.file_name()))?;
        let offset = head_bytes(&file, segment, self.salt);
        let mut scan = Scan::new(&file, segment, offset, self.salt);
        let mut pages = Pages::default();
        while let Some(found) = scan.next()? {
            if let Found::Record(record) = found
                && let Some(entries) = pages.add(&record)
            {
                self.offer(record.lane, entries, attempt)?;
            }
        }
        for (lane, (_, entries)) in pages.0 {
            self.offer(lane, entries, attempt)?;
        }
        self.sync()?;
        directory::remove(&self.directory, &segment.file_name())?;
        self.shared.ledger.remove(segment);
        Counters::add(&self.shared.counters.cleaned, 1);
        Ok(())
    }

    /// Offers a page and waits for its copies.
    fn offer(&self, lane: Lane, entries: Vec<Entry>, attempt: Attempt) -> Result<(), Kept> {
        let (verdict, receiver) = mpsc::channel();
        let shared = self.shared.clone();
        (self.on_page)(Page { lane, entries, attempt, shared, verdict });
        self.wait(&receiver)
    }

    /// The copies must be on disk before their originals go.
    fn sync(&self) -> Result<(), Kept> {
        let (sender, receiver) = mpsc::channel();
        self.shared.queue.sync(Box::new(move |result| {
            let _ = sender.send(result);
        }));
        self.wait(&receiver)
    }

    fn wait(&self, receiver: &mpsc::Receiver<Verdict>) -> Result<(), Kept> {
        loop {
            match receiver.recv_timeout(LOOK_INTERVAL) {
                Ok(Ok(())) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if !self.shared.ledger.is_closed() => {}
                _ => return Err(Kept::NotNow),
            }
        }
    }
}

/// The begun page of each lane, with its bytes.
#[derive(Default)]
struct Pages(BTreeMap<Lane, (usize, Vec<Entry>)>);

impl Pages {
    /// Adds a record; a full page is the result.
    fn add(&mut self, record: &Record<'_>) -> Option<Vec<Entry>> {
        let (bytes, entries) = self.0.entry(record.lane).or_default();
        *bytes += HEADER_BYTES + record.payload.len();
        let payload = Bytes::copy_from_slice(record.payload);
        entries.push(Entry { sequence: record.sequence, kind: record.kind, payload });
        if *bytes < PAGE_BYTES {
            return None;
        }
        *bytes = 0;
        Some(std::mem::take(entries))
    }
}

//! The partitions of a cursor within a replay.

/// The kind of a replay, as named by a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayKind {
    /// Up to the head, only the topics with conflation; all topics after it.
    Snapshot,
    /// All topics. The client knows of the events lost before the head was reached.
    History,
}

/// A partition within a replay: its position is before the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayMark {
    pub partition: u16,
    pub kind: ReplayKind,
    /// The partition's last sequence at the begin of the replay.
    pub head: u64,
}

/// At most one mark per partition, ascending. Once the position has reached the head, a mark means
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayMarks(Vec<ReplayMark>);

impl ReplayMarks {
    pub fn get(&self, partition: u16) -> Option<ReplayMark> {
        self.find(partition).ok().map(|index| self.0[index])
    }

    /// Adds a mark, in place of an earlier one of the partition.
    pub fn set(&mut self, mark: ReplayMark) {
        match self.find(mark.partition) {
            Ok(index) => self.0[index] = mark,
            Err(index) => self.0.insert(index, mark),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn retain(&mut self, is_kept: impl FnMut(&ReplayMark) -> bool) {
        self.0.retain(is_kept);
    }

    fn find(&self, partition: u16) -> Result<usize, usize> {
        self.0.binary_search_by_key(&partition, |mark| mark.partition)
    }
}

impl FromIterator<ReplayMark> for ReplayMarks {
    fn from_iter<I: IntoIterator<Item = ReplayMark>>(marks: I) -> Self {
        let mut all = Self::default();
        marks.into_iter().for_each(|mark| all.set(mark));
        all
    }
}

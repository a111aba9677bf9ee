//! The epochs of a link's partitions: the latest one is a name for all of them, and a server gone back
//! to earlier data begins a new one.

use fanfare_core::{
    cursor::{Epoch, IN_ANOTHER_EPOCH},
    log::PartitionHead,
};
use redis::aio::ConnectionLike;

use crate::{
    link::{
        NodeLink,
        calls::{ExpectedAnswer, LinkCall, is_between_nodes},
        check, run_pipeline, words,
    },
    publish_path::LinkError,
    script,
};

impl NodeLink {
    /// Gives all partitions of this node the latest epoch: a cursor has room for one.
    pub(super) async fn agree_on_epoch(&mut self) -> Result<(), LinkError> {
        for (partition, head) in self.heads().await? {
            self.note_epoch(partition, &head);
        }
        // All heads first: the last one read may have the latest epoch.
        for partition in self.spec.settings.epochs.lagging(self.names.keys().copied()) {
            let command = self.rename_call(partition);
            let value = self.subscribe.req_packed_command(&command).await?;
            self.note_epoch(partition, &script::head(value)?.0);
        }
        Ok(())
    }

    /// Reads the heads of all partitions on this node. Leaves out partitions with a moving slot.
    pub(super) async fn heads(&mut self) -> Result<Vec<(u16, PartitionHead)>, LinkError> {
        let mut pipeline = redis::pipe();
        for (partition, names) in &self.names {
            // Without an epoch the read fails.
            pipeline.add_command(self.ensure_epoch_call(*partition));
            pipeline.add_command(script::read_call(&self.read_sha, names, &[], &words(["head"])));
        }
        let values = run_pipeline(&mut self.subscribe, &pipeline).await?;
        let mut heads = Vec::new();
        for (partition, answers) in self.names.keys().zip(values.chunks(2)) {
            match check(answers) {
                // The slot is moving. The replica's own query is repeated until Redis answers, so
                // the other partitions need not wait.
                Err(error) if is_between_nodes(&error) => continue,
                checked => checked?,
            }
            let value = answers[1].clone();
            let (head, clock, _) = script::head(value)?;
            clock.set(&self.spec.settings.clock);
            self.clock = clock;
            heads.push((*partition, head));
        }
        Ok(heads)
    }

    /// Names a partition's sequences also by the latest epoch.
    pub(super) fn rename_call(&self, partition: u16) -> redis::Cmd {
        let latest = self.spec.settings.epochs.latest().to_string();
        let words = words(["rename", &latest]);
        script::read_call(&self.read_sha, &self.names[&partition], &[], &words)
    }

    /// Checks the order of a push. Redis pushes in the order of sequences, also on two channels. A
    /// lower sequence shows a server gone back to earlier data: it gives out sequences a second
    /// time. A new epoch separates them.
    pub(super) fn note_push(&mut self, partition: u16, epoch: Epoch, sequence: u64) {
        let last = self.last_pushed.insert(partition, (epoch, sequence));
        if last.is_none_or(|last| last.0 != epoch || last.1 <= sequence) {
            return;
        }
        tracing::warn!(partition, "Redis went back to earlier data; a new epoch begins");
        let Some(names) = self.names.get(&partition) else { return };
        // Above any sequence: Redis may be past the highest known one again.
        let (epoch, known) = (epoch.number().to_string(), IN_ANOTHER_EPOCH.to_string());
        let words = words(["renew", &epoch, "0", &known]);
        let commands = vec![script::read_call(&self.read_sha, names, &[], &words)];
        let asked = ExpectedAnswer::Head { purpose: None };
        self.calls.push_back(LinkCall { partition, commands, asked });
    }

    /// Queues the renaming of the partitions behind the latest epoch. A cursor has room for one.
    pub(super) fn spread_epoch(&mut self) {
        for partition in self.spec.settings.epochs.lagging(self.names.keys().copied()) {
            if self.renaming.insert(partition) {
                // A partition emptied with the others may have no epoch yet: the first call begins
                // it.
                let commands = vec![self.ensure_epoch_call(partition), self.rename_call(partition)];
                let asked = ExpectedAnswer::Renamed;
                self.calls.push_back(LinkCall { partition, commands, asked });
            }
        }
    }

    /// The publish without events: it begins a missing epoch. It fails on a server without write
    /// access.
    pub(super) fn ensure_epoch_call(&self, partition: u16) -> redis::Cmd {
        let (settings, path) = (&self.spec.settings, &self.publish);
        let names = &self.names[&partition];
        settings.publish_call(&path.sha, &path.server, partition, names).command(&[])
    }

    pub(super) fn note_epoch(&self, partition: u16, head: &PartitionHead) {
        let PartitionHead { epoch, earlier_epochs, sequence, .. } = head;
        self.spec.settings.epochs.note(partition, *epoch, earlier_epochs, *sequence);
    }
}

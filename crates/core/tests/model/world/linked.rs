//! The links between instances and the model Redis: messages and faults.

use fanfare_core::log::LogUpdate;
use rand::RngExt;

use super::{MANAGERS, PARTITIONS, World, any};
use crate::redis::{ModelPush, RedisPartition};

impl World {
    /// Disturbs the model Redis or a link to it.
    pub(super) fn disturb_redis(&mut self) {
        let Some(redis) = &mut self.redis else { return };
        let (instance, partition) =
            (self.rng.random_range(0..MANAGERS), self.rng.random_range(0..usize::from(PARTITIONS)));
        let line = &mut redis.partitions[partition].lines[instance];
        let pushes: Vec<usize> = (0..line.news.len())
            .filter(|place| {
                matches!(
                    line.news[*place],
                    ModelPush::Update(
                        LogUpdate::Event(_) | LogUpdate::FannedOut(_) | LogUpdate::Announced { .. }
                    )
                )
            })
            .collect();
        match self.rng.random_range(0..10) {
            0 if redis.loses_tails => {
                let log = &mut redis.partitions[partition];
                let lost = self.rng.random_range(0..4);
                let kept = match self.rng.random_bool(0.3) {
                    true => log.go_back(lost),
                    false => Some(log.fail_over(lost)),
                };
                let Some(kept) = kept else { return };
                self.fan_outs.clear();
                self.reference.lose(partition as u16, kept);
            }
            0 => {
                redis.era += 1;
                self.fan_outs.clear();
                let latest = redis.partitions.iter().map(RedisPartition::epoch).max();
                let mut later = || 1 + u64::from(redis.is_cluster) * self.rng.random_range(0..3);
                for log in &mut redis.partitions {
                    log.empty(latest.unwrap_or(0) + later());
                }
                self.reference.evict_all();
            }
            1..4 if redis.loses_pushes && !pushes.is_empty() => {
                line.news.remove(any(&mut self.rng, &pushes));
                self.totals.lost_pushes += 1;
            }
            4..7 if !pushes.is_empty() => {
                // Repeat a push, at once or behind later messages.
                let place = any(&mut self.rng, &pushes);
                let repeated = match &line.news[place] {
                    ModelPush::Update(LogUpdate::Event(event)) => LogUpdate::Event(event.clone()),
                    ModelPush::Update(LogUpdate::FannedOut(events)) => {
                        LogUpdate::FannedOut(events.clone())
                    }
                    _ => return,
                };
                let later = self.rng.random_range(place..line.news.len());
                line.news.insert(later + 1, ModelPush::Update(repeated));
            }
            _ => redis.partitions[partition].disconnect(instance),
        }
    }

    /// Passes some log updates and requests between the model Redis and an instance's partition.
    pub(super) fn relay(&mut self, instance: usize, partition: usize, count: usize) {
        let Some(redis) = &mut self.redis else { return };
        if self.rng.random_bool(0.05) {
            let latest = redis.partitions.iter().map(RedisPartition::epoch).max().unwrap();
            redis.partitions[partition].probe(latest);
        }
        let acknowledged = redis.acknowledged[instance][partition].clone();
        let log = &mut redis.partitions[partition];
        if !log.lines[instance].is_up && log.lines[instance].news.is_empty() {
            log.connect(instance, acknowledged);
        }
        let replica = self.instances[instance][partition].partition().replica().unwrap();
        let mut calls = Vec::new();
        for _ in 0..count {
            log.answer(instance, self.now);
            match log.lines[instance].news.pop_front() {
                Some(ModelPush::Update(news)) => {
                    if let LogUpdate::Head { head, .. }
                    | LogUpdate::Located { head, .. }
                    | LogUpdate::Changes { head, .. }
                    | LogUpdate::Read { head, .. } = &news
                    {
                        log.note(instance, head.epoch.number(), head.sequence);
                    }
                    replica.on_update(news, self.now);
                }
                Some(ModelPush::Call(number)) => calls.push(number),
                None => {}
            }
            replica.expire(self.now);
            let (generation, requests) = replica.take_requests();
            if generation == log.lines[instance].generation && log.lines[instance].is_up {
                log.lines[instance].requests.extend(requests);
            }
            let line = &log.lines[instance];
            if line.requests.is_empty() && line.news.is_empty() {
                break;
            }
        }
        for other in replica.take_trims() {
            self.instances[instance][usize::from(other)].partition().trim(self.now);
        }
        for number in calls {
            self.tell_manager(number, instance);
        }
    }

    /// Passes on all messages in flight to and from the model Redis.
    pub(super) fn run_redis(&mut self) {
        if self.redis.is_none() {
            return;
        }
        for instance in 0..MANAGERS {
            (0..usize::from(PARTITIONS)).for_each(|partition| self.relay(instance, partition, 100));
        }
    }
}

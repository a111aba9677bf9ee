//! Calls over a link. They wait in a queue, leave in one pipeline, and get answers in order.
//!
//! Not here: the parsing of answers (`script`), and the joining of pages (`pages`).

use std::time::Duration;

use fanfare_core::log::{Changed, Channel, LogRequest, LogUpdate, PartitionHead, Purpose};
use futures_util::{FutureExt, future::BoxFuture};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::time::Instant;

use crate::{
    link::{NodeLink, answers_to, check, command, pages::Pages, pushes::TAIL_LOST, words},
    publish_path::LinkError,
    script,
    signature::MessageKind,
};

/// Answers of one pipeline.
const MAX_ANSWERS_AT_ONCE: usize = 1024;

/// Channels of one command. A stream of 10,000 topics so takes many pipelines, and the calls of other
/// partitions and the pushes come between them.
const MAX_CHANNELS_A_COMMAND: usize = 512;

/// Up to so many channels, each has a command of its own: one network delay less.
const MAX_SINGLE_CHANNELS: usize = 8;

/// Redis has lost a script.
const NO_SCRIPT: redis::ErrorKind = redis::ErrorKind::Server(redis::ServerErrorKind::NoScript);

/// The first word of the read script's error for a partition without an epoch.
const NO_EPOCH: &str = "FANFARE";

/// Calls in one pipeline. Their answers, at most one page each, gather in Redis' output buffer.
const MAX_CALLS_AT_ONCE: usize = 32;

/// Pages of events in one pipeline: they are the largest answers.
const MAX_PAGES: usize = 2;

/// Pause before a call refused because of a moving slot is repeated.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether a slot is moving: some of its keys are on this node, some on another.
pub(super) fn is_between_nodes(error: &RedisError) -> bool {
    use redis::ServerErrorKind::{Ask, TryAgain};
    matches!(error.kind(), redis::ErrorKind::Server(Ask | TryAgain))
}

/// The kind of a call's answer, with the result of earlier pages.
pub(super) enum ExpectedAnswer {
    Nothing,
    /// The confirmations of a command with so many channels.
    Confirmations(usize),
    /// The answer to a join. The next probe joins again.
    Joined {
        /// Whether a rejected push is the reason: then pushes may be missing.
        has_rejected: bool,
    },
    /// The head after a rename.
    Renamed,
    Head {
        purpose: Option<Purpose>,
    },
    /// The position of a second.
    Located {
        purpose: Purpose,
        second: u64,
    },
    /// A list in pages. `before` holds the first page's head and all topics so far.
    Changes {
        purpose: Purpose,
        before: Option<(PartitionHead, Changed)>,
    },
    Read(Box<Pages>),
}

/// Commands sent together; the answer to the last one counts, except for confirmations.
pub(super) struct LinkCall {
    pub partition: u16,
    pub commands: Vec<Cmd>,
    pub asked: ExpectedAnswer,
}

impl LinkCall {
    fn load(script: &str) -> Self {
        let mut load = command("SCRIPT", "LOAD");
        load.arg(script);
        Self { partition: 0, commands: vec![load], asked: ExpectedAnswer::Nothing }
    }

    /// The number of its answers.
    fn answer_count(&self) -> usize {
        match self.asked {
            ExpectedAnswer::Confirmations(count) => count,
            _ => self.commands.len(),
        }
    }

    fn has_confirmations(&self) -> bool {
        matches!(self.asked, ExpectedAnswer::Confirmations(_))
    }
}

/// Calls for a list of channels of one partition, in few commands.
///
/// Redis confirms each channel, but refuses a whole command with one error: the other confirmations
/// would be awaited in vain. So the first channel goes alone. Its answer comes before the others are
/// sent, see [`NodeLink::send_calls`]. All channels are in one slot, so all fail for one reason.
fn channel_calls(partition: u16, word: &str, channels: &[String]) -> Vec<LinkCall> {
    let is_few = channels.len() <= MAX_SINGLE_CHANNELS;
    let (single, others) = channels.split_at(if is_few { channels.len() } else { 1 });
    let commands = single.iter().map(|name| command(word, name)).collect();
    let mut calls = vec![LinkCall { partition, commands, asked: ExpectedAnswer::Nothing }];
    calls.extend(others.chunks(MAX_CHANNELS_A_COMMAND).map(|some| {
        let mut command = redis::cmd(word);
        command.arg(some);
        let asked = ExpectedAnswer::Confirmations(some.len());
        LinkCall { partition, commands: vec![command], asked }
    }));
    calls
}

/// The pipeline in flight. Its result is each call with the answers to its commands.
pub(super) type Sent = BoxFuture<'static, Result<Vec<(LinkCall, Vec<Value>)>, RedisError>>;

impl NodeLink {
    /// Queues requests. Their answers come in the same order. Ignores partitions of other nodes.
    pub(super) fn execute(&mut self, partition: u16, requests: Vec<LogRequest>) {
        let Some(names) = self.names.get(&partition) else { return };
        let name = |channel: &Channel| match channel {
            Channel::Topic(topic) => names.channel(&format!("topic:{topic}")),
            Channel::All => names.channel("all"),
        };
        let read = |words: &[String]| script::read_call(&self.read_sha, names, &[], words);
        for request in requests {
            let (commands, asked) = match request {
                LogRequest::Subscribe(channels) => {
                    let channels = channels.iter().map(name);
                    let calls =
                        channel_calls(partition, "SSUBSCRIBE", &channels.collect::<Vec<_>>());
                    self.calls.extend(calls);
                    continue;
                }
                LogRequest::Unsubscribe(channels) => {
                    let channels: Vec<String> = channels.iter().map(name).collect();
                    // Otherwise the confirmation would pass for a channel ended by the server.
                    self.leaving.extend(channels.iter().map(|name| name.clone().into_bytes()));
                    self.calls.extend(channel_calls(partition, "SUNSUBSCRIBE", &channels));
                    continue;
                }
                LogRequest::Head { purpose } => {
                    (vec![read(&words(["head"]))], ExpectedAnswer::Head { purpose: Some(purpose) })
                }
                LogRequest::Locate { purpose, second } => {
                    let words = words(["at", &second.to_string()]);
                    (vec![read(&words)], ExpectedAnswer::Located { purpose, second })
                }
                LogRequest::Changes { purpose, after } => {
                    let words = words(["changes", &after.to_string()]);
                    (vec![read(&words)], ExpectedAnswer::Changes { purpose, before: None })
                }
                LogRequest::Read { purpose, topics, max_bytes } => {
                    let pages = Box::new(Pages::new(purpose, topics, max_bytes));
                    (vec![pages.command(&self.read_sha, names)], ExpectedAnswer::Read(pages))
                }
                LogRequest::NoteLoss { server, through } => {
                    // Without a secret no instance listens; the next link has one.
                    let Some(secret) = self.secrets.get(&partition) else { continue };
                    let told = secret.sign(MessageKind::Call, TAIL_LOST);
                    let through = through.to_string();
                    let words =
                        words(["lost", &server, &through, &names.channel("control"), &told]);
                    (vec![read(&words)], ExpectedAnswer::Head { purpose: None })
                }
                LogRequest::Renew { epoch, above, known } => {
                    let (epoch, above) = (epoch.number().to_string(), above.number().to_string());
                    let words = words(["renew", &epoch, &above, &known.to_string()]);
                    (vec![read(&words)], ExpectedAnswer::Head { purpose: None })
                }
            };
            self.calls.push_back(LinkCall { partition, commands, asked });
        }
    }

    /// Sends the queued calls in one pipeline, after the previous pipeline is answered. So answers
    /// keep the order of the requests, also with repeated calls, and all calls share one network
    /// delay.
    pub(super) fn send_calls(&mut self) {
        let is_paused = self.pause_until.is_some_and(|until| until > Instant::now());
        if self.sent.is_some() || self.calls.is_empty() || is_paused {
            return;
        }
        self.pause_until = None;
        let mut pipeline = Pipeline::new();
        // In front, so the repeated calls behind find their scripts.
        if std::mem::take(&mut self.must_load) {
            for script in [script::PUBLISH, script::READ] {
                self.calls.push_front(LinkCall::load(script));
            }
        }
        let mut calls: Vec<LinkCall> = Vec::new();
        let mut answer_count = 0;
        while answer_count < MAX_ANSWERS_AT_ONCE
            && calls.len() < MAX_CALLS_AT_ONCE
            && calls.iter().filter(|call| matches!(call.asked, ExpectedAnswer::Read(_))).count()
                < MAX_PAGES
            // The first channel is answered before the others are sent.
            && let Some(call) = self.calls.pop_front_if(|call| {
                !call.has_confirmations() || calls.iter().all(LinkCall::has_confirmations)
            })
        {
            answer_count += call.answer_count();
            call.commands.iter().for_each(|command| {
                pipeline.add_command(command.clone());
            });
            calls.push(call);
        }
        let mut connection = self.subscribe.clone();
        let sent = async move {
            // In order: each call takes as many as it expects.
            let values = answers_to(&mut connection, &pipeline, answer_count).await?;
            let mut values = values.into_iter();
            let own = |call: LinkCall| {
                let own = values.by_ref().take(call.answer_count()).collect();
                (call, own)
            };
            Ok(calls.into_iter().map(own).collect())
        };
        self.sent = Some(sent.boxed());
    }

    /// Turns answers into updates. Unfinished calls return to the front of the queue, in their
    /// order.
    ///
    /// # Errors
    /// A subscription failed, or an answer is an error or has an unexpected form. The link ends,
    /// and the replicas catch up with the next one.
    pub(super) fn take_answers(
        &mut self,
        answers: Vec<(LinkCall, Vec<Value>)>,
    ) -> Result<(), LinkError> {
        let mut again = Vec::new();
        for (mut call, mut values) in answers {
            match check(&values) {
                Err(error) if error.kind() == NO_SCRIPT => {
                    // Redis has lost the scripts, as after SCRIPT FLUSH: repeat the whole call. A
                    // call has either script commands or subscriptions, and the only pair of script
                    // commands (an empty publish and a head) may run twice.
                    self.must_load = true;
                    again.push(call);
                    continue;
                }
                // Redis was emptied. The first call begins an epoch, then the second one repeats.
                Err(error) if error.code() == Some(NO_EPOCH) => {
                    let commands = vec![self.ensure_epoch_call(call.partition)];
                    let (partition, asked) = (call.partition, ExpectedAnswer::Nothing);
                    again.push(LinkCall { partition, commands, asked });
                    again.push(call);
                    continue;
                }
                // The slot is moving: for a moment no node can run the script.
                Err(error) if is_between_nodes(&error) => {
                    match call.asked {
                        // The replica relies on the subscription. Only a new link repairs it.
                        ExpectedAnswer::Nothing | ExpectedAnswer::Confirmations(_) => {
                            return Err(error.into());
                        }
                        // No replica waits for this head. The next probe repeats the query.
                        ExpectedAnswer::Head { purpose: None } | ExpectedAnswer::Joined { .. } => {}
                        ExpectedAnswer::Renamed => {
                            self.renaming.remove(&call.partition);
                        }
                        // A replica waits for this answer, so dropping it would stall its streams.
                        _ => {
                            self.pause_until = Some(Instant::now() + PAUSE);
                            again.push(call);
                        }
                    }
                    continue;
                }
                checked => checked?,
            }
            // Of several commands, only the last one has the answer.
            let (partition, Some(value)) = (call.partition, values.pop()) else { continue };
            let news = match call.asked {
                ExpectedAnswer::Nothing | ExpectedAnswer::Confirmations(_) => continue,
                ExpectedAnswer::Joined { has_rejected } => {
                    self.on_joined(partition, value)?;
                    if !has_rejected {
                        continue;
                    }
                    LogUpdate::PushesMissing
                }
                ExpectedAnswer::Renamed => {
                    self.renaming.remove(&partition);
                    LogUpdate::Head { purpose: None, head: script::head(value)?.0 }
                }
                ExpectedAnswer::Head { purpose } => {
                    let bytes = script::history_bytes(&value).unwrap_or_default();
                    self.spec.settings.epochs.note_history(partition, bytes);
                    LogUpdate::Head { purpose, head: script::head(value)?.0 }
                }
                ExpectedAnswer::Located { purpose, second } => {
                    let (head, _, rest) = script::head(value)?;
                    let sequence = script::located(rest)?;
                    LogUpdate::Located { purpose, head, second, sequence }
                }
                ExpectedAnswer::Changes { purpose, before } => {
                    let (head, _, rest) = script::head(value)?;
                    let (page, next) = script::changed(rest)?;
                    // The first page's head is the cut: every later event arrives as a push. A
                    // later page's head would cover events missing in the earlier pages. But the
                    // last page's `forgotten_through` counts: Redis may forget topics between
                    // pages.
                    let (head, changed) = match before {
                        Some((first, mut changed)) => {
                            changed.topics.extend(page.topics);
                            (first, Changed { topics: changed.topics, ..page })
                        }
                        None => (head, page),
                    };
                    if let Some(after) = next {
                        let words = words(["changes", &after.to_string()]);
                        let names = &self.names[&partition];
                        call.commands = vec![script::read_call(&self.read_sha, names, &[], &words)];
                        call.asked =
                            ExpectedAnswer::Changes { purpose, before: Some((head, changed)) };
                        again.push(call);
                        continue;
                    }
                    LogUpdate::Changes { purpose, head, changed }
                }
                ExpectedAnswer::Read(mut pages) => {
                    pages.take(value, &self.spec.settings)?;
                    // The replica gets a read as a whole: pages have no cut of their own.
                    match pages.finish() {
                        Ok(news) => news,
                        Err(pages) => {
                            call.commands =
                                vec![pages.command(&self.read_sha, &self.names[&partition])];
                            call.asked = ExpectedAnswer::Read(pages);
                            again.push(call);
                            continue;
                        }
                    }
                }
            };
            // Every answer names the epoch, so a new one spreads to lagging partitions.
            if let LogUpdate::Head { head, .. }
            | LogUpdate::Located { head, .. }
            | LogUpdate::Changes { head, .. }
            | LogUpdate::Read { head, .. } = &news
            {
                self.note_epoch(partition, head);
            }
            self.news.entry(partition).or_default().push(news);
        }
        // In front of the queue: a later request must not get its answer before an earlier one's.
        again.into_iter().rev().for_each(|call| self.calls.push_front(call));
        Ok(())
    }
}

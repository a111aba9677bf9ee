// Owns the transports for networks and platforms without streaming bodies: `EventSource` and long polling. They load only
// when needed.

import { type Polled, pause } from './hub.js';
import type { Link, Read } from './link.js';

const TYPES = ['connected', 'batch', 'gap', 'renew', 'shutdown', 'end', 'live'];

/** Longest list of topics in an address; the others are added to the open stream. */
const MAX_QUERY = 4000;

const WAIT_S = 25;

/** Reads an `EventSource`. Its own reconnect is not used: the link reconnects, with its cursor. */
export const readEventSource: Read = async (link, signal) => {
  const { hub } = link;
  const topics: string[] = [];
  for (let length = 0; topics.length < link.topics.length && length < MAX_QUERY; ) {
    const topic = link.topics[topics.length]!;
    length += encodeURIComponent(topic).length + 3;
    topics.push(topic);
  }
  const query = new URLSearchParams({ topics: topics.join(), batch: 'json' });
  if (link.cursor) query.set('last_event_id', link.cursor);
  if (await hub.token()) {
    const answer = await (await hub.authorized('/tickets', {}, signal)).json();
    query.set('ticket', answer.ticket);
  }
  const source = new EventSource(`${hub.url}/stream?${query}`, { withCredentials: hub.options.credentials === 'include' });
  await new Promise<void>((resolve, reject) => {
    signal.addEventListener('abort', () => resolve());
    source.onerror = () => reject(new Error('the stream ended'));
    for (const type of TYPES) {
      source.addEventListener(type, (event) => {
        link.beat();
        if (!signal.aborted) link.onBlock(type, event.data, event.lastEventId, topics);
      });
    }
  }).finally(() => source.close());
};

/** Polls. From time to time it tries a stream beside the polls; if the stream arrives, the link changes over. */
export const readPolls: Read = async (link, signal) => {
  const { hub } = link;
  const probing = setInterval(() => void probe(link, signal), hub.options.probeMs ?? 60_000);
  signal.addEventListener('abort', () => clearInterval(probing));
  let known = '';
  while (!signal.aborted) {
    const topics = [...link.topics];
    const resumed = !!link.cursor;
    const isNew = known !== topics.join();
    const beats = setInterval(() => link.beat(), 5000);
    const more = { wait: isNew ? 0 : WAIT_S, ...(resumed && { lastEventId: link.cursor }) };
    let answer: Polled;
    try {
      const limit = AbortSignal.timeout((WAIT_S + 10) * 1000);
      answer = await hub.poll(topics, more, AbortSignal.any([signal, limit]));
    } finally {
      clearInterval(beats);
    }
    if (signal.aborted) return;
    link.beat();
    const { cursor: id, events, gap } = answer;
    link.cursor = id;
    if (isNew) link.connected(topics, resumed);
    known = topics.join();
    if (gap) link.emit({ kind: 'gap', gap, id: '' });
    link.emit({ kind: 'events', items: events, id });
  }
};

/** A stream sends nothing. If the hub answers a poll, a proxy holds the stream back: the link polls. */
export async function heldBack(link: Link): Promise<void> {
  try {
    await link.hub.poll(link.topics.slice(0, 1), { wait: 0 }, AbortSignal.timeout(5000));
  } catch {
    return; // Not the proxy: the usual reconnect.
  }
  if (link.clientId || link.isStopped) return;
  link.transport = 'poll';
  link.reopen('buffered');
}

async function probe(link: Link, signal: AbortSignal): Promise<void> {
  const abort = new AbortController();
  const { connectMs = 5000 } = link.hub.options;
  try {
    const body = { topics: link.topics.slice(0, 1), batch: 'json' };
    const read = async () => {
      const response = await link.hub.authorized('/stream', body, AbortSignal.any([signal, abort.signal]));
      return (await response.body!.getReader().read()).value;
    };
    const first = await Promise.race([read(), pause(connectMs)]);
    if (!first || signal.aborted) return;
    link.transport = 'stream';
    link.reopen();
  } catch {
    // Still held back.
  } finally {
    abort.abort();
  }
}

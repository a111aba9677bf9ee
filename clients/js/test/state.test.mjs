// Owns the tests of handed-over state without a hub: snapshots, getState, maps, gaps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fanfare } from '../dist/index.js';
import { fakeFetch, until } from './support.mjs';

/** A hub of one partition in strings: `cursor` is its last sequence, `send` delivers one event. */
function hub(t, { poll }) {
  const epoch = 'AAAAAAAA~q8I2II7.1:';
  let controller;
  const encoder = new TextEncoder();
  const write = (text) => controller.enqueue(encoder.encode(text));
  const events = [];
  const { fetch, requests } = fakeFetch(async ({ path, body }) => {
    if (path.endsWith('/poll')) return Response.json(await poll(body, events));
    const stream = new ReadableStream({ start: (one) => (controller = one) });
    write(`event: connected\ndata: {"clientId":"c","resumed":false}\nid: ${epoch}${events.length}\n\n`);
    return new Response(stream);
  });
  const fanfare = new Fanfare('http://hub.test/events', { fetch });
  t.after(() => fanfare.close());
  return {
    fanfare,
    requests,
    id: (sequence) => epoch + sequence,
    publish(topic, data, more = {}, isDelivered = true) {
      const item = { id: epoch + (events.length + 1), topic, data, ...more };
      events.push(item);
      if (isDelivered) this.deliver(item);
    },
    deliver: (item) => write(`event: batch\ndata: ${JSON.stringify([item])}\nid: ${item.id}\n\n`),
    gap: () => write(`event: gap\ndata: {"reason":"slow"}\nid: ${epoch}${events.length}\n\n`),
  };
}

test('a snapshot comes first, then each later event once, however they overlap', async (t) => {
  const it = hub(t, {
    // The snapshot has event 2, not yet delivered by the stream.
    poll: ({ snapshot }, events) => ({ cursor: it.id(2), events: snapshot ? [events[1]] : [] }),
  });
  const seen = [];
  it.fanfare.subscribe('a', () => {});
  await until(() => it.fanfare.state === 'live');
  it.publish('a', 'one', { key: 'k' });
  it.publish('a', 'two', { key: 'k' }, false);
  it.fanfare.subscribe('a', ({ data }) => seen.push(data), { snapshot: true });
  await until(() => seen.length === 1);
  it.deliver({ id: it.id(2), topic: 'a', key: 'k', data: 'two' });
  it.publish('a', 'three', { key: 'k' });
  await until(() => seen.length === 2);
  assert.deepEqual(seen, ['two', 'three']);
});

test('getState gives a cursor; later events follow, and again after a gap', async (t) => {
  let calls = 0;
  const polled = [];
  const it = hub(t, {
    poll(body, events) {
      polled.push(body.lastEventId);
      const after = Number(body.lastEventId.split(':').pop());
      return { cursor: it.id(events.length), events: events.slice(after) };
    },
  });
  const seen = [];
  it.fanfare.subscribe('a', () => {});
  await until(() => it.fanfare.state === 'live');
  it.publish('a', 1);
  it.publish('a', 2);
  const getState = async () => {
    seen.push(`state ${++calls}`);
    return calls === 1 ? it.id(1) : { cursor: it.id(3) };
  };
  it.fanfare.subscribe('a', ({ data }) => seen.push(data), { getState });
  await until(() => seen.length === 2);
  it.publish('a', 3);
  await until(() => seen.length === 3);
  it.gap();
  await until(() => calls === 2 && polled.length >= 2);
  it.publish('a', 4);
  await until(() => seen.includes(4));
  assert.deepEqual(seen, ['state 1', 2, 3, 'state 2', 4]);
  assert.equal(polled[0], it.id(1));
});

test('a map follows values and deletions, and is replaced whole after a gap', async (t) => {
  let keys = { a: 1, b: 2 };
  const it = hub(t, {
    poll: ({ snapshot }, events) => ({
      cursor: it.id(events.length),
      events: snapshot ? Object.entries(keys).map(([key, data]) => ({ id: it.id(0), topic: 't', key, data })) : [],
    }),
  });
  const map = it.fanfare.map('t');
  let told = 0;
  map.subscribe(() => told++);
  await until(() => map.isReady);
  assert.deepEqual([...map], [['a', 1], ['b', 2]]);
  it.publish('t', 3, { key: 'c' });
  it.publish('t', { topic: 't', key: 'a' }, { key: 'a', event: 'deleted' });
  await until(() => map.has('c') && !map.has('a'));
  assert.deepEqual([...map], [['b', 2], ['c', 3]]);
  keys = { c: 4, d: 5 };
  it.gap();
  await until(() => map.has('d'));
  assert.deepEqual([...map], [['c', 4], ['d', 5]]);
  assert.ok(told >= 3);
  map.close();
});

test('a subscription from the earliest event gets history once, also after a gap', async (t) => {
  const it = hub(t, {
    poll({ lastEventId }, events) {
      const after = lastEventId === 'earliest' ? 0 : Number(lastEventId.split(':').pop());
      return { cursor: it.id(events.length), events: events.slice(after) };
    },
  });
  const seen = [];
  it.fanfare.subscribe('a', () => {});
  await until(() => it.fanfare.state === 'live');
  it.publish('a', 1);
  it.publish('a', 2);
  let gaps = 0;
  it.fanfare.subscribe('a', ({ data }) => seen.push(data), { from: 'earliest', onGap: () => gaps++ });
  await until(() => seen.length === 2);
  it.publish('a', 3);
  it.gap();
  it.publish('a', 4);
  await until(() => gaps === 1 && seen.includes(4));
  assert.deepEqual(seen, [1, 2, 3, 4]);
});

test('events arriving during the hand-over are delivered, also once the stream has passed the state', async (t) => {
  let answer;
  const polled = new Promise((resolve) => (answer = resolve));
  const it = hub(t, {
    poll: async ({ lastEventId }, events) => {
      const after = Number(lastEventId.split(':').pop());
      const known = { cursor: it.id(2), events: events.slice(after, 2) };
      await polled;
      return known;
    },
  });
  const seen = [];
  it.fanfare.subscribe('a', () => {});
  await until(() => it.fanfare.state === 'live');
  it.publish('a', 1);
  it.publish('a', 2);
  await until(() => it.fanfare.cursor === it.id(2));
  it.fanfare.subscribe('a', ({ data }) => seen.push(data), { from: it.id(1) });
  await until(() => it.requests.some(({ path }) => path.endsWith('/poll')));
  for (const data of [3, 4, 5, 6]) it.publish('a', data);
  await until(() => it.fanfare.cursor === it.id(6));
  answer();
  await until(() => seen.length === 5);
  it.publish('a', 7);
  await until(() => seen.length === 6);
  assert.deepEqual(seen, [2, 3, 4, 5, 6, 7]);
});

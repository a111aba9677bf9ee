// Owns the tests of the stream's client side without a hub: the parser, topics, refusals, tokens, reconnecting.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Fanfare } from '../dist/index.js';
import { batch, connected, fakeFetch, refusal, streamOf, until } from './support.mjs';

const URL = 'http://hub.test/events';

/** A client; it is closed at the end of the test. */
function client(t, answer, options = {}) {
  const { fetch, requests } = fakeFetch(answer);
  const fanfare = new Fanfare(URL, { fetch, ...options });
  t.after(() => fanfare.close());
  const states = [];
  fanfare.on('state', (state, info) => states.push([state, info]));
  const events = [];
  const take = (event) => events.push(event);
  return { fanfare, requests, states, events, take };
}

test('events arrive however the bytes are cut, with every line end', async (t) => {
  const items = [
    { id: '1', topic: 'a', data: 'Grüße, 世界 🦀\u2028 and \ufeff' },
    { id: '2', topic: 'a', event: 'x', key: 'k', data: { lines: 'a\nb' } },
  ];
  const text = `\ufeff: a comment\n${connected('0')}${batch('2', ...items)}id: 3\n\nunknown: 1\ndata\n\n`;
  for (const [seed, end] of ['\n', '\r\n', '\r'].entries()) {
    const bytes = new TextEncoder().encode(text.replaceAll('\n', end));
    for (let size = 1; size < 40; size += 3) {
      const pieces = [];
      for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
      const { fanfare, events, take } = client(t, () => streamOf(pieces));
      fanfare.subscribe('a', take);
      await until(() => fanfare.cursor === '3', `the last id, ${seed} ${size}`);
      assert.deepEqual(events, [
        { id: '1', topic: 'a', type: 'message', data: items[0].data },
        { id: '2', topic: 'a', type: 'x', key: 'k', data: items[1].data },
      ]);
      fanfare.close();
    }
  }
});

test('each handler gets the events of its topics, patterns and types', async (t) => {
  const names = ['a', 'a:1', 'a:1:2', 'b:1', 'a.1'];
  const items = names.map((topic, index) => ({ id: `${index}`, topic, event: index % 2 ? 'odd' : undefined, data: index }));
  const { fanfare } = client(t, () => streamOf([connected('x'), batch('y', ...items)]));
  const seen = {};
  const follow = (name, topics, options) => fanfare.subscribe(topics, ({ topic }) => (seen[name] ??= []).push(topic), options);
  follow('one', 'a');
  follow('star', 'a:*');
  follow('deep', 'a:**');
  follow('middle', '*:1');
  follow('all', '**');
  follow('list', ['a', 'b:*', 'b:1']);
  follow('odd', '**', { types: ['odd'] });
  follow('unnamed', '**', { types: ['message'] });
  await until(() => fanfare.cursor === 'y');
  assert.deepEqual(seen, {
    one: ['a'],
    star: ['a:1'],
    deep: ['a:1', 'a:1:2'],
    middle: ['a:1', 'b:1'],
    all: names,
    list: ['a', 'b:1'],
    odd: ['a:1', 'b:1'],
    unnamed: ['a', 'a:1:2', 'a.1'],
  });
});

test('a handler that throws stops nobody', async (t) => {
  const thrown = [];
  globalThis.reportError = (error) => thrown.push(error.message);
  t.after(() => delete globalThis.reportError);
  const { fanfare, events, take } = client(t, () => streamOf([connected('0'), batch('1', { id: '1', topic: 'a', data: 1 })]));
  fanfare.subscribe('a', () => {
    throw new Error('mine');
  });
  fanfare.subscribe('a', take);
  await until(() => events.length === 1 && thrown.length === 1);
  assert.deepEqual(thrown, ['mine']);
});

test('topics are added and removed on the open stream, changes of a moment together', async (t) => {
  const changes = [];
  const { fanfare, requests } = client(t, ({ path, body }) => {
    if (path.endsWith('/topics')) {
      changes.push(body);
      return Response.json({ success: true });
    }
    return streamOf([connected('0')]);
  });
  const stop = fanfare.subscribe('a', () => {});
  const other = fanfare.subscribe('a', () => {});
  await until(() => fanfare.state === 'live');
  assert.deepEqual(requests[0].body, { topics: ['a'], batch: 'json' });
  fanfare.subscribe(['b', 'c:*'], () => {});
  stop();
  await until(() => changes.length === 1);
  other();
  await until(() => changes.length === 2);
  assert.deepEqual(changes, [{ add: ['b', 'c:*'], remove: [] }, { add: [], remove: ['a'] }]);
});

test('a cut stream resumes with its last id, and a shutdown names the wait', async (t) => {
  const { fanfare, requests, events, take, states } = client(t, ({ signal }, count) => {
    if (count === 1) return streamOf([connected('0'), batch('1', { id: '1', topic: 'a', data: 1 })], { ends: true });
    if (count === 2) {
      const shutdown = 'event: shutdown\ndata: {"reason":"drain","reconnectMs":7}\n\n';
      return streamOf([connected('1', { resumed: true }), batch('2', { id: '2', topic: 'a', data: 2 }), shutdown]);
    }
    return streamOf([connected('2', { resumed: true }), batch('3', { id: '3', topic: 'a', data: 3 })]);
  });
  fanfare.subscribe('a', take);
  await until(() => events.length === 3);
  assert.deepEqual(requests.map(({ body }) => body.lastEventId), [undefined, '1', '2']);
  assert.ok(states.some(([state, info]) => state === 'offline' && info.reason === 'drain' && info.retryMs === 7));
  await until(() => fanfare.state === 'live');
  assert.deepEqual(states.map(([state]) => state), ['connecting', 'live', 'offline', 'catching-up', 'offline', 'catching-up', 'live']);
});

test('a gap reaches the subscriptions of its topics', async (t) => {
  const gap = 'event: gap\ndata: {"reason":"history","partitions":[1],"topics":["a:1"]}\nid: 1\n\n';
  const { fanfare } = client(t, () => streamOf([connected('0'), gap]));
  const gaps = [];
  fanfare.subscribe('a:*', () => {}, { onGap: ({ reason }) => gaps.push(`a ${reason}`) });
  fanfare.subscribe('b', () => {}, { onGap: () => gaps.push('b') });
  fanfare.on('gap', ({ topics }) => gaps.push(topics.join()));
  await until(() => gaps.length === 2);
  assert.deepEqual(gaps, ['a:1', 'a history']);
});

test('a refused token is renewed once; refused again, the client is unauthorized', async (t) => {
  let count = 0;
  const token = () => `token ${++count}`;
  const { fanfare, requests } = client(t, ({ headers }) => {
    return headers.authorization === 'Bearer token 2' ? streamOf([connected('0')]) : refusal(401, 'unauthenticated');
  }, { token });
  fanfare.subscribe('a', () => {});
  await until(() => fanfare.state === 'live');
  assert.equal(requests.length, 2);
  const refused = client(t, () => refusal(401, 'unauthenticated'), { token });
  refused.fanfare.subscribe('a', () => {});
  await until(() => refused.fanfare.state === 'unauthorized');
  assert.equal(refused.fanfare.info.reason, 'unauthenticated');
  assert.equal(refused.requests.length, 2);
});

test('the token of an open stream is renewed', async (t) => {
  let count = 0;
  const renewed = [];
  const { fanfare } = client(t, ({ path, body, headers }) => {
    if (!path.endsWith('/token')) return streamOf([connected('0'), 'event: renew\ndata: {"expiresMs":5000}\n\n']);
    renewed.push([path, body.token, headers.authorization]);
    return Response.json({ success: true });
  }, { token: async () => `token ${++count}` });
  fanfare.subscribe('a', () => {});
  await until(() => renewed.length === 1);
  assert.deepEqual(renewed, [['/events/streams/c1/token', 'token 2', 'Bearer token 2']]);
});

test('a forbidden topic ends its subscription, not the others', async (t) => {
  const { fanfare, requests } = client(t, ({ body }) => {
    return body.topics.includes('secret') ? refusal(403, 'forbidden', { topics: ['secret'] }) : streamOf([connected('0')]);
  });
  const errors = [];
  fanfare.subscribe('a', () => {});
  fanfare.subscribe('secret', () => {}, { onError: (error) => errors.push(error.code) });
  await until(() => fanfare.state === 'live');
  assert.deepEqual(errors, ['forbidden']);
  assert.deepEqual(requests.at(-1).body.topics, ['a']);
});

test('permanent refusals stop the client, temporary ones do not', async (t) => {
  for (const [status, state] of [[400, 'ended'], [404, 'ended'], [421, 'ended'], [403, 'unauthorized']]) {
    const { fanfare, requests } = client(t, () => refusal(status, 'some_code'));
    fanfare.subscribe('a', () => {});
    await until(() => fanfare.state === state);
    assert.deepEqual([fanfare.info.reason, requests.length], ['some_code', 1]);
  }
  for (const status of [408, 429, 500, 502, 503]) {
    const { fanfare } = client(t, (_, count) => {
      if (count > 1) return streamOf([`retry: 1\n${connected('0')}`]);
      return refusal(status, 'busy', {}, { 'retry-after': '0.01' });
    });
    fanfare.subscribe('a', () => {});
    await until(() => fanfare.state === 'live');
  }
  const { fanfare, requests } = client(t, () => new Response(null, { status: 204 }));
  fanfare.subscribe('a', () => {});
  await until(() => fanfare.state === 'ended');
  assert.equal(requests.length, 1);
});

test('silence over two heartbeats is a lost connection', async (t) => {
  const { fanfare, requests, states } = client(t, ({ signal }) => streamOf([connected('0')]), { heartbeatMs: 100 });
  fanfare.subscribe('a', () => {});
  await until(() => requests.length > 1);
  assert.ok(states.some(([state, info]) => state === 'offline' && info.reason === 'silence'));
});

test('a stream held back by a proxy becomes polls, and a stream again when it passes', async (t) => {
  let passes = false;
  const polls = [];
  const { fanfare, events, take, states } = client(t, ({ path, signal, body }) => {
    if (path.endsWith('/poll')) {
      polls.push(body.lastEventId);
      if (body.lastEventId === '0') return Response.json({ cursor: '1', events: [{ id: '1', topic: 'a', data: 1 }], resumed: true });
      if (body.lastEventId === '1') return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      return Response.json({ cursor: '0', events: [], resumed: false });
    }
    return streamOf(passes ? [connected(body.lastEventId ?? 'probe', { resumed: true })] : []);
  }, { connectMs: 300, probeMs: 100 });
  fanfare.subscribe('a', take);
  await until(() => events.length === 1);
  assert.equal(fanfare.info.transport, 'poll');
  passes = true;
  await until(() => fanfare.info.transport === 'stream' && fanfare.state === 'live');
  assert.equal(fanfare.cursor, '1');
  // The first polls have no cursor; then each continues after the one before.
  const cursors = polls.filter(Boolean);
  assert.deepEqual([cursors[0], new Set(cursors)], ['0', new Set(['0', '1'])]);
  assert.ok(states.some(([state, info]) => state === 'live' && info.transport === 'poll'));
});

test('a publish is repeated with one id until the hub answers', async (t) => {
  const { fanfare, requests } = client(t, (_, count) => {
    if (count === 1) throw new TypeError('network');
    return count === 2 ? refusal(503, 'unconfirmed') : Response.json({ success: true, eventId: '1' });
  });
  assert.equal((await fanfare.publish('a', { x: 1 }, { type: 't', key: 'k' })).eventId, '1');
  const [{ body }] = requests;
  assert.deepEqual({ ...body, id: '' }, { topic: 'a', event: 't', data: { x: 1 }, key: 'k', id: '' });
  assert.equal(new Set(requests.map(({ body }) => body.id)).size, 1);
  const refused = client(t, () => refusal(413, 'payload_too_large'));
  await assert.rejects(refused.fanfare.publish('a', 1), { code: 'payload_too_large', status: 413 });
  assert.equal(refused.requests.length, 1);
});

test('a cursor unknown to the hub is a gap, and the stream starts anew', async (t) => {
  const { fanfare, requests } = client(t, ({ body }) => {
    if (!body.lastEventId) return streamOf([connected(requests.length === 1 ? 'old' : 'new')], { ends: requests.length === 1 });
    return refusal(400, 'bad_cursor');
  });
  const gaps = [];
  fanfare.subscribe('a', () => {}, { onGap: ({ reason }) => gaps.push(reason) });
  await until(() => fanfare.cursor === 'new');
  assert.deepEqual(gaps, ['epoch']);
});

test('an invalid topic is refused before it reaches the shared stream', (t) => {
  const { fanfare } = client(t, () => streamOf([]));
  for (const topic of ['', 'a b', 'a,b', 'a::b', ':a', 'a:', 'a\n']) {
    assert.throws(() => fanfare.subscribe(topic, () => {}), TypeError, JSON.stringify(topic));
  }
});

test('a topic not granted by the new token ends its subscription, not the others', async (t) => {
  const changes = [];
  const { fanfare } = client(t, ({ path, body }) => {
    if (path.endsWith('/token')) return Response.json({ success: true, expiresMs: 60_000, removed: ['b'] });
    if (path.endsWith('/topics')) {
      changes.push(body);
      return Response.json({ success: true });
    }
    return streamOf([connected('0'), 'event: renew\ndata: {"expiresMs":5000}\n\n']);
  }, { token: async () => 'token' });
  const errors = [];
  fanfare.subscribe('a', () => {});
  fanfare.subscribe('b', () => {}, { onError: ({ code, topics }) => errors.push([code, ...topics]) });
  await until(() => errors.length === 1 && changes.length === 1);
  assert.deepEqual([errors, changes, fanfare.state], [[['forbidden', 'b']], [{ add: [], remove: ['b'] }], 'live']);
});

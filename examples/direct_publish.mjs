// Publishes an event straight through Redis, without an instance of fanfare.
//
//     npm install redis
//     node examples/direct_publish.mjs TOPIC DATA [--id ID] [--event TYPE] [--key KEY] [--redis URL]
//
// The script `publish.lua` is a public interface. Its head documents keys, arguments and answer. The script
// numbers the event, stores it and pushes it to every instance with listeners.

import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { createClient } from 'redis';

const SCRIPT = await readFile(new URL('../crates/redis/src/publish.lua', import.meta.url), 'utf8');
const SHA = createHash('sha1').update(SCRIPT).digest('hex');

// These must equal the configuration of the instances.
const PREFIX = 'fanfare';
const PARTITIONS = 16;
const MAX_TOPICS = 1_000_000 / PARTITIONS;
const IDEMPOTENCY_WINDOW_MS = 5 * 60 * 1000;
const HISTORY_EVENTS = 1000;
const HISTORY_TTL_MS = 60 * 60 * 1000;
const CONFLATE = 'none';

/** FNV-1a of 32 bits: its halves XORed, then the low bits. */
function partitionOf(topic) {
  let fnv = 0x811c9dc5;
  for (const byte of Buffer.from(topic)) fnv = Math.imul(fnv ^ byte, 0x01000193) >>> 0;
  return ((fnv ^ (fnv >>> 16)) >>> 0) % PARTITIONS;
}

/** Publishes text unchanged and anything else as JSON. With an `id` a retry is safe. */
export async function publish(client, topic, data, { event = '', key = '', id = '' } = {}) {
  const partition = partitionOf(topic);
  const base = `${PREFIX}:{${partition}}`;
  const log = `${base}:log:${topic}`;
  const keys = ['seq', 'epoch', 'lineage', 'topics', 'evicted'].map((name) => `${base}:${name}`);
  keys.push(log, `${base}:keys:${topic}`, id ? `${base}:seen:${topic} ${id}` : log);

  const isText = typeof data === 'string';
  const args = ['1', '', '0', MAX_TOPICS];
  args.push(topic, isText ? 'text' : 'json', isText ? data : JSON.stringify(data), event, key, id);
  args.push(IDEMPOTENCY_WINDOW_MS, 0, HISTORY_EVENTS, HISTORY_TTL_MS, CONFLATE);

  const call = { keys, arguments: args.map(String) };
  // `EVAL` sends the script itself: needed once per Redis, until Redis knows the hash.
  const answer = await client.evalSha(SHA, call).catch((error) => {
    if (!error.message.startsWith('NOSCRIPT')) throw error;
    return client.eval(SCRIPT, call);
  });
  const [, [sequence, isNew]] = answer;
  return { topic, partition, sequence, new: isNew === 1 };
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    id: { type: 'string' },
    event: { type: 'string' },
    key: { type: 'string' },
    redis: { type: 'string', default: 'redis://127.0.0.1:6379' },
  },
});
const [topic, text] = positionals;
if (text === undefined) throw new Error('missing arguments: TOPIC DATA');

/** JSON if it parses, else text. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const client = await createClient({ url: values.redis }).connect();
console.log(JSON.stringify(await publish(client, topic, parse(text), values)));
await client.close();

// Owns the test of a synchronised map against a model, in Node and Deno: keys are published, removed, and given a time to
// live, while the client's connections are cut at random. At the end of every round, the map equals the model.
//
//     node client-map.mjs --url http://127.0.0.1:PORT [--rounds 20] [--seed N] [--removals]

import { parseArgs } from 'node:util';
import { Fanfare } from '../../clients/js/dist/index.js';

const { values: options } = parseArgs({
  options: {
    url: { type: 'string' },
    rounds: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    removals: { type: 'boolean', default: false },
  },
});

const PREFIX = `map:${options.seed}`;
const KEYS = 12;
const TOPICS = 3;
const CHANGES = 60;

/** A small generator: the same seed gives the same test. */
let state = Number(options.seed);
const random = (below) => {
  state = (state * 1103515245 + 12345) % 2 ** 31;
  return Math.floor((state / 2 ** 31) * below);
};

const open = new Set();
const cuttable = (url, init = {}) => {
  const cut = new AbortController();
  open.add(cut);
  return fetch(url, { ...init, signal: AbortSignal.any([cut.signal, ...(init.signal ? [init.signal] : [])]) });
};
const cut = () => {
  for (const one of open) one.abort(new TypeError('cut'));
  open.clear();
};

const model = new Map();
const nameOf = ({ topic, key }) => `${topic} ${key}`;

/** A change is one of these; `keep` cancels the end of the value before. */
const KINDS = ['keep', 'keep', 'remove', 'expire'];
const FIELDS = {
  keep: (data) => ({ data }),
  remove: () => ({ delete: true }),
  expire: (data) => ({ data, ttl: `${1 + random(200)}ms` }),
};

async function change(version) {
  const event = { topic: `${PREFIX}:${random(TOPICS)}`, key: `k${random(KEYS)}` };
  const kind = options.removals ? KINDS[random(KINDS.length)] : 'keep';
  const body = { ...event, ...FIELDS[kind](version) };
  const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  const answer = await fetch(new URL('/events/publish', options.url), init);
  if (!answer.ok) throw new Error(await answer.text());
  if (kind === 'keep') model.set(nameOf(event), version);
  // At the end of a round, its time has passed.
  else model.delete(nameOf(event));
}

const sorted = (map) => JSON.stringify([...map].sort());

async function untilEqual(map, round) {
  for (const end = Date.now() + 20_000; sorted(map) !== sorted(model); ) {
    if (Date.now() > end) throw new Error(`seed ${options.seed}, round ${round}:\n${sorted(map)}\n${sorted(model)}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const fanfare = new Fanfare(new URL('/events', options.url), { fetch: cuttable });
const early = fanfare.map(`${PREFIX}:*`, nameOf);
let version = 0;
for (let round = 0; round < Number(options.rounds); round++) {
  // A map begun in the middle of the changes, beside the one from the start.
  let late;
  for (let count = 0; count < CHANGES; count++) {
    await change(++version);
    if (random(20) === 0) cut();
    if (count === 20) late = fanfare.map([0, 1, 2].map((topic) => `${PREFIX}:${topic}`), nameOf);
  }
  await untilEqual(early, round);
  await untilEqual(late, round);
  late.close();
}
fanfare.close();
console.log(JSON.stringify({ ok: true, changes: version, keys: model.size }));
process.exit(0);

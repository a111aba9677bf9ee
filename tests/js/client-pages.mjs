// Owns pages with the client of clients/js in tests: its files, a page recording a numbered topic, the publisher, and the
// check of the records.

import { readFile } from 'node:fs/promises';

const DIST = new URL('../../clients/js/dist/', import.meta.url);

/** Opens a page of the hub's origin with a client in `window.fanfare`, following `topic` into `window.records`. */
export async function openClientPage(context, url, { topic = 'numbers', options = {} } = {}) {
  const page = await context.newPage();
  page.setDefaultTimeout(0); // one deadline for all: --timeout
  await page.route('**/client/*.js', async (route) => {
    const file = new URL(route.request().url()).pathname.split('/').pop();
    await route.fulfill({ contentType: 'text/javascript', body: await readFile(new URL(file, DIST)) });
  });
  // Any page of the hub's origin.
  await page.goto(new URL('/health/live', url).href);
  await page.evaluate(
    async ([topic, options]) => {
      const { Fanfare } = await import('/client/index.js');
      window.records = [];
      window.gaps = [];
      window.states = [];
      // A test may expose a function giving tokens.
      const token = window.mintToken && { token: () => window.mintToken() };
      window.fanfare = new Fanfare('/events', { ...options, ...token });
      window.fanfare.on('state', (state, info) => window.states.push({ state, ...info }));
      window.fanfare.subscribe(topic, ({ data }) => window.records.push(data), { onGap: (gap) => window.gaps.push(gap) });
      await new Promise((resolve) => {
        if (window.fanfare.state === 'live') resolve();
        else window.fanfare.on('state', (state) => state === 'live' && resolve());
      });
    },
    [topic, options],
  );
  return page;
}

export const recordsOf = (page) => page.evaluate(() => window.records);
export const statesOf = (page) => page.evaluate(() => window.states);

/** Waits until the page has recorded `last`. */
export const untilRecorded = (page, last) => page.waitForFunction((last) => window.records.at(-1) >= last, last);

/** Fails unless the records are consecutive numbers up to `last`. */
export function checkRecords(name, records, last) {
  const wrong = records.findIndex((number, index) => index && number !== records[index - 1] + 1);
  if (wrong > 0) throw new Error(`${name}: ${records.slice(Math.max(0, wrong - 3), wrong + 3)} at ${wrong}`);
  if (records.at(-1) !== last) throw new Error(`${name}: ends with ${records.at(-1)} instead of ${last}`);
}

/** Publishes 1, 2, 3, … to `topic` at `rate` per second; `stop` returns the last number. */
export function publishNumbers(url, { topic = 'numbers', rate = 50, headers = {} } = {}) {
  let last = 0;
  let isRunning = true;
  const task = (async () => {
    while (isRunning) {
      const next = Date.now() + 1000 / rate;
      const event = { topic, data: last + 1, id: `${topic} ${last + 1}` };
      const answer = await fetch(new URL('/events/publish', url), {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify(event),
      }).catch(() => undefined);
      if (answer?.ok) last++;
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - Date.now())));
    }
  })();
  return {
    get last() {
      return last;
    },
    async stop() {
      isRunning = false;
      await task;
      return last;
    },
  };
}

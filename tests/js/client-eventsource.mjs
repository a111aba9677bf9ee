// Owns the walk of a page on a platform without streaming bodies: the client uses `EventSource`, changes topics on the open
// stream, and resumes after cuts.
//
//     node client-eventsource.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]

import { checkRecords, openClientPage, publishNumbers, recordsOf, untilRecorded } from './client-pages.mjs';
import { runWalk } from './walk.mjs';

/** Too many for an address: the client adds the others to the open stream. */
const MORE_TOPICS = Array.from({ length: 400 }, (_, index) => `more:topics:with:long:names:${index}`);

await runWalk('client-eventsource', async (walker) => {
  const { url } = walker.options;
  const context = await walker.browser.newContext();
  await context.addInitScript(() => Object.defineProperty(Response.prototype, 'body', { get: () => null }));
  walker.at('opening the page');
  const page = await openClientPage(context, url);
  const transport = await page.evaluate(() => window.fanfare.info.transport);
  if (transport !== 'eventsource') throw new Error(`live by ${transport}`);
  const publisher = publishNumbers(url);
  await untilRecorded(page, 20);

  walker.at('following many topics');
  await page.evaluate((topics) => {
    window.more = [];
    window.fanfare.subscribe(topics, ({ topic }) => window.more.push(topic));
  }, MORE_TOPICS);
  const last = MORE_TOPICS.at(-1);
  const subscribers = async () => (await (await fetch(new URL(`/events/topics/${last}`, url))).json()).subscribers;
  while ((await subscribers()) !== 1) await new Promise((resolve) => setTimeout(resolve, 20));

  for (let cut = 0; cut < 3; cut++) {
    walker.at(`cut ${cut}`);
    await page.evaluate(() => window.fanfare.reconnect());
    await untilRecorded(page, publisher.last + 10);
  }
  walker.at('waiting for the last topic after the cuts');
  while ((await subscribers()) !== 1) await new Promise((resolve) => setTimeout(resolve, 20));
  await fetch(new URL('/events/publish', url), {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ topic: last, data: 1 }),
  });
  await page.waitForFunction((last) => window.more.includes(last), last);
  const end = await publisher.stop();
  await untilRecorded(page, end);
  checkRecords('the page', await recordsOf(page), end);
  walker.print({ ok: true });
});

// Owns the walk of one page with the client of clients/js: offline for a while, asleep for a while,
// and the hub restarted. The page ends with exactly the published events and reports its state meanwhile.
//
//     node client-page.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]
//
// Prints `{"ready":true}` and waits for a line on stdin: the hub has been restarted.

import { checkRecords, openClientPage, publishNumbers, recordsOf, statesOf, untilRecorded } from './client-pages.mjs';
import { startRelay } from './relay.mjs';
import { runWalk } from './walk.mjs';

await runWalk('client-page', async (walker) => {
  const { url } = walker.options;
  const context = await walker.browser.newContext();
  const relay = await startRelay(url);
  const page = await openClientPage(context, relay.url);
  const publisher = publishNumbers(url);
  await untilRecorded(page, 10);

  walker.at('taking the page offline');
  relay.cut();
  await page.waitForFunction(() => window.fanfare.state === 'offline');
  const missed = publisher.last + 50;
  while (publisher.last < missed) await new Promise((resolve) => setTimeout(resolve, 20));
  const offline = await recordsOf(page);
  if (offline.at(-1) >= missed) throw new Error('the page was not offline');
  await relay.restore();
  await untilRecorded(page, missed);
  // Firefox gives tests no way to freeze a page.
  if (walker.options.browser === 'chromium') {
    walker.at('freezing the page, as in a sleeping laptop');
    const session = await context.newCDPSession(page);
    await session.send('Page.setWebLifecycleState', { state: 'frozen' });
    const asleep = publisher.last + 100;
    while (publisher.last < asleep) await new Promise((resolve) => setTimeout(resolve, 20));
    await session.send('Page.setWebLifecycleState', { state: 'active' });
    await untilRecorded(page, asleep);
  }
  const last = await publisher.stop();
  await untilRecorded(page, last);
  checkRecords('after network and sleep came back', await recordsOf(page), last);
  await page.waitForFunction(() => window.fanfare.state === 'live');
  const states = (await statesOf(page)).map(({ state }) => state);
  const order = ['connecting', 'live', 'offline', 'catching-up', 'live'];
  for (const state of states) if (state === order[0]) order.shift();
  if (order.length) throw new Error(`states: ${states}`);
  if ((await page.evaluate(() => window.gaps)).length) throw new Error('a gap');

  walker.print({ ready: true });
  await walker.lineOfStdin('the hub was restarted');
  walker.at('waiting for the page to return to the new hub');
  // A hub in memory has lost its history: the page is told, and goes on.
  await page.waitForFunction(() => window.gaps.length === 1 && window.fanfare.state === 'live');
  const [gap] = await page.evaluate(() => window.gaps);
  if (gap.reason !== 'epoch') throw new Error(`gap: ${JSON.stringify(gap)}`);
  const before = (await recordsOf(page)).length;
  const next = publishNumbers(url);
  await page.waitForFunction((before) => window.records.length >= before + 20, before);
  const end = await next.stop();
  await page.waitForFunction((end) => window.records.at(-1) === end, end);
  checkRecords('after the restart', (await recordsOf(page)).slice(before), end);
  walker.print({ ok: true });
});

// Owns the walk of a page behind nginx and three instances: the instance of its stream is killed, and the page gets every
// event once.
//
//     node client-cluster.mjs --url http://127.0.0.1:PROXY --screenshots DIR [--timeout SECONDS]
//
// Prints `{"ready":true}` and waits for a line on stdin: the instance was killed.

import { checkRecords, openClientPage, publishNumbers, recordsOf, untilRecorded } from './client-pages.mjs';
import { runWalk } from './walk.mjs';

await runWalk('client-cluster', async (walker) => {
  const { url } = walker.options;
  walker.at('opening the page');
  const page = await openClientPage(await walker.browser.newContext(), url);
  const publisher = publishNumbers(url);
  await untilRecorded(page, 20);
  walker.print({ ready: true });

  await walker.lineOfStdin('the instance was killed');
  walker.at('waiting for the events after the kill');
  await untilRecorded(page, publisher.last + 50);
  walker.at('adding a topic on the new instance');
  await page.evaluate(() => window.fanfare.subscribe('more', ({ data }) => (window.more = data)));
  const publish = () => page.evaluate(() => window.fanfare.publish('more', 'here'));
  for (let isThere = false; !isThere; isThere = await page.evaluate(() => window.more === 'here')) await publish();
  const last = await publisher.stop();
  await untilRecorded(page, last);
  checkRecords('the page', await recordsOf(page), last);
  const gaps = await page.evaluate(() => window.gaps);
  if (gaps.length) throw new Error(`gaps: ${JSON.stringify(gaps)}`);
  walker.print({ ok: true, events: last });
});

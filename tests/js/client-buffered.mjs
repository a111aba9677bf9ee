// Owns the walk of a page behind a proxy holding streams back: the client polls, loses nothing, and streams again once
// the proxy lets streams pass.
//
//     node client-buffered.mjs --url http://127.0.0.1:PROXY --hub http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]
//
// Prints `{"ready":true}` and waits for a line on stdin: the proxy lets streams pass.

import { checkRecords, openClientPage, publishNumbers, recordsOf, untilRecorded } from './client-pages.mjs';
import { runWalk } from './walk.mjs';

const options = { connectMs: 1500, probeMs: 2000 };

await runWalk('client-buffered', async (walker) => {
  const { url, hub } = walker.options;
  walker.at('waiting for the first poll');
  const context = await walker.browser.newContext();
  const page = await openClientPage(context, url, { options });
  const transport = () => page.evaluate(() => window.fanfare.info.transport);
  if ((await transport()) !== 'poll') throw new Error(`live by ${await transport()}`);
  const publisher = publishNumbers(hub);
  walker.at('following by polls');
  await untilRecorded(page, 100);
  walker.print({ ready: true });

  await walker.lineOfStdin('the proxy lets streams pass');
  walker.at('waiting for the stream');
  await page.waitForFunction(() => window.fanfare.info.transport === 'stream' && window.fanfare.state === 'live');
  await untilRecorded(page, publisher.last + 50);
  const last = await publisher.stop();
  await untilRecorded(page, last);
  checkRecords('the page', await recordsOf(page), last);
  const gaps = await page.evaluate(() => window.gaps);
  if (gaps.length) throw new Error(`gaps: ${JSON.stringify(gaps)}`);
  walker.print({ ok: true, events: last });
}, ['hub']);

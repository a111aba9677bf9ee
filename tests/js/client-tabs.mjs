// Owns the walk of tabs sharing one stream: one connection for ten tabs; leaders closed, crashed and frozen, and followers
// frozen, under load. Each tab gets each event once and in order. Firefox gives tests no way to freeze a tab.
//
//     node client-tabs.mjs --url http://127.0.0.1:PORT --screenshots DIR --rounds 6 [--timeout SECONDS]
//         [--browser chromium|firefox]

import { checkRecords, openClientPage, publishNumbers, recordsOf, untilRecorded } from './client-pages.mjs';
import { runWalk } from './walk.mjs';

const TAB_COUNT = 10;
const options = { tabs: 'shared' };

await runWalk('client-tabs', async (walker) => {
  const { url, rounds } = walker.options;
  const context = await walker.browser.newContext();
  const tabs = new Set();
  let leader;

  async function openTab() {
    const tab = await openClientPage(watched, url, { options });
    tabs.add(tab);
    return tab;
  }

  const watched = {
    async newPage() {
      const page = await context.newPage();
      // The tab with the newest stream is the leader.
      page.on('request', (request) => {
        if (request.method() === 'POST' && request.url().endsWith('/events/stream')) leader = page;
      });
      page.on('crash', () => tabs.delete(page));
      return page;
    },
  };

  const connections = async () => (await (await fetch(new URL('/stats', url))).json()).connections;

  walker.at('opening the tabs');
  const publisher = publishNumbers(url);
  while (tabs.size < TAB_COUNT) await openTab();
  const open = await connections();
  if (open !== 1) throw new Error(`${open} connections of ${TAB_COUNT} tabs`);

  async function freeze(page) {
    const session = await context.newCDPSession(page);
    await session.send('Page.setWebLifecycleState', { state: 'frozen' });
    return () => session.send('Page.setWebLifecycleState', { state: 'active' });
  }

  async function crash(page) {
    const session = await context.newCDPSession(page);
    await Promise.race([session.send('Page.crash').catch(() => {}), page.waitForEvent('crash')]);
  }

  const close = (page) => page.close();
  // A leader leaving its page, as by a link.
  const leave = (page) => page.goto('about:blank').then(() => void page.close());

  const ends = {
    // A frozen follower's messages wait for it.
    chromium: { close, crash, freeze, follower: freeze },
    firefox: { close, leave },
  }[walker.options.browser];
  const kinds = Object.keys(ends);
  const slowestMs = {};
  for (let round = 0; round < Number(rounds); round++) {
    const kind = kinds[round % kinds.length];
    walker.at(`round ${round}: ${kind}`);
    const old = kind === 'follower' ? [...tabs].find((tab) => tab !== leader) : leader;
    tabs.delete(old);
    const start = Date.now();
    const thaw = await ends[kind](old);
    const next = publisher.last + 1;
    for (const tab of tabs) await untilRecorded(tab, next);
    slowestMs[kind] = Math.max(slowestMs[kind] ?? 0, Date.now() - start);
    if (thaw) {
      await thaw();
      tabs.add(old);
    }
    while (tabs.size < TAB_COUNT) await openTab();
  }
  walker.at('taking the leader and a follower through the back/forward cache');
  const cached = [leader, [...tabs].find((tab) => tab !== leader)];
  const event = (type) => dispatchEvent(new PageTransitionEvent(type, { persisted: true }));
  for (const tab of cached) await tab.evaluate(event, 'pagehide');
  const away = publisher.last + 20;
  for (const tab of tabs) if (!cached.includes(tab)) await untilRecorded(tab, away);
  for (const tab of cached) await tab.evaluate(event, 'pageshow');
  walker.at('reading the records');
  const last = await publisher.stop();
  for (const [index, tab] of [...tabs].entries()) {
    await untilRecorded(tab, last);
    checkRecords(`tab ${index}`, await recordsOf(tab), last);
    const gaps = await tab.evaluate(() => window.gaps);
    if (gaps.length) throw new Error(`tab ${index}: ${JSON.stringify(gaps)}`);
  }
  walker.print({ ok: true, events: last, slowestMs, connections: await connections() });
}, ['rounds']);

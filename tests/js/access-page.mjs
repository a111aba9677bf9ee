// Owns the walk of pages of other origins through a hub with access control: EventSource with cookie and with ticket,
// also after a cut of the network, and fetch with a token; then a page of a foreign origin, with the same cookie.
//
//     node access-page.mjs --url HUB --page URL --foreign URL --token TOKEN --screenshots DIR
//
// HUB admits the origin of `--page`, and not that of `--foreign`. TOKEN grants `a:1` and is the cookie `fanfare` too.

import { startRelay } from './relay.mjs';
import { runWalk } from './walk.mjs';

/** Opens an EventSource in the page. Its events gather in `window.seen`. */
const openSource = (page, url, withCredentials) =>
  page.evaluate(
    ([url, withCredentials]) => {
      window.seen = [];
      window.errors = 0;
      window.source = new EventSource(url, { withCredentials });
      window.source.onmessage = (event) => window.seen.push(event.data);
      window.source.onerror = () => window.errors++;
      window.source.addEventListener('connected', () => window.seen.push('connected'));
    },
    [url, withCredentials],
  );

const untilSeen = (page, data) => page.waitForFunction((data) => window.seen.includes(data), data);

await runWalk(
  'access-page',
  async (walker) => {
    const { url, page: own, foreign, token } = walker.options;
    const relay = await startRelay(url);
    const stream = '/events/stream?topic=a:1';

    const publish = async (data) => {
      const answer = await fetch(`${url}/events/publish`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
        body: JSON.stringify({ topic: 'a:1', data }),
      });
      if (!answer.ok) throw new Error(`publish: ${answer.status} ${await answer.text()}`);
    };
    const logIn = (page) =>
      page.evaluate((token) => {
        document.cookie = `fanfare=${token}; path=/`;
      }, token);
    /** Follows the EventSource through a cut: it returns by itself, and misses nothing. */
    const followThroughCut = async (page, name) => {
      await untilSeen(page, 'connected');
      await publish(`${name} 1`);
      await untilSeen(page, `${name} 1`);
      relay.cut();
      await page.waitForFunction(() => window.errors > 0);
      await publish(`${name} 2`);
      await relay.restore();
      await untilSeen(page, `${name} 2`);
      await publish(`${name} 3`);
      await untilSeen(page, `${name} 3`);
      const own = (await page.evaluate(() => window.seen)).filter((data) => data.startsWith(name));
      if (own.join() !== `${name} 1,${name} 2,${name} 3`) throw new Error(`seen: ${own}`);
      await page.evaluate(() => window.source.close());
    };

    const page = await walker.openPage('its own', new URL('/health/live', own).href);
    await logIn(page);
    walker.at('an EventSource with the cookie');
    await openSource(page, relay.url + stream, true);
    await followThroughCut(page, 'cookie');

    walker.at('an EventSource with a ticket');
    const ticket = await page.evaluate(
      async ([url, token]) => {
        const headers = { Authorization: `Bearer ${token}` };
        const answer = await fetch(`${url}/events/tickets`, { method: 'POST', headers });
        return (await answer.json()).ticket;
      },
      [relay.url, token],
    );
    await openSource(page, `${relay.url}${stream}&ticket=${ticket}`, false);
    await followThroughCut(page, 'ticket');

    walker.at('fetch with the token, and its refusal');
    const fetched = page.evaluate(
      async ([url, token]) => {
        const answer = await fetch(url, { headers: { Authorization: `Bearer ${token}` } });
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let text = ''; ; ) {
          const { value, done } = await reader.read();
          if (done) return text;
          text += value;
          window.fetched = text;
          if (text.includes('by fetch')) return text;
        }
      },
      [url + stream, token],
    );
    await page.waitForFunction(() => window.fetched?.includes('event: connected'));
    await publish('by fetch');
    await fetched;
    const code = await page.evaluate(async (url) => {
      const answer = await fetch(url);
      return `${answer.status} ${(await answer.json()).error.code} ${answer.headers.get('www-authenticate')}`;
    }, url + stream);
    if (code !== '401 unauthenticated Bearer') throw new Error(`a page reads its refusal: ${code}`);

    walker.at('a foreign page, with the cookie of the same host');
    // Not by the walker: for Firefox, a blocked request is an error of the page.
    const evil = await walker.browser.newPage();
    await evil.goto(new URL('/health/live', foreign).href);
    await logIn(evil);
    await openSource(page, url + stream, true);
    await untilSeen(page, 'connected');
    await openSource(evil, url + stream, true);
    await evil.waitForFunction(() => window.errors > 0);
    const changes = await evil.evaluate(
      async ([url, stream]) => {
        const results = [];
        const attempt = async (path, options) => {
          try {
            const answer = await fetch(url + path, { credentials: 'include', ...options });
            results.push(`${path}: ${answer.type} ${answer.type === 'opaque' ? '' : await answer.text()}`);
          } catch {
            results.push('nothing');
          }
        };
        const body = JSON.stringify({ topic: 'a:1', data: 'evil' });
        await attempt(stream, {});
        await attempt('/events/publish', { method: 'POST', body, headers: { 'Content-Type': 'application/json' } });
        await attempt('/events/publish', { method: 'POST', body, headers: { 'Content-Type': 'text/plain' } });
        // Without reading the answer, a browser sends these without asking first.
        await attempt('/events/publish', { method: 'POST', body, mode: 'no-cors' });
        await attempt('/events/tickets', { method: 'POST', mode: 'no-cors' });
        return results;
      },
      [url, stream],
    );
    const unreadable = changes.filter((result) => result === 'nothing' || result.endsWith(': opaque '));
    if (unreadable.length !== 5) throw new Error(`a foreign page reads ${JSON.stringify(changes)}`);
    await publish('after the attack');
    await untilSeen(page, 'after the attack');
    const seen = await page.evaluate(() => window.seen);
    if (seen.join() !== 'connected,after the attack') throw new Error(`the foreign page has changed: ${seen}`);
    if ((await evil.evaluate(() => window.seen)).length) throw new Error('the foreign page has events');
    walker.print({ ok: true });
  },
  ['page', 'foreign', 'token'],
);

// Owns the walk of pages with tokens ending soon: renewed on the open stream, once for all tabs; by tickets without
// streaming bodies; and refused for good.
//
//     node client-tokens.mjs --url http://127.0.0.1:PORT --secret TEXT --screenshots DIR [--timeout SECONDS]
//
// The hub has the key TEXT (HS256), and `access.renew_before` of half a token's life.

import { createHmac } from 'node:crypto';
import { checkRecords, openClientPage, publishNumbers, recordsOf, statesOf, untilRecorded } from './client-pages.mjs';
import { runWalk } from './walk.mjs';

const LIFE_S = 6;
const ROUNDS = 3;

await runWalk('client-tokens', async (walker) => {
  const { url, secret } = walker.options;
  const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  function mint(user, seconds = LIFE_S) {
    const grant = { subscribe: ['numbers'], publish: ['numbers'] };
    const claims = { sub: user, exp: Math.floor(Date.now() / 1000) + seconds, fanfare: grant };
    const text = `${base64({ alg: 'HS256', typ: 'JWT' })}.${base64(claims)}`;
    return `${text}.${createHmac('sha256', secret).update(text).digest('base64url')}`;
  }
  const publisher = publishNumbers(url, { headers: { authorization: `Bearer ${mint('publisher', 3600)}` } });

  async function contextOf(user, minted, isValid = () => true) {
    const context = await walker.browser.newContext();
    await context.exposeFunction('mintToken', () => {
      minted.push(Date.now());
      return isValid() ? mint(user) : 'no.valid.token';
    });
    return context;
  }

  walker.at('opening tabs with short tokens');
  const tabTokens = [];
  let isValid = true;
  const context = await contextOf('ann', tabTokens, () => isValid);
  const tabs = [];
  while (tabs.length < 3) tabs.push(await openClientPage(context, url, { options: { tabs: 'shared' } }));
  const begun = tabTokens.length;

  walker.at('opening a page without streaming bodies');
  const tickets = [];
  const ticketTokens = [];
  const old = await contextOf('bob', ticketTokens);
  await old.addInitScript(() => Object.defineProperty(Response.prototype, 'body', { get: () => null }));
  old.on('request', (request) => request.url().includes('/stream?') && tickets.push(new URL(request.url())));
  const withTicket = await openClientPage(old, url);

  walker.at('waiting for renewals');
  while (Math.min(tabTokens.length - begun, ticketTokens.length) < ROUNDS) await new Promise((resolve) => setTimeout(resolve, 50));
  const next = publisher.last + 20;
  const pages = [...tabs, withTicket];
  for (const page of pages) await untilRecorded(page, next);
  for (const [index, page] of pages.entries()) {
    const records = await recordsOf(page);
    checkRecords(`page ${index}`, records, records.at(-1));
    const states = (await statesOf(page)).map(({ state }) => state);
    if (states.some((state) => state === 'offline')) throw new Error(`page ${index}: ${states}`);
  }

  const transport = await withTicket.evaluate(() => window.fanfare.info.transport);
  const withoutTicket = tickets.filter(({ searchParams }) => !searchParams.has('ticket') || searchParams.has('token'));
  if (transport !== 'eventsource' || !tickets.length || withoutTicket.length) {
    throw new Error(`the page without streaming bodies: ${transport}, ${tickets.map(({ pathname }) => pathname)}`);
  }
  await old.close();

  walker.at('waiting for the end of the last token');
  isValid = false;
  for (const page of tabs) await page.waitForFunction(() => window.fanfare.state === 'unauthorized');
  walker.at('logging in again');
  isValid = true;
  await tabs[2].evaluate(() => window.fanfare.reconnect());
  const last = await publisher.stop();
  for (const [index, page] of tabs.entries()) {
    await page.waitForFunction(() => window.fanfare.state === 'live');
    await untilRecorded(page, last);
    checkRecords(`tab ${index} after the login`, await recordsOf(page), last);
  }
  walker.print({ ok: true, events: last, tokens: tabTokens.length });
}, ['secret']);

// Owns the walk through the landing page of a hub without data, in headless Chromium: its counters move, an event published
// in the page arrives at a topic followed there, and a topic added later misses nothing.
//
//     node landing-page.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]

import { runWalk } from './walk.mjs';

const DESKTOP = { viewport: { width: 1200, height: 900 } };
const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  isMobile: true,
  hasTouch: true,
  colorScheme: 'dark',
};

await runWalk('landing-page', async (walker) => {
  const desktop = await walker.openPage('desktop', '/', DESKTOP);
  await walker.untilText(desktop, '#state', 'live');
  await walker.untilText(desktop, '#publish-line', /^curl --json '{"topic":"news","data":"hello"}' http/);
  await follow(walker, desktop, 'news');
  await walker.untilText(desktop, '#subscription-list li:nth-child(1) .count', '1 subscriber');
  await walker.untilText(desktop, '#streams', '1');

  await publish(walker, desktop, 'news', 'first');
  await walker.untilText(desktop, '#publish-answer', /1 stream gets it\.$/);
  await walker.untilText(desktop, '#log li:first-child .text', 'news: first');
  await publish(walker, desktop, 'other:1', 'not followed');
  await follow(walker, desktop, 'other:*');
  await publish(walker, desktop, 'other:2', '{"n": 1}');
  await walker.untilText(desktop, '#log li:first-child .text', 'other:2: {"n":1}');

  await publish(walker, desktop, 'no topic', 'x');
  await walker.untilText(desktop, '#publish-answer', /^bad_topic: /);
  await walker.untilText(desktop, '#published', /^3 in all$/);
  await walker.checkAccessibility(desktop);
  await walker.takeScreenshot(desktop, 'landing-desktop.png');

  walker.at('removing the subscriptions');
  await desktop.click('#subscription-list li:first-child button');
  await desktop.click('#subscription-list li:first-child button');
  await walker.untilText(desktop, '#streams', '0');
  await desktop.close();

  const phone = await walker.openPage('phone', '/', PHONE);
  await walker.untilText(phone, '#state', 'live');
  await follow(walker, phone, 'a:very:long:topic:of:many:segments:with:no:end:in:sight:at:all');
  await walker.checkWidth(phone, PHONE.viewport.width);
  await walker.checkAccessibility(phone);
  await walker.takeScreenshot(phone, 'landing-phone-dark.png');
  walker.print({ ok: true });
});

async function follow(walker, page, topic) {
  walker.at(`following ${topic}`);
  await page.fill('#follow-topic', topic);
  await page.click('#follow-form button');
}

async function publish(walker, page, topic, data) {
  walker.at(`publishing to ${topic}`);
  const answered = page.waitForResponse((response) => response.url().endsWith('/events/publish'));
  await page.fill('#publish-topic', topic);
  await page.fill('#publish-data', data);
  await page.click('#publish-form button');
  await answered;
}

// Owns the walk through the demo page in headless Chromium: it goes live, prices move, a note can be published,
// and after a restart of the hub it goes live again. Takes the screenshots of the page.
//
//   node demo-page.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]
//
// Prints `{"ready":true}` once the first half is done and waits for a line on stdin: the hub has been restarted.
// At the end prints `{"ok":true,…}` and exits 0; any failure is a message on stderr and exit 1.

import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { launchChromium } from './chromium.mjs';

const DESKTOP = { viewport: { width: 1200, height: 900 } };
const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  isMobile: true, // a page without a viewport meta is then laid out 980 wide, as on a real phone
  hasTouch: true,
  colorScheme: 'dark',
};

/** Fewer moving cards than this, and the demo shows nothing. */
const MIN_CARD_COUNT = 3;

const { values: options } = parseArgs({
  options: {
    url: { type: 'string' },
    screenshots: { type: 'string' },
    timeout: { type: 'string', default: '60' },
  },
});

let stage = 'starting Chromium';
let browser;
let isFailing = false;

if (!options.url || !options.screenshots) await fail('usage: --url URL --screenshots DIR [--timeout SECONDS]', 2);
setTimeout(() => fail(`timeout: ${options.timeout} s passed while ${stage}`), Number(options.timeout) * 1000);

try {
  browser = await launchChromium();
  await walk();
  await browser.close();
  process.exit(0);
} catch (error) {
  await fail(`failed while ${stage}: ${error.stack}`);
}

async function walk() {
  await mkdir(options.screenshots, { recursive: true });

  const desktop = await openPage('desktop', DESKTOP);
  await untilLive(desktop);
  await untilPricesMove(desktop);
  const note = await publishNote(desktop);
  print({ ready: true });

  stage = 'waiting for the line that says that the hub was restarted';
  await lineOfStdin();
  await untilLive(desktop);
  await untilPricesMove(desktop);
  await takeScreenshot(desktop, 'demo-desktop.png');
  await desktop.close();

  const phone = await openPage('phone', PHONE);
  await untilLive(phone);
  await untilPricesMove(phone);
  await checkWidth(phone, PHONE.viewport.width);
  await takeScreenshot(phone, 'demo-phone-dark.png');
  print({ ok: true, note });
}

async function openPage(name, device) {
  stage = `opening the page (${name})`;
  const page = await browser.newPage(device);
  page.setDefaultTimeout(0); // one deadline for all: --timeout
  page.on('pageerror', (error) => fail(`the page threw while ${stage}: ${error.stack}`));
  const response = await page.goto(new URL('/', options.url).href);
  if (!response.ok()) throw new Error(`status ${response.status()}`);
  return page;
}

async function untilLive(page) {
  stage = 'waiting until #state says live';
  await page.waitForFunction(() => document.querySelector('#state')?.textContent.trim() === 'live');
}

/** Compares with the prices of this moment: what stood there before a restart proves nothing. */
async function untilPricesMove(page) {
  stage = `waiting until ${MIN_CARD_COUNT} cards have prices`;
  const before = await page.waitForFunction((minCardCount) => {
    const cards = [...document.querySelectorAll('[data-symbol]')];
    const prices = cards.map((card) => [card.dataset.symbol, card.querySelector('.price')?.textContent.trim()]);
    const known = prices.filter(([, price]) => price);
    return known.length >= minCardCount && Object.fromEntries(known);
  }, MIN_CARD_COUNT);

  stage = `waiting until the prices of ${MIN_CARD_COUNT} cards change`;
  await page.waitForFunction(
    ([pricesBefore, minCardCount]) => {
      const hasMoved = (card) => {
        const price = card.querySelector('.price')?.textContent.trim();
        const priceBefore = pricesBefore[card.dataset.symbol];
        return price && priceBefore && price !== priceBefore;
      };
      return [...document.querySelectorAll('[data-symbol]')].filter(hasMoved).length >= minCardCount;
    },
    [await before.jsonValue(), MIN_CARD_COUNT],
  );
}

/** Publishes as a visitor does: topic and type as the form proposes them, if it proposes any. */
async function publishNote(page) {
  const note = `note ${process.pid} from the page test`;
  stage = 'filling in #publish-form';
  await fillIfEmpty(page.locator('#publish-topic'), 'demo:notes');
  await fillIfEmpty(page.locator('#publish-type'), 'note');
  await page.locator('#publish-data').fill(note);
  await page.locator('#publish-form').locator('button, input[type=submit]').first().click();

  stage = 'waiting for #publish-answer';
  const answer = await page.waitForFunction(() => document.querySelector('#publish-answer')?.textContent.trim());
  stage = `waiting for the note in #log (#publish-answer: ${await answer.jsonValue()})`;
  await page.waitForFunction((text) => document.querySelector('#log')?.textContent.includes(text), note);
  return note;
}

async function fillIfEmpty(field, value) {
  if (!(await field.inputValue())) await field.fill(value);
}

async function checkWidth(page, width) {
  stage = `checking that nothing is wider than ${width} px`;
  // Not against `innerWidth`: a phone zooms out to what is too wide, and innerWidth grows with it.
  const { scrollWidth, widest } = await page.evaluate((width) => {
    const tooWide = [...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > width + 1);
    const names = tooWide.map((e) => `${e.localName}${e.id && `#${e.id}`}`);
    return { scrollWidth: document.documentElement.scrollWidth, widest: names.slice(0, 5).join(', ') };
  }, width);
  if (scrollWidth > width) throw new Error(`the page is ${scrollWidth} px wide and scrolls sideways: ${widest}`);
}

async function takeScreenshot(page, file) {
  stage = `taking ${file}`;
  await page.screenshot({ path: join(options.screenshots, file), fullPage: true });
}

async function lineOfStdin() {
  for await (const line of createInterface({ input: process.stdin })) return line;
  throw new Error('stdin ended');
}

function print(line) {
  process.stdout.write(JSON.stringify(line) + '\n');
}

/** Only the first failure is told: closing the browser makes more of them. */
async function fail(message, code = 1) {
  if (isFailing) return;
  isFailing = true;
  console.error(`demo-page: ${message}`);
  await browser?.close().catch(() => {});
  process.exit(code);
}

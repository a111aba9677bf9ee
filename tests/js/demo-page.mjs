// Owns the walk through the demo page in headless Chromium: it goes live, prices move, the heat map is whole, publishing a
// note works, a cut and a restart of the hub lose nothing, and two tabs share one stream. Takes the screenshots of the page.
//
//     node demo-page.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]
//
// Prints `{"ready":true}` after the first half and waits for a line on stdin: the hub has been restarted. At
// the end prints `{"ok":true,…}` and exits 0; any failure is a message on stderr and exit 1.

import { runWalk } from './walk.mjs';

const DESKTOP = { viewport: { width: 1200, height: 900 } };
const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  isMobile: true, // lays out a page without a viewport meta 980 wide, like a real phone
  hasTouch: true,
  colorScheme: 'dark',
};

/** The demo must show at least this number of moving cards. */
const MIN_CARD_COUNT = 3;

const TICKER_COUNT = 1000;

await runWalk('demo-page', async (walker) => {
  const context = await walker.browser.newContext(DESKTOP);
  const desktop = await walker.openPage('desktop', '/', { context });
  await untilLive(walker, desktop);
  await untilPricesMove(walker, desktop);
  await untilTickers(walker, desktop);
  const note = await publishNote(walker, desktop);
  await cut(walker, desktop);
  const second = await walker.openPage('second tab', '/', { context });
  await walker.untilText(second, '#tabs', '2');
  await second.close();
  walker.print({ ready: true });

  await walker.lineOfStdin('the hub was restarted');
  await untilLive(walker, desktop);
  await walker.untilText(desktop, '#count-restarts', '1');
  await untilPricesMove(walker, desktop);
  await checkCounts(walker, desktop);
  await walker.checkAccessibility(desktop);
  await walker.takeScreenshot(desktop, 'demo-desktop.png');
  await desktop.close();

  const phone = await walker.openPage('phone', '/', PHONE);
  await untilLive(walker, phone);
  await untilPricesMove(walker, phone);
  await walker.checkWidth(phone, PHONE.viewport.width);
  await walker.checkAccessibility(phone);
  await walker.takeScreenshot(phone, 'demo-phone-dark.png');
  walker.print({ ok: true, note });
});

async function untilLive(walker, page) {
  await walker.untilText(page, '#state', 'live');
}

async function untilTickers(walker, page) {
  walker.at(`waiting for ${TICKER_COUNT} tickers`);
  await page.waitForFunction((count) => Number(document.querySelector('#heatmap').dataset.tickers) === count, TICKER_COUNT);
}

/** Cuts the connection by the page's button: the stream returns, and every number arrives once. */
async function cut(walker, page) {
  walker.at('cutting the connection');
  await page.locator('#cut').click();
  await walker.untilText(page, '#reconnects', '1');
  await untilLive(walker, page);
  await checkCounts(walker, page);
}

async function checkCounts(walker, page) {
  walker.at('waiting for numbers');
  const received = async () => Number(await page.locator('#count-received').textContent());
  const before = await received();
  await page.waitForFunction((before) => Number(document.querySelector('#count-received').textContent) > before + 5, before);
  for (const id of ['missing', 'repeated']) {
    const count = await page.locator(`#count-${id}`).textContent();
    if (count !== '0') throw new Error(`${count} ${id}`);
  }
}

/** Compares with the prices of this moment: prices from before a restart prove nothing. */
async function untilPricesMove(walker, page) {
  walker.at(`waiting until ${MIN_CARD_COUNT} cards have prices`);
  const before = await page.waitForFunction((minCardCount) => {
    const cards = [...document.querySelectorAll('[data-symbol]')];
    const prices = cards.map((card) => [card.dataset.symbol, card.querySelector('.price')?.textContent.trim()]);
    const known = prices.filter(([, price]) => price);
    return known.length >= minCardCount && Object.fromEntries(known);
  }, MIN_CARD_COUNT);

  walker.at(`waiting until the prices of ${MIN_CARD_COUNT} cards change`);
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

/** Publishes like a visitor, with the topic and type proposed by the form, if any. */
async function publishNote(walker, page) {
  const note = `note ${process.pid} from the page test`;
  walker.at('filling in #publish-form');
  await fillIfEmpty(page.locator('#publish-topic'), 'demo:notes');
  await fillIfEmpty(page.locator('#publish-type'), 'note');
  await page.locator('#publish-data').fill(note);
  await page.locator('#publish-form').locator('button, input[type=submit]').first().click();

  walker.at('waiting for #publish-answer');
  const answer = await page.waitForFunction(() => document.querySelector('#publish-answer')?.textContent.trim());
  walker.at(`waiting for the note in #log (#publish-answer: ${await answer.jsonValue()})`);
  await page.waitForFunction((text) => document.querySelector('#log')?.textContent.includes(text), note);
  return note;
}

async function fillIfEmpty(field, value) {
  if (!(await field.inputValue())) await field.fill(value);
}

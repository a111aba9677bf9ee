// Owns the parts shared by walks through pages: options, the one deadline, screenshots, reports to the test,
// and the end after a failure. Each page's checks are in its own walk.
//
//     node <walk>.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS] [--browser chromium|firefox]
//
// Lines of JSON on stdout are for the test. Exit code 0: all was seen; any failure is a message on stderr and
// exit 1.

import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { BROWSER_NAMES, launch } from './launch.mjs';

const AXE = await readFile(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

/** Runs `walk` with a browser and ends the process. `more` are further options of the script, each with a value. */
export async function runWalk(name, walk, more = []) {
  const texts = Object.fromEntries(['url', 'screenshots', ...more].map((option) => [option, { type: 'string' }]));
  const defaults = {
    timeout: { type: 'string', default: '60' },
    browser: { type: 'string', default: 'chromium' },
  };
  const { values: options } = parseArgs({ options: { ...texts, ...defaults } });

  let stage = `starting ${options.browser}`;
  let browser;
  let isFailing = false;
  let lines;

  /** Reports only the first failure: closing the browser causes more. */
  async function fail(message, code = 1) {
    if (isFailing) return;
    isFailing = true;
    console.error(`${name}: ${message}`);
    await browser?.close().catch(() => {});
    process.exit(code);
  }

  const missing = Object.keys(texts).filter((option) => !options[option]);
  if (missing.length) await fail(`missing: --${missing.join(', --')}`, 2);
  if (!BROWSER_NAMES.includes(options.browser)) await fail(`--browser is one of ${BROWSER_NAMES}`, 2);
  setTimeout(() => fail(`timeout: ${options.timeout} s passed while ${stage}`), Number(options.timeout) * 1000);

  const walker = {
    options,

    get browser() {
      return browser;
    },

    /** Sets the current stage, for the message of a failure. */
    at(text) {
      stage = text;
    },

    /** Opens a page of the server, in `device.context` if given. `prepare` runs in it before the page's own scripts. */
    async openPage(title, path = '/', device = {}, prepare) {
      stage = `opening the page (${title})`;
      const page = await (device.context?.newPage() ?? browser.newPage(device));
      page.setDefaultTimeout(0); // one deadline for all: --timeout
      page.on('pageerror', (error) => fail(`the page threw while ${stage}: ${error.stack}`));
      await page.addInitScript({ content: AXE });
      if (prepare) await page.addInitScript(prepare);
      const response = await page.goto(new URL(path, options.url).href);
      if (!response.ok()) throw new Error(`status ${response.status()}`);
      return page;
    },

    /** Waits until an element's text equals or matches `wanted`. */
    async untilText(page, selector, wanted) {
      stage = `waiting until ${selector} says ${wanted}`;
      await page.waitForFunction(
        ([selector, wanted]) => {
          const text = document.querySelector(selector)?.textContent.trim() ?? '';
          return wanted instanceof RegExp ? wanted.test(text) : text === wanted;
        },
        [selector, wanted],
      );
    },

    /** Fails if the page is wider than its window. */
    async checkWidth(page, width) {
      stage = `checking the width: at most ${width} px`;
      // Not against `innerWidth`: a phone zooms out to fit wide content, and innerWidth grows with it.
      const { scrollWidth, widest } = await page.evaluate((width) => {
        const all = [...document.body.querySelectorAll('*')];
        const tooWide = all.filter((e) => e.getBoundingClientRect().right > width + 1);
        const names = tooWide.map((e) => `${e.localName}${e.id && `#${e.id}`}`);
        return { scrollWidth: document.documentElement.scrollWidth, widest: names.slice(0, 5).join(', ') };
      }, width);
      if (scrollWidth > width) throw new Error(`the page is ${scrollWidth} px wide and scrolls sideways: ${widest}`);
    },

    /** Fails if axe finds a violation of accessibility rules in the page's present state. */
    async checkAccessibility(page) {
      stage = 'checking with axe';
      const { violations } = await page.evaluate(() => window.axe.run());
      const found = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html }) => html).join(' ')}`);
      if (found.length) throw new Error(`axe found:\n${found.join('\n')}`);
    },

    async takeScreenshot(page, file) {
      stage = `taking ${file}`;
      await mkdir(options.screenshots, { recursive: true });
      await page.screenshot({ path: join(options.screenshots, file), fullPage: true });
    },

    /** Sends the test a line of JSON. */
    print(line) {
      process.stdout.write(JSON.stringify(line) + '\n');
    },

    /** Waits for the test's line: its part is done. */
    async lineOfStdin(what) {
      stage = `waiting for the line: ${what}`;
      lines ??= createInterface({ input: process.stdin })[Symbol.asyncIterator]();
      const { value, done } = await lines.next();
      if (done) throw new Error('stdin ended');
      return value;
    },
  };

  try {
    browser = await launch(options.browser);
    await walk(walker);
    await browser.close();
    process.exit(0);
  } catch (error) {
    await fail(`failed while ${stage}: ${error.stack}`);
  }
}

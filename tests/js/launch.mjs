// Owns the start of browsers in tests: Debian's own builds of Chromium and Firefox, headless.

import { chromium, firefox } from 'playwright-core';

const CHROMIUM_ARGS = [
  '--no-sandbox', // CI is root in a container
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const BROWSERS = {
  chromium: () =>
    chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: CHROMIUM_ARGS }),
  // The channel stands for WebDriver BiDi: without it, Playwright expects a Firefox of its own.
  firefox: () =>
    firefox.launch({
      channel: 'moz-firefox',
      executablePath: process.env.FIREFOX ?? '/usr/bin/firefox-esr',
    }),
};

export const BROWSER_NAMES = Object.keys(BROWSERS);

/** Starts `chromium` or `firefox`. `CHROMIUM` and `FIREFOX` name other builds than Debian's. */
export const launch = (name) => BROWSERS[name]();

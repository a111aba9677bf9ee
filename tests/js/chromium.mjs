// Owns the start of Chromium in tests: Debian's own build, headless, with requests only to the hub.

import { chromium } from 'playwright-core';

const ARGS = [
  '--no-sandbox', // CI is root in a container
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** `CHROMIUM` names another build than Debian's. */
export function launchChromium() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ARGS });
}

// Owns the reader of streams through the `EventSource` of a real browser: Chromium, or Firefox with `--browser firefox`.
// Options and output are described in reader.mjs.

import { launch } from './launch.mjs';
import { startReader } from './reader.mjs';

const reader = startReader('browser');
const browser = await launch(reader.browser);
reader.beforeExit(() => browser.close());
const page = await browser.newPage();
await page.exposeFunction('report', (call, ...args) => reader[call](...args));

// Any page of the hub's origin makes EventSource same-origin, as on a user's own site.
await page.goto(`${reader.origin}/health/live`);
await page.evaluate(
  ({ streamUrl, types }) => {
    const source = new EventSource(streamUrl);
    source.onopen = () => report('onOpen');
    source.onerror = () => {
      const isClosed = source.readyState === EventSource.CLOSED;
      report('onError', isClosed ? 'closed' : 'reconnecting');
      if (isClosed) report('onClosed', 'EventSource is closed');
    };
    for (const type of types) {
      source.addEventListener(type, (event) => report('onEvent', event.type, event.lastEventId, event.data));
    }
  },
  { streamUrl: reader.streamUrl, types: reader.types },
);

// Owns the walk of a page with many streams over TLS: all are open at once, each gets the event, and the page's
// requests go on beside them.
//
//     node tls-page.mjs --url HUB --streams COUNT --screenshots DIR

import { runWalk } from './walk.mjs';

/** Waits until every stream of the page has seen this. */
const untilAllSaw = (page, wanted) =>
  page.waitForFunction((wanted) => window.seen.every((seen) => seen.includes(wanted)), wanted);

await runWalk(
  'tls-page',
  async (walker) => {
    // Any small page of the hub: the streams are of the same origin.
    const page = await walker.openPage('many streams', '/health/live', { ignoreHTTPSErrors: true });
    walker.at('opening the streams');
    await page.evaluate((count) => {
      window.seen = Array.from({ length: count }, () => []);
      window.sources = window.seen.map((seen) => {
        const source = new EventSource('/events/stream?topic=a');
        source.addEventListener('connected', () => seen.push('connected'));
        source.onmessage = (event) => seen.push(event.data);
        source.onerror = () => seen.push('error');
        return source;
      });
    }, Number(walker.options.streams));
    await untilAllSaw(page, 'connected');
    walker.print({ open: true });
    await walker.lineOfStdin('published');
    walker.at('waiting for the event on every stream');
    await untilAllSaw(page, 'hello');
    walker.at('asking beside the streams');
    const { status, protocol } = await page.evaluate(async () => {
      const { status } = await fetch('/health/ready');
      // The browser notes the request some time after its answer.
      const noted = () => performance.getEntriesByName(new URL('/health/ready', location).href)[0];
      while (!noted()) await new Promise((resolve) => setTimeout(resolve, 20));
      return { status, protocol: noted().nextHopProtocol };
    });
    if (status !== 200 || protocol !== 'h2') throw new Error(`${status} over ${protocol}`);
    const unlike = (await page.evaluate(() => window.seen)).filter((seen) => seen.join() !== 'connected,hello');
    if (unlike.length) throw new Error(`seen: ${JSON.stringify(unlike[0])} on ${unlike.length} streams`);
    walker.print({ ok: true });
  },
  ['streams'],
);

// Owns the walk through pages of htmx, Turbo and Datastar, each the real package: events of a stream become HTML, also
// after a reconnect.
//
//     node frameworks.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]

import { readFile } from 'node:fs/promises';
import { runWalk } from './walk.mjs';

const script = (file, type = 'text/javascript') => `<script type="${type}" src="/lib/${file}"></script>`;

/** For each framework its page, and the event showing `text` in `#shown`. */
const FRAMEWORKS = {
  htmx: {
    page: `${script('htmx.org/dist/htmx.min.js')}${script('htmx-ext-sse/dist/sse.js')}
      <div hx-ext="sse" sse-connect="/events/stream?topic=htmx"><p id="shown" sse-swap="headline"></p></div>`,
    event: (text) => ({ event: 'headline', data: `<b>${text}</b>` }),
  },
  turbo: {
    page: `${script('@hotwired/turbo/dist/turbo.es2017-umd.js')}
      <turbo-stream-source src="/events/stream?topic=turbo"></turbo-stream-source><p id="shown"></p>`,
    event: (text) => ({
      data: `<turbo-stream action="update" target="shown"><template><b>${text}</b></template></turbo-stream>`,
    }),
  },
  datastar: {
    page: `${script('@starfederation/datastar/dist/datastar.js', 'module')}
      <div data-on-load="@get('/events/stream?topic=datastar', {openWhenHidden: true})"></div><p id="shown"></p>`,
    event: (text) => ({ event: 'datastar-merge-fragments', data: `fragments <p id="shown"><b>${text}</b></p>` }),
  },
};

await runWalk('frameworks', async (walker) => {
  const { url } = walker.options;
  const post = (path, body) =>
    fetch(new URL(path, url), { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
  for (const [name, { page: html, event }] of Object.entries(FRAMEWORKS)) {
    walker.at(`opening the page of ${name}`);
    const page = await walker.browser.newPage();
    page.setDefaultTimeout(0); // one deadline for all: --timeout
    page.on('pageerror', (error) => console.error(name, error.stack));
    await page.route('**/lib/**', async (route) => {
      const file = new URL(route.request().url()).pathname.replace('/lib/', '');
      const body = await readFile(new URL(`node_modules/${file}`, import.meta.url));
      await route.fulfill({ contentType: 'text/javascript', body });
    });
    await page.route('**/page', (route) => route.fulfill({ contentType: 'text/html', body: `<!doctype html>${html}` }));
    await page.goto(new URL('/page', url).href);
    const subscribers = async () => (await (await fetch(new URL(`/events/topics/${name}`, url))).json()).subscribers;
    walker.at(`waiting for the stream of ${name}`);
    while ((await subscribers()) !== 1) await new Promise((resolve) => setTimeout(resolve, 20));
    await post('/events/publish', { topic: name, ...event('first') });
    await walker.untilText(page, '#shown b', 'first');
    await post('/events/publish', { topic: name, ...event('second') });
    await walker.untilText(page, '#shown b', 'second');
    await page.close();
  }
  walker.print({ ok: true });
});

// Owns the walk through a page built in a fresh project from the packed package, by Vite and by webpack: the hooks for React
// and the custom element.
//
//     node client-react.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]

import { execFileSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runWalk } from './walk.mjs';

const BUILD = fileURLToPath(new URL('../../clients/js/scripts/fresh-project.mjs', import.meta.url));
const TYPES = { '.html': 'text/html', '.js': 'text/javascript' };

await runWalk('client-react', async (walker) => {
  const { url } = walker.options;
  walker.at('building the project');
  const directory = await mkdtemp(join(tmpdir(), 'fanfare-project-'));
  try {
    execFileSync(process.execPath, [BUILD, directory], { stdio: 'inherit' });
    for (const bundler of ['vite', 'webpack']) await walk(walker, url, join(directory, bundler));
  } finally {
    await rm(directory, { recursive: true });
  }
  walker.print({ ok: true });
});

async function walk(walker, url, dist) {
  const publish = async (event) => {
    const init = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(event) };
    const answer = await fetch(new URL('/events/publish', url), init);
    if (!answer.ok) throw new Error(await answer.text());
  };
  await publish([1, 2].map((n) => ({ topic: 'react-prices', key: `k${n}`, data: n })));
  const page = await walker.browser.newPage();
  page.setDefaultTimeout(0); // one deadline for all: --timeout
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.stack));
  await page.route(/\/(page|assets\/.*)$/, async (route) => {
    const path = new URL(route.request().url()).pathname;
    const file = path === '/page' ? 'index.html' : path;
    await route.fulfill({ contentType: TYPES[extname(file)], body: await readFile(join(dist, file)) });
  });
  await page.goto(new URL('/page', url).href);

  await walker.untilText(page, '#state', 'live');
  await walker.untilText(page, '#prices', '2 3');
  await publish({ topic: 'react-prices', key: 'k3', data: 4 });
  await walker.untilText(page, '#prices', '3 7');
  await publish({ topic: 'react-prices', key: 'k3', delete: true });
  await walker.untilText(page, '#prices', '2 3');
  await page.click('#publish');
  await walker.untilText(page, '#last', 'to react:one');
  await walker.untilText(page, '#from-element', 'to react:one');
  await page.click('#switch');
  // The switch is in force once an event of the new topic arrives.
  for (let sent = 0; (await page.textContent('#last')) !== 'to react:two'; sent++) {
    await page.click('#publish');
    await page.waitForFunction((sent) => Number(document.querySelector('#count').textContent) > sent || sent > 20, sent);
  }
  await publish({ topic: 'react:one', data: { text: 'not followed' } });
  await walker.untilText(page, '#from-element', 'not followed');
  await walker.untilText(page, '#last', 'to react:two');
  if (errors.length) throw new Error(errors.join('\n'));
}

// Owns the walk through the page of examples/embed: two users log in, and one notifies the other.
//
//     node embed.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]

import { runWalk } from './walk.mjs';

await runWalk('embed', async (walker) => {
  const ann = await logIn(walker, 'ann');
  const bob = await logIn(walker, 'bob');
  await ann.fill('[name=to]', 'bob');
  await ann.fill('[name=text]', 'hello');
  await ann.click('#notify button');
  await walker.untilText(bob, '#list li', 'ann: hello');
  await walker.checkAccessibility(bob);
  walker.print({ ok: true });
});

async function logIn(walker, name) {
  const context = await walker.browser.newContext();
  const page = await walker.openPage(name, '/', { context });
  await walker.checkAccessibility(page);
  await page.fill('[name=name]', name);
  await page.click('text=Log in');
  await walker.untilText(page, '#state', 'listening');
  return page;
}

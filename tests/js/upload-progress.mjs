// Owns the walk through the page of examples/upload_progress.rs in headless Chromium. It uploads a real file
// and reports the pushed events to the test; a second window follows by the shared link; another upload is
// cancelled, and one over the limit is refused.
//
//     node upload-progress.mjs --url http://127.0.0.1:PORT --screenshots DIR --file PATH --long PATH --large PATH
//
// Prints `{"events":[{"type","data"},…],"shown":[per cent,…],"sha256"}` for the upload, and `{"ok":true}` at
// the end.

import { runWalk } from './walk.mjs';

await runWalk('upload-progress', walk, ['file', 'long', 'large']);

async function walk(walker) {
  const page = await walker.openPage('uploader', '/', { viewport: { width: 800, height: 700 } }, record);
  walker.at('choosing the file');
  await page.setInputFiles('#file', walker.options.file);
  await page.click('#send');
  await walker.untilText(page, '#state', 'uploading');

  const link = await page.getAttribute('#link', 'href');
  const watcher = await walker.openPage('watcher', link, {}, record);
  await walker.untilText(page, '#percent', /^\([1-9]./);
  await walker.checkAccessibility(page);
  await walker.takeScreenshot(page, 'upload-progress.png');

  await walker.untilText(page, '#state', 'done');
  await walker.untilText(watcher, '#state', 'done');
  const sha256 = await page.textContent('#sha256');
  if ((await watcher.textContent('#sha256')) !== sha256) throw new Error('the watcher sees another hash');
  walker.print({ ...(await page.evaluate(() => ({ events: window.events, shown: window.shown }))), sha256 });

  walker.at('uploading the long file');
  await page.setInputFiles('#file', walker.options.long);
  await page.click('#send');
  await walker.untilText(page, '#percent', /^\([1-9]/);
  await page.click('#cancel');
  await walker.untilText(page, '#state', 'cancelled');

  walker.at('uploading the large file');
  await page.setInputFiles('#file', walker.options.large);
  await page.click('#send');
  await walker.untilText(page, '#state', /^failed: the file has .* is the most$/);

  walker.at('uploading the large file past the check of the page');
  await page.evaluate(async () => {
    const { id } = await (await fetch('/uploads', { method: 'POST' })).json();
    await watch(id);
    const file = document.getElementById('file').files[0];
    await fetch(`/uploads/${id}`, { method: 'PUT', body: file }).catch(() => {});
  });
  await walker.untilText(page, '#state', /^failed: a file may have at most/);
  walker.print({ ok: true });
}

/** Records the events of all streams of the page, and each value of the bar. */
function record() {
  window.events = [];
  window.shown = [];
  window.EventSource = class extends EventSource {
    constructor(url) {
      super(url);
      for (const type of ['connected', 'progress', 'done', 'failed', 'gap']) {
        this.addEventListener(type, (event) => window.events.push({ type, data: JSON.parse(event.data) }));
      }
    }
  };
  addEventListener('DOMContentLoaded', () => {
    const bar = document.getElementById('bar');
    new MutationObserver(() => window.shown.push(bar.value)).observe(bar, { attributeFilter: ['value'] });
  });
}

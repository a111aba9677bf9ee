// Owns the walk through the page of examples/social_feed in headless Chromium, with a window each for ada and
// bob. Posts reach the other user, likes close together are one notification, following and unfollowing
// change open streams, muted kinds do not arrive, and events of a closed window are there when it opens
// again.
//
//     node social-feed.mjs --url http://127.0.0.1:PORT --screenshots DIR [--timeout SECONDS]

import { runWalk } from './walk.mjs';

const DESKTOP = { viewport: { width: 1200, height: 900 } };
const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  isMobile: true,
  hasTouch: true,
  colorScheme: 'dark',
};

const CELEBRITY = 'tickertape';
const READER_COUNT = 12;

await runWalk('social-feed', async (walker) => {
  const ada = await open(walker, 'ada', DESKTOP);
  const bob = await open(walker, 'bob', DESKTOP);

  const text = 'is <b>1 < 2</b> & "2 > 1"?';
  const post = await write(walker, ada, text);
  await walker.untilText(ada, '#sent', /^pushed to \d+ followers, [1-9]\d* online, in [\d.]+ ms$/);
  await walker.untilText(bob, '#unread', '1');
  await walker.untilText(bob, `[data-post="${post}"] .text`, text);
  await walker.untilText(bob, '#notifications li:first-child', `ada posted: ${text}`);

  walker.at('liking');
  await bob.click(`[data-post="${post}"] .like`);
  await walker.untilText(ada, '#notifications li:first-child', `bob liked your post “${text}”`);
  const likes = Array.from({ length: READER_COUNT }, (_, number) =>
    call(walker, 'PUT', `/api/posts/${post}/likes/reader-${number}`),
  );
  await Promise.all(likes);
  await walker.untilText(ada, '#notifications li:first-child', /^\S+ and 12 more liked your post/);
  await walker.untilText(ada, '#unread', `${1 + READER_COUNT}`);
  await walker.untilText(ada, `[data-post="${post}"] .likes`, `${1 + READER_COUNT}`);
  const liked = await eventsOf(ada, 'like');
  const counts = liked.map(({ collapsed = 1 }) => collapsed);
  const sum = counts.reduce((sum, count) => sum + count, 0);
  check(sum === 1 + READER_COUNT && counts.length < READER_COUNT, `likes come together: ${counts}`);

  // An author with few followers (push), and one with thousands (feeds pull the posts).
  await followAndUnfollow(walker, bob, 'sybil', 'push', false);
  await followAndUnfollow(walker, bob, CELEBRITY, 'pull', true);
  check((await eventsOf(bob, 'connected')).length === 1, 'the stream of bob was never opened again');

  walker.at('being followed');
  await call(walker, 'PUT', '/api/follows/zoe/ada');
  await walker.untilText(ada, '#notifications li:first-child', 'zoe followed you');

  await walker.checkAccessibility(ada);
  await walker.takeScreenshot(ada, 'social-feed.png');

  walker.at('muting likes');
  const muted = bob.waitForResponse((response) => response.url().endsWith('/events/preferences/bob'));
  await bob.check('#mute');
  check((await muted).ok(), 'preferences are taken');
  const own = await write(walker, bob, 'does anybody like this?');
  await call(walker, 'PUT', `/api/posts/${own}/likes/ada`);
  const after = await write(walker, ada, 'after the like');
  await walker.untilText(bob, `[data-post="${after}"] .text`, 'after the like');
  check((await eventsOf(bob, 'like')).length === 0, 'bob hears of no like');

  walker.at('closing the window of bob');
  await bob.click('#bell');
  await walker.untilText(bob, '#unread', '0');
  await bob.goto('about:blank');
  const missed = await write(walker, ada, 'while bob is away');
  await bob.goto(new URL('/?user=bob', walker.options.url).href);
  await walker.untilText(bob, '#unread', '1');
  await walker.untilText(bob, `[data-post="${missed}"] .text`, 'while bob is away');
  check(await bob.isChecked('#mute'), 'the mute is kept');

  const phone = await open(walker, 'bob', PHONE);
  await walker.untilText(phone, `[data-post="${missed}"] .text`, 'while bob is away');
  await walker.checkWidth(phone, PHONE.viewport.width);
  const tops = await phone.evaluate(() =>
    ['compose', 'timeline', 'notifications', 'people'].map((id) => document.getElementById(id).getBoundingClientRect().top),
  );
  check(tops.every((top, place) => place === 0 || top > tops[place - 1]), `the composer and the timeline come first: ${tops}`);
  await walker.checkAccessibility(phone);
  await walker.takeScreenshot(phone, 'social-feed-phone-dark.png');
  walker.print({ ok: true });
});

async function open(walker, user, device) {
  const page = await walker.openPage(user, `/?user=${user}`, device, record);
  await walker.untilText(page, '#state', 'live');
  return page;
}

/** Posts like a visitor. Returns the post's id. */
async function write(walker, page, text) {
  walker.at(`posting ${text}`);
  const answered = page.waitForResponse((response) => response.url().endsWith('/api/posts'));
  await page.fill('#text', text);
  await page.click('#compose button');
  const { post } = await (await answered).json();
  return post.id;
}

/** Posts arrive only while bob follows the author, always in the same open stream. */
async function followAndUnfollow(walker, bob, author, mode, isFollowed) {
  for (const follows of [isFollowed, !isFollowed, isFollowed, !isFollowed]) {
    walker.at(`having bob ${follows ? 'follow' : 'not follow'} ${author}`);
    const button = bob.locator(`[data-follow="${author}"]`);
    if ((await button.getAttribute('aria-pressed')) !== `${follows}`) await button.click();
    await walker.untilText(bob, `[data-follow="${author}"]`, follows ? 'Following' : 'Follow');

    const { post, fanout } = await call(walker, 'POST', '/api/posts', { author, text: `for ${follows ? 'followers' : 'others'}` });
    check(fanout.mode === mode, `the posts of ${author} are for ${mode}: ${JSON.stringify(fanout)}`);
    // A post sure to arrive: after it, all earlier posts have arrived too.
    const last = await call(walker, 'POST', '/api/posts', { author: 'ada', text: `for followers of ada, not of ${author}` });
    await walker.untilText(bob, `[data-post="${last.post.id}"] .author`, 'ada');
    if (follows) await walker.untilText(bob, `[data-post="${post.id}"] .author`, author);
    const hasCome = (await eventsOf(bob, 'post')).some(({ id }) => id === post.id);
    check(hasCome === follows, `a post of ${author} ${hasCome ? 'came' : 'did not come'}`);
  }
}

async function call(walker, method, path, body) {
  const headers = body ? { 'Content-Type': 'application/json' } : {};
  const answer = await fetch(new URL(path, walker.options.url), { method, headers, body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

function eventsOf(page, type) {
  return page.evaluate((type) => window.events.filter((event) => event.type === type).map(({ data }) => data), type);
}

function check(holds, what) {
  if (!holds) throw new Error(`check failed: ${what}`);
}

/** Records the events of the page's stream. */
function record() {
  window.events = [];
  window.EventSource = class extends EventSource {
    constructor(url) {
      super(url);
      for (const type of ['connected', 'post', 'like', 'follow', 'gap']) {
        this.addEventListener(type, (event) => window.events.push({ type, data: JSON.parse(event.data) }));
      }
    }
  };
}

// Owns the page of a hub without the demo's data: its counters, a form to publish, and the topics followed by this page.

import { Log } from './status.js';

const REFRESH_MS = 2000;
const REQUEST_TIMEOUT_MS = 10_000;
const DRAW_MS = 200;

const byId = (id) => document.getElementById(id);
const count = new Intl.NumberFormat('en');
const log = new Log();
const subscriptions = new Map();
let source = null;
let lastId = '';
let before = null;

// ---- Counters

function showState(state, detail) {
  byId('connection').dataset.state = state;
  byId('state').textContent = state;
  byId('state-detail').textContent = detail;
}

async function refresh() {
  try {
    const response = await fetch('/stats', { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    if (response.ok) showCounters(await response.json());
    else showState('live', `the counters are not public here (${response.status})`);
  } catch {
    showState('connecting', 'the hub does not answer');
    before = null;
  }
  await Promise.all([...subscriptions.values()].map(showSubscribers));
  setTimeout(refresh, REFRESH_MS);
}

function showCounters(stats) {
  const { connections, subscriptions: all, topics, published, delivered, latencyMs, bridge, residentBytes } = stats;
  const memory = `${Math.round(residentBytes / 1024 / 1024)} MiB of memory`;
  const mode = bridge.kind === 'redis' ? `Redis ${bridge.up ? 'connected' : 'unavailable'}` : 'events in memory';
  showState(bridge.up ? 'live' : 'waiting', `${mode}, ${memory}`);
  byId('streams').textContent = count.format(connections);
  byId('subscriptions').textContent = count.format(all);
  byId('topics').textContent = `${count.format(topics)} ${topics === 1 ? 'topic' : 'topics'} with events`;
  byId('published').textContent = `${count.format(published)} in all`;
  byId('delivered').textContent = `${count.format(delivered)} in all`;
  byId('latency-median').textContent = `${latencyMs.p50.toFixed(1)} ms`;
  byId('latency-p99').textContent = `p99 ${latencyMs.p99.toFixed(1)} ms`;
  const now = { at: performance.now(), published, delivered };
  if (before) {
    const perSecond = (key) => Math.max(0, ((now[key] - before[key]) * 1000) / (now.at - before.at));
    byId('published-rate').textContent = perSecond('published').toFixed(1);
    byId('delivered-rate').textContent = perSecond('delivered').toFixed(1);
  }
  before = now;
}

// ---- Publishing

byId('publish-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const answer = byId('publish-answer');
  answer.dataset.outcome = '';
  answer.textContent = 'publishing …';
  try {
    const response = await fetch('/events/publish', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(eventOfForm()),
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
    const result = await response.json();
    answer.dataset.outcome = response.ok ? 'taken' : 'refused';
    answer.textContent = response.ok ? published(result) : `${result.error.code}: ${result.error.message}`;
  } catch (error) {
    answer.dataset.outcome = 'refused';
    answer.textContent = `no answer: ${error.message}`;
  }
});

function published({ sequence, partition, receivers }) {
  const streams = receivers === 1 ? '1 stream gets' : `${count.format(receivers)} streams get`;
  return `Event ${sequence} of partition ${partition}; ${streams} it.`;
}

function eventOfForm() {
  const event = { topic: byId('publish-topic').value.trim(), data: dataOfForm() };
  const type = byId('publish-type').value.trim();
  return type ? { ...event, event: type } : event;
}

function dataOfForm() {
  const text = byId('publish-data').value;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A text as one argument of a shell. */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function showLines() {
  const { origin } = window.location;
  byId('publish-line').textContent = `curl --json ${quoted(JSON.stringify(eventOfForm()))} ${origin}/events/publish`;
  const topic = byId('follow-topic').value.trim();
  byId('follow-line').textContent = `curl -N ${quoted(`${origin}/events/stream?topic=${encodeURI(topic)}`)}`;
}

document.addEventListener('input', showLines);

// ---- Following

byId('follow-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const topic = byId('follow-topic').value.trim();
  if (!topic || subscriptions.has(topic)) return;
  subscriptions.set(topic, listItem(topic));
  reopen();
});

function listItem(topic) {
  const item = byId('subscription-template').content.firstElementChild.cloneNode(true);
  item.querySelector('.topic').textContent = topic;
  const remove = item.querySelector('button');
  remove.setAttribute('aria-label', `Remove ${topic}`);
  remove.addEventListener('click', () => {
    item.remove();
    subscriptions.delete(topic);
    byId('follow-topic').focus();
    reopen();
  });
  byId('subscription-list').append(item);
  return { topic, item };
}

/**
 * One stream for all topics: a browser has six connections per host with HTTP/1.1. The new stream resumes from the last
 * id, so nothing is missed in between. Batches name the topic of each event, and pass on every type.
 */
function reopen() {
  source?.close();
  source = null;
  if (subscriptions.size === 0) return;
  const query = new URLSearchParams({ topics: [...subscriptions.keys()].join(','), batch: 'json' });
  if (lastId) query.set('last_event_id', lastId);
  source = new EventSource(`/events/stream?${query}`);
  for (const type of ['connected', 'batch', 'gap']) source.addEventListener(type, receive);
  source.addEventListener('error', ({ target }) => {
    showAll(target.readyState === EventSource.CLOSED ? 'refused by the hub' : 'reconnecting');
  });
  showAll('connecting');
}

function receive({ target, type, data, lastEventId }) {
  if (target !== source) return;
  lastId = lastEventId || lastId;
  if (type === 'connected') subscriptions.forEach(showSubscribers);
  else if (type === 'gap') log.add('gap', data);
  else JSON.parse(data).forEach(showEvent);
}

function showEvent({ topic, event, data }) {
  log.add(event ?? 'message', `${topic}: ${typeof data === 'string' ? data : JSON.stringify(data)}`);
}

function showAll(text) {
  subscriptions.forEach(({ item }) => {
    item.querySelector('.count').textContent = text;
  });
}

/** Of a pattern, the hub counts no subscribers. */
async function showSubscribers({ topic, item }) {
  if (source?.readyState !== EventSource.OPEN) return;
  let text = 'following';
  if (!topic.includes('*')) {
    const path = `/events/topics/${encodeURIComponent(topic)}`;
    const response = await fetch(path, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) }).catch(() => null);
    const { subscribers } = response?.ok ? await response.json() : {};
    if (subscribers) text = `${count.format(subscribers)} ${subscribers === 1 ? 'subscriber' : 'subscribers'}`;
  }
  item.querySelector('.count').textContent = text;
}

showLines();
setInterval(() => log.draw(), DRAW_MS);
refresh();

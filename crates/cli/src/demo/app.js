// Owns the demo page's life: passes stream events to the cards and the log, and the visitor's events to the hub.

import { PriceCard } from './chart.js';
import { Latency, Log, Rate, drawFigures, showConnection, showState } from './status.js';
import { Stream } from './stream.js';

const COMPANIES = { MSFT: 'Microsoft', AMZN: 'Amazon', IBM: '', GOOG: 'Google', AAPL: 'Apple' };
const FIGURES_REFRESH_MS = 500;
const PUBLISH_TIMEOUT_MS = 10_000;
const COPIED_SHOWN_MS = 2000;

const byId = (id) => document.getElementById(id);

const cards = new Map();
const rate = new Rate();
const latency = new Latency();
const log = new Log();
const stream = new Stream({
  types: ['connected', 'gap', 'shutdown', 'price', 'note'],
  onEvent: receive,
  onState: showState,
});
let connectedCount = 0;
let pendingFrame = 0;

/** The object in a JSON text. Anything else gives an empty object: received data may have any shape. */
function objectFrom(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === 'object' ? value : {};
  } catch {
    return {};
  }
}

const textOr = (value, fallback) => (typeof value === 'string' ? value : fallback);
const listed = (value) => (Array.isArray(value) ? value.filter((item) => typeof item !== 'object').join(', ') : '');

// ---- Events from the hub

const HANDLERS = { connected: onConnected, gap: onGap, shutdown: onShutdown, price: onPrice };

function receive(event) {
  const text = String(event.data);
  if (Object.hasOwn(HANDLERS, event.type)) HANDLERS[event.type](text);
  else onNote(event.type, text);
  requestDraw();
}

function onConnected(text) {
  const { clientId, timestamp, topics, resumed } = objectFrom(text);
  connectedCount += 1;
  latency.startAt(timestamp);
  showConnection({
    clientId: textOr(clientId, ''),
    reconnectCount: connectedCount - 1,
    resumed: resumed === true,
  });
  log.add('connected', `${resumed === true ? 'resumed' : 'new stream'}, follows ${listed(topics)}`);
}

function onGap(text) {
  const { reason, partitions } = objectFrom(text);
  const isReplayFollowing = reason === 'epoch' || reason === 'history';
  if (isReplayFollowing) cards.forEach((card) => card.clear());
  const where = listed(partitions);
  log.add('gap', `events missed (${textOr(reason, 'no reason given')})${where && `, partitions ${where}`}`
    + `${isReplayFollowing ? '; charts restart from the stored history' : ''}`);
}

function onShutdown(text) {
  const { reason, reconnectMs } = objectFrom(text);
  const pause = Number.isFinite(reconnectMs) ? `, reconnecting in ${(reconnectMs / 1000).toFixed(1)} s` : '';
  log.add('shutdown', `the hub ends this stream (${textOr(reason, 'no reason given')})${pause}`);
}

function onPrice(text) {
  const quote = objectFrom(text);
  if (!latency.isHistory(quote.at)) rate.count(performance.now());
  latency.add(quote.at, Date.now());
  const isShown = cards.get(quote.symbol)?.add(quote) ?? false;
  if (!isShown) log.add('price', text);
}

function onNote(type, text) {
  rate.count(performance.now());
  log.add(type, text);
}

// ---- Drawing: at most once a frame, never in a hidden tab

function requestDraw() {
  if (pendingFrame || document.hidden) return;
  pendingFrame = requestAnimationFrame(() => {
    pendingFrame = 0;
    cards.forEach((card) => card.draw());
    log.draw();
    drawFigures({ rate, latency, lastId: stream.lastId });
  });
}

// ---- The hub's tick: a part of the latency

async function showTick() {
  const stats = await fetch('/stats').then((response) => response.json());
  const { flush, tickMs } = stats.delivery;
  const waits = { leading: `busy topics wait up to ${tickMs} ms for their tick`, tick: `up to ${tickMs} ms of it is the tick` };
  byId('tick').textContent = waits[flush] ?? '';
}

showTick().catch(() => {}); // The figure stays without this remark.

// ---- Events from the visitor

/** The value of a JSON text; any other text unchanged. */
function payloadFrom(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function showAnswer(outcome, text) {
  byId('publish-answer').dataset.outcome = outcome;
  byId('publish-answer').textContent = text;
}

async function publish(topic, type, data) {
  try {
    const response = await fetch('/events/publish', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ topic, event: type || undefined, data }),
      signal: AbortSignal.timeout(PUBLISH_TIMEOUT_MS),
    });
    const answer = objectFrom(await response.text());
    if (response.ok) {
      const receivers = answer.receivers === 1 ? '1 stream' : `${Number(answer.receivers)} streams`;
      showAnswer('taken', `Published as ${textOr(answer.eventId, 'an event without id')}, queued for ${receivers}`);
    } else {
      const { code, message } = answer.error ?? {};
      showAnswer('refused', `${response.status} ${textOr(code, 'refused')}: ${textOr(message, response.statusText)}`);
    }
  } catch (error) {
    const cause = error?.name === 'TimeoutError' ? 'did not answer in time' : 'is unavailable';
    showAnswer('refused', `Unconfirmed, perhaps not published: the hub ${cause}`);
  }
}

async function onSubmit(event) {
  event.preventDefault();
  const button = byId('publish-form').querySelector('button');
  // Not `disabled`: it would take the keyboard focus away from the button.
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  const type = byId('publish-type').value.trim();
  stream.listenTo(type);
  await publish(byId('publish-topic').value.trim(), type, payloadFrom(byId('publish-data').value));
  button.removeAttribute('aria-disabled');
}

// ---- The line for a terminal

async function copyCurlLine() {
  const copied = await copyText(byId('curl-line'));
  const button = byId('curl-copy');
  button.textContent = copied ? 'Copied' : 'Selected';
  byId('curl-copied').textContent = copied ? 'Copied' : 'Selected, copy it with the keyboard';
  setTimeout(() => {
    button.textContent = 'Copy';
    byId('curl-copied').textContent = '';
  }, COPIED_SHOWN_MS);
}

/** Copies the text. Browsers allow it only over HTTPS or on localhost; elsewhere this selects the text. */
async function copyText(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection()?.selectAllChildren(element);
    return false;
  }
}

// ---- Start

for (const [symbol, company] of Object.entries(COMPANIES)) {
  const card = new PriceCard(byId('card-template'), symbol, company);
  cards.set(symbol, card);
  byId('cards').append(card.element);
}

byId('curl-line').textContent = `curl -N '${location.protocol}//${location.host}/events/stream?topic=demo:ticker:*'`;
byId('curl-copy').addEventListener('click', copyCurlLine);
byId('publish-form').addEventListener('submit', onSubmit);
byId('publish-data').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) byId('publish-form').requestSubmit();
});

document.addEventListener('visibilitychange', requestDraw);
setInterval(requestDraw, FIGURES_REFRESH_MS);

// An open stream would keep the page out of the browser's back/forward cache.
addEventListener('pagehide', () => stream.close());
addEventListener('pageshow', (event) => {
  if (event.persisted) stream.open();
});
stream.open();

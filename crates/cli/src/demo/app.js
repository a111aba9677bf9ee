// Owns the demo page's life: passes stream events to the cards and the log, and the visitor's events to the hub.

import { PriceCard } from './chart.js';
import { Fanfare } from './client/index.js';
import { Delivery, countTabs, cutConnections, cuttableFetch } from './delivery.js';
import { HeatMap } from './heatmap.js';
import { Latency, Log, Rate, drawFigures, drawHistogram, showState } from './status.js';

const COMPANIES = { MSFT: 'Microsoft', AMZN: 'Amazon', IBM: '', GOOG: 'Google', AAPL: 'Apple' };
const FIGURES_REFRESH_MS = 500;
const TABS_REFRESH_MS = 2000;
const COPIED_SHOWN_MS = 2000;

const byId = (id) => document.getElementById(id);

const cards = new Map();
const rate = new Rate();
const latency = new Latency();
const log = new Log();
const delivery = new Delivery();
const fanfare = new Fanfare('/events', { tabs: 'shared', fetch: cuttableFetch });
let heatMap;
let hasBeenLive = false;
let reconnectCount = 0;
let wasDown = false;
let pendingFrame = 0;

// ---- Events from the hub

function onState(state, { transport, reason, retryMs }) {
  const isLive = state === 'live';
  if (isLive && hasBeenLive && wasDown) reconnectCount += 1;
  hasBeenLive ||= isLive;
  wasDown = !isLive;
  const pause = retryMs === undefined ? '' : `, next try in ${(retryMs / 1000).toFixed(1)} s`;
  const detail = isLive ? (transport === 'stream' ? '' : `by ${transport}`) : `${reason ?? ''}${pause}`;
  showState(state, detail, reconnectCount);
  log.add(state, isLive && !detail ? 'connected' : detail);
  requestDraw();
}

function onGap({ reason, topics }) {
  if (reason === 'epoch' || reason === 'history') cards.forEach((card) => card.clear());
  log.add('gap', `events missed (${reason})${topics ? `: ${topics.join(', ')}` : ''}`);
}

function onPrice({ data, type }) {
  rate.count(performance.now());
  const isShown = type === 'price' && (cards.get(data?.symbol)?.add(data) ?? false);
  if (!isShown) log.add(type, JSON.stringify(data));
  requestDraw();
}

function onCount({ data }) {
  rate.count(performance.now());
  delivery.take(data ?? {});
  // The age of replayed events is not a latency.
  if (fanfare.state === 'live') latency.add(data?.at, Date.now());
  requestDraw();
}

function onNote({ type, data }) {
  rate.count(performance.now());
  log.add(type, typeof data === 'string' ? data : JSON.stringify(data));
  requestDraw();
}

// ---- Drawing: at most once a frame, never in a hidden tab

function requestDraw() {
  if (pendingFrame || document.hidden) return;
  pendingFrame = requestAnimationFrame(() => {
    pendingFrame = 0;
    cards.forEach((card) => card.draw());
    log.draw();
    heatMap.draw();
    delivery.draw();
    drawHistogram(latency);
    drawFigures({ rate, latency, lastId: fanfare.cursor });
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
    const { eventId, receivers } = await fanfare.publish(topic, data, { type: type || undefined });
    const streams = receivers === 1 ? '1 stream' : `${receivers} streams`;
    showAnswer('taken', `Published as ${eventId}, queued for ${streams}`);
  } catch (error) {
    const { status, code, message } = error;
    if (status) showAnswer('refused', `${status} ${code}: ${message}`);
    else showAnswer('refused', 'Unconfirmed, perhaps not published: the hub is unavailable');
  }
}

async function onSubmit(event) {
  event.preventDefault();
  const button = byId('publish-form').querySelector('button');
  // Not `disabled`: it would take the keyboard focus away from the button.
  if (button.getAttribute('aria-disabled') === 'true') return;
  button.setAttribute('aria-disabled', 'true');
  const type = byId('publish-type').value.trim();
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

byId('cut').addEventListener('click', () => {
  delivery.cuts += 1;
  cutConnections();
});
document.addEventListener('visibilitychange', requestDraw);
setInterval(requestDraw, FIGURES_REFRESH_MS);
setInterval(showTabs, TABS_REFRESH_MS);

async function showTabs() {
  byId('tabs').textContent = String((await countTabs()) ?? 1);
}

fanfare.on('state', onState);
fanfare.on('gap', onGap);
heatMap = new HeatMap(byId('heatmap'), byId('heatmap-picked'), fanfare.map('demo:market'));
// History first: the charts fill at once.
fanfare.subscribe('demo:ticker:*', onPrice, { from: 'earliest' });
fanfare.subscribe('demo:chat', onNote, { from: 'earliest' });
fanfare.subscribe('demo:count', onCount);

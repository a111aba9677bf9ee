// Owns the page's figures about the stream itself: rate, latency, ids, reconnects and the log.

const RATE_WINDOW_MS = 5000;
const MAX_LATENCY_SAMPLES = 200;
const MAX_LOG_ENTRIES = 30;
const HISTOGRAM_BARS = 10;
const MAX_LOG_TEXT = 400;

const clock = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

const byId = (id) => document.getElementById(id);

/** Live events per second over the last 5 seconds, or since the first event if it is newer. */
export class Rate {
  #arrivals = [];
  #firstArrival = null;

  count(now) {
    this.#firstArrival ??= now;
    this.#arrivals.push(now);
  }

  perSecond(now) {
    const begin = this.#arrivals.findIndex((arrival) => arrival > now - RATE_WINDOW_MS);
    this.#arrivals = begin < 0 ? [] : this.#arrivals.slice(begin);
    const observedMs = Math.min(RATE_WINDOW_MS, Math.max(1000, now - (this.#firstArrival ?? now)));
    return (this.#arrivals.length * 1000) / observedMs;
  }
}

/** Milliseconds from publish to this page, of the last live events. */
export class Latency {
  samples = [];

  add(publishedAt, now) {
    if (!Number.isFinite(publishedAt)) return;
    this.samples.push(now - publishedAt);
    if (this.samples.length > MAX_LATENCY_SAMPLES) this.samples.shift();
  }

  /** The quantile `share` of all samples, from 0 to 1; `undefined` without samples. */
  quantile(share) {
    const sorted = [...this.samples].sort((a, b) => a - b);
    return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)];
  }
}

/** The newest entries, newest first. */
export class Log {
  #entries = [];
  #isStale = false;

  add(type, text) {
    const shown = text.length > MAX_LOG_TEXT ? `${text.slice(0, MAX_LOG_TEXT)}…` : text;
    this.#entries.unshift({ time: new Date(), type, text: shown });
    this.#entries.length = Math.min(this.#entries.length, MAX_LOG_ENTRIES);
    this.#isStale = true;
  }

  draw() {
    if (!this.#isStale) return;
    this.#isStale = false;
    byId('log').replaceChildren(...this.#entries.map(logItem));
  }
}

function logItem({ time, type, text }) {
  const item = document.createElement('li');
  const received = document.createElement('time');
  received.dateTime = time.toISOString();
  received.textContent = clock.format(time);
  const kind = document.createElement('span');
  kind.className = 'type';
  kind.dataset.kind = type;
  kind.title = type;
  kind.textContent = type;
  const body = document.createElement('span');
  body.className = 'text';
  body.textContent = text;
  item.append(received, kind, body);
  return item;
}

/** Shows the state at once, not at the next frame: it changes rarely, and also matters in a hidden tab. */
export function showState(state, detail, reconnectCount) {
  byId('connection').dataset.state = state;
  byId('state').textContent = state;
  byId('state-detail').textContent = detail;
  byId('reconnects').textContent = String(reconnectCount);
}

/** Bars of doubling widths: below 2 ms, 4 ms, 8 ms, … */
export function drawHistogram({ samples }) {
  const counts = new Array(HISTOGRAM_BARS).fill(0);
  for (const sample of samples) {
    const bar = Math.floor(Math.log2(Math.max(sample, 1)));
    counts[Math.min(bar, HISTOGRAM_BARS - 1)] += 1;
  }
  const histogram = byId('histogram');
  while (histogram.childElementCount < HISTOGRAM_BARS) {
    const bar = document.createElement('div');
    const isLast = histogram.childElementCount === HISTOGRAM_BARS - 1;
    bar.dataset.limit = isLast ? `${2 ** histogram.childElementCount}+` : `<${2 ** (histogram.childElementCount + 1)}`;
    bar.append(document.createElement('span'));
    histogram.append(bar);
  }
  const most = Math.max(...counts, 1);
  counts.forEach((count, index) => {
    histogram.children[index].firstElementChild.style.height = `${(count / most) * 100}%`;
  });
}

export function drawFigures({ rate, latency, lastId }) {
  byId('rate').textContent = rate.perSecond(performance.now()).toFixed(1);
  const [median, p95] = [latency.quantile(0.5), latency.quantile(0.95)];
  if (median !== undefined) {
    byId('latency-median').textContent = `${Math.round(median)} ms`;
    // The hub's clock gives the publish time, so a page on another machine may measure a negative latency.
    byId('latency-p95').textContent = median < 0 ? 'the clocks differ' : `p95 ${Math.round(p95)} ms`;
  }
  showIdentifier('last-id', lastId);
}

function showIdentifier(id, value) {
  const element = byId(id);
  if (element.title === value) return;
  element.title = value;
  element.textContent = value.length > 16 ? `${value.slice(0, 7)}…${value.slice(-8)}` : value || '–';
}

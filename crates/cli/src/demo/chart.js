// Owns a price card: the points of one symbol's current pass, its figures and its line chart.

/** Every chart has the same time axis, so the lines are comparable and fill from the left. */
const AXIS_START = Date.UTC(2000, 0, 1);
const AXIS_END = Date.UTC(2010, 2, 1);

/** The data has 123 months and prices below 1,000; the bounds are for prices published by visitors. */
const MAX_POINTS = 500;
const MAX_PRICE = 1e9;

const CHART_WIDTH = 100;
const CHART_HEIGHT = 40;

const money = new Intl.NumberFormat('en', { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const percent = new Intl.NumberFormat('en', {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
  signDisplay: 'exceptZero',
});

export class PriceCard {
  #points = [];
  #isStale = false;
  #parts = {};

  constructor(template, symbol, company) {
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.symbol = symbol;
    for (const name of ['symbol', 'company', 'price', 'change', 'date', 'range', 'area', 'line', 'tip']) {
      this.#parts[name] = this.element.querySelector(`.${name}`);
    }
    this.#parts.symbol.textContent = symbol;
    this.#parts.company.textContent = company;
  }

  /** Takes the next price; a date before the last one begins a new pass. False if it isn't a price. */
  add({ price, date }) {
    const time = typeof date === 'string' ? Date.parse(`${date} UTC`) : NaN;
    const isPrice = typeof price === 'number' && Math.abs(price) <= MAX_PRICE;
    if (!isPrice || Number.isNaN(time)) return false;
    const last = this.#points.at(-1);
    if (last && time < last.time) this.#points = [];
    if (last && time === last.time) this.#points.pop();
    this.#points.push({ time, price, date });
    if (this.#points.length > MAX_POINTS) this.#points.shift();
    this.#isStale = true;
    return true;
  }

  clear() {
    this.#points = [];
    this.#isStale = true;
  }

  /** Draws the card, if it changed since the last call. */
  draw() {
    if (!this.#isStale) return;
    this.#isStale = false;
    this.#drawFigures();
    this.#drawChart();
  }

  #drawFigures() {
    const { price, change, date, range } = this.#parts;
    const [previous, last] = [this.#points.at(-2), this.#points.at(-1)];
    const prices = this.#points.map((point) => point.price);
    price.textContent = last ? money.format(last.price) : '–';
    date.textContent = last ? last.date : 'no price yet';
    range.textContent = last ? `${whole.format(Math.min(...prices))} – ${whole.format(Math.max(...prices))}` : '';
    range.title = 'lowest and highest price so far';

    const ratio = previous && previous.price !== 0 ? (last.price - previous.price) / previous.price : null;
    change.textContent = ratio === null ? '' : `${percent.format(ratio * 100).replace('-', '−')} %`;
    change.dataset.direction = ratio > 0 ? 'up' : ratio < 0 ? 'down' : 'none';
  }

  #drawChart() {
    const { area, line, tip } = this.#parts;
    const steps = positions(this.#points).map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`);
    const path = steps.length > 0 ? `M${steps.join('L')}` : '';
    const [first, last] = [steps.at(0), steps.at(-1)];
    line.setAttribute('d', path);
    area.setAttribute('d', path && `${path}V${CHART_HEIGHT}H${first.split(' ')[0]}Z`);
    // A zero-length line with round caps is a dot. It stays round even if the chart is stretched.
    tip.setAttribute('d', last ? `M${last}h0` : '');
  }
}

/** The chart coordinates of each point: time on the shared axis, price between the lowest and highest. */
function positions(points) {
  if (points.length === 0) return [];
  const prices = points.map((point) => point.price);
  const lowest = Math.min(...prices);
  const span = Math.max(...prices) - lowest;
  const start = Math.min(AXIS_START, points[0].time);
  const end = Math.max(AXIS_END, points.at(-1).time);
  return points.map(({ time, price }) => {
    const height = span > 0 ? (price - lowest) / span : 0.5;
    return [((time - start) / (end - start)) * CHART_WIDTH, CHART_HEIGHT * (0.95 - 0.9 * height)];
  });
}

// Owns the heat map: a thousand tickers of a synchronised map on one canvas, and the ticker under pointer or arrow keys.

const COLUMNS_WIDE = 50;
const COLUMNS_NARROW = 25;
const NARROW_PX = 600;

/** A change of this many percent has the full colour. */
const FULL_PERCENT = 3;

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const percent = new Intl.NumberFormat('en', { minimumFractionDigits: 2, maximumFractionDigits: 2, signDisplay: 'exceptZero' });

export class HeatMap {
  #canvas;
  #output;
  #map;
  #names = [];
  #picked = 0;
  #isStale = true;

  constructor(canvas, output, map) {
    this.#canvas = canvas;
    this.#output = output;
    this.#map = map;
    map.subscribe(() => (this.#isStale = true));
    canvas.addEventListener('pointermove', (event) => this.#pickAt(event));
    canvas.addEventListener('keydown', (event) => this.#pickNext(event));
    new ResizeObserver(() => (this.#isStale = true)).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => (this.#isStale = true));
  }

  get #columns() {
    return this.#canvas.clientWidth < NARROW_PX ? COLUMNS_NARROW : COLUMNS_WIDE;
  }

  get #rows() {
    return Math.max(1, Math.ceil(this.#names.length / this.#columns));
  }

  #pickAt({ offsetX, offsetY }) {
    const column = Math.floor((offsetX / this.#canvas.clientWidth) * this.#columns);
    const row = Math.floor((offsetY / this.#canvas.clientHeight) * this.#rows);
    this.#pick(row * this.#columns + column);
  }

  #pickNext(event) {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    this.#pick(this.#picked + step[0] + step[1] * this.#columns);
  }

  #pick(index) {
    this.#picked = Math.min(Math.max(index, 0), Math.max(this.#names.length - 1, 0));
    this.#isStale = true;
  }

  /** Draws the map, if it changed since the last call. */
  draw() {
    if (!this.#isStale) return;
    this.#isStale = false;
    if (this.#names.length !== this.#map.size) this.#names = [...this.#map.keys()].sort();
    const canvas = this.#canvas;
    const ratio = devicePixelRatio;
    canvas.dataset.tickers = this.#names.length;
    canvas.style.aspectRatio = `${this.#columns} / ${this.#rows}`;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    const context = canvas.getContext('2d');
    const width = canvas.width / this.#columns;
    const height = canvas.height / this.#rows;
    const style = getComputedStyle(canvas);
    const colours = { up: style.getPropertyValue('--up'), down: style.getPropertyValue('--down') };
    this.#names.forEach((name, index) => {
      const change = Number(this.#map.get(name)) || 0;
      const [x, y] = [(index % this.#columns) * width, Math.floor(index / this.#columns) * height];
      context.globalAlpha = Math.min(1, 0.08 + Math.abs(change) / FULL_PERCENT);
      context.fillStyle = change < 0 ? colours.down : colours.up;
      context.fillRect(x, y, width - ratio, height - ratio);
      if (index !== this.#picked) return;
      context.globalAlpha = 1;
      context.strokeStyle = style.getPropertyValue('--text');
      context.lineWidth = 2 * ratio;
      context.strokeRect(x + ratio, y + ratio, width - 3 * ratio, height - 3 * ratio);
    });
    this.#describe();
  }

  #describe() {
    const name = this.#names[this.#picked];
    if (name === undefined) return;
    const text = `${name} ${percent.format(this.#map.get(name)).replace('-', '−')} %`;
    if (this.#output.textContent !== text) this.#output.textContent = text;
  }
}

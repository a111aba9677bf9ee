// Owns the proof of delivery: counts the numbered events of `demo:count`, and cuts the page's connection on request.

const byId = (id) => document.getElementById(id);

/** Connections of this page, to be cut like by a network. */
const open = new Set();

/** `fetch` with answers that can be cut. */
export async function cuttableFetch(url, init = {}) {
  const cut = new AbortController();
  open.add(cut);
  const signal = init.signal ? AbortSignal.any([init.signal, cut.signal]) : cut.signal;
  signal.addEventListener('abort', () => open.delete(cut));
  return fetch(url, { ...init, signal });
}

export function cutConnections() {
  for (const cut of [...open]) cut.abort(new TypeError('the connection was cut'));
}

/** The hub numbers its events 1, 2, 3, … in each of its runs. */
export class Delivery {
  #run;
  #last = 0;
  received = 0;
  missing = 0;
  repeated = 0;
  cuts = 0;
  restarts = 0;

  take({ run, n }) {
    if (!Number.isInteger(n)) return;
    if (run !== this.#run) {
      if (this.#run !== undefined) this.restarts += 1;
      this.#run = run;
      this.#last = n - 1;
    }
    this.received += 1;
    if (n <= this.#last) this.repeated += 1;
    else this.missing += n - this.#last - 1;
    this.#last = Math.max(this.#last, n);
  }

  draw() {
    for (const name of ['received', 'missing', 'repeated', 'cuts', 'restarts']) byId(`count-${name}`).textContent = this[name];
    byId('delivery').dataset.outcome = this.missing + this.repeated > 0 ? 'wrong' : 'right';
  }
}

/** The tabs of this browser on the shared stream: each holds a lock of the client. Undefined without Web Locks. */
export async function countTabs() {
  if (!navigator.locks) return undefined;
  const { held } = await navigator.locks.query();
  const names = held.map((lock) => lock.name).filter((name) => name.startsWith('fanfare '));
  return names.filter((name) => names.some((other) => other !== name && name.startsWith(`${other} `))).length;
}

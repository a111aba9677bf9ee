// Owns the one stream of a client: opening, reading, changing its topics, reconnecting, and the choice of the transport.
// It reports signals, in order; it knows neither handlers nor other tabs.

import { FanfareError } from './errors.js';
import type { Hub, Item } from './hub.js';
import { parser } from './parser.js';
import type { Gap, State, StateInfo, Transport } from './types.js';

/** Reports of a link. Plain data: they also travel between tabs. */
export type Signal =
  | { kind: 'events'; items: Item[]; id: string }
  | { kind: 'gap'; gap: Gap; id: string }
  /** The cursor moved, without an event. */
  | { kind: 'moved'; id: string }
  /** Every event of these topics arrives from here on. */
  | { kind: 'have'; topics: string[] }
  /** The hub refuses these topics for good. */
  | { kind: 'refused'; topics: readonly string[]; code: string; message: string }
  | { kind: 'state'; state: State; info: StateInfo };

/** Reads blocks of a transport until it ends. */
export type Read = (link: Link, signal: AbortSignal) => Promise<void>;

const MAX_BACKOFF_MS = 30_000;
const QUIET_MS = 250;
const PAUSE_MS = 60;

export class Link {
  /** The place of the stream: a later stream continues there. */
  cursor: string;
  transport: Transport = 'stream';
  /** The first wait before a reconnect: the hub's `retry:`. */
  retryMs = 1000;
  /** Beats with every byte. */
  beat: () => void = () => {};
  #wanted: string[] = [];
  #have = new Set<string>();
  /** Names the open stream; empty without one. */
  clientId = '';
  #changing: AbortSignal | undefined;
  isStopped = true;
  #running = false;
  #freshToken = false;
  #abort = new AbortController();
  #attempt = 0;
  #nextMs: number | undefined;
  #why: { reason: string; message?: string } = { reason: 'network' };
  #wake: (() => void) | undefined;
  #quiet: ReturnType<typeof setTimeout> | undefined;
  #lastBatch = 0;

  constructor(readonly hub: Hub, readonly emit: (signal: Signal) => void, cursor = '') {
    this.cursor = cursor;
  }

  get topics(): readonly string[] {
    return this.#wanted;
  }

  /** Sets the topics. The stream is open while there are some. */
  want(topics: string[]): void {
    this.#wanted = topics;
    if (!topics.length) {
      this.stop();
      this.cursor = '';
      this.emit({ kind: 'have', topics });
    } else if (this.isStopped) this.reopen();
    else if (this.clientId) void this.#change();
    else if (this.transport !== 'stream') this.reopen();
  }

  /** Ends the stream, until `want` or `reopen`. */
  stop(): void {
    this.isStopped = true;
    this.#cut(0);
  }

  /** Opens the stream again, at once. */
  reopen(reason = 'closed'): void {
    this.#why = { reason };
    this.isStopped = false;
    this.#cut(0);
    if (!this.#running) void this.#run();
  }

  /** Ends a wait before a reconnect. */
  wake(): void {
    this.#wake?.();
  }

  #cut(nextMs?: number): void {
    this.#nextMs = nextMs;
    this.#abort.abort();
    this.#wake?.();
  }

  report(state: State, more: Partial<StateInfo> = {}): void {
    clearTimeout(this.#quiet);
    this.#quiet = undefined;
    this.emit({ kind: 'state', state, info: { transport: this.transport, ...more } });
  }

  async #run(): Promise<void> {
    this.#running = true;
    this.report('connecting');
    while (!this.isStopped) {
      const abort = (this.#abort = new AbortController());
      this.#nextMs = undefined;
      try {
        await this.#open(abort.signal);
      } catch (error) {
        // A reader aborted on purpose has set the reason.
        if (!abort.signal.aborted) this.#failed(error);
      }
      this.clientId = '';
      abort.abort();
      if (!this.isStopped) await this.#wait();
    }
    this.#running = false;
  }

  #failed(error: unknown): void {
    const refusal = error instanceof FanfareError ? error : new FanfareError(0, 'network', String(error));
    const { status, code, message, retryMs } = refusal;
    this.#why = { reason: code, message };
    if (retryMs) this.#nextMs = retryMs * (1 + Math.random() / 2);
    if (code === 'bad_cursor' || status === 410) this.#forget();
    else if (status === 401 && !this.#freshToken && this.hub.expire()) {
      this.#freshToken = true;
      this.#nextMs = 0;
    } else if (refusal.isTemporary) return;
    else if (this.refuse(refusal)) this.#nextMs = 0;
    else this.end(status === 401 || status === 403 ? 'unauthorized' : 'ended');
  }

  /** Ends the stream for good, until `want` or `reopen`. */
  end(state: State, why = this.#why): void {
    this.#freshToken = false;
    this.stop();
    this.report(state, why);
  }

  /** Drops the refused topics, if others are left. False without others. */
  refuse({ topics = [], code, message }: FanfareError): boolean {
    const left = this.#wanted.filter((topic) => !topics.includes(topic));
    if (!left.length || left.length === this.#wanted.length) return false;
    this.#wanted = left;
    this.emit({ kind: 'refused', topics, code, message });
    return true;
  }

  /** The hub does not know the cursor: everything since is missed. */
  #forget(): void {
    this.cursor = '';
    this.#nextMs = 0;
    this.emit({ kind: 'gap', gap: { reason: 'epoch' }, id: '' });
  }

  async #wait(): Promise<void> {
    const most = Math.min(MAX_BACKOFF_MS, this.retryMs * 2 ** this.#attempt++);
    const retryMs = this.#nextMs ?? Math.random() * most;
    if (!retryMs) return;
    this.report('offline', { ...this.#why, retryMs });
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, retryMs);
    });
  }

  async #open(signal: AbortSignal): Promise<void> {
    const read = this.transport === 'stream' ? readStream : await fallback(this.transport);
    const { connectMs = 5000, heartbeatMs = 15_000 } = this.hub.options;
    let last = Date.now();
    this.beat = () => (last = Date.now());
    // The clock, not the timer, measures silence: timers stop in a sleeping page.
    const watch = setInterval(() => {
      const silence = Date.now() - last;
      if (this.clientId || this.transport === 'poll') {
        if (silence > 2 * heartbeatMs + 1000) this.#lost('silence');
      } else if (silence > connectMs) {
        this.#lost('silence');
        void import('./fallback.js').then(({ heldBack }) => heldBack(this));
      }
    }, 250);
    try {
      await read(this, signal);
      this.#why = { reason: 'closed' };
    } finally {
      clearInterval(watch);
    }
  }

  #lost(reason: string, nextMs?: number): void {
    this.#why = { reason };
    this.#cut(nextMs);
  }

  /** The stream has these topics. */
  connected(topics: string[], resumed: boolean, clientId = ''): void {
    this.#attempt = 0;
    this.#freshToken = false;
    this.clientId = clientId;
    this.#have = new Set(topics);
    this.#lastBatch = 0;
    this.report(resumed ? 'catching-up' : 'live');
    if (resumed) this.#awaitQuiet();
    this.emit({ kind: 'have', topics });
    if (clientId) void this.#change();
  }

  /** Replayed batches follow each other at once. A pause between two, or after the last, ends the replay. */
  #awaitQuiet(): void {
    const now = Date.now();
    clearTimeout(this.#quiet);
    this.#quiet = setTimeout(() => this.report('live'), now - this.#lastBatch > PAUSE_MS && this.#lastBatch ? 0 : QUIET_MS);
    this.#lastBatch = now;
  }

  /** Takes one block of a stream. */
  onBlock(type: string, data: string, id: string, topics: string[]): void {
    const value = data ? JSON.parse(data) : {};
    if (id) this.cursor = id;
    if (type === 'batch') {
      this.emit({ kind: 'events', items: value, id });
      if (this.#quiet) this.#awaitQuiet();
    } else if (type === 'gap') this.emit({ kind: 'gap', gap: value, id });
    else if (id) this.emit({ kind: 'moved', id });
    if (type === 'connected') this.connected(topics, value.resumed, value.clientId);
    else if (type === 'renew') void import('./renew.js').then(({ renew }) => renew(this, this.#abort.signal, value.expiresMs));
    else if (type === 'end') this.end('ended', { reason: 'end' });
    else if (type === 'shutdown') {
      this.#lost(value.reason, value.reconnectMs);
      if (value.reason === 'token' || value.reason === 'revoked') this.hub.expire();
    }
  }

  /** Changes the topics of the open stream, until it has the wanted ones. */
  async #change(): Promise<void> {
    const { signal } = this.#abort;
    if (this.#changing === signal) return;
    this.#changing = signal;
    while (!signal.aborted) {
      const wanted = new Set(this.#wanted);
      const add = [...wanted].filter((topic) => !this.#have.has(topic));
      const remove = [...this.#have].filter((topic) => !wanted.has(topic));
      if (!add.length && !remove.length) break;
      try {
        await this.hub.authorized(`/streams/${this.clientId}/topics`, { add, remove }, signal);
        this.#have = wanted;
        this.emit({ kind: 'have', topics: [...wanted] });
      } catch (error) {
        if (signal.aborted) return;
        // Else the stream opens again, with all wanted topics.
        if (!(error instanceof FanfareError && this.refuse(error))) return this.reopen();
      }
    }
    this.#changing = undefined;
  }
}

async function fallback(transport: Transport): Promise<Read> {
  const { readEventSource, readPolls } = await import('./fallback.js');
  return transport === 'poll' ? readPolls : readEventSource;
}

const readStream: Read = async (link, signal) => {
  const topics = [...link.topics];
  const body = { topics, batch: 'json', lastEventId: link.cursor || undefined };
  const response = await link.hub.request('/stream', body, signal);
  if (response.status === 204) return link.end('ended', { reason: 'end' });
  if (!response.body) {
    link.transport = typeof EventSource === 'undefined' ? 'poll' : 'eventsource';
    return link.reopen();
  }
  const push = parser(
    (type, data, id) => signal.aborted || link.onBlock(type, data, id, topics),
    (ms) => (link.retryMs = ms),
  );
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    link.beat();
    push(decoder.decode(value, { stream: true }));
  }
};

// Owns the client as seen by an application. The stream is the work of `link`, the sharing among tabs of `tabs`.

import { FanfareError } from './errors.js';
import { Hub } from './hub.js';
import { Link, type Signal } from './link.js';
import { FanfareMap } from './map.js';
import { type Handler, guarded, type Held, type Subscribed, Subscriptions } from './subscriptions.js';
import type { FanfareEvent, Gap, Options, PublishOptions, Published, State, StateInfo, SubscribeOptions } from './types.js';

/** The source of the signals: the page's own link, or the link shared by tabs. */
export interface Feed {
  want(topics: string[]): void;
  wake(): void;
  reopen(reason?: string): void;
  stop(): void;
}

interface Listeners {
  state: (state: State, info: StateInfo) => void;
  gap: (gap: Gap) => void;
  error: (error: Error) => void;
}

/** A client of one hub. All its subscriptions use one stream. */
export class Fanfare {
  readonly #hub: Hub;
  readonly #subscriptions = new Subscriptions();
  readonly #listeners = { state: new Set(), gap: new Set(), error: new Set() } as { [K in keyof Listeners]: Set<Listeners[K]> };
  #feed: Feed | undefined;
  #opening: Promise<void> | undefined;
  #state: State = 'connecting';
  #info: StateInfo = { transport: 'stream' };
  #cursor = '';
  #have = new Set<string>();
  #waiting = new Set<() => void>();
  #isScheduled = false;
  readonly #closed = new AbortController();

  constructor(url: string | URL, options: Options = {}) {
    this.#hub = new Hub(url, options);
    this.#watchPage();
  }

  get state(): State {
    return this.#state;
  }

  get info(): StateInfo {
    return this.#info;
  }

  /** The place of the stream. A later page continues there: `subscribe(topic, handler, { from: cursor })`. */
  get cursor(): string {
    return this.#cursor;
  }

  /** Calls `handler` for every event of the topics or patterns. Returns a function ending the subscription. */
  subscribe<T = unknown>(topics: string | readonly string[], handler: Handler<T>, options: SubscribeOptions = {}): () => void {
    return this.#subscribe([topics].flat() as string[], handler as Handler, options);
  }

  /** The newest value of each key of the topics, kept up to date. */
  map<T = unknown>(topics: string | readonly string[], keyOf = (event: FanfareEvent) => event.key ?? event.topic): FanfareMap<T> {
    const map = new FanfareMap<T>(keyOf);
    const options = { snapshot: true };
    map.close = this.#subscribe([topics].flat() as string[], (event) => map.apply(event), options, map);
    return map;
  }

  on<K extends keyof Listeners>(kind: K, listener: Listeners[K]): () => void {
    this.#listeners[kind].add(listener);
    return () => this.#listeners[kind].delete(listener);
  }

  /** Publishes an event and waits for the hub's answer. Repeats it safely after a lost connection. */
  async publish(topic: string, data?: unknown, options: PublishOptions = {}): Promise<Published> {
    return (await import('./publish.js')).publish(this.#hub, topic, data, options);
  }

  /** Opens the stream again at once: after a login, or after the client stopped. */
  reconnect(): void {
    this.#hub.expire();
    this.#feed?.reopen();
  }

  /** Ends the stream and all subscriptions. */
  close(): void {
    this.#closed.abort();
    this.#feed?.stop();
    this.#feed = this.#opening = undefined;
    this.#apply({ kind: 'state', state: 'ended', info: { transport: this.#info.transport, reason: 'closed' } });
  }

  #subscribe(topics: string[], handler: Handler, options: SubscribeOptions, map?: FanfareMap): () => void {
    const subscribed = this.#subscriptions.add(topics, handler, options, map);
    if (options.snapshot || options.from || options.getState) {
      const held: Held = [];
      subscribed.gate = (event, before) => held.push([event, before]);
      const place = { ready: this.#ready, isOpen: (one: Subscribed) => this.#subscriptions.has(one) };
      void import('./state.js').then(({ handOver }) => handOver(this.#hub, place, subscribed, held));
    }
    this.#schedule();
    return () => {
      this.#subscriptions.remove(subscribed);
      this.#schedule();
    };
  }

  /** Gathers the changes of a moment into one request. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(async () => {
      this.#isScheduled = false;
      const topics = this.#subscriptions.topics();
      if (topics.length) await (this.#opening ??= this.#open());
      this.#feed?.want(this.#subscriptions.topics());
    });
  }

  async #open(): Promise<void> {
    const emit = (signal: Signal) => this.#apply(signal);
    if (this.#hub.options.tabs === 'shared' && globalThis.document && navigator.locks && globalThis.BroadcastChannel) {
      const { Shared } = await import('./tabs.js');
      this.#feed = await Shared.open(this.#hub, emit);
    } else this.#feed = new Link(this.#hub, emit);
  }

  #ready = async (topics: readonly string[]): Promise<string> => {
    while (!topics.every((topic) => this.#have.has(topic))) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
    return this.#cursor;
  };

  #apply(signal: Signal): void {
    const before = this.#cursor;
    if ('id' in signal && signal.id) this.#cursor = signal.id;
    if (signal.kind === 'events') {
      this.#subscriptions.deliver(signal.items, before);
    } else if (signal.kind === 'gap') {
      this.#tell('gap', signal.gap);
      this.#subscriptions.gap(signal.gap);
    } else if (signal.kind === 'have') {
      this.#have = new Set(signal.topics);
      this.#waiting.forEach((resolve) => resolve());
      this.#waiting.clear();
    } else if (signal.kind === 'refused') {
      const error = new FanfareError(403, signal.code, signal.message, undefined, signal.topics);
      this.#subscriptions.refuse(signal.topics, error);
      this.#schedule();
      this.#tell('error', error);
    } else if (signal.kind === 'state') {
      this.#state = signal.state;
      this.#info = signal.info;
      this.#tell('state', signal.state, signal.info);
    }
  }

  #tell<K extends keyof Listeners>(kind: K, ...args: Parameters<Listeners[K]>): void {
    for (const listener of [...this.#listeners[kind]]) guarded(listener as (...args: unknown[]) => void, ...args);
  }

  /** Reconnects at once when the network or the page is back. */
  #watchPage(): void {
    const { window, document } = globalThis;
    const on = (target: EventTarget | undefined, type: string, listener: (event: Event) => void) => {
      target?.addEventListener(type, listener, { signal: this.#closed.signal });
    };
    on(window, 'online', () => this.#feed?.wake());
    on(window, 'offline', () => this.#feed?.reopen('offline'));
    // An open stream would keep the page out of the browser's back/forward cache.
    on(window, 'pagehide', () => this.#feed?.stop());
    on(window, 'pageshow', (event) => (event as PageTransitionEvent).persisted && this.#feed?.reopen());
    on(document, 'visibilitychange', () => document.hidden || this.#feed?.wake());
  }
}

// Owns the synchronised map of keyed state.

import type { FanfareEvent } from './types.js';

/** The newest value of each key of its topics, kept up to date by the client. Read it only. */
export class FanfareMap<T = unknown> extends Map<string, T> {
  #next: Map<string, T> | undefined;
  readonly #listeners = new Set<() => void>();
  #isTold = true;
  /** True once the first snapshot is complete. */
  isReady = false;
  /** Changes with every change of the map. */
  version = 0;
  /** Ends the synchronisation. */
  close!: () => void;
  readonly #keyOf: (event: FanfareEvent) => string;

  constructor(keyOf: (event: FanfareEvent) => string) {
    super();
    this.#keyOf = keyOf;
  }

  /** Calls back once after the changes of a moment. Returns a function ending this. */
  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** @internal A snapshot begins. The old content stays visible until it is complete. */
  begin(): void {
    this.#next = new Map();
  }

  /** @internal The snapshot is complete. */
  done(): void {
    const next = this.#next!;
    this.#next = undefined;
    for (const key of this.keys()) if (!next.has(key)) this.delete(key);
    next.forEach((value, key) => this.set(key, value));
    this.isReady = true;
    this.#changed();
  }

  /** @internal */
  apply(event: FanfareEvent): void {
    const map = this.#next ?? this;
    if (event.type === 'deleted') map.delete(this.#keyOf({ ...event, ...(event.data as { key: string }) }));
    else map.set(this.#keyOf(event), event.data as T);
    if (!this.#next) this.#changed();
  }

  #changed(): void {
    this.version++;
    if (!this.#isTold) return;
    this.#isTold = false;
    queueMicrotask(() => {
      this.#isTold = true;
      this.#listeners.forEach((listener) => listener());
    });
  }
}

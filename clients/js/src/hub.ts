// Owns the requests to one hub: addresses, headers, the token. It keeps no stream.

import { FanfareError, refusalOf } from './errors.js';
import type { Options } from './types.js';

/** The answer to a poll. */
export interface Polled {
  cursor: string;
  events: Item[];
  gap?: { reason: string; topics?: string[] };
}

/** An event as the hub sends it in batches and polls. */
export interface Item {
  id: string;
  topic: string;
  event?: string;
  key?: string;
  data: unknown;
}

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

export class Hub {
  readonly url: string;
  #token: string | undefined;
  #asked: Promise<string | undefined> | undefined;

  constructor(url: string | URL, readonly options: Options) {
    this.url = String(url).replace(/\/+$/, '');
  }

  /** The present token; asks the application for the first one, and for a new one after `expire`. */
  token(): Promise<string | undefined> {
    const { token } = this.options;
    if (typeof token !== 'function') return Promise.resolve(token);
    if (this.#token) return Promise.resolve(this.#token);
    this.#asked ??= (async () => {
      try {
        return (this.#token = (await token()) ?? undefined);
      } finally {
        this.#asked = undefined;
      }
    })();
    return this.#asked;
  }

  /** Forgets the token. False if the application cannot give another one. */
  expire(): boolean {
    this.#token = undefined;
    return typeof this.options.token === 'function';
  }

  async request(path: string, body?: unknown, signal?: AbortSignal | null, as?: string): Promise<Response> {
    const { options } = this;
    const token = as ?? (await this.token());
    const headers: Record<string, string> = { ...options.headers };
    if (body) headers['content-type'] = 'application/json';
    if (token) headers['authorization'] = `Bearer ${token}`;
    const init: RequestInit = { headers, cache: 'no-store' };
    if (signal) init.signal = signal;
    if (options.credentials) init.credentials = options.credentials;
    if (body) Object.assign(init, { method: 'POST', body: JSON.stringify(body) });
    const response = await (options.fetch ?? fetch)(this.url + path, init);
    if (response.ok) return response;
    throw await refusalOf(response);
  }

  /** Like `request`; a refused token is renewed once. */
  async authorized(path: string, body?: unknown, signal?: AbortSignal | null): Promise<Response> {
    const token = await this.token();
    try {
      return await this.request(path, body, signal, token);
    } catch (error) {
      if (!(error instanceof FanfareError) || error.status !== 401 || !token || !this.expire()) throw error;
      return this.request(path, body, signal);
    }
  }

  async poll(topics: readonly string[], more: { wait: number; lastEventId?: string; snapshot?: true }, signal?: AbortSignal): Promise<Polled> {
    return (await this.authorized('/poll', { topics, ...more }, signal)).json();
  }
}

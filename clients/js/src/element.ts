// Owns the custom element `<fanfare-stream>`: events of the hub as DOM events, without a script of the page.

import { Fanfare } from './index.js';

/**
 * `<fanfare-stream src="/events" topics="news,prices:*" types="headline" tabs="shared">`
 *
 * Dispatches a bubbling `fanfare` event for every event of the hub (`detail` is the event), `fanfare-gap` and
 * `fanfare-state`. The attribute `state` has the state, for CSS.
 */
export class FanfareStream extends HTMLElement {
  static readonly observedAttributes = ['src', 'topics', 'types', 'tabs', 'token'];
  #client: Fanfare | undefined;
  #isScheduled = false;

  connectedCallback(): void {
    this.#restart();
  }

  disconnectedCallback(): void {
    this.#restart();
  }

  attributeChangedCallback(): void {
    this.#restart();
  }

  #restart(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      this.#client?.close();
      this.#client = undefined;
      if (this.isConnected) this.#start();
    });
  }

  #start(): void {
    const list = (name: string) => this.getAttribute(name)?.split(/[\s,]+/).filter(Boolean);
    const tell = (name: string, detail: unknown) => this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true }));
    const token = this.getAttribute('token');
    const client = new Fanfare(this.getAttribute('src') ?? '/events', {
      tabs: this.getAttribute('tabs') === 'shared' ? 'shared' : 'own',
      ...(token && { token }),
    });
    client.on('state', (state, info) => {
      this.setAttribute('state', state);
      tell('fanfare-state', { state, ...info });
    });
    const types = list('types');
    const onGap = (gap: unknown) => tell('fanfare-gap', gap);
    client.subscribe(list('topics') ?? [], (event) => tell('fanfare', event), types ? { types, onGap } : { onGap });
    this.#client = client;
  }
}

customElements.define('fanfare-stream', FanfareStream);

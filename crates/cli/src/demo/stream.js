// Owns the page's one connection to the hub: opening, reconnecting, and the last event id.

const STREAM_URL = '/events/stream?topics=demo:ticker:*,demo:chat&last_event_id=';
const BACK_OFF_MIN_MS = 1000;
const BACK_OFF_MAX_MS = 5000;

/** After this many refusals in a row, the next try starts without the id: the hub may refuse the id itself. */
const MAX_REFUSALS_WITH_SAME_ID = 5;

/**
 * Follows the demo topics as long as the page is open.
 *
 * After a network error, `EventSource` reconnects by itself with its last id. It gives up after any
 * status other than 200; then this class opens a new one after a pause, from the same id.
 */
export class Stream {
  #types = new Set(['message']);
  #source = null;
  #timer = 0;
  #lastId = '';
  #refusalCount = 0;
  #hasConnected = false;
  #onEvent;
  #onState;

  /** `onEvent(event)` gets every MessageEvent; `onState(state, detail)` every change of state. */
  constructor({ types, onEvent, onState }) {
    this.#onEvent = onEvent;
    this.#onState = onState;
    types.forEach((type) => this.#types.add(type));
  }

  get lastId() {
    return this.#lastId;
  }

  open() {
    this.close();
    const source = new EventSource(STREAM_URL + encodeURIComponent(this.#lastId || 'earliest'));
    this.#source = source;
    this.#types.forEach((type) => source.addEventListener(type, this.#receive));
    source.addEventListener('error', this.#receiveError);
    this.#reportDown('opening the stream');
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  /** Also receives events of this type: `EventSource` passes on only types with a listener. */
  listenTo(type) {
    if (!type || type === 'error' || this.#types.has(type)) return;
    this.#types.add(type);
    this.#source?.addEventListener(type, this.#receive);
  }

  #receive = (event) => {
    // A publisher may use the type `open`; EventSource's own `open` event has no data.
    if (event.target !== this.#source || !(event instanceof MessageEvent)) return;
    this.#lastId = event.lastEventId || this.#lastId;
    // Not at `open`: a hub with a temporary refusal opens a stream only to send `shutdown`.
    if (event.type === 'connected') {
      this.#hasConnected = true;
      this.#refusalCount = 0;
      this.#onState('live', '');
    }
    this.#onEvent(event);
    if (event.type === 'shutdown') this.#reportDown('the hub ended the stream');
  };

  #receiveError = (event) => {
    // A published event may have the type `error`; it is not a connection error.
    if (event instanceof MessageEvent) {
      this.#receive(event);
      return;
    }
    if (event.target !== this.#source) return;
    if (this.#source.readyState === EventSource.CLOSED) this.#reopenLater();
    else this.#reportDown('waiting for the hub');
  };

  #reopenLater() {
    this.#refusalCount += 1;
    if (this.#refusalCount % MAX_REFUSALS_WITH_SAME_ID === 0) this.#lastId = '';
    const pauseMs = BACK_OFF_MIN_MS + Math.random() * (BACK_OFF_MAX_MS - BACK_OFF_MIN_MS);
    this.#timer = setTimeout(() => this.open(), pauseMs);
    this.#reportDown(`refused, retrying in ${(pauseMs / 1000).toFixed(1)} s`);
  }

  #reportDown(detail) {
    this.#onState(this.#hasConnected ? 'reconnecting' : 'connecting', detail);
  }
}

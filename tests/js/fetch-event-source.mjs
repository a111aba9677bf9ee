// Owns the reader through `@microsoft/fetch-event-source`, for web applications with headers or POST. Options
// and output are described in reader.mjs.
//
// The code beyond the library's defaults follows its README: refuse a 4xx for good, retry other errors, and
// throw in `onclose`, since a clean end of the body otherwise ends the subscription.

import { startReader } from './reader.mjs';

// The library is browser code: it uses exactly these globals.
globalThis.window = { fetch, setTimeout, clearTimeout };
globalThis.document = { hidden: false, visibilityState: 'visible', addEventListener() {}, removeEventListener() {} };

const { fetchEventSource, EventStreamContentType } = (await import('@microsoft/fetch-event-source')).default;

class FatalError extends Error {}

const reader = startReader('fetch-event-source');
const types = new Set(reader.types);

fetchEventSource(reader.streamUrl, {
  openWhenHidden: true,

  async onopen(response) {
    const contentType = response.headers.get('content-type') ?? 'none';
    if (response.ok && contentType.startsWith(EventStreamContentType)) return reader.onOpen();
    const message = `status ${response.status}, content type ${contentType}`;
    const isFinal = response.status >= 400 && response.status < 500 && response.status !== 429;
    throw isFinal ? new FatalError(message) : new Error(message);
  },

  // Called at every blank line, also after a block without data: such a message is printed, not hidden.
  onmessage({ event, id, data }) {
    const type = event || 'message';
    if (types.has(type)) reader.onEvent(type, id, data);
  },

  onclose() {
    throw new Error('the stream ended');
  },

  // Returning nothing retries after the interval of the last `retry:`.
  onerror(error) {
    reader.onError(error.cause ? `${error.message}: ${error.cause.message}` : error.message);
    if (error instanceof FatalError) throw error;
  },
}).catch((error) => reader.onClosed(error.message));

// Owns the reader through the npm package `eventsource`, the usual EventSource of Node programs. Options and
// output are described in reader.mjs.

import { EventSource } from 'eventsource';
import { startReader } from './reader.mjs';

const reader = startReader('eventsource');
const source = new EventSource(reader.streamUrl);

source.addEventListener('open', reader.onOpen);
for (const type of reader.types) {
  source.addEventListener(type, (event) => reader.onEvent(event.type, event.lastEventId, event.data));
}
source.addEventListener('error', ({ message = 'the stream ended' }) => {
  reader.onError(message);
  if (source.readyState === EventSource.CLOSED) reader.onClosed(message);
});

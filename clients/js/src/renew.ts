// Owns the renewal of the token of an open stream. It loads only when needed.

import { FanfareError } from './errors.js';
import { pause } from './hub.js';
import type { Link } from './link.js';

/** Asks the application for a new token and gives it to the hub. Without one, the hub ends the stream. */
export async function renew(link: Link, signal: AbortSignal, expiresMs: number): Promise<void> {
  const { hub, clientId } = link;
  const end = Date.now() + expiresMs;
  for (let wait = 500; !signal.aborted && Date.now() < end; wait *= 2) {
    try {
      hub.expire();
      const token = await hub.token();
      const answer = await hub.request(`/streams/${clientId}/token`, { token }, signal, token);
      const { removed = [] } = await answer.json();
      const error = new FanfareError(403, 'forbidden', 'the new token does not grant these topics', undefined, removed);
      if (link.topics.every((topic) => removed.includes(topic))) link.end('unauthorized', { reason: error.code, message: error.message });
      else link.refuse(error);
      return;
    } catch {
      await pause(wait);
    }
  }
}

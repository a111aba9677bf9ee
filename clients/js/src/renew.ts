// Owns the renewal of the token of an open stream. It loads only when needed.

import { pause } from './hub.js';
import type { Link } from './link.js';

/** Asks the application for a new token and gives it to the hub. Without one, the hub ends the stream. */
export async function renew({ hub, clientId }: Link, signal: AbortSignal, expiresMs: number): Promise<void> {
  const end = Date.now() + expiresMs;
  for (let wait = 500; !signal.aborted && Date.now() < end; wait *= 2) {
    try {
      hub.expire();
      const token = await hub.token();
      await hub.request(`/streams/${clientId}/token`, { token }, signal, token);
      return;
    } catch {
      await pause(wait);
    }
  }
}

// Owns publishing with safe repeats. It loads with the first publish.

import { FanfareError } from './errors.js';
import { type Hub, pause } from './hub.js';
import type { Published, PublishOptions } from './types.js';

const TRIES = 5;

const randomId = () => crypto.randomUUID?.() ?? `${Math.random()}${Math.random()}`;

/** Repeats the publish after a lost connection or a temporary refusal; its id makes this safe. */
export async function publish(hub: Hub, topic: string, data: unknown, options: PublishOptions): Promise<Published> {
  const { type, ...more } = options;
  const event = { topic, event: type, data, id: randomId(), ...more };
  for (let attempt = 1; ; attempt++) {
    try {
      return await (await hub.authorized('/publish', event)).json();
    } catch (error) {
      const { isTemporary = true, retryMs = 0 } = error instanceof FanfareError ? error : {};
      if (!isTemporary || attempt === TRIES) throw error;
      await pause(retryMs + Math.random() * 500 * 2 ** attempt);
    }
  }
}

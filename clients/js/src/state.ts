// Owns the hand-over of a state: events after a given cursor or a snapshot, then the events of the open stream, each once.
// It loads only when needed.

import { isWithinReplay, placeOf, type Positions, positionsOf, timeOf } from './cursor.js';
import { FanfareError } from './errors.js';
import { type Hub, pause } from './hub.js';
import { eventOf, guarded, handle, type Held, offer, type Subscribed } from './subscriptions.js';

export interface Place {
  /** Resolves with the stream's cursor once every new event of the topics arrives. */
  ready(topics: readonly string[]): Promise<string>;
  isOpen(subscribed: Subscribed): boolean;
}

/** Hands over a state now, and a state or snapshot after each gap. `held` has the events of the stream so far. */
export function handOver(hub: Hub, place: Place, to: Subscribed, held: Held): void {
  let run = 0;
  const { getState, snapshot } = to.options;
  if (getState || snapshot) {
    to.restart = () => {
      held = [];
      start();
    };
  }
  const start = () => {
    const mine = ++run;
    to.gate = (event, before) => held.push([event, before]);
    void retried(hub, place, to, () => mine !== run || !place.isOpen(to)).then((at) => at && release(to, held, at));
  };
  start();
}

/** Reads a state, whatever fails meanwhile. Returns its cursor; undefined if the subscription ended. */
async function retried(hub: Hub, place: Place, to: Subscribed, isStale: () => boolean): Promise<string | undefined> {
  for (let wait = 500; !isStale(); wait = Math.min(2 * wait, 30_000)) {
    try {
      return await read(hub, place, to, isStale);
    } catch (error) {
      if (error instanceof FanfareError && !error.isTemporary) {
        guarded(to.options.onError, error);
        return undefined;
      }
      await pause(wait * (0.5 + Math.random() / 2));
    }
  }
  return undefined;
}

async function read(hub: Hub, place: Place, to: Subscribed, isStale: () => boolean): Promise<string | undefined> {
  const { getState, from, onGap } = to.options;
  const since = timeOf(await place.ready(to.topics));
  if (isStale()) return undefined;
  const state = await getState?.();
  let at = typeof state === 'string' ? state : (state?.cursor ?? from);
  to.map?.begin();
  for (;;) {
    const { cursor, events, gap } = await hub.poll(to.topics, { wait: 0, ...(at ? { lastEventId: at } : { snapshot: true }) });
    if (isStale()) return undefined;
    if (gap) {
      guarded(onGap, gap);
      // History does not reach back to the application's state: a newer one may help.
      if (getState) throw new Error(gap.reason);
    }
    for (const event of events) handle(to, eventOf(event));
    at = cursor;
    // An answer may be cut. A whole one is newer than the begin of the topics in the stream.
    if (!isWithinReplay(cursor) && (!events.length || timeOf(cursor) > since)) return at;
  }
}

/** Delivers the held events, from the state's place on, and compares until the stream has passed this place. */
function release(to: Subscribed, held: Held, cursor: string): void {
  const state = positionsOf(cursor);
  to.map?.done();
  to.gate = (event, before) => {
    if (hasPassed(state, before)) to.gate = undefined;
    const place = placeOf(before, event.id);
    if (!place || place[1] > (state.get(place[0]) ?? 0)) handle(to, event);
  };
  for (const [event, before] of held) offer(to, event, before);
}

function hasPassed(state: Positions, cursor: string): boolean {
  const stream = positionsOf(cursor);
  return [...state].every(([partition, sequence]) => stream.get(partition)! >= sequence);
}

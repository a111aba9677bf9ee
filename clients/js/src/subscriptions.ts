// Owns the subscriptions of a page: the union of their topics, and the delivery of events to their handlers.

import type { Item } from './hub.js';
import type { FanfareMap } from './map.js';
import type { FanfareEvent, Gap, SubscribeOptions } from './types.js';

export type Handler<T = unknown> = (event: FanfareEvent<T>) => void;

/** Events of the stream, each with the stream's cursor before it. */
export type Held = [event: FanfareEvent, before: string][];

/** One subscription. */
export interface Subscribed {
  topics: readonly string[];
  handler: Handler;
  options: SubscribeOptions;
  matches: (topic: string) => boolean;
  map: FanfareMap | undefined;
  /** Takes the events of the stream in place of the handler, during the hand-over of a state. */
  gate?: ((event: FanfareEvent, before: string) => void) | undefined;
  /** Begins the hand-over of the state again. */
  restart?: () => void;
}

/** Errors of handlers are the application's: they are reported like other uncaught errors and stop nothing. */
export function guarded<A extends unknown[]>(handler: ((...args: A) => void) | undefined, ...args: A): void {
  try {
    handler?.(...args);
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
  }
}

const isPattern = (topic: string) => /(^|:)\*/.test(topic);

/** `*` stands for one segment, a last `**` for one or more. */
export function matcher(pattern: string): (topic: string) => boolean {
  const escaped = pattern.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  const source = escaped.replace(/(^|:)\\\*\\\*$/, '$1.+').replace(/(^|:)\\\*(?=:|$)/g, '$1[^:]+');
  const regex = new RegExp(`^${source}$`);
  return (topic) => regex.test(topic);
}

export const eventOf = ({ id, topic, event = 'message', key, data }: Item): FanfareEvent =>
  key === undefined ? { id, topic, type: event, data } : { id, topic, type: event, data, key };

export class Subscriptions {
  readonly #all = new Set<Subscribed>();
  readonly #byTopic = new Map<string, Set<Subscribed>>();
  readonly #byPattern = new Set<Subscribed>();

  add(topics: readonly string[], handler: Handler, options: SubscribeOptions, map?: FanfareMap): Subscribed {
    // An invalid topic would end the stream of all subscriptions.
    const wrong = topics.find((topic) => !/^[^\s,:]+(:[^\s,:]+)*$/.test(topic));
    if (wrong !== undefined) throw new TypeError(`invalid topic: ${wrong}`);
    const names = new Set(topics.filter((topic) => !isPattern(topic)));
    const patterns = topics.filter(isPattern).map(matcher);
    const matches = (topic: string) => names.has(topic) || patterns.some((one) => one(topic));
    const subscribed: Subscribed = { topics, handler, options, matches, map };
    this.#all.add(subscribed);
    if (patterns.length) this.#byPattern.add(subscribed);
    else {
      for (const topic of topics) {
        const those = this.#byTopic.get(topic);
        if (those) those.add(subscribed);
        else this.#byTopic.set(topic, new Set([subscribed]));
      }
    }
    return subscribed;
  }

  has(subscribed: Subscribed): boolean {
    return this.#all.has(subscribed);
  }

  remove(subscribed: Subscribed): void {
    this.#all.delete(subscribed);
    this.#byPattern.delete(subscribed);
    for (const topic of subscribed.topics) {
      const those = this.#byTopic.get(topic);
      if (those?.delete(subscribed) && !those.size) this.#byTopic.delete(topic);
    }
  }

  /** The union of all topics. */
  topics(): string[] {
    return [...new Set([...this.#all].flatMap((one) => one.topics))];
  }

  /** Delivers the events of a stream. `before` is the stream's place before the first. */
  deliver(items: readonly Item[], before: string): void {
    for (const item of items) {
      const event = eventOf(item);
      this.#byTopic.get(item.topic)?.forEach((one) => offer(one, event, before));
      for (const one of this.#byPattern) if (one.matches(item.topic)) offer(one, event, before);
      before = item.id;
    }
  }

  /** Tells of missed events; states are handed over again. */
  gap(gap: Gap): void {
    for (const one of [...this.#all]) {
      if (gap.topics && !gap.topics.some(one.matches)) continue;
      guarded(one.options.onGap, gap);
      one.restart?.();
    }
  }

  /** Ends the subscriptions naming a refused topic. */
  refuse(topics: readonly string[], error: Error): void {
    for (const one of [...this.#all]) {
      if (!one.topics.some((topic) => topics.includes(topic))) continue;
      this.remove(one);
      guarded(one.options.onError, error);
    }
  }
}

/** Gives an event of the stream to the gate, else to the handler. */
export function offer(to: Subscribed, event: FanfareEvent, before: string): void {
  if (to.gate) to.gate(event, before);
  else handle(to, event);
}

/** Calls the handler, unless it is for other types. */
export function handle(to: Subscribed, event: FanfareEvent): void {
  const { types } = to.options;
  if (!types || types.includes(event.type)) guarded(to.handler, event);
}

// Owns the list of exports.

export { Fanfare } from './fanfare.js';
export { FanfareError } from './errors.js';
export type { FanfareMap } from './map.js';
export type {
  FanfareEvent,
  Gap,
  Handover,
  Options,
  PublishOptions,
  Published,
  State,
  StateInfo,
  SubscribeOptions,
  Token,
  Transport,
} from './types.js';

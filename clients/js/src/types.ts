// Owns the public types: events, gaps, states, options.

/** An event of a topic, as given to handlers. */
export interface FanfareEvent<T = unknown> {
  readonly topic: string;
  /** `message` if the publisher named no type. */
  readonly type: string;
  /** A text stays a text; any other published value is the parsed JSON. */
  readonly data: T;
  readonly key?: string;
  /** The place of the event in the stream. Opaque. */
  readonly id: string;
}

/** Events were missed, and the hub cannot replay them. */
export interface Gap {
  readonly reason: string;
  readonly partitions?: readonly number[];
  /** The topics, where the hub knows them. */
  readonly topics?: readonly string[];
}

export type State = 'connecting' | 'live' | 'catching-up' | 'offline' | 'unauthorized' | 'ended';

export type Transport = 'stream' | 'eventsource' | 'poll';

/** Details of a state. */
export interface StateInfo {
  readonly transport: Transport;
  /** Why the client is not live: a code of the hub, or `network`, `silence`, `closed`. */
  readonly reason?: string;
  readonly message?: string;
  /** Milliseconds until the next attempt. */
  readonly retryMs?: number;
}

/** A token, or a function fetching one. The function is called when a token is needed or has to be renewed. */
export type Token = string | (() => string | null | undefined | Promise<string | null | undefined>);

export interface Options {
  token?: Token;
  /** `shared`: all tabs of the browser share one stream. */
  tabs?: 'own' | 'shared';
  /** Tabs share only with tabs of the same user. Default: the `sub` of the token. */
  user?: string;
  /** For cookies of another origin: `include`. */
  credentials?: RequestCredentials;
  headers?: Record<string, string>;
  fetch?: typeof fetch;
  /** The hub's heartbeat, in milliseconds: `stream.heartbeat`. Two heartbeats of silence mean a lost connection. */
  heartbeatMs?: number;
  /** A stream without `connected` after this time is held back by a proxy: the client polls. */
  connectMs?: number;
  /** A polling client tries a stream again after this time. */
  probeMs?: number;
}

export interface SubscribeOptions {
  /** Only these event types; `message` stands for events without a type. */
  types?: readonly string[];
  /** Starts with the newest event of each key, or topic, of conflated topics. */
  snapshot?: boolean;
  /** Starts after this cursor; `earliest` starts with all of history. */
  from?: string;
  /** Loads the application's state and returns its cursor. Called at the start and after each gap. */
  getState?: () => Handover | Promise<Handover>;
  onGap?: (gap: Gap) => void;
  /** The hub refuses these topics for good; the subscription has ended. */
  onError?: (error: Error) => void;
}

/** The cursor read before the application's state was read. */
export type Handover = string | { cursor: string };

export interface PublishOptions {
  type?: string;
  key?: string;
  /** Makes the publish idempotent. Default: a random id, so retries are safe. */
  id?: string;
  delete?: boolean;
  ttl?: string;
  end?: boolean;
}

/** The hub's answer to a publish. */
export interface Published {
  readonly success: true;
  readonly eventId: string;
  readonly topic: string;
  readonly partition: number;
  readonly sequence: number;
  readonly receivers: number;
}

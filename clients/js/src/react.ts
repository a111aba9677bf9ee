// Owns the hooks for React.

import { createContext, createElement, type ReactNode, useContext, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';
import type { Fanfare } from './fanfare.js';
import type { FanfareMap } from './map.js';
import type { FanfareEvent, State, SubscribeOptions } from './types.js';

const Context = createContext<Fanfare | null>(null);

/** Gives a client to the hooks of the components inside. */
export function FanfareProvider({ client, children }: { client: Fanfare; children?: ReactNode }): ReactNode {
  return createElement(Context.Provider, { value: client }, children);
}

/** The client of the nearest provider, and its state. */
export function useFanfare(): { client: Fanfare; state: State } {
  const client = useContext(Context);
  if (!client) throw new Error('useFanfare needs a <FanfareProvider client={…}> above it');
  const subscribe = useMemo(() => (changed: () => void) => client.on('state', changed), [client]);
  const state = useSyncExternalStore(subscribe, () => client.state, () => 'connecting' as const);
  return { client, state };
}

/** The newest event of the topics. `onEvent` gets every event. */
export function useTopic<T = unknown>(
  topics: string | readonly string[],
  onEvent?: (event: FanfareEvent<T>) => void,
  options?: SubscribeOptions,
): FanfareEvent<T> | undefined {
  const { client } = useFanfare();
  const [event, setEvent] = useState<FanfareEvent<T>>();
  // The newest callbacks, without a new subscription at every rendering.
  const latest = useRef({ onEvent, options });
  useEffect(() => {
    latest.current = { onEvent, options };
  });
  const key = [topics].flat().join();
  useEffect(() => {
    const handler = (event: FanfareEvent<T>) => {
      setEvent(event);
      latest.current.onEvent?.(event);
    };
    return client.subscribe<T>(key.split(','), handler, latest.current.options);
  }, [client, key]);
  return event;
}

const nothing = new Map<string, never>();

/** The synchronised map of the topics. The component renders again after every change. */
export function useMap<T = unknown>(topics: string | readonly string[]): ReadonlyMap<string, T> {
  const { client } = useFanfare();
  const [map, setMap] = useState<FanfareMap<T>>();
  const key = [topics].flat().join();
  useEffect(() => {
    const map = client.map<T>(key.split(','));
    setMap(map);
    return () => map.close();
  }, [client, key]);
  const subscribe = useMemo(() => map?.subscribe ?? (() => () => {}), [map]);
  const version = useSyncExternalStore(subscribe, () => map?.version ?? -1, () => -1);
  return useMemo(() => (map ? new Map(map) : nothing) as ReadonlyMap<string, T>, [map, version]);
}

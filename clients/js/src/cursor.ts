// Owns the reading of cursors. Cursors are opaque to applications; the client reads them for one purpose: to order the
// events of a stream and of a poll against each other, at the hand-over of a state.

const DIGITS = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_';

/** The positions of a cursor: partition and sequence. */
export type Positions = Map<string, number>;

const number = (text: string) => [...text].reduce((value, digit) => value * 64 + DIGITS.indexOf(digit), 0);

/** The time of a cursor, in milliseconds since 1970; 0 if it has none. */
export const timeOf = (id: string) => number(/^[^.]*~([^.]*)/.exec(id)?.[1] ?? '');

/** Whether the cursor is within a replay: the rest of the replay comes after it. */
export const isWithinReplay = (id: string) => /[*!]/.test(id);

export function positionsOf(id: string): Positions {
  // Within a replay, its kind and the distance to its head follow the sequence.
  const pairs = id.split('.').slice(1).map((one) => one.split(/[:*!]/) as [string, string]);
  return new Map(pairs.map(([partition, sequence]) => [partition, number(sequence)]));
}

/** The place of an event: the position its id changes. Undefined if it changes none. */
export function placeOf(before: string, id: string): [partition: string, sequence: number] | undefined {
  const known = positionsOf(before);
  return [...positionsOf(id)].find(([partition, sequence]) => known.get(partition) !== sequence);
}

// Owns the sharing of one stream among the tabs of a browser.
//
// The channel is one ordered log: every tab, the leader too, takes its events from there, in the same order. A leader
// begins its term with a claim; after it, every tab ignores the earlier leader's signals. So all tabs have the same place
// at the claim, and the new leader continues there: no event is lost, none comes twice. A tab missing a signal leaves the
// log for a stream of its own, from its own place.

import type { Feed } from './fanfare.js';
import { type Hub, pause } from './hub.js';
import { Link, type Signal } from './link.js';

interface Position {
  /** The wanted topics of each tab. */
  wants: Record<string, string[]>;
  have: string[];
  cursor: string;
  state?: Signal | undefined;
}

interface SignalMessage {
  kind: 'signal';
  term: string;
  number: number;
  signal: Signal;
}

type Message =
  /** A tab wants these topics; `isNew` tabs wait for a welcome. */
  | { kind: 'want'; tab: string; topics: string[]; isNew: boolean }
  | { kind: 'bye'; tab: string }
  /** A tab has the lock. From here on it is the leader. */
  | { kind: 'claim'; tab: string; term: string; isNew: boolean }
  /** The place of the log, for a new tab: after the signal `number` of the term. */
  | { kind: 'welcome'; tab: string; term: string; number: number; position: Position }
  | SignalMessage
  /** The application asks for a new attempt, for example after a login. */
  | { kind: 'reopen' }
  | { kind: 'ping' }
  | { kind: 'pong'; term: string };

/** Silence of the leader before a ping; and after it, before another tab takes the lock. */
const PING_MS = 300;
const STEAL_MS = 600;

/** A new leader without a place waits this long for a tab with a place. */
const ASK_MS = 150;

const SWEEP_MS = 30_000;

const random = () => Math.random().toString(36).slice(2);

export class Shared implements Feed {
  readonly #tab = random();
  readonly #hub: Hub;
  readonly #emit: (signal: Signal) => void;
  readonly #name: string;
  /** Two ends: a channel does not deliver its own messages. */
  readonly #out: BroadcastChannel;
  readonly #in: BroadcastChannel;
  readonly #position: Position = { wants: {}, have: [], cursor: '' };
  #topics: string[] = [];
  #term = '';
  #number = 0;
  #isPlaced = false;
  /** Signals before the welcome. */
  #early: SignalMessage[] = [];
  /** The stream: of the leader, or of a tab with a stream of its own. */
  #link: Link | undefined;
  #isAlone = false;
  #ownTerm = '';
  #posted = 0;
  #resign: (() => void) | undefined;
  /** Gives up the lock of this tab. */
  #free: (() => void) | undefined;
  #heard = Date.now();
  #asked = false;
  #placed: (() => void) | undefined;
  #timers: ReturnType<typeof setInterval>[] = [];
  #isOpen = false;

  static async open(hub: Hub, emit: (signal: Signal) => void): Promise<Shared> {
    return new Shared(hub, emit, hub.options.user ?? userOf(await hub.token().catch(() => undefined)));
  }

  private constructor(hub: Hub, emit: (signal: Signal) => void, user: string) {
    this.#hub = hub;
    this.#emit = emit;
    this.#name = `fanfare ${new URL(hub.url, location.href)} ${user}`;
    this.#out = new BroadcastChannel(this.#name);
    this.#in = new BroadcastChannel(this.#name);
    this.#in.onmessage = ({ data }) => this.#on(data);
    document.addEventListener('freeze', () => this.#resign?.());
    document.addEventListener('resume', () => (this.#heard = Date.now()));
    this.#join();
  }

  want(topics: string[]): void {
    this.#topics = topics;
    if (this.#isAlone) this.#link!.want(topics);
    else if (this.#isOpen) this.#post({ kind: 'want', tab: this.#tab, topics, isNew: !this.#isPlaced });
  }

  wake(): void {
    this.#link?.wake();
  }

  reopen(reason?: string): void {
    if (this.#isAlone) {
      this.#isOpen = true;
      this.#link!.reopen(reason);
    } else if (!this.#isOpen) this.#return();
    else if (reason) this.#link?.reopen(reason);
    else this.#post({ kind: 'reopen' });
  }

  /** Leaves the log, for example before the page goes. */
  stop(): void {
    this.#post({ kind: 'bye', tab: this.#tab });
    this.#isOpen = false;
    this.#timers.forEach(clearInterval);
    this.#resign?.();
    this.#free?.();
    this.#link?.stop();
  }

  /** The page is back from the back/forward cache. The log went on: a page with a place continues there, alone. */
  #return(): void {
    if (!this.#position.cursor) return this.#join();
    this.#isOpen = true;
    this.#leave();
  }

  #join(): void {
    this.#isOpen = true;
    this.#isPlaced = false;
    this.#early = [];
    this.#heard = Date.now();
    this.#post({ kind: 'want', tab: this.#tab, topics: this.#topics, isNew: true });
    // The lock of a living tab, for the leader's sweep.
    void navigator.locks.request(`${this.#name} ${this.#tab}`, () => new Promise<void>((resolve) => (this.#free = resolve)));
    this.#queue();
    this.#timers = [setInterval(() => this.#watch(), PING_MS * (1 + Math.random() / 3)), setInterval(() => void this.#sweep(), SWEEP_MS)];
  }

  #queue(steal = false): void {
    navigator.locks
      .request(this.#name, { steal }, () => {
        if (!this.#isOpen || this.#isAlone) return;
        this.#ownTerm = random();
        this.#post({ kind: 'claim', tab: this.#tab, term: this.#ownTerm, isNew: !this.#isPlaced });
        return new Promise<void>((resolve) => (this.#resign = resolve));
      })
      .catch(() => {}) // Another tab has taken the lock.
      .finally(() => {
        this.#unlead();
        if (this.#isOpen && !this.#isAlone) this.#queue();
      });
  }

  #unlead(): void {
    if (this.#isAlone) return;
    this.#ownTerm = '';
    this.#resign = undefined;
    this.#link?.stop();
    this.#link = undefined;
  }

  #post(message: Message): void {
    this.#out.postMessage(message);
  }

  #on(message: Message): void {
    if (!this.#isOpen || this.#isAlone) return;
    const { wants } = this.#position;
    switch (message.kind) {
      case 'want':
        wants[message.tab] = message.topics;
        if (message.isNew && this.#link) this.#welcome(message.tab);
        return this.#union();
      case 'bye':
        delete wants[message.tab];
        return this.#union();
      case 'reopen':
        if (this.#link) this.#hub.expire();
        return this.#link?.reopen();
      case 'ping':
        if (this.#link) this.#post({ kind: 'pong', term: this.#ownTerm });
        return;
      case 'claim':
        return this.#onClaim(message);
      case 'welcome':
        if (message.tab === this.#tab && !this.#isPlaced) this.#place(message);
        return;
      case 'signal':
        if (!this.#isPlaced) return void this.#early.push(message);
        return this.#take(message);
      case 'pong':
        this.#heard = Date.now();
        if (this.#isPlaced && message.term !== this.#term) this.#leave();
    }
  }

  #onClaim({ tab, term, isNew }: Extract<Message, { kind: 'claim' }>): void {
    this.#term = term;
    this.#number = 0;
    this.#early = [];
    this.#heard = Date.now();
    if (tab !== this.#tab) {
      // An earlier leader of this tab has lost the lock.
      if (this.#link) this.#unlead();
      if (this.#isPlaced && isNew) this.#welcome(tab);
      if (!this.#isPlaced) this.#post({ kind: 'want', tab: this.#tab, topics: this.#topics, isNew: true });
    } else if (term === this.#ownTerm) void this.#lead(term);
  }

  async #lead(term: string): Promise<void> {
    if (!this.#isPlaced) {
      await Promise.race([new Promise<void>((resolve) => (this.#placed = resolve)), pause(ASK_MS)]);
    }
    if (this.#ownTerm !== term || this.#term !== term || !this.#isOpen) return;
    this.#isPlaced = true;
    this.#posted = 0;
    const post = (signal: Signal) => {
      if (this.#ownTerm === term) this.#post({ kind: 'signal', term, number: ++this.#posted, signal });
    };
    this.#link = new Link(this.#hub, post, this.#position.cursor);
    this.#position.wants[this.#tab] = this.#topics;
    for (const tab of Object.keys(this.#position.wants)) this.#welcome(tab);
    void this.#sweep();
    this.#union();
  }

  /** Tells a new tab the place of this message in the log. */
  #welcome(tab: string): void {
    if (tab === this.#tab) return;
    this.#post({ kind: 'welcome', tab, term: this.#term, number: this.#number, position: this.#position });
  }

  #place({ term, number, position }: Extract<Message, { kind: 'welcome' }>): void {
    this.#term = term;
    this.#number = number;
    this.#isPlaced = true;
    const { wants } = this.#position;
    Object.assign(this.#position, position, { wants: { ...wants, ...position.wants } });
    if (position.cursor) this.#emit({ kind: 'moved', id: position.cursor });
    this.#emit({ kind: 'have', topics: position.have });
    if (position.state) this.#emit(position.state);
    this.#placed?.();
    for (const message of this.#early) if (message.number > number) this.#take(message);
    this.#early = [];
  }

  #take({ term, number, signal }: SignalMessage): void {
    // The posts of an earlier leader, after the claim of its successor.
    if (term !== this.#term || this.#isAlone) return;
    if (number !== this.#number + 1) return this.#leave();
    this.#heard = Date.now();
    this.#number = number;
    const position = this.#position;
    if ('id' in signal && signal.id) position.cursor = signal.id;
    if (signal.kind === 'have') {
      position.have = signal.topics;
      // A stream without topics has ended; the next one starts live.
      if (!signal.topics.length) position.cursor = '';
    }
    if (signal.kind === 'state') position.state = signal;
    this.#emit(signal);
  }

  /** A signal is missing: this tab continues alone. */
  #leave(): void {
    this.#resign?.();
    this.#unlead();
    this.#free?.();
    this.#post({ kind: 'bye', tab: this.#tab });
    this.#isAlone = true;
    this.#timers.forEach(clearInterval);
    this.#link = new Link(this.#hub, this.#emit, this.#position.cursor);
    this.#link.want(this.#topics);
  }

  /** The leader's stream has the topics of all tabs. */
  #union(): void {
    if (this.#ownTerm && this.#link) this.#link.want([...new Set(Object.values(this.#position.wants).flat())]);
  }

  /** A silent leader is asked; without an answer, this tab takes the lock. */
  #watch(): void {
    const silence = Date.now() - this.#heard;
    if (this.#ownTerm || document.hidden || silence < PING_MS) return void (this.#asked = false);
    if (!this.#asked || silence < STEAL_MS) {
      if (!this.#asked) this.#heard = Date.now() - PING_MS;
      this.#asked = true;
      this.#post({ kind: 'ping' });
    } else {
      this.#asked = false;
      this.#heard = Date.now();
      this.#queue(true);
    }
  }

  /** Forgets the topics of crashed tabs. */
  async #sweep(): Promise<void> {
    if (!this.#ownTerm) return;
    const { held = [] } = await navigator.locks.query();
    const living = new Set(held.map((lock) => lock.name));
    const { wants } = this.#position;
    const gone = Object.keys(wants).filter((tab) => !living.has(`${this.#name} ${tab}`));
    for (const tab of gone) this.#post({ kind: 'bye', tab });
  }
}

/** The user of a token. Only for the name of the channel: the hub checks the token. */
function userOf(token: string | undefined): string {
  try {
    return JSON.parse(atob(token!.split('.')[1]!.replace(/-/g, '+').replace(/_/g, '/'))).sub ?? '';
  } catch {
    return '';
  }
}

"""The works: the load on every system, and the figures shown for it."""

from dataclasses import dataclass

@dataclass(frozen=True)
class Work:
    """One run of the load tool against each system."""

    name: str
    """The name for `--only`: a letter, with a suffix if several works share the letter."""
    title: str
    streams: int
    shown: str
    """The columns of its table, a key of `report.COLUMNS`."""
    rate: float = 10
    """Events per second over all topics; 0 is as fast as they are answered and delivered."""
    seconds: float = 4
    warmup_seconds: float = 1
    payload_bytes: int = 100
    topics: int = 1
    topics_per_stream: int = 1
    publishers: int = 1
    flush: str = "immediate"
    """fanfare's flush policy; the other systems have none."""
    fanfare_takes_lines: bool = False
    """Whether fanfare gets NDJSON, many events per request; otherwise one event per POST, like the others."""
    systems: frozenset[str] = frozenset()
    """The measured systems; empty means all."""
    shows_noise: bool = False
    """Whether the floor is measured again at the end."""
    missed_events: int = 0
    """Instead of a rate: all streams are cut, miss this many events, and return. Needs a history."""
    stalled_streams: int = 0
    """Further streams, never read."""
    access: str = ""
    """fanfare's access control: `anyone` for a rule and a key, `token` for a token of every stream; empty means off."""
    over_tls: str = ""
    """Streams over TLS, by HTTP `1.1` or `2`; empty means plain text, by the load tool."""
    rounds: int = 1
    """The work is repeated, in turn with its neighbours: their small differences are above the noise."""
    note: str = ""

    @property
    def letter(self) -> str:
        return self.name[0]

    @property
    def needs_history(self) -> bool:
        return self.missed_events > 0

    def load_arguments(self, is_quick: bool) -> list[str]:
        return [
            f"--streams={self.streams}",
            f"--payload={self.payload_bytes}",
            f"--topics={self.topics}",
            f"--topics-per-stream={self.topics_per_stream}",
            f"--publishers={self.publishers}",
            *self.publish_arguments(is_quick),
            *([f"--stalled={self.stalled_streams}"] if self.stalled_streams else []),
        ]

    def publish_arguments(self, is_quick: bool) -> list[str]:
        if self.missed_events:
            return [f"--reconnect={self.missed_events}"]
        seconds = min(self.seconds, 3) if is_quick else self.seconds
        warmup = min(self.warmup_seconds, 1) if is_quick else self.warmup_seconds
        return [f"--rate={self.rate}", f"--duration={seconds}s", f"--warmup={warmup}s"]


# So rare that the only event is the first one, published at once in the warm-up.
ONE_EVENT = 0.001

FLAT_OUT = (
    "As fast as events are answered, with no stream more than 256 events behind. Where a publish is answered before its "
    "event is delivered (fanfare, Nchan), latency is mostly that queue."
)

WORKS: list[Work] = [
    Work(
        "a",
        "10,000 idle streams on one topic",
        streams=10_000,
        rate=ONE_EVENT,
        shown="idle",
        note="Idle CPU is of 4 s in which no system sends a heartbeat.",
    ),
    Work(
        "a-heartbeats",
        "10,000 idle streams, with a heartbeat each",
        streams=10_000,
        rate=ONE_EVENT,
        seconds=15,
        shown="idle",
        note="15 s, so one heartbeat for every stream falls into it; the floors have none.",
    ),
    Work(
        "a-100",
        "10,000 idle streams on 100 topics each",
        streams=10_000,
        topics=1000,
        topics_per_stream=100,
        rate=ONE_EVENT,
        seconds=3,
        shown="idle",
        systems=frozenset({"raw"}),
        note="Of 1,000 topics, which are all there before memory is first looked at: what is measured is what a "
        "stream's being on a topic takes, not topics as such.",
    ),
    *(
        Work(
            f"b-{streams // 1000}k-{speed}",
            f"{streams:,} streams on one topic, {text}",
            streams=streams,
            rate=rate,
            shown="deliveries",
            shows_noise=True,
            note=FLAT_OUT if rate == 0 else "",
        )
        for streams, speed, rate, text in (
            (1000, "10", 10, "10 events a second"),
            (1000, "100", 100, "100 events a second"),
            (1000, "flat", 0, "flat out"),
            (10_000, "10", 10, "10 events a second"),
            (10_000, "flat", 0, "flat out"),
        )
    ),
    Work(
        "c",
        "1,000 streams on one topic, 5,000 events a second",
        streams=1000,
        rate=5000,
        flush="tick",
        fanfare_takes_lines=True,
        shown="reached",
        note="Only fanfare has ticks (100 ms), and takes many events a request (NDJSON); the others get an event a "
        "POST, the next once the last is answered, and send each at once: what they reached.",
    ),
    Work(
        "d",
        "10,000 streams with a topic each, 20,000 events a second",
        streams=10_000,
        topics=10_000,
        rate=20_000,
        publishers=64,
        shown="reached",
        note="An event a POST for all, over 64 connections.",
    ),
    Work(
        "d-lines",
        "the same, published by NDJSON lines",
        streams=10_000,
        topics=10_000,
        rate=20_000,
        publishers=4,
        fanfare_takes_lines=True,
        shown="reached",
        systems=frozenset({"raw", "body"}),
    ),
    Work(
        "e",
        "1,000 streams on the same 50 topics each, 5,000 events a second in all",
        streams=1000,
        topics=50,
        topics_per_stream=50,
        rate=5000,
        publishers=16,
        flush="tick",
        fanfare_takes_lines=True,
        shown="reached",
        note="As (c): fanfare with ticks and NDJSON, the others as they are.",
    ),
    Work(
        "f",
        "10,000 streams on one topic return at once, each 10 events behind",
        streams=10_000,
        missed_events=10,
        shown="storm",
        note="Seconds are from the first connection until every stream has all 10. The floor, the Node hub and the "
        "actix-web broadcaster keep no history.",
    ),
    Work(
        "g",
        "1,000 streams on one topic, 10 events a second, one of them never read",
        streams=999,
        stalled_streams=1,
        shown="stalled",
        note="Of the other 999. So little is sent that the kernel holds all that the stalled one does not read.",
    ),
    Work(
        "g-large",
        "99 streams on one topic, 20 events of 64,000 bytes a second",
        streams=99,
        rate=20,
        seconds=6,
        payload_bytes=64_000,
        shown="stalled",
        note="To compare the next with.",
    ),
    Work(
        "g-large-stalled",
        "the same, and one more that is never read",
        streams=99,
        rate=20,
        seconds=6,
        payload_bytes=64_000,
        stalled_streams=1,
        shown="stalled",
        note="The kernel is full of what it does not read within two seconds.",
    ),
    *(
        Work(
            f"h-{name}",
            f"10,000 streams on one topic, 10 events a second, {text}",
            streams=10_000,
            shown="access",
            systems=frozenset({"raw"}),
            access=access,
            rounds=3,
            note=note,
        )
        for name, access, text, note in (
            ("off", "", "access control off", "To compare the next two with."),
            ("anyone", "anyone", "access control on, for anyone", "A public key, and a rule for anyone."),
            ("token", "token", "access control on, with tokens", "One signed token (ES256) for all streams and publishes."),
        )
    ),
    Work(
        "t-1",
        "1,000 idle streams over TLS, by HTTP/1.1",
        streams=1000,
        shown="idle",
        systems=frozenset({"body"}),
        over_tls="1.1",
        note="A connection for each stream.",
    ),
    Work(
        "t-2",
        "1,000 idle streams over TLS, by HTTP/2",
        streams=1000,
        shown="idle",
        systems=frozenset({"body"}),
        over_tls="2",
        note="100 streams on each connection, as of one browser.",
    ),
]

"""fanfare's targets, and the verdicts on them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .run import Result

KIB = 1024


@dataclass(frozen=True)
class Target:
    work: str
    """The name of the work to judge."""
    text: str
    limit: float
    unit: str
    of: Callable[["Figures"], float]
    """The figure; KeyError if a part of it was not measured."""
    is_least: bool = False


@dataclass(frozen=True)
class Verdict:
    target: Target
    measured: float | None

    @property
    def is_reached(self) -> bool | None:
        if self.measured is None:
            return None
        limit = self.target.limit
        return self.measured >= limit if self.target.is_least else self.measured <= limit

    def as_json(self) -> dict[str, Any]:
        target = self.target
        return {
            "work": target.work,
            "text": target.text,
            "limit": target.limit,
            "unit": target.unit,
            "measured": self.measured,
            "is_reached": self.is_reached,
        }


class Figures:
    """The results by work and system. The floor's figures are the mean of before and after."""

    def __init__(self, results: list[Result]):
        self.results = results

    def of(self, work: str, system: str, *path: str) -> float:
        """A figure of the load tool's report. KeyError if it was not measured."""
        found = [value_at(it, path) for it in self.results if (it.work, it.system) == (work, system)]
        values = [value for value in found if value is not None]
        if not values:
            raise KeyError((work, system, path))
        return sum(values) / len(values)

    def cpu(self, work: str, system: str) -> float:
        return self.of(work, system, "server", "cpu_micros_per_delivery")

    def latency(self, work: str, system: str, percentile: str) -> float:
        return self.of(work, system, "latency_ms", percentile)

    def p99(self, work: str, system: str) -> float:
        return self.latency(work, system, "p99")

    def memory_kib(self, work: str, system: str) -> float:
        return self.of(work, system, "server", "memory_bytes_per_connection") / KIB

    def lost(self, work: str, system: str) -> float:
        return self.of(work, system, "loss", "lost") + self.of(work, system, "streams", "ended")

    def noise(self, work: str, *path: str) -> float:
        """The relative change from the floor's first measurement to its second: 0.1 is 10 %."""
        both = [it for it in self.results if (it.work, it.system) == (work, "floor")]
        values = [value_at(it, path) for it in sorted(both, key=lambda it: it.phase, reverse=True)]
        if len(values) != 2 or not all(values):
            raise KeyError((work, "floor", path))
        before, after = values
        return after / before - 1


def value_at(result: Result, path: tuple[str, ...]) -> float | None:
    value = result.bench
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def judge(results: list[Result]) -> list[Verdict]:
    """The verdicts on all targets with measured works."""
    figures, works = Figures(results), {result.work for result in results}
    return [Verdict(target, figure_or_none(target, figures)) for target in TARGETS if target.work in works]


def figure_or_none(target: Target, figures: Figures) -> float | None:
    try:
        return target.of(figures)
    except KeyError:
        return None


def cpu_ratio(work: str, other: str, limit: float) -> Target:
    def ratio(it: Figures) -> float:
        return it.cpu(work, "raw") / it.cpu(work, other)

    return Target(work, f"raw: CPU a delivery to that of {other}, at most {limit} ×", limit, "×", ratio)


def cpu_at_most(work: str, micros: float) -> Target:
    return Target(work, f"raw: CPU a delivery, at most {micros} µs", micros, "µs", lambda it: it.cpu(work, "raw"))


def latency_ratio(work: str, percentile: str, other: str, limit: float) -> Target:
    def ratio(it: Figures) -> float:
        return it.latency(work, "raw", percentile) / it.latency(work, other, percentile)

    return Target(work, f"raw: {percentile} to that of {other}, at most {limit} ×", limit, "×", ratio)


def none_lost(work: str) -> Target:
    return Target(work, "raw: none lost", 0, "lost", lambda it: it.lost(work, "raw"))


def undisturbed(work: str, other: str) -> Target:
    """Beside a stalled reader, the p99 is the same as in the work `other`, apart from the noise of the floor's p99."""

    def excess(it: Figures) -> float:
        try:
            noise = max(abs(it.noise("b-1k-10", "latency_ms", "p99")), LEAST_NOISE)
        except KeyError:
            noise = LEAST_NOISE
        return it.p99(work, "raw") / it.p99(other, "raw") / (1 + noise)

    return Target(work, f"raw: p99 to that of ({other}) times the noise of p99, at most 1 ×", 1, "×", excess)


def as_without_access(work: str, text: str, of: Callable[[Figures, str], float]) -> Target:
    """Access control costs at most 3 %."""
    return Target(work, f"raw: {text} to that of (h-off), at most 1.03 ×", 1.03, "×", lambda it: of(it, work) / of(it, "h-off"))


# The p99 of a few hundred events varies by this much on an idle machine.
LEAST_NOISE = 0.1

# The deliveries of one event may lie on both sides of the window's end.
WINDOW_ERROR = 0.99

TARGETS: list[Target] = [
    Target("a", "raw: memory a stream, at most 1.25 KiB", 1.25, "KiB", lambda it: it.memory_kib("a", "raw")),
    Target(
        "a",
        "raw: memory a stream to that of nchan, at most 0.25 ×",
        0.25,
        "×",
        lambda it: it.memory_kib("a", "raw") / it.memory_kib("a", "nchan"),
    ),
    Target("a", "body: memory a stream, at most 12 KiB", 12, "KiB", lambda it: it.memory_kib("a", "body")),
    Target("a", "raw: idle CPU, under 0.2 %", 0.2, "%", lambda it: it.of("a", "raw", "server", "cpu_percent")),
    Target("a-100", "raw: memory a stream, at most 6 KiB", 6, "KiB", lambda it: it.memory_kib("a-100", "raw")),
    Target(
        "a-heartbeats",
        "raw: CPU with heartbeats, at most 0.3 % (3 % for 100,000 streams)",
        0.3,
        "%",
        lambda it: it.of("a-heartbeats", "raw", "server", "cpu_percent"),
    ),
    cpu_ratio("b-1k-10", "floor", 1.0),
    cpu_ratio("b-1k-100", "floor", 1.0),
    cpu_ratio("b-1k-flat", "floor", 0.8),
    cpu_ratio("b-1k-flat", "nchan", 1.0),
    cpu_ratio("b-10k-10", "floor", 1.0),
    cpu_ratio("b-10k-flat", "floor", 1.0),
    cpu_ratio("b-10k-10", "nchan", 0.7),
    cpu_ratio("b-10k-flat", "nchan", 0.7),
    latency_ratio("b-1k-100", "p50", "floor", 1.4),
    latency_ratio("b-10k-10", "p99", "floor", 1.25),
    cpu_ratio("d", "floor", 1.0),
    Target(
        "c",
        "raw: 5 million deliveries a second",
        5e6 * WINDOW_ERROR,
        "a second",
        lambda it: it.of("c", "raw", "deliveries", "per_second"),
        is_least=True,
    ),
    none_lost("c"),
    cpu_at_most("c", 0.10),
    Target("c", "raw: p99, at most the tick + 25 ms", 125, "ms", lambda it: it.p99("c", "raw")),
    none_lost("d"),
    cpu_at_most("d", 8),
    none_lost("d-lines"),
    cpu_at_most("d-lines", 8),
    none_lost("e"),
    cpu_at_most("e", 0.3),
    none_lost("f"),
    Target("f", "raw: each once", 0, "twice", lambda it: it.of("f", "raw", "loss", "twice")),
    Target("f", "raw: all have all within 3 s", 3, "s", lambda it: it.of("f", "raw", "reconnect", "seconds_to_catch_up")),
    undisturbed("g", "b-1k-10"),
    undisturbed("g-large-stalled", "g-large"),
    *(
        as_without_access(work, text, of)
        for work in ("h-anyone", "h-token")
        for text, of in (
            ("memory a stream", lambda it, work: it.memory_kib(work, "raw")),
            ("CPU a delivery", lambda it, work: it.cpu(work, "raw")),
        )
    ),
    Target("t-1", "body: memory a stream over TLS, at most 20 KiB", 20, "KiB", lambda it: it.memory_kib("t-1", "body")),
    Target("t-2", "body: memory a stream over TLS, at most 20 KiB", 20, "KiB", lambda it: it.memory_kib("t-2", "body")),
]

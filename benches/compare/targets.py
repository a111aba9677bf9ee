"""What fanfare has to reach, and whether it does."""

from collections.abc import Callable
from dataclasses import dataclass

from .run import Result

KIB = 1024


@dataclass
class Target:
    work: str
    """The work's name; a target is judged only if what it compares was measured."""
    text: str
    limit: float
    unit: str
    measured: float
    is_least: bool = False

    @property
    def is_reached(self) -> bool:
        return self.measured >= self.limit if self.is_least else self.measured <= self.limit


class Figures:
    """The results by work and system; the floor's are the mean of before and after."""

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

    def p99(self, work: str, system: str) -> float:
        return self.of(work, system, "latency_ms", "p99")

    def memory_kib(self, work: str, system: str) -> float:
        return self.of(work, system, "server", "memory_bytes_per_connection") / KIB

    def lost(self, work: str, system: str) -> float:
        return self.of(work, system, "loss", "lost") + self.of(work, system, "streams", "ended")

    def noise(self, work: str, *path: str) -> float:
        """How far the floor's second measurement is from its first: 0.1 is a tenth."""
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


def judge(results: list[Result]) -> list[Target]:
    """All targets whose figures were measured."""
    figures = Figures(results)
    targets = []
    for make in TARGETS:
        try:
            targets.append(make(figures))
        except KeyError:
            continue
    return targets


def idle(text: str, limit: float, unit: str, of: Callable[[Figures], float], work: str = "a"):
    return lambda figures: Target(work, text, limit, unit, of(figures))


def to_floor(work: str, times: float):
    return lambda it: Target(
        work, f"raw: CPU a delivery to the floor's, at most {times}", times, "×", it.cpu(work, "raw") / it.cpu(work, "floor")
    )


def to_nchan(work: str, times: float):
    return lambda it: Target(
        work, f"raw: CPU a delivery to Nchan's, at most {times}", times, "×", it.cpu(work, "raw") / it.cpu(work, "nchan")
    )


def p99_to_floor(work: str, times: float):
    return lambda it: Target(
        work, f"raw: p99 to the floor's, at most {times}", times, "×", it.p99(work, "raw") / it.p99(work, "floor")
    )


def cpu_at_most(work: str, micros: float):
    return lambda it: Target(work, f"raw: CPU a delivery, at most {micros} µs", micros, "µs", it.cpu(work, "raw"))


def none_lost(work: str):
    return lambda it: Target(work, "raw: none lost", 0, "lost", it.lost(work, "raw"))


def stalled_reader(it: Figures) -> Target:
    # The machine's own noise, and no less than a tenth.
    noise = max(abs(it.noise("b-1k-10", "latency_ms", "p99")), 0.1)
    ratio = it.p99("g", "raw") / it.p99("b-1k-10", "raw")
    return Target("g", f"raw: p99 to that without a stalled reader, within noise ({noise:.0%})", 1 + noise, "×", ratio)


TARGETS: list[Callable[[Figures], Target]] = [
    idle("raw: memory a stream, at most 2 KiB", 2, "KiB", lambda it: it.memory_kib("a", "raw")),
    idle(
        "raw: memory a stream to Nchan's, at most a quarter",
        0.25,
        "×",
        lambda it: it.memory_kib("a", "raw") / it.memory_kib("a", "nchan"),
    ),
    idle("body: memory a stream, at most 12 KiB", 12, "KiB", lambda it: it.memory_kib("a", "body")),
    idle("raw: idle CPU, under 0.2 % of a core", 0.2, "%", lambda it: it.of("a", "raw", "server", "cpu_percent")),
    idle(
        "raw, 100 topics a stream: memory, at most 6 KiB", 6, "KiB", lambda it: it.memory_kib("a-100", "raw"), "a-100"
    ),
    to_floor("b-1k-10", 1.15),
    to_floor("b-1k-flat", 1.15),
    to_floor("b-10k-10", 1.3),
    to_floor("b-10k-flat", 1.3),
    to_nchan("b-10k-10", 0.75),
    to_nchan("b-10k-flat", 0.75),
    p99_to_floor("b-10k-10", 1.5),
    lambda it: Target(
        "c",
        "raw: 5 million deliveries a second",
        # The window's ends cut an event's deliveries in two.
        5e6 * 0.99,
        "a second",
        it.of("c", "raw", "deliveries", "per_second"),
        is_least=True,
    ),
    none_lost("c"),
    cpu_at_most("c", 0.10),
    lambda it: Target("c", "raw: p99, at most the tick + 25 ms", 125, "ms", it.p99("c", "raw")),
    none_lost("d"),
    cpu_at_most("d", 8),
    none_lost("d-lines"),
    cpu_at_most("d-lines", 8),
    none_lost("e"),
    cpu_at_most("e", 0.3),
    none_lost("f"),
    lambda it: Target("f", "raw: all back within 3 s", 3, "s", it.of("f", "raw", "reconnect", "seconds")),
    stalled_reader,
]

"""The results as Markdown tables, also readable on a terminal."""

from collections.abc import Callable
from typing import Any

from .run import Result
from .systems import SYSTEMS
from .targets import Figures, Verdict, judge, value_at
from .works import WORKS, Work

MIB = 1024 * 1024

Cell = Callable[[Result], str]


def figure(*path: str, decimals: int = 0, divisor: float = 1) -> Cell:
    def cell(result: Result) -> str:
        value = value_at(result, path)
        return "–" if value is None else f"{value / divisor:,.{decimals}f}"

    return cell


def lost(result: Result) -> str:
    """Lost deliveries. The missing deliveries of streams ended early count too."""
    count, expected = value_at(result, ("loss", "lost")), value_at(result, ("deliveries", "expected"))
    if not count:
        return "none"
    return f"{count:,} of {expected:,}" if expected else f"{count:,}"


LATENCIES = [
    ("p50 ms", figure("latency_ms", "p50", decimals=1)),
    ("p99 ms", figure("latency_ms", "p99", decimals=1)),
    ("p99.9 ms", figure("latency_ms", "p99.9", decimals=1)),
]
CPU = [
    ("CPU µs a delivery", figure("server", "cpu_micros_per_delivery", decimals=2)),
    ("CPU %", figure("server", "cpu_percent", decimals=0)),
]
DELIVERIES = ("deliveries a second", figure("deliveries", "per_second"))

COLUMNS: dict[str, list[tuple[str, Cell]]] = {
    "idle": [
        ("KiB a stream", figure("server", "memory_bytes_per_connection", decimals=2, divisor=1024)),
        ("MiB in all", figure("server", "memory_bytes", decimals=1, divisor=MIB)),
        ("idle CPU % of a core", figure("server", "cpu_percent", decimals=2)),
    ],
    "access": [
        ("KiB a stream", figure("server", "memory_bytes_per_connection", decimals=2, divisor=1024)),
        *CPU,
        *LATENCIES,
        ("lost", lost),
    ],
    "deliveries": [DELIVERIES, *CPU, *LATENCIES, ("lost", lost)],
    "reached": [
        ("events a second", figure("published", "per_second")),
        DELIVERIES,
        *CPU,
        *LATENCIES,
        ("lost", lost),
    ],
    "storm": [
        ("s until all are open", figure("reconnect", "seconds_to_open", decimals=2)),
        ("s until all have all", figure("reconnect", "seconds_to_catch_up", decimals=2)),
        ("CPU µs a return", figure("reconnect", "cpu_micros_per_stream", decimals=1)),
        ("lost", lost),
        ("twice", figure("loss", "twice")),
        ("SYNs sent again", figure("reconnect", "syn_retransmissions")),
    ],
    "stalled": [DELIVERIES, *CPU, *LATENCIES, ("lost", lost), ("stalled and ended", figure("stalled", "ended"))],
}


def markdown(about: dict[str, str], results: list[Result], is_quick: bool) -> str:
    parts = [header(about, is_quick)]
    for work in WORKS:
        of_work = [result for result in results if result.work == work.name]
        if of_work:
            parts.append(table(work, of_work))
    parts += [noise(results), targets(judge(results)), remarks(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def header(about: dict[str, str], is_quick: bool) -> str:
    lines = [f"- {name}: {value}" for name, value in about.items()]
    quick = " Short runs (`--quick`): figures to try the comparison, not to quote." if is_quick else ""
    return (
        "# Comparison\n\n" + "\n".join(lines) + f"\n\nServer and load tool (`fanfare bench`) share the cores; CPU is the "
        f"server's alone, of all its processes; latency includes the tool's own. Payloads are 100 bytes. "
        "Unless said otherwise, every system gets an event a POST, fanfare too, and sends each at once. A fresh server "
        f"each time.{quick}"
    )


def table(work: Work, results: list[Result]) -> str:
    columns = COLUMNS[work.shown]
    rows = [["system", *(name for name, _ in columns)]]
    rows += [row(result, columns) for result in ordered(results)]
    rows += [[title, *("–" for _ in columns)] for title in without_history(work, results)]
    text = f"## ({work.name}) {work.title}\n\n{aligned(rows)}"
    return f"{text}\n\n{work.note}" if work.note else text


def ordered(results: list[Result]) -> list[Result]:
    names = [system.name for system in SYSTEMS]
    return sorted(results, key=lambda result: (names.index(result.system), result.phase == "after"))


def without_history(work: Work, results: list[Result]) -> list[str]:
    """Systems without a history, in a work needing one. The table lists them without figures."""
    has_result = {result.system for result in results}
    return [it.title for it in SYSTEMS if work.needs_history and not it.has_history and it.name not in has_result]


def row(result: Result, columns: list[tuple[str, Cell]]) -> list[str]:
    title = next(system.title for system in SYSTEMS if system.name == result.system)
    if result.phase:
        title += f" ({result.phase})"
    if result.failure:
        return [title, "failed", *("" for _ in columns[1:])]
    return [title, *(cell(result) for _, cell in columns)]


def aligned(rows: list[list[str]]) -> str:
    """A Markdown table: first column aligned left, figures aligned right."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]

    def line(cells: list[str]) -> str:
        padded = (cell.rjust(width) if at else cell.ljust(width) for at, (cell, width) in enumerate(zip(cells, widths)))
        return f"| {' | '.join(padded)} |"

    rule = [("-" * (width - 1) + ":") if at else "-" * width for at, width in enumerate(widths)]
    return "\n".join([line(rows[0]), line(rule), *(line(row) for row in rows[1:])])


def noise(results: list[Result]) -> str:
    figures, rows = Figures(results), [["work", "CPU a delivery", "p99"]]
    for work in (work for work in WORKS if work.shows_noise):
        try:
            cpu = figures.noise(work.name, "server", "cpu_micros_per_delivery")
            p99 = figures.noise(work.name, "latency_ms", "p99")
        except KeyError:
            continue
        rows.append([work.name, f"{cpu:+.1%}", f"{p99:+.1%}"])
    if len(rows) == 1:
        return ""
    return f"## The machine's noise: the floor after all else, to before\n\n{aligned(rows)}"


def targets(verdicts: list[Verdict]) -> str:
    if not verdicts:
        return ""
    rows = [["target", "work", "measured", ""]]
    rows += [[it.target.text, it.target.work, measured(it), outcome(it)] for it in verdicts]
    return f"## Targets\n\n{aligned(rows)}"


def measured(it: Verdict) -> str:
    if it.measured is None:
        return "–"
    decimals = 0 if it.target.unit in ("a second", "lost", "twice") else 2
    return f"{it.measured:,.{decimals}f} {it.target.unit}"


def outcome(it: Verdict) -> str:
    if it.is_reached is None:
        return "not measured"
    return "reached" if it.is_reached else "**missed**"


def remarks(results: list[Result]) -> str:
    """Failures and problems of single runs."""
    lines = []
    for result in results:
        where = f"({result.work}) {result.system} {result.phase}".strip()
        if result.failure:
            lines.append(f"- {where} failed: {result.failure}")
        lines += [f"- {where}: {problem}" for problem in result.problems]
        if result.overflows:
            lines.append(f"- {where}: {result.overflows} connections found the accept queue full")
    return "## Remarks\n\n" + "\n".join(lines) if lines else ""


def as_json(about: dict[str, str], results: list[Result], is_quick: bool) -> dict[str, Any]:
    return {
        "about": about,
        "is_quick": is_quick,
        "works": {work.name: work.title for work in WORKS},
        "results": [result.as_json() for result in results],
        "targets": [it.as_json() for it in judge(results)],
    }

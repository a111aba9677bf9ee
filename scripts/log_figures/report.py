"""The figures as a Markdown table, each with its target."""

import typing

from log_figures.disk import percentile


class Row(typing.NamedTuple):
    name: str
    value: str
    target: str = ""
    # Whether the target is reached; `None` without a target.
    holds: bool | None = None


def table(figures: dict) -> str:
    sections = (throughput, amplification, memory, latency, opening)
    rows = [row for section in sections for row in section(figures)]
    verdicts = {True: "reached", False: "**missed**", None: ""}
    lines = [f"| {row.name} | {row.value} | {row.target} | {verdicts[row.holds]} |" for row in rows]
    return "\n".join(["| measured | value | target | |", "|---|---|---|---|", *lines])


def throughput(figures: dict) -> list[Row]:
    memory, disk, redis = figures["memory"], figures["disk"], figures["redis"]
    least = min(20_000, 0.5 * memory["posts"])
    times, half = disk["ndjson"] / redis["ndjson"], disk["posts"] / memory["posts"]
    posts = f"{least:,.0f}/s: 20,000/s or 0.5 × memory"
    return [
        Row("NDJSON, 8 connections: memory", f"{memory['ndjson']:,.0f}/s"),
        Row("… Redis, `appendfsync always`", f"{redis['ndjson']:,.0f}/s"),
        Row("… disk", f"{disk['ndjson']:,.0f}/s, {times:.1f} × Redis", "2 × Redis", times >= 2),
        Row("… records of a group", f"{disk['group']:.0f}"),
        Row("… a sync, mean", f"{disk['sync'] * 1e3:.2f} ms"),
        Row("POSTs, 64 connections: memory", f"{memory['posts']:,.0f}/s"),
        Row("… Redis, `appendfsync always`", f"{redis['posts']:,.0f}/s"),
        Row("… disk", f"{disk['posts']:,.0f}/s, {half:.2f} × memory", posts, disk["posts"] >= least),
    ]


def amplification(figures: dict) -> list[Row]:
    disk = figures["disk"]
    record, data = disk["written_per_record_byte"], disk["written_per_data_byte"]
    return [
        Row("bytes written for each byte of records", f"{record:.2f}", "1.5", record <= 1.5),
        Row("… for each byte of events' data", f"{data:.2f}"),
    ]


def memory(figures: dict) -> list[Row]:
    disk, memory = figures["disk"]["memory"], figures["memory"]["memory"]
    value = f"{disk / 2**20:.0f} MiB, in memory {memory / 2**20:.0f} MiB"
    return [Row("memory of the hub", value, "1.1 × memory", disk <= 1.1 * memory)]


def latency(figures: dict) -> list[Row]:
    measured = figures["latency"]
    memory, disk, syncs = measured["memory"], measured["disk"], measured["syncs"]
    added = percentile(disk, 99) - percentile(memory, 99)
    allowed = percentile(syncs, 99) + 0.002
    return [
        Row("the disk's own sync, p50 and p99", both(syncs)),
        Row("publish to stream in memory, p50 and p99", both(memory)),
        Row("… on disk", both(disk)),
        Row("added latency, p99", f"{added * 1e3:.2f} ms", f"{allowed * 1e3:.2f} ms: sync p99 + 2 ms", added <= allowed),
    ]


def opening(figures: dict) -> list[Row]:
    measured = figures.get("opening")
    if not measured:
        return []
    name = f"start on {measured['events']:,} events, {measured['log_bytes'] / 2**30:.1f} GiB"
    seconds, gib = percentile(measured["seconds"], 50), measured["memory"] / 2**30
    return [Row(name, f"{seconds:.1f} s, {gib:.1f} GiB of memory", "5 s", seconds <= 5)]


def both(seconds: list[float]) -> str:
    return f"{percentile(seconds, 50) * 1e3:.2f} and {percentile(seconds, 99) * 1e3:.2f} ms"

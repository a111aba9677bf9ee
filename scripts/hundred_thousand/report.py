"""The figures of a run as a Markdown table, with their targets."""

import typing

MAX_MEMORY_BYTES = 400_000_000
MAX_IDLE_CPU_PERCENT = 3.0


class Row(typing.NamedTuple):
    name: str
    value: str
    target: str = ""
    # Whether the target is met; `None` without a target.
    holds: bool | None = None


def is_whole(figures: dict) -> bool:
    """Whether every stream opened, stayed open, and received every event once."""
    is_open = figures["opened"] == figures["streams"] and not figures["problems"]
    return is_open and not any(figures["faults"].values())


def table(figures: dict) -> str:
    sections = [opening, memory, idle_cpu, broadcasts, deliveries]
    rows = [row for section in sections for row in section(figures)]
    verdicts = {True: "pass", False: "**miss**", None: ""}
    lines = [f"| {row.name} | {row.value} | {row.target} | {verdicts[row.holds]} |" for row in rows]
    return "\n".join(["| measured | value | target | |", "|---|---|---|---|", *lines])


def opening(figures: dict) -> list[Row]:
    streams, opened = figures["streams"], figures["opened"]
    name = f"streams open, of {figures['instances']} instances"
    value = f"{opened:,} of {streams:,}, in {figures['seconds_to_open']:.0f} s"
    problems = figures["problems"].items()
    return [
        Row(name, value, "all", opened == streams),
        *(Row(f"not asked for: {text}", f"{count:,}", "none", False) for text, count in problems),
    ]


def memory(figures: dict) -> list[Row]:
    moments = figures["memory_bytes"]
    before, is_open = moments["before"], moments["open"]
    a_stream = (is_open["fanfare"] - before["fanfare"]) / figures["streams"]
    instances = f"{megabytes(is_open['fanfare'])}, {a_stream:,.0f} bytes a stream"
    total = sum(is_open.values())
    return [
        Row("memory (Pss) before the first stream: instances, Redis", both(before)),
        Row("with all streams: instances", instances),
        Row("with all streams: Redis", megabytes(is_open["redis"])),
        Row("with all streams: together", megabytes(total), "< 400 MB", total < MAX_MEMORY_BYTES),
        Row("after the broadcasts: instances, Redis", both(moments["after broadcasts"])),
        Row("after all have left: instances, Redis", both(moments["after all left"])),
    ]


def idle_cpu(figures: dict) -> list[Row]:
    percent = figures["idle_cpu_percent"]
    value = f"{percent['fanfare']:.2f} % of a core"
    holds = percent["fanfare"] < MAX_IDLE_CPU_PERCENT
    return [
        Row("idle CPU, heartbeats included: instances", value, "< 3 %", holds),
        Row("of that in the kernel", f"{percent['fanfare in the kernel']:.2f} %"),
        Row("idle CPU: Redis", f"{percent['redis']:.2f} % of a core"),
    ]


def broadcasts(figures: dict) -> list[Row]:
    runs = figures["broadcasts"]
    first = ", ".join(f"{run['seconds_to_first'] * 1e3:.0f}" for run in runs)
    last = ", ".join(f"{run['seconds_to_last'] * 1e3:,.0f}" for run in runs)
    cpu = ", ".join(f"{run['cpu_micros_per_delivery']:.1f}" for run in runs)
    redis = ", ".join(f"{run['redis_cpu_millis']:.1f}" for run in runs)
    return [
        Row(f"broadcast to all, {len(runs)} times: until the first stream has it", f"{first} ms"),
        Row("until the last has it", f"{last} ms"),
        Row("the instances' CPU a delivery", f"{cpu} µs"),
        Row("Redis' CPU a broadcast", f"{redis} ms"),
    ]


def deliveries(figures: dict) -> list[Row]:
    faults, sample = figures["faults"], figures["sample"]
    count = figures["streams"] * len(figures["broadcasts"]) + sample
    name = f"of {count:,} deliveries, {sample:,} of them to a topic of one stream"
    value = ", ".join(f"{number:,} {fault}" for fault, number in faults.items())
    return [Row(name, value, "none", not any(faults.values()))]


def both(moment: dict) -> str:
    return f"{megabytes(moment['fanfare'])}, {megabytes(moment['redis'])}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

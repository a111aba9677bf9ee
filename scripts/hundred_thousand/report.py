"""The figures of a run as a Markdown table, and what they are held against."""

MAX_MEMORY_BYTES = 400_000_000
MAX_IDLE_CPU_PERCENT = 3.0


def is_whole(figures: dict) -> bool:
    """Whether every stream opened and stayed, and had everything once."""
    is_open = figures["opened"] == figures["streams"] and not figures["problems"]
    return is_open and not any(figures["faults"].values())


def table(figures: dict) -> str:
    rows = ["| measured | value | target | |", "|---|---|---|---|"]
    for name, value, *target in lines(figures):
        wanted, holds = target or ("", None)
        verdict = {True: "pass", False: "**miss**", None: ""}[holds]
        rows.append(f"| {name} | {value} | {wanted} | {verdict} |")
    return "\n".join(rows)


def lines(figures: dict) -> list[tuple]:
    """Name, value and, where there is one, target and whether it holds."""
    return [
        *opening(figures),
        *memory(figures),
        *idle_cpu(figures),
        *broadcasts(figures),
        *deliveries(figures),
    ]


def opening(figures: dict) -> list[tuple]:
    streams, opened, problems = figures["streams"], figures["opened"], figures["problems"]
    rows = [(
        f"streams open, of {figures['instances']} instances",
        f"{opened:,} of {streams:,}, in {figures['seconds_to_open']:.0f} s",
        "all",
        opened == streams,
    )]
    rows += [(f"not asked for: {text}", f"{count:,}", "none", False) for text, count in problems.items()]
    return rows


def memory(figures: dict) -> list[tuple]:
    moments = figures["memory_bytes"]
    before, is_open, after = moments["before"], moments["open"], moments["after all left"]
    a_stream = (is_open["fanfare"] - before["fanfare"]) / figures["streams"]
    total = sum(is_open.values())
    return [
        ("memory (Pss) before the first stream: instances, Redis", both(before)),
        ("with all streams: instances", f"{megabytes(is_open['fanfare'])}, {a_stream:,.0f} bytes a stream"),
        ("with all streams: Redis", megabytes(is_open["redis"])),
        ("with all streams: together", megabytes(total), "< 400 MB", total < MAX_MEMORY_BYTES),
        ("after the broadcasts: instances, Redis", both(moments["after broadcasts"])),
        ("after all have left: instances, Redis", both(after)),
    ]


def idle_cpu(figures: dict) -> list[tuple]:
    percent = figures["idle_cpu_percent"]
    holds = percent["fanfare"] < MAX_IDLE_CPU_PERCENT
    return [
        ("idle CPU, heartbeats included: instances", f"{percent['fanfare']:.2f} % of a core", "< 3 %", holds),
        ("idle CPU: Redis", f"{percent['redis']:.2f} % of a core"),
    ]


def broadcasts(figures: dict) -> list[tuple]:
    runs = figures["broadcasts"]
    first = ", ".join(f"{run['seconds_to_first'] * 1e3:.0f}" for run in runs)
    last = ", ".join(f"{run['seconds_to_last'] * 1e3:,.0f}" for run in runs)
    cpu = ", ".join(f"{run['cpu_micros_per_delivery']:.1f}" for run in runs)
    redis = ", ".join(f"{run['redis_cpu_millis']:.1f}" for run in runs)
    return [
        (f"broadcast to all, {len(runs)} times: until the first stream has it", f"{first} ms"),
        ("until the last has it", f"{last} ms"),
        ("the instances' CPU a delivery", f"{cpu} µs"),
        ("Redis' CPU a broadcast", f"{redis} ms"),
    ]


def deliveries(figures: dict) -> list[tuple]:
    faults = figures["faults"]
    count = figures["streams"] * len(figures["broadcasts"]) + figures["sample"]
    value = f"{faults['lost']:,} lost, {faults['twice']:,} twice, {faults['astray']:,} to another stream"
    name = f"of {count:,} deliveries, {figures['sample']:,} of them to a topic of one stream"
    return [(name, value, "none", not any(faults.values()))]


def both(moment: dict) -> str:
    return f"{megabytes(moment['fanfare'])}, {megabytes(moment['redis'])}"


def megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"

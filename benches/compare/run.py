"""One work on one system: starts a fresh server and the load tool, and collects the result."""

import dataclasses
import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import secured
from .children import ServerFailed, child, free_port, server
from .machine import Programs
from .systems import System
from .works import Work

# Time limit of the load tool, from the first stream to the last event of the slowest system.
MAX_SECONDS = 180


@dataclass
class Result:
    work: str
    system: str
    phase: str = ""
    """`before` or `after` for the floor, measured twice."""
    bench: dict[str, Any] = field(default_factory=dict)
    """The output of `fanfare bench --json`."""
    problems: list[str] = field(default_factory=list)
    """Failed checks of the load tool: a result, not a failure."""
    failure: str = ""
    """Why there is no result."""
    overflows: int = 0
    """Connections refused by a full accept queue; each waits a second for its next attempt."""

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def measure(work: Work, system: System, programs: Programs, is_quick: bool, phase: str = "") -> Result:
    result = Result(work.name, system.name, phase)
    overflows = accept_overflows()
    try:
        with tempfile.TemporaryDirectory(prefix="compare-") as name:
            run(result, work, system, programs, is_quick, Path(name))
    except (ServerFailed, OSError) as error:
        result.failure = result.failure or str(error)
    result.overflows = accept_overflows() - overflows
    return result


def run(result: Result, work: Work, system: System, programs: Programs, is_quick: bool, directory: Path) -> None:
    port = free_port()
    start = system.start(programs, work, port, directory)
    log = directory / "server.log"
    with server(start.command, start.environment, port, system.process_count, log) as pids:
        if work.over_tls:
            result.bench = secured.measure_idle(work, port, pids, directory)
            return
        load = [programs.fanfare, "bench", "--json", *work.load_arguments(is_quick)]
        load += [*system.load_arguments(work, port), *(f"--pid={pid}" for pid in pids)]
        environment = {**os.environ, **secured.token(programs, work, directory)}
        pipe = subprocess.PIPE
        with child(load, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
            try:
                printed, errors = process.communicate(timeout=MAX_SECONDS)
            except subprocess.TimeoutExpired:
                result.failure = f"the load tool had not ended after {MAX_SECONDS} s"
                return
    complaints = [line.removeprefix("error: ") for line in errors.splitlines() if line.strip()]
    try:
        result.bench = json.loads(printed)
        result.problems = complaints
    except json.JSONDecodeError:
        result.failure = "; ".join(complaints) or f"the load tool ended with {process.returncode}"


def accept_overflows() -> int:
    """Accept queue overflows of the whole machine since its start."""
    lines = [line.split() for line in Path("/proc/net/netstat").read_text().splitlines()]
    names, values = next(pair for pair in zip(lines[::2], lines[1::2]) if pair[0][0] == "TcpExt:")
    return int(values[names.index("ListenOverflows")])

"""Publishers as fast as they are answered: NDJSON from 8 connections, single POSTs from 64."""

import json
import subprocess
import sys
from pathlib import Path

from log_figures.hub import Hub

BODY = '{"topic":"{topic}","data":"{data}"}'


def measure(fanfare: Path, hub: Hub, seconds: str, payload_bytes: int) -> dict:
    """Both works, one after the other. The bytes are of the NDJSON work."""
    before, written = hub.metrics(), hub.written_bytes()
    ndjson = bench(fanfare, hub, seconds, payload_bytes, ["--publishers", "8"])
    after, written = hub.metrics(), hub.written_bytes() - written
    url = f"http://127.0.0.1:{hub.port}/events/publish"
    single = ["--publishers", "64", "--publish-url", url, "--publish-body", BODY]
    posts = bench(fanfare, hub, seconds, payload_bytes, [*single, "--publish-type", "application/json"])
    return {
        "ndjson": ndjson["published"]["per_second"],
        "posts": posts["published"]["per_second"],
        "memory": posts["server"]["memory_bytes_at_end"] or hub.resident_bytes(),
        **of_the_log(before, after, written, ndjson["published"]["confirmed"] * payload_bytes),
    }


def of_the_log(before: dict, after: dict, written: int, data_bytes: int) -> dict:
    def grown(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    records = grown("fanfare_log_written_bytes_total") - grown("fanfare_log_copied_bytes_total")
    groups, syncs = grown("fanfare_log_group_records_count"), grown("fanfare_log_sync_seconds_count")
    if not groups or not syncs or not data_bytes:
        return {}
    return {
        "written_per_record_byte": written / records,
        "written_per_data_byte": written / data_bytes,
        "group": grown("fanfare_log_group_records_sum") / groups,
        "sync": grown("fanfare_log_sync_seconds_sum") / syncs,
    }


def bench(fanfare: Path, hub: Hub, seconds: str, payload_bytes: int, arguments: list[str]) -> dict:
    url = f"http://127.0.0.1:{hub.port}"
    common = ["--url", url, "--streams", "1", "--topics", "64", "--rate", "0", "--json"]
    timing = ["--duration", seconds, "--payload", str(payload_bytes)]
    command = [str(fanfare), "bench", *common, *timing, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        sys.exit(f"scripts/compare-logs: {' '.join(command)}: {done.stderr}")
    return json.loads(done.stdout)

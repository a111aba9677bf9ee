"""The disk by itself: a loop of write and sync, without a hub."""

import os
import time
from pathlib import Path

# About a group of a busy hub.
GROUP_BYTES = 8 * 1024


class Probe:
    """Appends groups to a file of its own, as the hub's log does."""

    def __init__(self, directory: Path):
        self.file = os.open(directory / "probe", os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        self.group = os.urandom(GROUP_BYTES)
        self.seconds = []

    def sync(self) -> None:
        start = time.perf_counter()
        os.write(self.file, self.group)
        os.fdatasync(self.file)
        self.seconds.append(time.perf_counter() - start)

    def run(self, count: int) -> "Probe":
        for _ in range(count):
            self.sync()
        return self

    def close(self) -> None:
        os.close(self.file)


def percentile(values: list[float], percent: float) -> float:
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]

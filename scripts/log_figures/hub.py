"""A hub in memory, on disk or over Redis with `appendfsync always`."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

READY_SECONDS = 120
POLL_SECONDS = 0.02


class Hub:
    def __init__(self, fanfare: Path, mode: str, directory: Path, environment: dict | None = None):
        self.port, self.processes = free_port(), []
        arguments = ["serve", "--listen", f"127.0.0.1:{self.port}", "--no-demo"]
        if mode == "disk":
            arguments += ["--log", str(directory / "log")]
        if mode == "redis":
            arguments += ["--redis", f"redis://127.0.0.1:{self.start_redis(directory)}"]
        environment = {**os.environ, "RUST_LOG": "off", **(environment or {})}
        started = time.monotonic()
        self.server = self.start([str(fanfare), *arguments], environment)
        self.until_ready()
        self.seconds_to_ready = time.monotonic() - started

    def __enter__(self) -> "Hub":
        return self

    def __exit__(self, *_) -> None:
        self.stop(signal.SIGTERM)

    def stop(self, how: signal.Signals) -> None:
        for process in reversed(self.processes):
            process.send_signal(how)
            process.wait()
        self.processes = []

    def start(self, command: list[str], environment: dict) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(command, env=environment, **quiet))
        return self.processes[-1]

    def start_redis(self, directory: Path) -> int:
        port = free_port()
        arguments = ["--port", str(port), "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self.start(["redis-server", *arguments, "--dir", str(directory)], dict(os.environ))
        return port

    def until_ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while self.get("/health/ready") is None:
            if self.server.poll() is not None or time.monotonic() > end:
                self.stop(signal.SIGKILL)
                sys.exit("scripts/compare-logs: the hub is not ready")
            time.sleep(POLL_SECONDS)

    def get(self, path: str) -> str | None:
        """The body of an answer 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        lines = (self.get("/metrics") or "").splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def written_bytes(self) -> int:
        """The bytes the process has sent to its disk."""
        lines = Path(f"/proc/{self.server.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))

    def resident_bytes(self) -> int:
        fields = Path(f"/proc/{self.server.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

"""fanfare with access control or TLS: its keys and configuration, the token of its streams, and streams over TLS."""

import contextlib
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .children import ServerFailed, child
from .machine import Programs
from .works import Work

# Time limit for all streams over TLS to open.
OPEN_SECONDS = 60

# Streams of one browser on one HTTP/2 connection.
STREAMS_PER_CONNECTION = 100

# Opened before memory is first looked at: the server's caches and threads are then there.
FIRST_STREAMS = 100

ALL = '["**"]'
STREAM = "/events/stream?topic=a"


def openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise ServerFailed(f"openssl {arguments[0]}: {done.stdout.strip()}")


def write_config(work: Work, directory: Path) -> Path:
    """A configuration with access control, and its key pair."""
    private, public = directory / "private.pem", directory / "public.pem"
    openssl("genpkey", "-out", str(private), "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
    lines = ["[limits]", f"user_streams = {2 * work.streams}"]
    lines += ["[access]", "enabled = true", "[[access.keys]]", 'algorithm = "ES256"', f'file = "{public}"']
    if work.access == "anyone":
        lines += ["[[access.rules]]", 'who = "anyone"', f"subscribe = {ALL}", f"publish = {ALL}", f"manage = {ALL}"]
    config = directory / "access.toml"
    config.write_text("\n".join(lines) + "\n")
    return config


def token(programs: Programs, work: Work, directory: Path) -> dict[str, str]:
    """The load tool's environment: the token for its streams and publishes."""
    if work.access != "token":
        return {}
    command = [programs.fanfare, "token", f"--key-file={directory / 'private.pem'}", "--user=bench"]
    done = subprocess.run([*command, "--subscribe=**", "--publish=**", "--manage=**"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise ServerFailed("fanfare token failed")
    return {"FANFARE_TOKEN": done.stdout.strip()}


def certificate(directory: Path) -> dict[str, str]:
    """fanfare's environment for TLS."""
    chain, key = directory / "chain.pem", directory / "key.pem"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-subj", "/CN=localhost", "-keyout", str(key), "-out", str(chain)),
    )
    return {"FANFARE__TLS__CERTIFICATE": str(chain), "FANFARE__TLS__KEY": str(key)}


def measure_idle(work: Work, port: int, pids: list[int], directory: Path) -> dict[str, Any]:
    """Opens the work's streams over TLS. Returns the server's memory and CPU, as the load tool reports them."""
    opened = open_by_curl if work.over_tls == "2" else open_by_sockets
    with opened(port, FIRST_STREAMS, directory / "first"):
        before = memory_bytes(pids)
        with opened(port, work.streams, directory / "streams"):
            after, cpu = memory_bytes(pids), cpu_seconds(pids)
            time.sleep(work.seconds)
            spent = cpu_seconds(pids) - cpu
    return {
        "server": {
            "memory_bytes": after,
            "memory_bytes_per_connection": (after - before) / work.streams,
            "cpu_percent": 100 * spent / work.seconds,
        }
    }


@contextlib.contextmanager
def open_by_sockets(port: int, count: int, directory: Path) -> Iterator[None]:
    """Streams by HTTP/1.1, each on a connection of its own."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.ExitStack() as opened:
        for _ in range(count):
            plain = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=OPEN_SECONDS))
            stream = opened.enter_context(context.wrap_socket(plain))
            stream.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            text = b""
            while b"event: connected" not in text:
                received = stream.recv(4096)
                if not received:
                    raise ServerFailed(f"a stream over TLS ended: {text!r}")
                text += received
        yield


@contextlib.contextmanager
def open_by_curl(port: int, count: int, directory: Path) -> Iterator[None]:
    """Streams by HTTP/2, many on each connection."""
    directory.mkdir()
    files = [directory / str(number) for number in range(count)]
    with contextlib.ExitStack() as opened:
        for first in range(0, count, STREAMS_PER_CONNECTION):
            command = ["curl", "-skN", "--http2", "--parallel", "--parallel-max", str(STREAMS_PER_CONNECTION)]
            for file in files[first : first + STREAMS_PER_CONNECTION]:
                command += ["-o", str(file), f"https://127.0.0.1:{port}{STREAM}"]
            opened.enter_context(child(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + OPEN_SECONDS
        while not all(is_open(file) for file in files):
            if time.monotonic() > deadline:
                raise ServerFailed(f"not all streams over HTTP/2 are open after {OPEN_SECONDS} s")
            time.sleep(0.1)
        yield


def is_open(file: Path) -> bool:
    return file.exists() and "event: connected" in file.read_text(errors="replace")


def memory_bytes(pids: list[int]) -> int:
    """The servers' Pss, as the load tool measures it."""
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def cpu_seconds(pids: list[int]) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    ticks = sum(int(of[11]) + int(of[12]) for of in fields)
    return ticks / os.sysconf("SC_CLK_TCK")

"""Child processes: each starts in its own process group, and ends with this program in every case."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# Time limits for a server to start listening, and to end after SIGTERM.
START_SECONDS = 20
END_SECONDS = 3

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class ServerFailed(Exception):
    """A server did not start, or ended by itself."""


def end_with_parent() -> None:
    """Runs in the child: the kernel ends it if this program is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def child(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """A process, ended with its children at the end of the block."""
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=end_with_parent, **options)
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    signal_group(process, signal.SIGTERM)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        signal_group(process, signal.SIGKILL)
        process.wait()


def signal_group(process: subprocess.Popen, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@contextlib.contextmanager
def server(
    command: list[str], environment: dict[str, str], port: int, process_count: int, log: Path
) -> Iterator[list[int]]:
    """A server listening at the port. Yields the pids of all its processes, once `process_count` are running."""
    with log.open("wb") as errors, child(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
    ) as process:
        wait_until_ready(process, port, process_count, log)
        yield family(process.pid)
        if process.poll() is not None:
            raise ServerFailed(f"ended with {process.returncode} while it was measured{tail(log)}")


def wait_until_ready(process: subprocess.Popen, port: int, process_count: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"ended with {process.returncode} before it listened{tail(log)}")
        # A master listens before it has started its workers.
        if is_listening(port) and len(family(process.pid)) == process_count:
            return
        time.sleep(0.02)
    raise ServerFailed(f"is not ready after {START_SECONDS} s{tail(log)}")


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def family(pid: int) -> list[int]:
    """The pids of a process and all its descendants, such as a master and its workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child_pid in children for member in family(int(child_pid)))]


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-3:]
    return f": {' | '.join(lines)}" if lines else ""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

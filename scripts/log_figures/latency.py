"""The latency of one quiet publisher, in memory and on disk: from the publish to the stream, without ticks.

Publishes to both hubs and syncs of the bare disk take turns, so all of them meet the same other load.
"""

import json
import socket
import time
from pathlib import Path

from log_figures.disk import Probe
from log_figures.hub import Hub

PAUSE_SECONDS = 0.002
AT_ONCE = {"FANFARE__DELIVERY__FLUSH": "immediate"}
# Not measured: first connections, first pages of memory.
WARM_UP = 100


class Client:
    """A stream and a publisher of one topic."""

    def __init__(self, hub: Hub):
        self.host = f"127.0.0.1:{hub.port}"
        self.stream, self.publisher = connected(hub), connected(hub)
        self.stream[0].sendall(head("GET", "/events/stream?topic=quiet", self.host) + b"\r\n")
        self.read_until(b"event: connected")
        self.seconds = []

    def read_until(self, start: bytes) -> None:
        while not self.stream[1].readline().startswith(start):
            pass

    def publish(self, number: int) -> None:
        body = json.dumps({"topic": "quiet", "data": f"event {number} " + 80 * "x"}).encode()
        kind = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        request = head("POST", "/events/publish", self.host) + kind.encode() + body
        start = time.perf_counter()
        self.publisher[0].sendall(request)
        self.read_until(f"data: event {number} ".encode())
        self.seconds.append(time.perf_counter() - start)
        self.read_answer()

    def read_answer(self) -> None:
        reader, length = self.publisher[1], 0
        if b" 200 " not in reader.readline():
            raise RuntimeError("a publish was refused")
        while (line := reader.readline().lower()) != b"\r\n":
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        reader.read(length)


def connected(hub: Hub) -> tuple:
    connection = socket.create_connection(("127.0.0.1", hub.port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection, connection.makefile("rb")


def head(method: str, path: str, host: str) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n".encode()


def measure(fanfare: Path, directory: Path, count: int) -> dict[str, list[float]]:
    """Seconds of each publish in memory, on disk, and of each sync."""
    with Hub(fanfare, "memory", directory, AT_ONCE) as memory, Hub(fanfare, "disk", directory, AT_ONCE) as disk:
        clients, probe = [Client(memory), Client(disk)], Probe(directory)
        for number in range(WARM_UP + count):
            for work in (lambda: clients[0].publish(number), lambda: clients[1].publish(number), probe.sync):
                work()
                time.sleep(PAUSE_SECONDS)
        probe.close()
    measured = [clients[0].seconds, clients[1].seconds, probe.seconds]
    memory, disk, syncs = [seconds[WARM_UP:] for seconds in measured]
    return {"memory": memory, "disk": disk, "syncs": syncs}

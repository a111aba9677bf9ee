"""The start of a hub on a log with very many events, all of them kept in memory."""

import signal
import socket
import threading
from pathlib import Path

from log_figures.hub import Hub

CONNECTIONS = 4
EVENTS_PER_TOPIC = 1000
# More lines get their answer in pieces.
LINES = 250

# Room for all events: the hub forgets none while it reads.
KEEPS_ALL = {
    "FANFARE__LOG__SYNC": "never",
    "FANFARE__HISTORY__MAX_BYTES": "64GiB",
    "FANFARE__HISTORY__EVENTS": str(EVENTS_PER_TOPIC),
    "FANFARE__HISTORY__TTL": "24h",
}


def measure(fanfare: Path, directory: Path, events: int, starts: int, payload_bytes: int) -> dict:
    """Fills a log, kills its hub, and starts it again, several times."""
    hub = Hub(fanfare, "disk", directory, KEEPS_ALL)
    fill(hub, events, payload_bytes)
    seconds, resident = [], 0
    for _ in range(starts):
        hub.stop(signal.SIGKILL)
        hub = Hub(fanfare, "disk", directory, KEEPS_ALL)
        seconds.append(hub.seconds_to_ready)
        resident = hub.resident_bytes()
    hub.stop(signal.SIGKILL)
    size = sum(file.stat().st_size for file in (directory / "log").iterdir())
    return {"seconds": seconds, "memory": resident, "log_bytes": size}


def fill(hub: Hub, events: int, payload_bytes: int) -> None:
    topics = max(1, events // EVENTS_PER_TOPIC)
    rounds = -(-events // topics)
    work = [
        threading.Thread(target=publish, args=(hub, range(first, topics, CONNECTIONS), rounds, payload_bytes))
        for first in range(CONNECTIONS)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()


def publish(hub: Hub, topics: range, rounds: int, payload_bytes: int) -> None:
    """The same requests again and again: writing them anew would take longer than the hub."""
    requests = [request(hub, topics[at : at + LINES], payload_bytes) for at in range(0, len(topics), LINES)]
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        reader = connection.makefile("rb")
        for _ in range(rounds):
            for request_bytes in requests:
                connection.sendall(request_bytes)
                read_answer(reader)


def request(hub: Hub, topics: range, payload_bytes: int) -> bytes:
    line = '{"topic":"kept:%d","data":"' + "x" * payload_bytes + '"}\n'
    body = "".join(line % topic for topic in topics)
    head = f"POST /events/publish HTTP/1.1\r\nhost: 127.0.0.1:{hub.port}\r\n"
    kind = f"content-type: application/x-ndjson\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + kind + body).encode()


def read_answer(reader) -> None:
    status, length = reader.readline(), 0
    while (line := reader.readline().lower()) != b"\r\n":
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    body = reader.read(length)
    if b" 200 " not in status or b'"error"' in body:
        raise RuntimeError(f"a publish was refused: {status!r} {body[:300]!r}")

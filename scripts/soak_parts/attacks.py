"""The hostile clients: one kind for each row of "What one client may cost". Each runs in a process of
its own, again and again, with no right except to subscribe and to publish."""

import contextlib
import itertools
import json
import multiprocessing
import os
import random
import socket
import time

TIMEOUT_SECONDS = 5
KIB = 1024


def connect(address, receive_bytes=None) -> socket.socket:
    client = socket.socket()
    if receive_bytes:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(TIMEOUT_SECONDS)
    client.connect(address)
    return client


def head(method: str, path: str, length: int, media_type: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {media_type}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def post(address, path: str, body: bytes, media_type="application/json", reads=True):
    """Sends a request. Returns its socket, after the first bytes of the answer."""
    client = connect(address)
    client.sendall(head("POST", path, len(body), media_type) + body)
    if reads:
        client.recv(64 * KIB)
    return client


def get(address, query: str, **options) -> socket.socket:
    client = connect(address, **options)
    client.sendall(f"GET /events/stream?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return client


def until(stream: socket.socket, word: bytes) -> bytes:
    """The bytes of a stream until the line after this word."""
    text = b""
    while b"\n" not in text.partition(word)[2]:
        part = stream.recv(4096)
        if not part:
            raise OSError("the stream has ended")
        text += part
    return text.partition(word)[2]


def first_id(stream: socket.socket) -> str:
    return until(stream, b"\nid: ").split(b"\n")[0].decode()


def client_id(stream: socket.socket) -> str:
    return until(stream, b'"clientId":"').split(b'"')[0].decode()


def dumps(value) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def lines(events) -> bytes:
    return b"\n".join(map(dumps, events))


def publish_lines(address, body: bytes):
    """Publishes lines, and reads all answers."""
    client = post(address, "/events/publish", body, "application/x-ndjson")
    with contextlib.suppress(TimeoutError):
        while len(client.recv(64 * KIB)) > 0:
            pass
    client.close()


def types(address):
    """Hundreds of thousands of types."""
    body = {"topics": ["**"], "types": [f"t{n}" for n in range(350_000)], "lastEventId": "earliest"}
    post(address, "/events/stream", dumps(body)).close()


def collapse_keys(address):
    """Many keyed events to one subscriber."""
    with get(address, "topic=a2"):
        events = ({"topic": "a2", "key": f"k{n}", "data": n} for n in range(45_000))
        post(address, "/events/publish", lines(events), "application/x-ndjson").close()


def permits(address):
    """More topics than permits."""
    topics = [f"a3:{n}" for n in range(10_000)]
    post(address, "/events/publish", dumps({"topics": topics, "data": "x"})).close()


def copies(address):
    """Large data for thousands of topics, and an array of tiny events."""
    topics = [f"a4:{n}" for n in range(5000)]
    post(address, "/events/publish", dumps({"topics": topics, "data": "x" * 60_000})).close()
    tiny = [{"topic": "a4", "data": 1}] * 200_000
    post(address, "/events/publish", dumps(tiny)).close()


def unread_answers(address):
    """An NDJSON request without reading its answers."""
    body = lines({"topic": "a4u", "data": n} for n in range(200_000))
    with contextlib.suppress(TimeoutError):
        post(address, "/events/publish", body, "application/x-ndjson", reads=False).close()


def patterns(address):
    """Streams of many deep patterns."""
    streams = []
    for stream in range(20):
        topics = [f"a5:{stream}:{n}:*" for n in range(100)]
        streams.append(post(address, "/events/stream", dumps({"topics": topics})))
    for stream in streams:
        stream.close()


def replays(address):
    """Unread replays of the whole history."""
    streams = [get(address, "topic=**&last_event_id=earliest") for _ in range(100)]
    time.sleep(1)
    for stream in streams:
        stream.close()


def added_replays(address):
    """Streams returning without a topic, adding it again, and not reading its events."""
    name = f"a6:{random.randrange(1 << 60)}"
    streams = [get(address, f"topics={name},{name}:other") for _ in range(20)]
    ids = [first_id(stream) for stream in streams]
    for stream in streams:
        stream.close()
    events = [{"topic": f"{name}:other", "data": "x" * 10_000} for _ in range(1000)]
    post(address, "/events/publish", dumps(events)).close()
    streams = [get(address, f"topic={name}&last_event_id={last}") for last in ids]
    for stream in streams:
        add = dumps({"add": [f"{name}:other"]})
        post(address, f"/events/streams/{client_id(stream)}/topics", add).close()
    time.sleep(1)
    for stream in streams:
        stream.close()


def slow_reader(address):
    """Readers of 20 kB a second, and one without reads."""
    query = "topic=**&last_event_id=earliest"
    streams = [get(address, query, receive_bytes=4096) for _ in range(5)]
    for _ in range(30):
        time.sleep(0.1)
        for stream in streams[1:]:
            stream.recv(2000)
    for stream in streams:
        stream.close()


def unfinished_bodies(address):
    """Large bodies without their last byte."""
    clients = []
    for _ in range(20):
        client = connect(address)
        with contextlib.suppress(OSError):
            client.sendall(head("POST", "/events/publish", 15 * KIB * KIB, "application/json"))
            client.sendall(b'{"topic":"a8","data":"' + b"x" * (14 * KIB * KIB))
        clients.append(client)
    for client in clients:
        client.close()


def ids(address):
    """Many remembered ids."""
    start = random.randrange(1 << 60)
    body = lines({"topic": "a9", "data": 1, "id": f"{start + n}"} for n in range(50_000))
    publish_lines(address, body)


def idle_topics(address):
    """Many topics with many types."""
    start = random.randrange(1 << 60)
    events = [{"topic": f"a10:{start + n // 16}", "event": f"t{n}", "data": 1} for n in range(16_000)]
    post(address, "/events/publish", dumps(events)).close()


def malformed_heads(address):
    """Heads which are no HTTP, each on a connection of its own."""
    for _ in range(1000):
        with connect(address) as client:
            client.sendall(b"GET\r\n\r\n")
            client.recv(1000)


def connections(address):
    """Thousands of connections without a request."""
    clients = [connect(address) for _ in range(500)]
    for client in clients:
        client.close()


def requests(address):
    """Requests of one address, as fast as it can. The hub trusts loopback as a proxy."""
    request = head("GET", "/events/topics/a12", 0, "text/plain")
    request = request.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
    with connect(address) as client:
        for _ in range(100):
            client.sendall(request * 100)
            client.recv(64 * KIB)


def new_topics(address):
    """Streams of ten thousand topics new to Redis."""
    name = random.randrange(1 << 60)
    topics = [f"a13:{name}:{n}" for n in range(10_000)]
    post(address, "/events/stream", dumps({"topics": topics})).close()


def stored_events(address):
    """Large events of many topics, each stored in Redis."""
    events = ({"topic": f"a13:{n % 50}", "data": "x" * 60_000} for n in range(500))
    publish_lines(address, lines(events))


def changes(address):
    """Large changes of an open stream, without waiting for their answers."""
    stream = get(address, "topic=a14")
    path = f"/events/streams/{client_id(stream)}/topics"
    topics = [f"a14:{n}" for n in range(9000)]
    for name, _ in zip(itertools.cycle(["add", "remove"]), range(10)):
        post(address, path, dumps({name: topics}), reads=False).close()
    stream.close()


# By the rows of the table in the book.
ATTACKS = {
    "1 types": types,
    "2 collapse keys": collapse_keys,
    "3 permits": permits,
    "4 copies": copies,
    "4 unread answers": unread_answers,
    "5 patterns": patterns,
    "6 replays": replays,
    "6 replays of added topics": added_replays,
    "7 slow readers": slow_reader,
    "8 unfinished bodies": unfinished_bodies,
    "9 ids": ids,
    "10 idle topics": idle_topics,
    "11 malformed heads": malformed_heads,
    "11 connections": connections,
    "12 requests": requests,
    "14 changes": changes,
}

# Beside the others, on an instance over Redis.
REDIS_ATTACKS = {
    "13 new topics": new_topics,
    "13 stored events": stored_events,
}


class Attackers:
    """These attacks, each in a process, until the end of the block."""

    def __init__(self, address, names: list):
        self.processes = [
            multiprocessing.Process(target=again_and_again, args=(name, address), daemon=True)
            for name in names
        ]

    def __enter__(self):
        for process in self.processes:
            process.start()

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.join()


def again_and_again(name: str, address) -> None:
    os.nice(19)
    while True:
        # A refusal, a closed connection or a full hub is the expected answer.
        with contextlib.suppress(OSError):
            (ATTACKS | REDIS_ATTACKS)[name](address)
        time.sleep(0.05)

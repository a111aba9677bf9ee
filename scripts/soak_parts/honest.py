"""The honest clients: publishers of small events, and streams checking each of them."""

import http.client
import json
import socket
import threading
import time

PUBLISHERS = 4
STREAMS_EACH = 2
PERIOD_SECONDS = 0.05
LAST_SECONDS = 30


class Latencies:
    """Times of publishes, until their answers."""

    def __init__(self, seconds: list):
        self.seconds = sorted(seconds)

    def quantile_ms(self, part: float) -> float:
        if not self.seconds:
            return float("inf")
        return 1000 * self.seconds[min(len(self.seconds) - 1, int(part * len(self.seconds)))]


class Honest:
    """All honest clients. Each publisher has a topic of its own with some streams."""

    def __init__(self, address):
        self.address = address
        self.lock, self.is_over = threading.Lock(), threading.Event()
        self.seconds, self.problems = [], []
        self.published = [0] * PUBLISHERS
        self.received = [[0] * STREAMS_EACH for _ in range(PUBLISHERS)]

    @property
    def event_count(self) -> int:
        return sum(self.published)

    def __enter__(self):
        self.threads = []
        for topic in range(PUBLISHERS):
            for place in range(STREAMS_EACH):
                connected = threading.Event()
                self.start(self.follow, topic, place, connected)
                if not connected.wait(10):
                    raise RuntimeError("a stream does not open")
        self.publishers = [self.start(self.publish, topic) for topic in range(PUBLISHERS)]
        return self

    def __exit__(self, *_):
        self.is_over.set()

    def start(self, work, *arguments) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread

    def take(self) -> Latencies:
        with self.lock:
            taken, self.seconds = self.seconds, []
        return Latencies(taken)

    def finish(self) -> list:
        """Ends the publishers and waits for the last events. Returns the problems."""
        self.is_over.set()
        for publisher in self.publishers:
            publisher.join()
        end = time.monotonic() + LAST_SECONDS
        while time.monotonic() < end and not self.is_complete():
            time.sleep(0.1)
        if not self.is_complete():
            self.problems.append(f"{self.received} received of {self.published}")
        return self.problems

    def is_complete(self) -> bool:
        pairs = zip(self.published, self.received)
        return all(count == published for published, counts in pairs for count in counts)

    def publish(self, topic: int) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        headers = {"Content-Type": "application/json"}
        due = time.monotonic()
        while not self.is_over.is_set():
            number = self.published[topic] + 1
            body = json.dumps({"topic": f"honest:{topic}", "data": str(number)})
            started = time.monotonic()
            connection.request("POST", "/events/publish", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            with self.lock:
                self.seconds.append(time.monotonic() - started)
            if answer.status == 200:
                self.published[topic] = number
            else:
                self.problems.append(f"refused: {text!r}")
            due = max(due + PERIOD_SECONDS, time.monotonic())
            time.sleep(due - time.monotonic() if due > time.monotonic() else 0)

    def follow(self, topic: int, place: int, connected: threading.Event) -> None:
        stream = socket.create_connection(self.address, timeout=120)
        request = f"GET /events/stream?topic=honest:{topic} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stream.sendall(request.encode())
        for line in stream.makefile("rb"):
            if line.startswith(b"event: "):
                if line == b"event: connected\n":
                    connected.set()
                else:
                    self.problems.append(f"stream {topic}: {line!r}")
            elif line.startswith(b"data: ") and line[6:].strip().isdigit():
                self.take_number(topic, place, int(line[6:]))
        if not self.is_over.is_set():
            self.problems.append(f"stream {topic} ended")

    def take_number(self, topic: int, place: int, number: int) -> None:
        expected = self.received[topic][place] + 1
        if number != expected:
            self.problems.append(f"stream {topic} got {number}, expected {expected}")
        self.received[topic][place] = number

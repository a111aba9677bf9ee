"""The clients: processes with thousands of streams each, recording the received events."""

import collections
import multiprocessing
import select
import socket
import time
import traceback

# Most streams opening at once, so that no accept queue overflows.
MAX_OPENING = 200

CONNECT_SECONDS = 30

# A Linux constant; Python has a name for it since 3.12.
IP_BIND_ADDRESS_NO_PORT = 24


class Stream:
    """A client's end of a stream, and the incomplete event read so far."""

    __slots__ = ("number", "socket", "unfinished", "event")

    def __init__(self, number: int, connection: socket.socket):
        self.number = number
        self.socket = connection
        self.unfinished = b""
        self.event = b""


class Crowd:
    """Streams of one process, to one instance, from one address."""

    def __init__(self, instance: tuple[str, int], source: str, numbers: list[int]):
        self.instance = instance
        self.source = source
        self.to_open = list(reversed(numbers))
        self.epoll = select.epoll()
        self.streams: dict[int, Stream] = {}
        self.opened = 0
        # Count of each problem, by its text.
        self.problems: collections.Counter[str] = collections.Counter()
        # By event data: the receipts of each stream, and the times of the first and last receipt.
        self.receivers: dict[str, collections.Counter[int]] = {}
        self.times: dict[str, tuple[float, float]] = {}

    def run(self, questions) -> None:
        """Reads streams and answers questions until the parent process ends."""
        self.epoll.register(questions.fileno(), select.EPOLLIN)
        while True:
            self.open_more()
            for file, _ in self.epoll.poll():
                if file in self.streams:
                    self.read(self.streams[file])
                elif file == questions.fileno():
                    name, arguments = questions.recv()
                    questions.send(getattr(self, name)(*arguments))

    def open_more(self) -> None:
        while self.to_open and len(self.streams) - self.opened < MAX_OPENING:
            self.open(self.to_open.pop())

    def open(self, number: int) -> None:
        connection = socket.socket()
        # The kernel chooses the port at the connect, when it knows the destination. So it can
        # reuse a port in TIME_WAIT towards another destination.
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        connection.bind((self.source, 0))
        connection.settimeout(CONNECT_SECONDS)
        connection.connect(self.instance)
        path = f"/events/stream?topics=own:{number},common"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connection.setblocking(False)
        self.streams[connection.fileno()] = Stream(number, connection)
        self.epoll.register(connection.fileno(), select.EPOLLIN)

    def read(self, stream: Stream) -> None:
        try:
            received = stream.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            return self.close(stream, f"ended: {error}")
        if not received:
            return self.close(stream, "ended")
        *lines, stream.unfinished = (stream.unfinished + received).split(b"\n")
        for line in lines:
            self.on_line(stream, line)

    def on_line(self, stream: Stream, line: bytes) -> None:
        """Handles a line of the event stream, or of HTTP. Only HTTP lines end in CRLF. Each write
        of the server is one chunk with whole event lines."""
        if line.endswith(b"\r"):
            if line.startswith(b"HTTP/") and b" 200 " not in line:
                self.problems[line.decode().strip()] += 1
        elif line.startswith(b"event: "):
            stream.event = line[7:]
        elif line.startswith(b"data: "):
            self.on_data(stream, line[6:].decode())
        elif not line:
            stream.event = b""

    def on_data(self, stream: Stream, data: str) -> None:
        if stream.event == b"connected":
            self.opened += 1
        elif stream.event:
            self.problems[f"{stream.event.decode()}: {data}"] += 1
        else:
            now = time.monotonic()
            self.receivers.setdefault(data, collections.Counter())[stream.number] += 1
            self.times[data] = (self.times.get(data, (now, now))[0], now)

    def close(self, stream: Stream, problem: str) -> None:
        self.problems[problem] += 1
        del self.streams[stream.socket.fileno()]
        stream.socket.close()

    # The questions of the parent process.

    def progress(self) -> tuple[int, int]:
        """Counts of open streams and of deliveries."""
        return self.opened, sum(counts.total() for counts in self.receivers.values())

    def all_problems(self) -> collections.Counter[str]:
        return self.problems

    def arrivals(self) -> tuple[dict, dict]:
        """The receivers and the times of each event since the last call."""
        answer = self.receivers, self.times
        self.receivers, self.times = {}, {}
        return answer

    def leave(self) -> None:
        for stream in self.streams.values():
            stream.socket.close()
        self.streams = {}


class CrowdProcess:
    """A crowd in its own process."""

    def __init__(self, instance: tuple[str, int], source: str, numbers: list[int]):
        self.questions, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(
            target=run, args=(instance, source, numbers, theirs), daemon=True
        )
        self.process.start()
        theirs.close()

    def ask(self, name: str, *arguments):
        self.questions.send((name, arguments))
        return self.questions.recv()


def run(instance: tuple[str, int], source: str, numbers: list[int], questions) -> None:
    try:
        Crowd(instance, source, numbers).run(questions)
    except Exception:
        traceback.print_exc()
        raise


class Arrivals:
    """The receipts of events, over all crowds."""

    def __init__(self, crowds: list[CrowdProcess]):
        self.receivers: dict[str, collections.Counter[int]] = {}
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}
        for crowd in crowds:
            receivers, times = crowd.ask("arrivals")
            for data, counts in receivers.items():
                self.receivers.setdefault(data, collections.Counter()).update(counts)
            for data, (first, last) in times.items():
                self.first[data] = min(first, self.first.get(data, first))
                self.last[data] = max(last, self.last.get(data, last))

    def faults(self, wanted: dict[str, range | list[int]]) -> dict[str, int]:
        """Counts of lost, repeated and misdirected deliveries, given the wanted streams of each
        event."""
        faults = {"lost": 0, "twice": 0, "astray": 0}
        for data, counts in self.receivers.items():
            streams = set(wanted.get(data, ()))
            faults["twice"] += sum(count - 1 for count in counts.values())
            faults["astray"] += len(counts.keys() - streams)
        for data, streams in wanted.items():
            faults["lost"] += len(set(streams) - self.receivers.get(data, {}).keys())
        return faults

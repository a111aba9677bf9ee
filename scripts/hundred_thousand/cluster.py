"""The measured processes: a Redis, and the instances of fanfare linked by it."""

import contextlib
import http.client
import json
import os
import pathlib
import socket
import subprocess
import time

START_SECONDS = 20
STOP_SECONDS = 10


class Measured:
    """A process, its memory and its CPU time."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def memory_bytes(self) -> int:
        """Proportional set size: resident pages; of shared pages, this process' share."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no Pss in smaps_rollup")

    def cpu_seconds(self) -> float:
        """CPU time of all threads. No measured thread ends before its process."""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        nanoseconds = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
        return nanoseconds / 1e9

    def kernel_seconds(self) -> float:
        """CPU time in the kernel, an estimate of the kernel."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1]
        return int(fields.split()[12]) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Redis(Measured):
    """A Redis without disk storage."""

    def __init__(self, directory: str):
        self.port = free_port()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--appendonly", "no", "--dir", directory]
        super().__init__(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        wait_for("Redis listens", self.listens, START_SECONDS)

    def listens(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
            return True
        return False


class Instance(Measured):
    """An instance with its defaults, except for the address and Redis."""

    def __init__(self, binary: pathlib.Path, redis: Redis):
        command = [str(binary), "serve", "--listen", "127.0.0.1:0"]
        command += ["--redis", f"redis://127.0.0.1:{redis.port}"]
        # The default log has a line for each opened and each closed stream.
        environment = {**os.environ, "RUST_LOG": "warn"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        super().__init__(process)
        first_line = process.stdout.readline()
        host, port = first_line.strip().rsplit("http://", 1)[1].split(":")
        self.address = (host, int(port))
        wait_for("an instance is ready", self.is_ready, START_SECONDS)

    def is_ready(self) -> bool:
        return self.ask("GET", "/health/ready")[0] == 200

    def stream_count(self) -> int:
        return json.loads(self.ask("GET", "/stats")[1])["connections"]

    def publish(self, topic: str, data: str) -> None:
        body = json.dumps({"topic": topic, "data": data})
        status, answer = self.ask("POST", "/events/publish", body)
        if status != 200:
            raise RuntimeError(f"a publish was refused: {answer.decode()}")

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """Uses a new connection: the server would close an idle one between the steps."""
        headers = {"Content-Type": "application/json"} if body else {}
        with contextlib.closing(http.client.HTTPConnection(*self.address)) as connection:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()


class Cluster:
    """All processes; the end of the context stops them."""

    def __init__(self, binary: pathlib.Path, instance_count: int, directory: str):
        self.binary = binary
        self.instance_count = instance_count
        self.directory = directory

    def __enter__(self) -> "Cluster":
        with contextlib.ExitStack() as stack:
            self.redis = Redis(self.directory)
            stack.callback(self.redis.stop)
            self.instances = []
            for _ in range(self.instance_count):
                instance = Instance(self.binary, self.redis)
                stack.callback(instance.stop)
                self.instances.append(instance)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def memory_bytes(self) -> dict[str, int]:
        instances = sum(instance.memory_bytes() for instance in self.instances)
        return {"fanfare": instances, "redis": self.redis.memory_bytes()}

    def cpu_seconds(self) -> dict[str, float]:
        return {
            "fanfare": sum(instance.cpu_seconds() for instance in self.instances),
            "fanfare in the kernel": sum(one.kernel_seconds() for one in self.instances),
            "redis": self.redis.cpu_seconds(),
        }

    def stream_count(self) -> int:
        return sum(instance.stream_count() for instance in self.instances)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what: str, is_so, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.1)

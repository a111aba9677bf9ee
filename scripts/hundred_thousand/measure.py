"""The steps of a run, and the measurements of each step."""

import random
import sys
import time

from .cluster import Cluster, wait_for
from .crowd import Arrivals, CrowdProcess

OPEN_SECONDS = 600
DELIVERY_SECONDS = 60
LEAVE_SECONDS = 60

# A multiple of the default `stream.heartbeat`, so that every stream gets the same number.
IDLE_SECONDS = 30
# Longer than a tick: repeated deliveries have arrived by then.
SETTLE_SECONDS = 1
# Longer than the default `redis.interest_grace`.
FORGET_SECONDS = 15

BROADCAST_COUNT = 3
SAMPLE_SIZE = 1000


class Measurement:
    """One run. Stream n is on topic `own:n`, at instance n modulo the number of instances."""

    def __init__(self, cluster: Cluster, stream_count: int):
        self.cluster = cluster
        self.stream_count = stream_count
        self.crowds: list[CrowdProcess] = []
        self.figures: dict = {"streams": stream_count, "instances": len(cluster.instances)}
        self.faults = {"lost": 0, "twice": 0, "astray": 0}

    def run(self) -> dict:
        for step in (self.open, self.idle, self.broadcast, self.sample, self.leave):
            print(f"{step.__name__} …", file=sys.stderr)
            step()
        return self.figures | {"faults": self.faults}

    def open(self) -> None:
        self.note_memory("before")
        started = time.monotonic()
        count = len(self.cluster.instances)
        for number, instance in enumerate(self.cluster.instances):
            # One address has ports for some 28,000 connections to the same listener.
            source = f"127.1.0.{number + 1}"
            numbers = list(range(number, self.stream_count, count))
            self.crowds.append(CrowdProcess(instance.address, source, numbers))
        try:
            wait_for("all streams are open", self.have_all_opened_or_failed, OPEN_SECONDS)
        except TimeoutError as error:
            print(error, file=sys.stderr)
        self.figures["seconds_to_open"] = time.monotonic() - started
        self.figures["opened"] = self.progress()[0]

    def idle(self) -> None:
        time.sleep(SETTLE_SECONDS)
        self.note_memory("open")
        before = self.cluster.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        after = self.cluster.cpu_seconds()
        self.figures["idle_cpu_percent"] = {
            name: (after[name] - before[name]) / IDLE_SECONDS * 100 for name in before
        }

    def broadcast(self) -> None:
        self.figures["broadcasts"] = []
        for number in range(BROADCAST_COUNT):
            data = f"common {number}"
            before, started = self.cluster.cpu_seconds(), time.monotonic()
            self.cluster.instances[number % len(self.cluster.instances)].publish("common", data)
            arrivals = self.arrivals({data: range(self.stream_count)})
            after = self.cluster.cpu_seconds()
            used = {name: after[name] - before[name] for name in before}
            self.figures["broadcasts"].append({
                "seconds_to_first": arrivals.first[data] - started,
                "seconds_to_last": arrivals.last[data] - started,
                "cpu_micros_per_delivery": used["fanfare"] / self.stream_count * 1e6,
                "redis_cpu_millis": used["redis"] * 1e3,
            })
        self.note_memory("after broadcasts")

    def sample(self) -> None:
        """Publishes to topics of one stream each, at another instance than the stream's."""
        choose = random.Random(0)
        numbers = choose.sample(range(self.stream_count), min(SAMPLE_SIZE, self.stream_count))
        for number in numbers:
            home = self.cluster.instances[number % len(self.cluster.instances)]
            others = [instance for instance in self.cluster.instances if instance is not home]
            choose.choice(others).publish(f"own:{number}", f"own {number}")
        self.arrivals({f"own {number}": [number] for number in numbers})
        self.figures["sample"] = len(numbers)

    def leave(self) -> None:
        self.figures["problems"] = self.problems()
        for crowd in self.crowds:
            crowd.ask("leave")
        wait_for("all are gone", lambda: self.cluster.stream_count() == 0, LEAVE_SECONDS)
        time.sleep(FORGET_SECONDS)
        self.note_memory("after all left")

    def have_all_opened_or_failed(self) -> bool:
        return self.progress()[0] == self.stream_count or bool(self.problems())

    def arrivals(self, wanted: dict) -> Arrivals:
        """Waits until all deliveries have arrived, or the deadline, and adds up the faults."""
        count = sum(len(streams) for streams in wanted.values())
        try:
            wait_for("all has arrived", lambda: self.progress()[1] >= count, DELIVERY_SECONDS)
        except TimeoutError as error:
            print(error, file=sys.stderr)
        time.sleep(SETTLE_SECONDS)
        arrivals = Arrivals(self.crowds)
        for name, number in arrivals.faults(wanted).items():
            self.faults[name] += number
        return arrivals

    def progress(self) -> tuple[int, int]:
        opened, delivered = zip(*(crowd.ask("progress") for crowd in self.crowds))
        return sum(opened), sum(delivered)

    def problems(self) -> dict[str, int]:
        problems = {}
        for crowd in self.crowds:
            for text, count in crowd.ask("all_problems").items():
                problems[text] = problems.get(text, 0) + count
        return problems

    def note_memory(self, when: str) -> None:
        self.figures.setdefault("memory_bytes", {})[when] = self.cluster.memory_bytes()

"""Publishes an event straight through Redis, without an instance of fanfare.

    pip install redis
    python3 examples/direct_publish.py TOPIC DATA [--id ID] [--event TYPE] [--key KEY]

The script `publish.lua` is a public interface. Its head documents keys, arguments and answer. The
script numbers the event, stores it and pushes it to every instance with listeners.
"""

import argparse
import json
import pathlib

import redis

SCRIPT = pathlib.Path(__file__).parent.parent / "crates/redis/src/publish.lua"

# These must equal the configuration of the instances.
PREFIX = "fanfare"
PARTITIONS = 16
MAX_TOPICS = 1_000_000 // PARTITIONS
IDEMPOTENCY_WINDOW_MS = 5 * 60 * 1000
HISTORY_EVENTS = 1000
HISTORY_TTL_MS = 60 * 60 * 1000
CONFLATE = "none"


def partition_of(topic: str) -> int:
    """FNV-1a of 32 bits: its halves XORed, then the low bits."""
    fnv = 0x811C9DC5
    for byte in topic.encode():
        fnv = (fnv ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (fnv ^ fnv >> 16) % PARTITIONS


def publish(client: redis.Redis, topic: str, data, event="", key="", id="") -> dict:
    """Publishes text unchanged and anything else as JSON. With an `id` a retry is safe."""
    partition = partition_of(topic)
    base = f"{PREFIX}:{{{partition}}}"
    log = f"{base}:log:{topic}"
    keys = [f"{base}:{name}" for name in ("seq", "epoch", "lineage", "topics", "evicted")]
    keys += [log, f"{base}:keys:{topic}", f"{base}:seen:{topic} {id}" if id else log]

    text = isinstance(data, str)
    compact = data if text else json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    arguments = ["1", "", "0", MAX_TOPICS]
    arguments += [topic, "text" if text else "json", compact, event, key, id]
    arguments += [IDEMPOTENCY_WINDOW_MS, 0, HISTORY_EVENTS, HISTORY_TTL_MS, CONFLATE]

    # Sends only the script's hash if Redis knows it already.
    script = client.register_script(SCRIPT.read_bytes())
    _epoch, (sequence, is_new, _receivers) = script(keys=keys, args=arguments)
    return {"topic": topic, "partition": partition, "sequence": sequence, "new": is_new == 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic")
    parser.add_argument("data", help="JSON if it parses, else text")
    parser.add_argument("--id", default="", help="makes a retry safe: the hub delivers an id once")
    parser.add_argument("--event", default="", help="the event's type")
    parser.add_argument("--key", default="", help="the item, for conflation")
    parser.add_argument("--redis", default="redis://127.0.0.1:6379", metavar="URL")
    arguments = parser.parse_args()
    try:
        data = json.loads(arguments.data)
    except ValueError:
        data = arguments.data
    client = redis.Redis.from_url(arguments.redis)
    answer = publish(client, arguments.topic, data, arguments.event, arguments.key, arguments.id)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

"""Publishes an event straight through Redis, with no instance of fanfare in between.

    pip install redis
    python3 examples/direct_publish.py TOPIC DATA [--id ID] [--event TYPE] [--key KEY]

The script that it calls, `publish.lua`, is a public interface: its head says what it takes. It
gives the event its sequence, keeps it, and brings it to every instance that has listeners.
"""

import argparse
import json
import pathlib

import redis

SCRIPT = pathlib.Path(__file__).parent.parent / "crates/redis/src/publish.lua"

# As the instances have them in their configuration.
PREFIX = "fanfare"
PARTITIONS = 16
MAX_TOPICS = 1_000_000 // PARTITIONS
IDEMPOTENCY_WINDOW_MS = 5 * 60 * 1000
HISTORY_EVENTS = 1000
HISTORY_TTL_MS = 60 * 60 * 1000
CONFLATE = "none"


def partition_of(topic: str) -> int:
    """FNV-1a of 32 bits, its halves folded, its low bits taken."""
    fnv = 0x811C9DC5
    for byte in topic.encode():
        fnv = (fnv ^ byte) * 0x01000193 & 0xFFFFFFFF
    return (fnv ^ fnv >> 16) % PARTITIONS


def publish(client: redis.Redis, topic: str, data, event="", key="", id="") -> dict:
    """Publishes text as it is and anything else as JSON. With an `id` it may be tried again."""
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

    # Sends the script itself only where Redis does not know it yet.
    script = client.register_script(SCRIPT.read_bytes())
    _epoch, (sequence, is_new, _receivers) = script(keys=keys, args=arguments)
    return {"topic": topic, "partition": partition, "sequence": sequence, "new": is_new == 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("topic")
    parser.add_argument("data", help="JSON, or else text")
    parser.add_argument("--id", default="", help="publishing twice with the same one is harmless")
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

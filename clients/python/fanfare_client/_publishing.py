"""Owns the body of a publish, its answer, and the waits between its repeats."""

from __future__ import annotations

import random
import uuid
from typing import Any

from ._errors import FanfareError
from ._types import Published

TRIES = 5


def event_of(topic: str, data: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The id makes a repeat safe."""
    event = {"topic": topic, "data": data, **{name: value for name, value in options.items() if value is not None}}
    if "type" in event:
        event["event"] = event.pop("type")
    event.setdefault("id", uuid.uuid4().hex)
    return event


def published_of(answer: dict[str, Any]) -> Published:
    return Published(
        answer["eventId"], answer["topic"], answer["partition"], answer["sequence"], answer["receivers"]
    )


def wait_s(error: Exception, attempt: int) -> float:
    """Raises the error if a repeat cannot help."""
    is_refusal = isinstance(error, FanfareError)
    if attempt == TRIES or (is_refusal and not error.is_temporary):  # type: ignore[attr-defined]
        raise error
    after = error.retry_after if isinstance(error, FanfareError) else None
    return (after or 0) + random.uniform(0, 0.5 * 2**attempt)

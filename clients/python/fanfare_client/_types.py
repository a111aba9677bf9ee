"""Owns the public data types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """An event of a topic."""

    topic: str
    #: `message` if the publisher named no type.
    type: str
    #: A text stays a text; any other published value is the parsed JSON.
    data: Any
    key: str | None
    #: The place of the stream after this event: a later `subscribe` continues there.
    id: str


@dataclass(frozen=True)
class Gap:
    """Events were missed, and the hub cannot replay them."""

    reason: str
    #: The topics, where the hub knows them.
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """The hub's answer to a publish."""

    event_id: str
    topic: str
    partition: int
    sequence: int
    receivers: int

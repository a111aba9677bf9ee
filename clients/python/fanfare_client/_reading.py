"""Owns the decisions of a subscription: its place, the meaning of control events, the wait before a reconnect.

It does no input or output: the sync and the asyncio client share it.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._errors import FanfareError
from ._parser import Parser
from ._types import Event, Gap

_log = logging.getLogger("fanfare_client")
_MAX_BACKOFF_S = 30.0


@dataclass(frozen=True)
class Renew:
    """The token of the stream ends soon."""

    client_id: str


@dataclass
class Reading:
    """One subscription, over all its streams."""

    topics: Sequence[str]
    types: Sequence[str]
    last_event_id: str
    on_gap: Callable[[Gap], None] | None
    is_ended: bool = False
    #: The token was refused: the next request needs another one.
    needs_token: bool = False
    _parser: Parser = field(default_factory=Parser)
    _client_id: str = ""
    _attempt: int = 0
    _wait_s: float | None = None
    _retry_s: float = 1.0

    def body(self) -> dict[str, Any]:
        """The request for the next stream."""
        self._parser = Parser()
        self._wait_s = None
        body: dict[str, Any] = {"topics": list(self.topics), "types": list(self.types), "batch": "json"}
        if self.last_event_id:
            body["lastEventId"] = self.last_event_id
        return body

    def feed(self, piece: bytes) -> Iterator[Event | Renew]:
        """Takes bytes of the stream. The place moves with each event, after the application has taken it."""
        for block in self._parser.feed(piece):
            if self._wait_s is not None or self.is_ended:
                return
            value = json.loads(block.data) if block.data else {}
            if block.type == "batch":
                for item in value:
                    yield Event(item["topic"], item.get("event", "message"), item["data"], item.get("key"), item["id"])
                    self.last_event_id = item["id"]
            if block.id:
                self.last_event_id = block.id
            if block.type == "connected":
                self._client_id, self._attempt, self.needs_token = value["clientId"], 0, False
            elif block.type == "gap":
                self._gap(Gap(value["reason"], tuple(value.get("topics", ()))))
            elif block.type == "renew":
                yield Renew(self._client_id)
            elif block.type == "end":
                self.is_ended = True
            elif block.type == "shutdown":
                self._wait_s = value.get("reconnectMs", 0) / 1000
                self.needs_token = value.get("reason") in ("token", "revoked")

    @property
    def is_over(self) -> bool:
        """This stream is over, whatever still comes."""
        return self.is_ended or self._wait_s is not None

    def refused(self, error: FanfareError, can_renew: bool) -> None:
        """Decides on a refusal: raises it if it is permanent."""
        if error.code == "bad_cursor" or error.status == 410:
            self.last_event_id = ""
            self._wait_s = 0
            self._gap(Gap("epoch"))
        elif error.status == 401 and can_renew and not self.needs_token:
            self.needs_token, self._wait_s = True, 0
        elif not error.is_temporary:
            raise error
        elif error.retry_after is not None:
            self._wait_s = error.retry_after * random.uniform(1, 1.5)

    def wait_s(self) -> float:
        """The wait before the next stream: the hub's, or an exponential backoff with full jitter."""
        if self._parser.retry_ms is not None:
            self._retry_s = self._parser.retry_ms / 1000
        backoff = random.uniform(0, min(_MAX_BACKOFF_S, self._retry_s * 2**self._attempt))
        self._attempt = min(self._attempt + 1, 10)
        return backoff if self._wait_s is None else self._wait_s

    def _gap(self, gap: Gap) -> None:
        if self.on_gap:
            self.on_gap(gap)
        else:
            _log.warning("events were missed: %s %s", gap.reason, ", ".join(gap.topics))

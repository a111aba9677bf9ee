"""Owns the client for programs without asyncio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import httpx

from ._errors import FanfareError, refusal_of
from ._publishing import event_of, published_of, wait_s
from ._reading import Reading, Renew
from ._types import Event, Gap, Published

Token = str | Callable[[], str] | None


class Fanfare:
    """A client of one hub. `url` has the prefix of its endpoints: `http://127.0.0.1:8080/events`."""

    def __init__(
        self, url: str, *, token: Token = None, heartbeat_s: float = 15.0, http: httpx.Client | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._known: str | None = None
        # Silence of two heartbeats is a lost connection.
        self._timeout = httpx.Timeout(10.0, read=2 * heartbeat_s + 1)
        self._http = http or httpx.Client()

    def __enter__(self) -> Fanfare:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def publish(
        self,
        topic: str,
        data: Any = None,
        *,
        type: str | None = None,
        key: str | None = None,
        id: str | None = None,
        ttl: str | None = None,
        delete: bool | None = None,
        end: bool | None = None,
    ) -> Published:
        """Publishes an event and waits for the hub's answer. Repeats it safely after a lost connection."""
        options = {"type": type, "key": key, "id": id, "ttl": ttl, "delete": delete, "end": end}
        event = event_of(topic, data, options)
        attempt = 0
        while True:
            attempt += 1
            try:
                return published_of(self._post("/publish", event).json())
            except (FanfareError, httpx.TransportError) as error:
                time.sleep(wait_s(error, attempt))

    def subscribe(
        self,
        *topics: str,
        types: Sequence[str] = (),
        last_event_id: str = "",
        on_gap: Callable[[Gap], None] | None = None,
    ) -> Iterator[Event]:
        """The events of the topics and patterns. Reconnects and resumes by itself; ends if the topics end."""
        reading = Reading(topics, types, last_event_id, on_gap)
        while True:
            try:
                yield from self._stream(reading)
            except FanfareError as error:
                reading.refused(error, callable(self._token))
            except httpx.TransportError:
                pass
            if reading.is_ended:
                return
            if reading.needs_token:
                self._known = None
            time.sleep(reading.wait_s())

    def _stream(self, reading: Reading) -> Iterator[Event]:
        request = {"json": reading.body(), "headers": self._headers(), "timeout": self._timeout}
        with self._http.stream("POST", f"{self._url}/stream", **request) as response:  # type: ignore[arg-type]
            if response.status_code == 204:
                reading.is_ended = True
            elif not response.is_success:
                response.read()
                raise refusal_of(response)
            for piece in response.iter_raw():
                for event in reading.feed(piece):
                    if isinstance(event, Renew):
                        self._renew(event)
                    else:
                        yield event
                if reading.is_over:
                    return

    def _renew(self, renew: Renew) -> None:
        """A failure is no error: the hub ends the stream, and the next one gets another token."""
        self._known = None
        try:
            self._post(f"/streams/{renew.client_id}/token", {"token": self._present()})
        except (FanfareError, httpx.TransportError):
            pass

    def _post(self, path: str, body: Any) -> httpx.Response:
        response = self._http.post(self._url + path, json=body, headers=self._headers())
        if response.status_code == 401 and callable(self._token) and self._known:
            self._known = None
            response = self._http.post(self._url + path, json=body, headers=self._headers())
        if not response.is_success:
            raise refusal_of(response)
        return response

    def _present(self) -> str | None:
        if not callable(self._token):
            return self._token
        self._known = self._known or self._token()
        return self._known

    def _headers(self) -> dict[str, str]:
        token = self._present()
        return {"authorization": f"Bearer {token}"} if token else {}

"""Owns the client for asyncio. It mirrors `_sync.py`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any

import httpx

from ._errors import FanfareError, refusal_of
from ._publishing import event_of, published_of, wait_s
from ._reading import Reading, Renew
from ._types import Event, Gap, Published

Token = str | Callable[[], str | Awaitable[str]] | None


class AsyncFanfare:
    """A client of one hub. `url` has the prefix of its endpoints: `http://127.0.0.1:8080/events`."""

    def __init__(
        self, url: str, *, token: Token = None, heartbeat_s: float = 15.0, http: httpx.AsyncClient | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._known: str | None = None
        # Silence of two heartbeats is a lost connection.
        self._timeout = httpx.Timeout(10.0, read=2 * heartbeat_s + 1)
        self._http = http or httpx.AsyncClient()

    async def __aenter__(self) -> AsyncFanfare:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def publish(
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
                return published_of((await self._post("/publish", event)).json())
            except (FanfareError, httpx.TransportError) as error:
                await asyncio.sleep(wait_s(error, attempt))

    async def subscribe(
        self,
        *topics: str,
        types: Sequence[str] = (),
        last_event_id: str = "",
        on_gap: Callable[[Gap], None] | None = None,
    ) -> AsyncGenerator[Event, None]:
        """The events of the topics and patterns. Reconnects and resumes by itself; ends if the topics end."""
        reading = Reading(topics, types, last_event_id, on_gap)
        while True:
            try:
                async with aclosing(self._stream(reading)) as stream:
                    async for event in stream:
                        yield event
            except FanfareError as error:
                reading.refused(error, callable(self._token))
            except httpx.TransportError:
                pass
            if reading.is_ended:
                return
            if reading.needs_token:
                self._known = None
            await asyncio.sleep(reading.wait_s())

    async def _stream(self, reading: Reading) -> AsyncGenerator[Event, None]:
        request = {"json": reading.body(), "headers": await self._headers(), "timeout": self._timeout}
        async with self._http.stream("POST", f"{self._url}/stream", **request) as response:  # type: ignore[arg-type]
            if response.status_code == 204:
                reading.is_ended = True
            elif not response.is_success:
                await response.aread()
                raise refusal_of(response)
            async for piece in response.aiter_raw():
                for event in reading.feed(piece):
                    if isinstance(event, Renew):
                        await self._renew(event)
                    else:
                        yield event
                if reading.is_over:
                    return

    async def _renew(self, renew: Renew) -> None:
        """A failure is no error: the hub ends the stream, and the next one gets another token."""
        self._known = None
        try:
            await self._post(f"/streams/{renew.client_id}/token", {"token": await self._present()})
        except (FanfareError, httpx.TransportError):
            pass

    async def _post(self, path: str, body: Any) -> httpx.Response:
        response = await self._http.post(self._url + path, json=body, headers=await self._headers())
        if response.status_code == 401 and callable(self._token) and self._known:
            self._known = None
            response = await self._http.post(self._url + path, json=body, headers=await self._headers())
        if not response.is_success:
            raise refusal_of(response)
        return response

    async def _present(self) -> str | None:
        if not callable(self._token):
            return self._token
        if not self._known:
            token = self._token()
            self._known = await token if inspect.isawaitable(token) else token
        return self._known

    async def _headers(self) -> dict[str, str]:
        token = await self._present()
        return {"authorization": f"Bearer {token}"} if token else {}

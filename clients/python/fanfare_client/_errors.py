"""Owns the error of a refused request."""

from __future__ import annotations

import httpx

_TEMPORARY = {408, 425, 429}


class FanfareError(Exception):
    """A refusal by the hub, or by a proxy before it."""

    def __init__(self, status: int, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        #: The HTTP status.
        self.status = status
        #: The hub's stable code; `http_<status>` if the answer is not the hub's.
        self.code = code
        self.message = message
        #: Seconds, from `Retry-After`.
        self.retry_after = retry_after

    @property
    def is_temporary(self) -> bool:
        """The same request may succeed later."""
        return self.status >= 500 or self.status in _TEMPORARY


def refusal_of(response: httpx.Response) -> FanfareError:
    """The error of a response, after its body was read."""
    error: dict[str, object] = {}
    try:
        body = response.json()
        error = body.get("error", {}) if isinstance(body, dict) else {}
    except ValueError:
        pass
    after = response.headers.get("retry-after", "")
    retry_after = float(after) if after.isdigit() else None
    code = str(error.get("code", f"http_{response.status_code}"))
    return FanfareError(response.status_code, code, str(error.get("message", "refused")), retry_after)

"""The client of the realtime hub fanfare. This file owns the list of public names."""

from ._aio import AsyncFanfare
from ._errors import FanfareError
from ._sync import Fanfare
from ._types import Event, Gap, Published

__all__ = ["AsyncFanfare", "Event", "Fanfare", "FanfareError", "Gap", "Published"]

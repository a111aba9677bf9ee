"""Owns the parser of event streams (WHATWG HTML §9.2.6). It knows no event of the hub."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True)
class Block:
    """One block. `type` is empty for a block with an id only."""

    type: str
    data: str
    id: str


@dataclass
class Parser:
    """Takes the bytes of a stream in pieces of any size."""

    retry_ms: int | None = None
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8-sig")("replace")
    )
    _rest: str = ""
    _after_cr: bool = False
    _type: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str = ""
    _is_named: bool = False

    def feed(self, piece: bytes) -> Iterator[Block]:
        text = self._decoder.decode(piece)
        if not text:
            return
        # A CR at the end of a piece ends its line at once; a LF at the start of the next belongs to it.
        if self._after_cr and text[0] == "\n":
            text = text[1:]
        self._after_cr = text.endswith("\r")
        *lines, self._rest = _LINE_END.split(self._rest + text)
        for line in lines:
            block = self._line(line)
            if block:
                yield block

    def _line(self, line: str) -> Block | None:
        if not line:
            return self._end()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id" and "\0" not in value:
            self._id, self._is_named = value, True
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
        return None

    def _end(self) -> Block | None:
        block = None
        if self._data:
            block = Block(self._type or "message", "\n".join(self._data), self._id)
        elif self._is_named:
            block = Block("", "", self._id)
        self._type, self._data, self._is_named = "", [], False
        return block

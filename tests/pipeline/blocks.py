"""Reads blocks of ClickHouse's Native format; by its documentation, not by what our writer does."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from mmpipeline.rating.rated import RatedCall
from mmproto.v1.call_pb2 import Call

_FIXED = {"Bool": "?", "UInt8": "B", "Int8": "b", "Int64": "q", "Float64": "d", "DateTime64(9, 'UTC')": "q"}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int) -> bytes:
        content = self.data[self.at : self.at + size]
        assert len(content) == size
        self.at += size
        return content

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def sized(self) -> bytes:
        return self.take(self.number())

    def values(self, kind: str, rows: int) -> list[Any]:
        if kind.startswith("Nullable("):
            absent = self.take(rows)
            given = self.values(kind.removeprefix("Nullable(").removesuffix(")"), rows)
            return [None if gone else value for gone, value in zip(absent, given, strict=True)]
        if kind == "String":
            return [self.sized() for _ in range(rows)]
        code = _FIXED[kind]
        return list(struct.unpack(f"<{rows}{code}", self.take(rows * struct.calcsize(code))))


def columns_in(block: bytes) -> dict[str, list[Any]]:
    """The columns of one block by name; texts as bytes."""
    reader = _Reader(block)
    width, rows = reader.number(), reader.number()
    columns = {}
    for _ in range(width):
        name, kind = reader.sized().decode(), reader.sized().decode()
        columns[name] = reader.values(kind, rows)
    assert len(columns) == width
    assert reader.at == len(block)
    return columns


def rows_in(blocks: Sequence[bytes]) -> list[RatedCall]:
    """The charges in `blocks`."""
    rows = []
    for block in blocks:
        columns = columns_in(block)
        names = ("message", "sign", "cost_nano_usd", "unpriced_reason", "rate_card")
        for message, sign, cost, reason, card in zip(*(columns[name] for name in names), strict=True):
            rows.append(RatedCall(Call.FromString(message), sign, cost, reason.decode(), card.decode()))
    return rows

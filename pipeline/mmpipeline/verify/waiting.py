"""What waits in the outbox, by tenant and day: read out of the blocks as they will be inserted.

Blocks are in the engine's Native format (store/warehouse/blocks.py): columns one after the other, each with
its name and type. Four of them are needed here, and the others are stepped over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, Final

from mmpipeline.store.control.charged import DAY_NS, Sums

_NEEDED: Final = frozenset({"tenant_id", "started_at", "sign", "cost_nano_usd"})
_CODES: Final = {
    "Bool": "?",
    "UInt8": "B",
    "Int8": "b",
    "UInt32": "I",
    "Int64": "q",
    "Float64": "d",
    "DateTime64(9, 'UTC')": "q",
}


def by_day(blocks: Iterable[bytes]) -> dict[tuple[str, int], Sums]:
    """Sums by (tenant, day since 1970) over blocks."""
    found: dict[tuple[str, int], Sums] = {}
    for block in blocks:
        columns = _columns(block)
        for tenant, at, sign, cost in zip(
            columns["tenant_id"],
            columns["started_at"],
            columns["sign"],
            columns["cost_nano_usd"],
            strict=True,
        ):
            key = (tenant.decode(), at // DAY_NS)
            row = Sums(0 if cost is None else sign * cost, sign, sign if cost is None else 0)
            found[key] = found.get(key, Sums()).plus(row)
    return found


def _columns(block: bytes) -> dict[str, list[Any]]:
    width, at = _number(block, 0)
    rows, at = _number(block, at)
    columns: dict[str, list[Any]] = {}
    for _ in range(width):
        name, at = _sized(block, at)
        kind, at = _sized(block, at)
        values, at = _values(block, at, kind.decode(), rows)
        if name.decode() in _NEEDED:
            columns[name.decode()] = values
    return columns


def _values(block: bytes, at: int, kind: str, rows: int) -> tuple[list[Any], int]:
    if kind.startswith("Nullable("):
        absent = block[at : at + rows]
        given, at = _values(block, at + rows, kind.removeprefix("Nullable(").removesuffix(")"), rows)
        return [None if gone else value for gone, value in zip(absent, given, strict=True)], at
    if kind == "String":
        values: list[Any] = []
        for _ in range(rows):
            value, at = _sized(block, at)
            values.append(value)
        return values, at
    code = f"<{rows}{_CODES[kind]}"
    return list(struct.unpack_from(code, block, at)), at + struct.calcsize(code)


def _sized(block: bytes, at: int) -> tuple[bytes, int]:
    size, at = _number(block, at)
    return block[at : at + size], at + size


def _number(block: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = block[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7

"""Rows of the ledger turned into a block of the raw table, in the engine's own Native format.

This is the pipeline's hot path, so it is column-oriented: values are read from a call once, where it is
charged, and every column is written by code that runs once a column, not once a value. The engine takes
the block as it is. A block names its columns and their types, so that newer code can insert it too.

Native, as the engine documents it: the counts of columns and rows, then for each column its name, its
type and its values; counts and lengths are LEB128, numbers little-endian, and the values of a Nullable
column follow one byte each that says whether it is absent.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.warehouse.schema import INPUT_REPORTED, OTHER_TOKENS, OUTPUT_REPORTED, TOKEN_COLUMNS
from mmproto.usage import INPUT_BUCKETS, OUTPUT_BUCKETS
from mmproto.v1.call_pb2 import Call, Observer
from mmproto.v1.usage_pb2 import Quality

OBSERVERS: Final = {n: Observer.Name(n).removeprefix("OBSERVER_").lower() for n in Observer.values()}
QUALITIES: Final = {n: Quality.Name(n).removeprefix("QUALITY_") for n in Quality.values()}

_INPUT: Final = frozenset(INPUT_BUCKETS)
_OUTPUT: Final = frozenset(OUTPUT_BUCKETS)

_TOKEN_PREFIX: Final = len("tokens_")
_BUCKET_COLUMNS: Final = {name[_TOKEN_PREFIX:]: name for name in TOKEN_COLUMNS}
_NS: Final = 1_000_000_000
# Hours are 32-bit seconds in the roll-ups: a time outside of them would wrap to another year.
_LATEST_NS: Final = (2**32 - 1) * _NS


class WarehouseRow(NamedTuple):
    """One row: the columns by their names, `tokens` standing for those of the buckets."""

    tenant_id: str
    started_at: int
    id: str
    sign: int
    team: str
    application: str
    user: str
    provider: str
    model: str
    request_model: str
    operation: str
    virtual_key: str
    node: str
    process: str
    observer: str
    quality: str
    error_type: str
    session: str
    streaming: bool
    duration_s: float | None
    first_token_s: float | None
    cost_nano_usd: int | None
    unpriced_reason: str
    rate_card: str
    reported: int
    message: bytes
    tokens: Mapping[str, int]


# Columns of text, in no order that matters: a block names them.
_TEXTS: Final = (*WarehouseRow._fields[4:18], "unpriced_reason", "rate_card")


def row_of(
    call: Call,
    message: bytes,
    tokens: Mapping[str, int],
    *,
    sign: int,
    cost_nano_usd: int | None,
    unpriced_reason: str,
    rate_card: str,
) -> WarehouseRow:
    """The row of a charge. `message` is `call` serialized, `tokens` are those of its usage.

    A start time that the roll-ups cannot hold (before 1970, after 2106) counts in the nearest hour that
    they can; the message keeps what was reported.
    """
    at = call.started_at_unix_ns
    return WarehouseRow(
        call.tenant,
        at if 0 <= at <= _LATEST_NS else 0 if at < 0 else _LATEST_NS,
        call.id,
        sign,
        call.team,
        call.application,
        call.user,
        call.provider,
        # The model that served the call is what was paid for; the requested one may be an alias.
        call.response_model or call.request_model,
        call.request_model,
        call.operation,
        call.virtual_key_id,
        call.node,
        call.process.command,
        OBSERVERS.get(call.observer, "unspecified"),
        QUALITIES.get(call.usage.quality, "UNKNOWN"),
        call.error_type,
        call.origin.session,
        call.streaming,
        call.duration_s if call.HasField("duration_s") else None,
        call.time_to_first_token_s if call.HasField("time_to_first_token_s") else None,
        cost_nano_usd,
        unpriced_reason,
        rate_card,
        (0 if _INPUT.isdisjoint(tokens) else INPUT_REPORTED)
        | (0 if _OUTPUT.isdisjoint(tokens) else OUTPUT_REPORTED),
        message,
        tokens,
    )


def row_of_rated(rated: RatedCall) -> WarehouseRow:
    """The row of a call that was charged elsewhere."""
    call = rated.call
    tokens = call.usage.tokens
    return row_of(
        call,
        call.SerializeToString(),
        {bucket: tokens[bucket] for bucket in tokens},
        sign=rated.sign,
        cost_nano_usd=rated.cost_nano_usd,
        unpriced_reason=rated.unpriced_reason,
        rate_card=rated.rate_card,
    )


def block_of(rows: Sequence[WarehouseRow]) -> bytes:
    """One block of `rows`, of which there is at least one."""
    # Flat and then by strides: with thousands of rows, zip(*rows) would miss the processor's cache on
    # every value.
    flat: list[Any] = list(chain.from_iterable(rows))
    width = len(WarehouseRow._fields)
    values = {name: flat[at::width] for at, name in enumerate(WarehouseRow._fields)}
    columns = [
        _texts("tenant_id", values["tenant_id"]),
        _numbers("started_at", "DateTime64(9, 'UTC')", "q", values["started_at"]),
        _texts("id", values["id"]),
        _numbers("sign", "Int8", "b", values["sign"]),
        *(_texts(name, values[name]) for name in _TEXTS),
        _column("streaming", "Bool") + bytes(values["streaming"]),
        _nullable("duration_s", "Float64", "d", values["duration_s"]),
        _nullable("first_token_s", "Float64", "d", values["first_token_s"]),
        _nullable("cost_nano_usd", "Int64", "q", values["cost_nano_usd"]),
        _column("reported", "UInt8") + bytes(values["reported"]),
        *_buckets(values["tokens"]),
        _column("message", "String") + b"".join([_sized(message) for message in values["message"]]),
    ]
    return b"".join((_length(len(columns)), _length(len(rows)), *columns))


def _buckets(tokens: Sequence[Mapping[str, int]]) -> Iterable[bytes]:
    """The columns of the buckets; those that no call reported share their zeros."""
    size = len(tokens)
    counts: dict[str, array[int]] = {}
    for index, reported in enumerate(tokens):
        for bucket, count in reported.items():
            name = _BUCKET_COLUMNS.get(bucket, OTHER_TOKENS)
            column = counts.get(name)
            if column is None:
                column = counts[name] = array("q", bytes(8 * size))
            column[index] += count
    zeros = bytes(8 * size)
    for name in (*TOKEN_COLUMNS, OTHER_TOKENS):
        yield _column(name, "Int64") + (_little(counts[name]) if name in counts else zeros)


class _Encoded(dict[str, bytes]):
    """Texts in their encoded form: most columns hold few distinct ones, many times each."""

    def __missing__(self, text: str) -> bytes:
        encoded = self[text] = _sized(text.encode())
        return encoded


def _texts(name: str, values: Sequence[str]) -> bytes:
    return _column(name, "String") + b"".join(map(_Encoded().__getitem__, values))


def _numbers(name: str, kind: str, code: str, values: Iterable[float]) -> bytes:
    return _column(name, kind) + _little(array(code, values))


def _nullable(name: str, kind: str, code: str, values: Sequence[float | None]) -> bytes:
    absent = bytes([value is None for value in values])
    given = [0 if value is None else value for value in values]
    return _column(name, f"Nullable({kind})") + absent + _little(array(code, given))


def _little(numbers: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _column(name: str, kind: str) -> bytes:
    return _sized(name.encode()) + _sized(kind.encode())


def _sized(content: bytes) -> bytes:
    return _length(len(content)) + content


def _length(number: int) -> bytes:
    if number < 0x80:
        return _BYTES[number]
    if number < 0x4000:
        return _PAIR.pack(number & 0x7F | 0x80, number >> 7)
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_BYTES: Final = tuple(bytes([n]) for n in range(0x80))
_PAIR: Final = struct.Struct("BB")

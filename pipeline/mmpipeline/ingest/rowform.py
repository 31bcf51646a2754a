"""Rated calls as bytes, on their way through the outbox.

A payload is a version byte, the length of a head, the head (the charges as JSON columns) and the calls as
the body of an `IngestBatch`: parsing them as one message is ten times cheaper than one by one. It is read
back by the same code or, after an upgrade, by newer code that still knows the version.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import orjson
from google.protobuf.message import DecodeError

from mmpipeline.rating.rated import RatedCall
from mmproto.v1.ingest_pb2 import IngestBatch

_VERSION = b"\x01"
_LENGTH = struct.Struct("<I")

# Field `calls` of IngestBatch, length-delimited, as every call in the body begins.
_CALLS_TAG = bytes([IngestBatch.DESCRIPTOR.fields_by_name["calls"].number << 3 | 2])

# (sign, nano-dollars or None, reason, rate card id, serialized Call)
Row = tuple[int, int | None, str, str, bytes]


class PayloadError(Exception):
    """A payload that this version cannot read; nothing of it was taken."""


def encode(rows: Sequence[Row]) -> bytes:
    """One payload of all `rows`."""
    head = orjson.dumps(list(zip(*(row[:4] for row in rows), strict=True)))
    parts = [_VERSION, _LENGTH.pack(len(head)), head]
    for row in rows:
        call = row[4]
        parts += (_CALLS_TAG, _varint(len(call)), call)
    return b"".join(parts)


def decode(payload: bytes) -> list[RatedCall]:
    """The rows of a payload. Raises PayloadError."""
    if payload[:1] != _VERSION:
        raise PayloadError(f"an outbox payload of version {payload[:1]!r}; a newer ModelMeter wrote it")
    try:
        (size,) = _LENGTH.unpack_from(payload, 1)
        start = 1 + _LENGTH.size
        signs, costs, reasons, cards = orjson.loads(payload[start : start + size])
        calls = IngestBatch.FromString(payload[start + size :]).calls
        return [RatedCall(*row) for row in zip(calls, signs, costs, reasons, cards, strict=True)]
    except (struct.error, ValueError, DecodeError) as error:
        raise PayloadError(f"an outbox payload is damaged: {error}") from error


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)

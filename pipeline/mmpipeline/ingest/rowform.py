"""Rated calls as bytes, on their way through the outbox.

A payload is a version byte and then, for each row, a fixed head (sign, whether there is a cost, the cost,
the lengths of what follows) with the reason, the rate card id and the serialized Call. Written on every
ingest, so it is cheap before it is pretty; read back by the same code or, after an upgrade, by newer code
that still knows the version.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from mmpipeline.rating.rated import RatedCall
from mmproto.v1.call_pb2 import Call

_VERSION = b"\x01"
_HEAD = struct.Struct("<bBqBHI")
_pack = _HEAD.pack

# (sign, nano-dollars or None, reason, rate card id, serialized Call)
Row = tuple[int, int | None, str, str, bytes]


class PayloadError(Exception):
    """A payload that this version cannot read; nothing of it was taken."""


def encode(rows: Iterable[Row]) -> bytes:
    """One payload of all `rows`."""
    parts = [_VERSION]
    for sign, cost, reason, card, call in rows:
        reason_bytes, card_bytes = reason.encode(), card.encode()
        known = cost is not None
        parts += (
            _pack(sign, known, cost or 0, len(reason_bytes), len(card_bytes), len(call)),
            reason_bytes,
            card_bytes,
            call,
        )
    return b"".join(parts)


def decode(payload: bytes) -> list[RatedCall]:
    """The rows of a payload. Raises PayloadError."""
    if payload[:1] != _VERSION:
        raise PayloadError(f"outbox payload of version {payload[:1]!r}; a newer ModelMeter wrote it")
    rows: list[RatedCall] = []
    at, size = 1, len(payload)
    while at < size:
        sign, known, cost, reason_size, card_size, call_size = _HEAD.unpack_from(payload, at)
        at += _HEAD.size
        reason = payload[at : at + reason_size].decode()
        at += reason_size
        card = payload[at : at + card_size].decode()
        at += card_size
        call = Call.FromString(payload[at : at + call_size])
        at += call_size
        rows.append(RatedCall(call, sign, cost if known else None, reason, card))
    return rows

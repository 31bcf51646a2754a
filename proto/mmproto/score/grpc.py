"""A record as a gRPC call: length-prefixed messages over one HTTP/2 stream, the status in its trailers."""

from __future__ import annotations

import gzip
import random
import struct

from mmproto.reader import Direction
from mmproto.score import http2
from mmproto.score.coding import IDENTITY
from mmproto.score.http1 import Turn, kept
from mmproto.score.record import Record


def write(record: Record, coding: str, rng: random.Random) -> list[Turn]:
    """The call; `coding` gzip compresses each message."""
    client, server = http2.Side(rng), http2.Side(rng)
    asked = _ensured(http2.request_headers(record), coding)
    answered = _ensured([(":status", str(record.status or 200)), *kept(record.response_headers)], coding)
    sent = [message.data for message in record.messages if message.from_client] or _split(record.request_body)
    received = [message.data for message in record.messages if not message.from_client]
    received = received or _split(record.response_body)
    turns = [
        *http2.opening(),
        (Direction.WRITE, client.headers([*asked, ("te", "trailers")])),
        (Direction.WRITE, client.data(b"".join(_prefixed(one, coding) for one in sent), end=True)),
        (Direction.READ, http2.greeting() + server.headers(answered)),
        (Direction.READ, server.data(b"".join(_prefixed(one, coding) for one in received), end=False)),
    ]
    if not record.aborted:
        trailers = dict(record.trailers)
        trailers.setdefault("grpc-status", dict(record.response_headers).get("grpc-status", "0"))
        turns.append((Direction.READ, server.headers(list(trailers.items()), end=True)))
    return turns


def _ensured(headers: list[tuple[str, str]], coding: str) -> list[tuple[str, str]]:
    """Headers with what gRPC asks for; the status is in the trailers."""
    named = [
        (name, value)
        for name, value in headers
        if name not in ("grpc-status", "grpc-message", "grpc-encoding")
    ]
    if not any(name == "content-type" for name, _ in named):
        named.append(("content-type", "application/grpc"))
    return [*named, ("grpc-encoding", "identity" if coding == IDENTITY else coding)]


def _split(body: bytes) -> list[bytes]:
    """The messages of a body; one that has no prefixes is a message itself."""
    messages: list[bytes] = []
    position = 0
    while position < len(body):
        if len(body) - position < 5 or body[position] > 1:
            return [body]
        compressed, size = struct.unpack_from(">BI", body, position)
        piece = body[position + 5 : position + 5 + size]
        if len(piece) < size:
            return [body]
        messages.append(gzip.decompress(piece) if compressed else piece)
        position += 5 + size
    return messages


def _prefixed(message: bytes, coding: str) -> bytes:
    if coding == IDENTITY:
        return struct.pack(">BI", 0, len(message)) + message
    packed = gzip.compress(message, 4, mtime=0)
    return struct.pack(">BI", 1, len(packed)) + packed

"""A record as a gRPC call: length-prefixed messages over one HTTP/2 stream, the status in its trailers."""

from __future__ import annotations

import gzip
import random
import struct
import zlib

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
    sent = [message.data for message in record.messages if message.from_client]
    received = [message.data for message in record.messages if not message.from_client]
    asked_body = _body(sent, record.request_body, coding, unfinished=False)
    answered_body = _body(received, record.response_body, coding, unfinished=record.aborted)
    turns = [
        *http2.opening(),
        (Direction.WRITE, client.headers([*asked, ("te", "trailers")])),
        (Direction.WRITE, client.data(asked_body, end=True)),
        (Direction.READ, http2.greeting() + server.headers(answered)),
        (Direction.READ, server.data(answered_body, end=False)),
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


def _body(messages: list[bytes], body: bytes, coding: str, *, unfinished: bool) -> bytes:
    """Prefixed messages, made of the record's own or of what is in its body."""
    rest = b""
    if not messages:
        messages, rest = _split(body)
        if rest and not (unfinished and messages):
            messages, rest = [body], b""  # it has no prefixes: it is a message itself
    return b"".join(_prefixed(message, coding) for message in messages) + rest


def _split(body: bytes) -> tuple[list[bytes], bytes]:
    """The whole messages of a body, and what follows them and is none."""
    messages: list[bytes] = []
    position = 0
    while len(body) - position >= 5 and body[position] <= 1:
        compressed, size = struct.unpack_from(">BI", body, position)
        piece = body[position + 5 : position + 5 + size]
        if len(piece) < size:
            break
        try:
            messages.append(gzip.decompress(piece) if compressed else piece)
        except (OSError, EOFError, zlib.error):
            break
        position += 5 + size
    return messages, body[position:]


def _prefixed(message: bytes, coding: str) -> bytes:
    if coding == IDENTITY:
        return struct.pack(">BI", 0, len(message)) + message
    packed = gzip.compress(message, 4, mtime=0)
    return struct.pack(">BI", 1, len(packed)) + packed

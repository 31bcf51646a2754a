"""A record as the bytes of an HTTP/1.1 connection."""

from __future__ import annotations

import random
import re
from typing import Final

from mmproto.reader import Direction
from mmproto.score.coding import IDENTITY, encode
from mmproto.score.record import Headers, Record

# Which bytes go which way, in the order in which they were said.
Turn = tuple[Direction, bytes]

# Headers that describe the original message's framing, not this one's.
FRAMING: Final = re.compile(
    r"content-(length|encoding)|transfer-encoding|(proxy-)?connection|host|keep-alive|upgrade|te|trailer|expect"
    r"|http2-settings|:.*"
)
BODILESS: Final = frozenset({204, 304})


def kept(headers: Headers) -> list[tuple[str, str]]:
    """The headers that are the same however the message is sent."""
    return [(name, value) for name, value in headers if not FRAMING.fullmatch(name)]


def write(record: Record, framing: str, coding: str, rng: random.Random) -> list[Turn]:
    """The exchange with a response that is framed by `framing`: length, chunked or close.

    The request is chunked where the response is. An aborted one has no end.
    """
    headers = [("host", record.host), *kept(record.request_headers)]
    body = record.request_body
    if framing == "chunked" and body:
        headers.append(("transfer-encoding", "chunked"))
        body = _chunked(body, rng, ended=True)
    elif body or record.method not in ("GET", "HEAD", "DELETE"):
        headers.append(("content-length", str(len(body))))
    asked = head(f"{record.method} {record.target} HTTP/1.1", headers)
    turns = [(Direction.WRITE, asked), (Direction.WRITE, body)]
    if record.status:
        turns += _response(record, framing, coding, rng)
    return turns


def _response(record: Record, framing: str, coding: str, rng: random.Random) -> list[Turn]:
    headers, body = kept(record.response_headers), b""
    if record.status not in BODILESS and record.method != "HEAD":
        if coding != IDENTITY:
            headers.append(("content-encoding", coding))
        body = encode(coding, record.response_body, unfinished=record.aborted)
        if framing == "chunked":
            headers.append(("transfer-encoding", "chunked"))
            body = _chunked(body, rng, ended=not record.aborted)
        elif framing == "length":
            announced = len(body) + (rng.randrange(1, 5000) if record.aborted else 0)
            headers.append(("content-length", str(announced)))
        else:
            headers.append(("connection", "close"))
    answered = head(f"HTTP/1.1 {record.status} Said", headers)
    return [(Direction.READ, answered), (Direction.READ, body)]


def head(start: str, headers: list[tuple[str, str]]) -> bytes:
    """A start line with its headers."""
    lines = [start, *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"


def _chunked(body: bytes, rng: random.Random, *, ended: bool) -> bytes:
    chunks: list[bytes] = []
    position = 0
    while position < len(body):
        size = rng.choice((rng.randrange(1, 64), rng.randrange(64, 4096), 16 * 1024))
        piece = body[position : position + size]
        chunks.append(b"%x\r\n%s\r\n" % (len(piece), piece))
        position += size
    if ended:
        chunks.append(rng.choice((b"0\r\n\r\n", b"0\r\nserver-timing: total;dur=1\r\n\r\n")))
    elif chunks:
        chunks[-1] = chunks[-1][:-2]  # in the middle of a chunk's end
    return b"".join(chunks)

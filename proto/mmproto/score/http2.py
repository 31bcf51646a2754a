"""A record as the bytes of an HTTP/2 connection: its first stream, among what connections carry besides.

Header blocks are broken into CONTINUATION frames and frames are padded at random, and the end of a message
may stand on its last DATA frame, on an empty one, or on trailers.
"""

from __future__ import annotations

import random
import struct
from typing import Final

import hpack

from mmproto.reader import Direction
from mmproto.score.coding import IDENTITY, encode
from mmproto.score.http1 import BODILESS, Turn, kept
from mmproto.score.record import Record

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Types and flags of RFC 9113.
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_CANCEL: Final = 8
_STREAM: Final = 1
_MAX_FRAME: Final = 16 * 1024


class Side:
    """What one end of the connection writes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._packer = hpack.Encoder()

    def headers(self, headers: list[tuple[str, str]], *, end: bool = False) -> bytes:
        """A header block, in one frame or several."""
        lines = [
            (name.encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers
        ]
        block = self._packer.encode(lines, huffman=self._rng.random() < 0.8)
        cut = self._rng.randrange(1, len(block) + 1) if self._rng.random() < 0.3 else len(block)
        first, rest = block[:cut], block[cut:]
        flags, payload = self._padded(first)
        if self._rng.random() < 0.2:  # a priority stands between the pad length and the block
            flags |= _PRIORITY
            start = 1 if flags & _PADDED else 0
            payload = payload[:start] + struct.pack(">IB", 0, 15) + payload[start:]
        flags |= (_END_STREAM if end else 0) | (0 if rest else _END_HEADERS)
        frames = frame(_HEADERS, flags, payload)
        while rest:
            size = self._rng.randrange(1, len(rest) + 1)
            frames += frame(_CONTINUATION, _END_HEADERS if size == len(rest) else 0, rest[:size])
            rest = rest[size:]
        return frames

    def data(self, body: bytes, *, end: bool) -> bytes:
        """A body in frames; `end` puts END_STREAM on the last, or on an empty one behind it."""
        frames: list[bytes] = []
        position = 0
        on_last = self._rng.random() < 0.5
        while position < len(body):
            size = self._rng.choice((self._rng.randrange(1, 600), _MAX_FRAME - 300))
            piece = body[position : position + size]
            position += size
            flags, payload = self._padded(piece)
            ends = end and on_last and position >= len(body)
            frames.append(frame(_DATA, flags | (_END_STREAM if ends else 0), payload))
            if position < len(body) and self._rng.random() < 0.1:
                frames.append(frame(_PING, 0, b"8 bytes!", stream=0))
        if end and not (on_last and body):
            frames.append(frame(_DATA, _END_STREAM, b""))
        return b"".join(frames)

    def _padded(self, payload: bytes) -> tuple[int, bytes]:
        if self._rng.random() < 0.7:
            return 0, payload
        size = self._rng.randrange(256)
        return _PADDED, bytes((size,)) + payload + bytes(size)


def frame(kind: int, flags: int, payload: bytes, *, stream: int = _STREAM) -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening() -> list[Turn]:
    """What both ends say before the first stream."""
    settings = struct.pack(">HI", 4, 1 << 20)
    return [
        (Direction.WRITE, _PREFACE + frame(_SETTINGS, 0, settings, stream=0)),
        (Direction.WRITE, frame(_WINDOW_UPDATE, 0, struct.pack(">I", 1 << 20), stream=0)),
    ]


def greeting() -> bytes:
    """What the server says before its first answer."""
    return frame(_SETTINGS, 0, b"", stream=0) + frame(_SETTINGS, _ACK, b"", stream=0)


def request_headers(record: Record) -> list[tuple[str, str]]:
    """Pseudo headers and headers of the request."""
    pseudo = [
        (":method", record.method),
        (":scheme", "https"),
        (":authority", record.host),
        (":path", record.target),
    ]
    return pseudo + kept(record.request_headers)


def write(record: Record, coding: str, rng: random.Random) -> list[Turn]:
    """The exchange on one stream. An aborted one ends with RST_STREAM, or without a word."""
    client, server = Side(rng), Side(rng)
    asked = client.headers(request_headers(record), end=not record.request_body)
    turns = [*opening(), (Direction.WRITE, asked)]
    if record.request_body:
        turns.append((Direction.WRITE, client.data(record.request_body, end=True)))
    turns.append((Direction.READ, greeting()))
    if record.status:
        turns.append((Direction.READ, _answer(record, coding, server, rng)))
    if record.aborted and rng.random() < 0.5:
        turns.append((Direction.WRITE, frame(_RST_STREAM, 0, struct.pack(">I", _CANCEL))))
    return turns


def _answer(record: Record, coding: str, server: Side, rng: random.Random) -> bytes:
    headers = [(":status", str(record.status)), *kept(record.response_headers)]
    if record.status in BODILESS or record.method == "HEAD":
        return server.headers(headers, end=True)
    if coding != IDENTITY:
        headers.append(("content-encoding", coding))
    body = encode(coding, record.response_body, unfinished=record.aborted)
    interim = server.headers([(":status", "103"), ("link", "</style.css>")]) if rng.random() < 0.1 else b""
    trailed = not record.aborted and rng.random() < 0.1
    answer = interim + server.headers(headers) + server.data(body, end=not record.aborted and not trailed)
    return answer + (server.headers([("server-timing", "total;dur=1")], end=True) if trailed else b"")

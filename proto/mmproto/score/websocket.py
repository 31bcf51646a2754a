"""A realtime session as the bytes of a connection that was upgraded to WebSocket (RFC 6455, RFC 7692)."""

from __future__ import annotations

import random
import re
import struct
import zlib
from typing import Final

from mmproto.reader import Direction
from mmproto.score.coding import IDENTITY
from mmproto.score.http1 import Turn, head, kept
from mmproto.score.record import Record
from mmproto.score.shapes import Message

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN, _COMPRESSED = 0x80, 0x40
_SYNC: Final = b"\x00\x00\xff\xff"
_HANDSHAKE: Final = re.compile(r"sec-websocket-(key|version|extensions|accept)|content-type")


class _Side:
    """What one end writes. `keeps`: its compression window goes on from message to message."""

    def __init__(self, rng: random.Random, *, masked: bool, deflate: bool, keeps: bool) -> None:
        self._rng, self._masked, self._deflate, self._keeps = rng, masked, deflate, keeps
        self._packer = _packer()

    def message(self, message: Message) -> bytes:
        """A message in one frame or several, now and then with a ping between them."""
        data, marks = message.data, 0
        if self._deflate and (self._rng.random() < 0.9 or len(data) > 500):
            if not self._keeps:
                self._packer = _packer()
            data = (self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_SYNC)
            marks = _COMPRESSED
        opcode = _TEXT if message.text else _BINARY
        frames = b""
        while self._rng.random() < 0.2 and data:
            size = self._rng.randrange(len(data))
            frames += self.frame(opcode | marks, data[:size])
            data, opcode, marks = data[size:], _CONTINUATION, 0
            if self._rng.random() < 0.5:
                frames += self.frame(_FIN | _PING, b"?")
        return frames + self.frame(_FIN | opcode | marks, data)

    def frame(self, first: int, payload: bytes) -> bytes:
        """One frame."""
        size, mask = len(payload), 0x80 if self._masked else 0
        if size < 126:
            start = struct.pack(">BB", first, mask | size)
        elif size < 1 << 16:
            start = struct.pack(">BBH", first, mask | 126, size)
        else:
            start = struct.pack(">BBQ", first, mask | 127, size)
        if not self._masked:
            return start + payload
        key = self._rng.randbytes(4)
        stretched = (key * (size // 4 + 1))[:size]
        return start + key + (int.from_bytes(payload) ^ int.from_bytes(stretched)).to_bytes(size)


def write(record: Record, coding: str, rng: random.Random) -> list[Turn]:
    """The session: the handshake, then the messages; `coding` deflate is permessage-deflate."""
    deflate = coding != IDENTITY
    keeps = rng.random() < 0.7
    extension = "permessage-deflate" + (
        "" if keeps else "; client_no_context_takeover; server_no_context_takeover"
    )
    extensions = [("sec-websocket-extensions", extension)] if deflate else []
    asked = [
        ("host", record.host),
        *((name, value) for name, value in kept(record.request_headers) if not _HANDSHAKE.fullmatch(name)),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-key", "c2NvcmluZyBhIHJlY29yZA=="),
        ("sec-websocket-version", "13"),
        *extensions,
    ]
    answered = [
        *((name, value) for name, value in kept(record.response_headers) if not _HANDSHAKE.fullmatch(name)),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-accept", "c2NvcmluZyBhIHJlY29yZCE9PQ=="),
        *extensions,
    ]
    client = _Side(rng, masked=True, deflate=deflate, keeps=keeps)
    server = _Side(rng, masked=False, deflate=deflate, keeps=keeps)
    turns = [
        (Direction.WRITE, head(f"GET {record.target} HTTP/1.1", asked)),
        (Direction.READ, head("HTTP/1.1 101 Switching Protocols", answered)),
    ]
    for message in record.messages:
        side = client if message.from_client else server
        turns.append((Direction.WRITE if message.from_client else Direction.READ, side.message(message)))
    if not record.aborted:
        goodbye = _FIN | _CLOSE, struct.pack(">H", 1000)
        turns += [(Direction.WRITE, client.frame(*goodbye)), (Direction.READ, server.frame(*goodbye))]
    return turns


def _packer() -> zlib._Compress:
    return zlib.compressobj(4, zlib.DEFLATED, -15)

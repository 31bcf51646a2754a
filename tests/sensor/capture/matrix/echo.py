"""What the matrix's server says: every request's body comes back as its answer. Sans-IO.

`feed` takes the bytes that came and gives the bytes to send. `answered` is how many of all bytes sent so far
end the last whole answer: what follows, a PING's answer say, a client may leave unread when it goes.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Protocol


class Echo(Protocol):
    answered: int

    def feed(self, data: bytes) -> bytes: ...


class Http1Echo:
    """HTTP/1.1 with Content-Length or chunked requests, kept alive."""

    def __init__(self) -> None:
        self.answered = 0
        self._buffer = bytearray()
        self._invited = False

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        out = b""
        while (body := self._request()) is not None:
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {len(body)}"
            out += head.encode() + b"\r\n\r\n" + body
        if not out:
            return self._invitation()
        self.answered += len(out)
        return out

    def _request(self) -> bytes | None:
        """Takes one whole request off the buffer and returns its body; None where more must come."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = self._header(rb"content-length: *(\d+)", end)
        if length is not None:
            whole = end + 4 + int(length)
            if len(self._buffer) < whole:
                return None
            body = bytes(self._buffer[end + 4 : whole])
        elif self._header(rb"transfer-encoding: *(chunked)", end):
            chunked = self._chunked(end + 4)
            if chunked is None:
                return None
            body, whole = chunked
        else:
            body, whole = b"", end + 4
        del self._buffer[:whole]
        self._invited = False
        return body

    def _header(self, pattern: bytes, end: int) -> bytes | None:
        found = re.search(rb"\r\n" + pattern, bytes(self._buffer[: end + 2]), re.IGNORECASE)
        return found[1] if found else None

    def _chunked(self, at: int) -> tuple[bytes, int] | None:
        body = b""
        while (line := self._buffer.find(b"\r\n", at)) >= 0:
            size = int(self._buffer[at:line].split(b";")[0], 16)
            at = line + 2 + size + 2
            if len(self._buffer) < at:
                return None
            body += self._buffer[line + 2 : at - 2]
            if not size:
                return body, at
        return None

    def _invitation(self) -> bytes:
        """curl waits a second for this before a large body."""
        end = self._buffer.find(b"\r\n\r\n")
        if self._invited or end < 0 or not self._header(rb"expect: *(100-continue)", end):
            return b""
        self._invited = True
        out = b"HTTP/1.1 100 Continue\r\n\r\n"
        self.answered += len(out)
        return out


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 4, 6, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 1, 1, 4, 8
_INITIAL_WINDOW, _MAX_FRAME = 4, 5
# HPACK by hand: `:status: 200` is an entry of the static table, the rest are literals that nothing remembers.
_STATUS_200 = b"\x88"
_GRPC_TYPE = b"\x0f\x10\x10application/grpc"
_GRPC_DONE = b"\x00\x0bgrpc-status\x010"


@dataclass
class _Stream:
    window: int
    body: bytearray = field(default_factory=bytearray)
    left: bytearray | None = None  # of the answer, once it has begun


class Http2Echo:
    """HTTP/2, or gRPC on top of it. Never looks into request headers, so it needs no HPACK decoder."""

    def __init__(self, grpc: bool = False) -> None:
        self.answered = 0
        self._grpc = grpc
        self._buffer = bytearray()
        self._greeted = False
        self._sent = 0
        self._window = self._stream_window = 65535
        self._streams: dict[int, _Stream] = {}

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        out = bytearray()
        if not self._greeted:
            if len(self._buffer) < len(_PREFACE):
                return b""
            assert self._buffer.startswith(_PREFACE), "not HTTP/2"
            del self._buffer[: len(_PREFACE)]
            self._greeted = True
            out += _frame(_SETTINGS, 0, 0)
        while len(self._buffer) >= 9 and len(self._buffer) >= (size := 9 + int.from_bytes(self._buffer[:3])):
            kind, flags, number = (
                self._buffer[3],
                self._buffer[4],
                int.from_bytes(self._buffer[5:9]) & ~(1 << 31),
            )
            payload = bytes(self._buffer[9:size])
            del self._buffer[:size]
            out += self._take(kind, flags, number, payload)
        finished = self._answer(out)
        if finished is not None:
            self.answered = self._sent + finished
        self._sent += len(out)
        return bytes(out)

    def _take(self, kind: int, flags: int, number: int, payload: bytes) -> bytes:
        out = b""
        if kind == _SETTINGS and not flags & _ACK:
            self._settings(payload)
            return _frame(_SETTINGS, _ACK, 0)
        if kind == _PING and not flags & _ACK:
            return _frame(_PING, _ACK, 0, payload)
        if kind == _WINDOW_UPDATE:
            self._open_window(number, int.from_bytes(payload))
        if kind == _HEADERS:
            self._streams.setdefault(number, _Stream(self._stream_window))
        if kind == _DATA:
            if payload:
                update = struct.pack(">I", len(payload))
                out = _frame(_WINDOW_UPDATE, 0, 0, update) + _frame(_WINDOW_UPDATE, 0, number, update)
            content = payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload
            self._streams[number].body += content
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            stream = self._streams[number]
            stream.left = stream.body
            out += _frame(_HEADERS, _END_HEADERS, number, _STATUS_200 + (_GRPC_TYPE if self._grpc else b""))
        return out

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW:
                for stream in self._streams.values():
                    stream.window += value - self._stream_window
                self._stream_window = value

    def _open_window(self, number: int, more: int) -> None:
        if not number:
            self._window += more
        elif number in self._streams:
            self._streams[number].window += more

    def _answer(self, out: bytearray) -> int | None:
        """Sends what the windows allow. Where that ended an answer: the length of `out` at its end."""
        finished = None
        for number, stream in list(self._streams.items()):
            if stream.left is None:
                continue
            while stream.left and (room := min(16384, self._window, stream.window)) > 0:
                piece = bytes(stream.left[:room])
                del stream.left[:room]
                self._window -= len(piece)
                stream.window -= len(piece)
                out += _frame(_DATA, 0, number, piece)
            if not stream.left:
                out += (
                    _frame(_HEADERS, _END_HEADERS | _END_STREAM, number, _GRPC_DONE)
                    if self._grpc
                    else (_frame(_DATA, _END_STREAM, number))
                )
                del self._streams[number]
                finished = len(out)
        return finished


def _frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3) + bytes((kind, flags)) + number.to_bytes(4) + payload

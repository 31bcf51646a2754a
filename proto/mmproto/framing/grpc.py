"""Length-prefixed messages of one direction of a gRPC call, sans-IO.

A message is `[flags u8][length u32][bytes]`; flag 1 says that it is compressed as `grpc-encoding` names.
gRPC-Web sends its trailers as a last message with flag 0x80, and Connect ends its streams with one with flag
2: these are named "trailers" and "end".

Protobuf is read whole, so messages are held whole. One that is larger than `MAX_MESSAGE`, or cannot be
decompressed, is left out, told by `missing`, and those after it are read. Where bytes are missing the chain
of lengths is broken for good: what looks like the beginning of a message would be a guess, and a guess can be
a wrong number.

Bound: `MAX_MESSAGE` bytes of a message as it came, and for a moment as many of it decompressed and the window
of its coding.
Source: PROTOCOL-HTTP2.md and PROTOCOL-WEB.md of gRPC; the reference of the Connect protocol.
"""

from __future__ import annotations

import struct
from itertools import chain
from typing import Final

from mmproto.framing.bodies import UNSUPPORTED, BodyDecoder
from mmproto.framing.events import Event

MAX_MESSAGE: Final = 4 * 1024 * 1024

MALFORMED: Final = "malformed_grpc"
LOST: Final = "gap_in_grpc_messages"
TOO_LARGE: Final = "grpc_message_too_large"
UNSUPPORTED_ENCODING: Final = "grpc_encoding_unsupported"
BAD_COMPRESSION: Final = "malformed_grpc_compression"

_PREFIX: Final = struct.Struct(">BI")
_COMPRESSED: Final = 0x01
_NAMES: Final = {0: "", 0x02: "end", 0x80: "trailers"}


class GrpcReader:
    """The messages of one direction, however its bytes are split.

    `encoding` is the `grpc-encoding` (or `connect-content-encoding`) header: a coding that `bodies` undoes.
    `problem` is "", MALFORMED or LOST; `missing` is "", TOO_LARGE, UNSUPPORTED_ENCODING or BAD_COMPRESSION.
    """

    def __init__(self, encoding: str = "") -> None:
        self.problem = ""
        self.missing = ""
        self._encoding = encoding or "gzip"  # what nearly all use, where the header was not seen
        self._held = bytearray()
        self._size = -1  # of the open message, -1 where its prefix is not complete
        self._flags = 0
        self._skipping = 0  # bytes of a message that is left out

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""
        return not self._held and self._size < 0 and not self._skipping

    def feed(self, data: bytes) -> list[Event]:
        """The messages that `data` completes."""
        events: list[Event] = []
        position, size = 0, len(data)
        while position < size and not self.problem:
            if self._skipping:
                step = min(self._skipping, size - position)
                self._skipping -= step
            elif self._size < 0:
                step = min(_PREFIX.size - len(self._held), size - position)
                self._held += data[position : position + step]
                if len(self._held) == _PREFIX.size:
                    self._begin(events)
            else:
                step = min(self._size - len(self._held), size - position)
                self._held += data[position : position + step]
                if len(self._held) == self._size:
                    self._end(events)
            position += step
        return events

    def lose(self) -> None:
        """Bytes are missing: nothing after them can be told apart."""
        self._drop()
        self.problem = self.problem or LOST

    def finish(self) -> list[Event]:
        """Nothing: a message that was cut off cannot be read."""
        self._drop()
        return []

    def _drop(self) -> None:
        self._held.clear()
        self._size, self._skipping = -1, 0

    def _begin(self, events: list[Event]) -> None:
        self._flags, self._size = _PREFIX.unpack(self._held)
        self._held.clear()
        if self._flags & ~_COMPRESSED not in _NAMES:
            self.problem = MALFORMED
        elif self._size > MAX_MESSAGE:
            self.missing = TOO_LARGE
            self._size, self._skipping = -1, self._size
        elif not self._size:
            self._end(events)

    def _end(self, events: list[Event]) -> None:
        message: bytes | None = bytes(self._held)
        self._drop()
        if self._flags & _COMPRESSED and message:
            message = self._decompress(message)
        if message is not None:
            events.append(Event(_NAMES[self._flags & ~_COMPRESSED], message))

    def _decompress(self, message: bytes) -> bytes | None:
        """The message, None and the reason in `missing` where it cannot be had."""
        decoder = BodyDecoder(self._encoding)
        decoded = bytearray()
        for piece in chain(decoder.feed(message), decoder.finish()):
            decoded += piece
            if len(decoded) > MAX_MESSAGE:
                self.missing = TOO_LARGE
                return None
        if decoder.problem == UNSUPPORTED:
            self.missing = UNSUPPORTED_ENCODING
        elif decoder.is_plain or not decoder.is_complete:
            # What is flagged as compressed and is not would be read as something else.
            self.missing = BAD_COMPRESSION
        else:
            return bytes(decoded)
        return None

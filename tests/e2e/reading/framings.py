"""Answers in the providers' framings, put together from their public descriptions and by no code of ours."""

from __future__ import annotations

import binascii
import gzip
import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import brotli
import zstandard

_GZIP_WINDOW = 31
_STRING = 7  # type of an event stream's header


def dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def server_sent(documents: Iterable[Any], *, named: bool = False, done: bool = False) -> bytes:
    """Server-sent events, with their type as `event:` where they are `named`."""
    blocks = [
        (f"event: {document['type']}\n".encode() if named else b"") + b"data: " + dump(document) + b"\n\n"
        for document in documents
    ]
    return b"".join(blocks) + (b"data: [DONE]\n\n" if done else b"")


def lines(documents: Iterable[Any]) -> bytes:
    return b"".join(dump(document) + b"\n" for document in documents)


def array(documents: Iterable[Any]) -> bytes:
    """A JSON array as Google streams it."""
    return b"[" + b"\n,\n".join(dump(document) for document in documents) + b"\n]\n"


def frames(events: Iterable[tuple[str, Any]]) -> bytes:
    """AWS event stream: (type, document) each."""
    return b"".join(_frame(kind, dump(document)) for kind, document in events)


def _frame(kind: str, payload: bytes) -> bytes:
    names = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack(">B", len(name))
        + name.encode()
        + struct.pack(">BH", _STRING, len(value))
        + value.encode()
        for name, value in names.items()
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    content = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return content + struct.pack(">I", binascii.crc32(content))


def protobuf(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A message of these (number, value): an int as a varint, everything else with its length."""
    message = b""
    for number, value in fields:
        if isinstance(value, int):
            message += _varint(number << 3) + _varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            message += _varint(number << 3 | 2) + _varint(len(data)) + data
    return message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def grpc(*messages: bytes, packed: bool = False) -> bytes:
    """Messages with their lengths; `packed` by gzip, each for itself."""
    bodies = [gzip.compress(message) if packed else message for message in messages]
    return b"".join(struct.pack(">BI", packed, len(body)) + body for body in bodies)


def cut(body: bytes, size: int = 211) -> tuple[bytes, ...]:
    """Pieces that end anywhere."""
    return tuple(body[start : start + size] for start in range(0, len(body), size))


def gzipped(pieces: Iterable[bytes]) -> tuple[bytes, ...]:
    """One gzip stream, flushed after every piece."""
    squeeze = zlib.compressobj(wbits=_GZIP_WINDOW)
    packed = [squeeze.compress(piece) + squeeze.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return (*packed, squeeze.flush())


def brotli_packed(pieces: Iterable[bytes]) -> tuple[bytes, ...]:
    """The same by brotli."""
    squeeze = brotli.Compressor()
    packed = [squeeze.process(piece) + squeeze.flush() for piece in pieces]
    return (*packed, squeeze.finish())


def zstandard_packed(pieces: Iterable[bytes]) -> tuple[bytes, ...]:
    """The same by zstd."""
    squeeze = zstandard.ZstdCompressor().compressobj()
    packed = [squeeze.compress(piece) + squeeze.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for piece in pieces]
    return (*packed, squeeze.flush())

"""Exchanges as the pieces that a process writes and reads: a TLS record, or what a server wrote at once."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import h2.config
import h2.connection

from mmproto.reader import Direction
from mmproto.score import coding, http1, websocket
from mmproto.score.http1 import Turn
from tests.bench.reading_cases import Said
from tests.proto import wire

_READ: Final = 16 * 1024
_INITIAL_WINDOW_SIZE: Final = 4


def http1_turns(said: Said, codec: str, framing: str) -> Iterator[Turn]:
    """Over HTTP/1.1, the response counted ("length") or "chunked" as it was written."""
    record = said.record
    headers = [("host", record.host), *http1.kept(record.request_headers)]
    headers.append(("content-length", str(len(record.request_body))))
    asked = http1.head(f"POST {record.target} HTTP/1.1", headers)
    yield from _reads(Direction.WRITE, asked + record.request_body)
    pieces = _coded(said.pieces, codec)
    if framing == "chunked":
        kind = ("transfer-encoding", "chunked")
        yield Direction.READ, http1.head("HTTP/1.1 200 OK", [*_answered(said, codec), kind])
        for piece in pieces:
            chunks = wire.chunked(piece[start : start + _READ] for start in range(0, len(piece), _READ))
            yield from _reads(Direction.READ, chunks.removesuffix(b"0\r\n\r\n"))
        yield Direction.READ, b"0\r\n\r\n"
    else:
        body = b"".join(pieces)
        length = ("content-length", str(len(body)))
        yield from _reads(
            Direction.READ, http1.head("HTTP/1.1 200 OK", [*_answered(said, codec), length]) + body
        )


def http2_turns(said: Said, codec: str) -> Iterator[Turn]:
    """Over HTTP/2, as the h2 library speaks it, each piece in frames of its own."""
    record = said.record
    client = h2.connection.H2Connection(h2.config.H2Configuration())
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    for end in (client, server):
        end.initiate_connection()
        end.update_settings({_INITIAL_WINDOW_SIZE: 1 << 30})
        end.increment_flow_control_window(1 << 30)
    sent, hello = client.data_to_send(), server.data_to_send()
    server.receive_data(sent)
    client.receive_data(hello)
    client.receive_data(server.data_to_send())
    pseudo = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", record.host),
        (":path", record.target),
    ]
    client.send_headers(1, [*pseudo, *http1.kept(record.request_headers)])
    _send(client, record.request_body)
    client.end_stream(1)
    asked = client.data_to_send()
    server.receive_data(asked)
    yield from _reads(Direction.WRITE, sent + asked)
    yield Direction.READ, hello
    server.data_to_send()
    server.send_headers(1, [(":status", "200"), *_answered(said, codec)])
    for piece in _coded(said.pieces, codec):
        _send(server, piece)
        yield from _reads(Direction.READ, server.data_to_send())
    server.end_stream(1)
    yield Direction.READ, server.data_to_send()


def websocket_turns(said: Said, codec: str) -> Iterator[Turn]:
    """As messages of an upgraded connection."""
    yield from websocket.write(said.record, codec, random.Random(1))


def _answered(said: Said, codec: str) -> list[tuple[str, str]]:
    headers = http1.kept(said.record.response_headers)
    return headers if codec == coding.IDENTITY else [*headers, ("content-encoding", codec)]


def _coded(pieces: Sequence[bytes], codec: str) -> list[bytes]:
    """The pieces in a coding; a stream (always gzip here) is flushed after each of them."""
    if len(pieces) == 1 or codec == coding.IDENTITY:
        return [coding.encode(codec, piece) for piece in pieces]
    packer = zlib.compressobj(4, zlib.DEFLATED, 31)
    flushed = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*flushed, packer.flush()]


def _send(end: h2.connection.H2Connection, body: bytes) -> None:
    for start in range(0, len(body), _READ):
        end.send_data(1, body[start : start + _READ])


def _reads(direction: Direction, data: bytes) -> Iterator[Turn]:
    for start in range(0, len(data), _READ):
        yield direction, data[start : start + _READ]

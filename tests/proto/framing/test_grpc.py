"""gRPC messages: as grpcio writes them, compressed, too large, damaged, and in any split."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import zlib
from collections.abc import Callable

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.framing.pieces import SIZES, data_of, read

from mmproto.framing import grpc as framing
from mmproto.framing.grpc import MAX_MESSAGE, GrpcReader


def message(data: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(data)) + data


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}


@given(
    st.lists(st.tuples(st.binary(max_size=200), st.booleans()), max_size=6),
    st.sampled_from(sorted(ENCODERS)),
    SIZES,
)
def test_any_split_of_any_messages(parts: list[tuple[bytes, bool]], encoding: str, sizes: list[int]) -> None:
    body = b"".join(
        message(ENCODERS[encoding](data), 1) if compressed else message(data) for data, compressed in parts
    )
    assert data_of(read(lambda: GrpcReader(encoding), body, sizes=sizes)) == [data for data, _ in parts]


@given(st.binary(max_size=200), SIZES)
def test_any_split_of_anything(body: bytes, sizes: list[int]) -> None:
    assert read(GrpcReader, body, sizes=sizes) == read(GrpcReader, body)


@pytest.mark.parametrize(
    ("encoding", "body", "missing"),
    [
        ("gzip", message(b"\x0a\x01a", 1), framing.BAD_COMPRESSION),
        ("gzip", message(gzip.compress(b"ab")[:-9], 1), framing.BAD_COMPRESSION),
        ("identity", message(b"\x0a\x01a", 1), framing.BAD_COMPRESSION),
        ("snappy", message(b"\x0a\x01a", 1), framing.UNSUPPORTED_ENCODING),
        ("gzip", message(gzip.compress(bytes(MAX_MESSAGE + 1)), 1), framing.TOO_LARGE),
        ("", message(bytes(MAX_MESSAGE + 1)), framing.TOO_LARGE),
    ],
    ids=["plain", "cut", "identity", "unknown", "bomb", "large"],
)
@pytest.mark.parametrize("size", [50_000, 1 << 30])
def test_a_message_that_cannot_be_had_is_left_out_and_told(
    encoding: str, body: bytes, missing: str, size: int
) -> None:
    result = read(lambda: GrpcReader(encoding), body + message(b"next"), sizes=[size])
    assert result.events == [("", b"next")]
    assert result.missing == missing
    assert not result.problem


def test_an_encoding_that_was_not_seen_is_tried_as_gzip() -> None:
    assert data_of(read(GrpcReader, message(gzip.compress(b"abc"), 1))) == [b"abc"]


def test_ends_of_streams_have_names() -> None:
    body = message(b"a") + message(b"grpc-status:0\r\n", 0x80) + message(gzip.compress(b"{}"), 3)
    assert read(GrpcReader, body).events == [("", b"a"), ("trailers", b"grpc-status:0\r\n"), ("end", b"{}")]


def test_what_is_no_grpc_and_what_is_lost() -> None:
    assert read(GrpcReader, b'{"error": 1}').problem == framing.MALFORMED
    assert read(GrpcReader, message(b"a") + b"\0\0", message(b"b"))[:3] == ([("", b"a")], b"", framing.LOST)


def test_a_large_message_is_not_held() -> None:
    reader = GrpcReader()
    reader.feed(struct.pack(">BI", 0, 1 << 30))
    for _ in range(200):
        assert reader.feed(bytes(60_000)) == []
        assert not reader._held
    assert not reader.is_between_events


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_what_grpcio_sends(compression: grpc.Compression) -> None:
    sent = [b"first" * 100, b"", b"third"]
    encoding, body = client_bytes(sent, compression)
    assert encoding == ("gzip" if compression is grpc.Compression.Gzip else "")
    assert data_of(read(lambda: GrpcReader(encoding), body, sizes=[3])) == sent


def client_bytes(messages: list[bytes], compression: grpc.Compression) -> tuple[str, bytes]:
    """(grpc-encoding, the body) of a client's stream of messages, taken by a server that answers none."""
    found: list[tuple[str, bytes]] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=lambda: found.append(take_request(listener)))
        server.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with grpc.insecure_channel(address, compression=compression) as channel:
            method = channel.stream_stream("/test.Test/Stream", bytes, bytes)
            call = method(iter(messages), timeout=20)
            server.join(20)
            call.cancel()
    return found[0]


def take_request(listener: socket.socket) -> tuple[str, bytes]:
    connection, _ = listener.accept()
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    peer.initiate_connection()
    encoding, body = "", b""
    with connection:
        connection.settimeout(20)
        while True:
            connection.sendall(peer.data_to_send())
            for event in peer.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.RequestReceived):
                    encoding = dict(event.headers).get(b"grpc-encoding", b"").decode()
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return encoding, body

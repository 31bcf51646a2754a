"""The bytes that records are sent as are what other implementations of the protocols read."""

from __future__ import annotations

import gzip
import random
import zlib
from typing import Any

import brotli
import h2.config
import h2.connection
import h2.events
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.score.records import chat, record
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from mmproto.reader import Direction
from mmproto.score import coding, grpc, http1, http2, websocket
from mmproto.score.http1 import Turn
from mmproto.score.record import Record
from mmproto.score.replay import Cut, _pieces

SEEDS = st.integers(0, 1 << 32)
BODY = b'{"a": "' + b"text " * 2000 + b'"}'


def side(turns: list[Turn], direction: Direction) -> bytes:
    return b"".join(data for way, data in turns if way is direction)


@pytest.mark.parametrize("name", coding.CODINGS)
@pytest.mark.parametrize("unfinished", [False, True])
def test_codings_are_undone_by_their_libraries(name: str, unfinished: bool) -> None:
    undo: dict[str, Any] = {
        "identity": bytes,
        "gzip": lambda data: zlib.decompressobj(31).decompress(data),
        "deflate": lambda data: zlib.decompressobj().decompress(data),
        "br": lambda data: brotli.Decompressor().process(data),
        "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    }
    assert undo[name](coding.encode(name, BODY, unfinished=unfinished)) == BODY


@given(SEEDS)
def test_http2_is_what_h2_reads(seed: int) -> None:
    rng = random.Random(seed)
    sent = record(chat(BODY))
    turns = http2.write(sent, "gzip", rng)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    server.initiate_connection()
    events = server.receive_data(side(turns, Direction.WRITE))
    [asked] = [event for event in events if isinstance(event, h2.events.RequestReceived)]
    headers = named(asked.headers)
    assert headers[":path"] == sent.target and headers[":authority"] == sent.host
    assert body_of(events) == sent.request_body
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)

    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":scheme", "https"), (":authority", "h"), (":path", "/")])
    client.end_stream(1)
    events = client.receive_data(side(turns, Direction.READ))
    [answered] = [event for event in events if isinstance(event, h2.events.ResponseReceived)]
    assert named(answered.headers)[":status"] == "200"
    assert gzip.decompress(body_of(events)) == BODY
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)


def named(headers: Any) -> dict[str, str]:
    """The headers of h2, which are text where it was asked for (its types say bytes)."""
    return dict(headers)


def body_of(events: list[h2.events.Event]) -> bytes:
    return b"".join(event.data or b"" for event in events if isinstance(event, h2.events.DataReceived))


@given(SEEDS)
def test_an_aborted_http2_stream_has_no_end(seed: int) -> None:
    turns = http2.write(record(chat(BODY, more={"aborted": True})), "identity", random.Random(seed))
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.send_headers(1, [(":method", "GET"), (":scheme", "https"), (":authority", "h"), (":path", "/")])
    events = client.receive_data(side(turns, Direction.READ))
    assert not any(isinstance(event, h2.events.StreamEnded) for event in events)


@given(SEEDS)
def test_grpc_is_prefixed_messages_with_a_status_behind(seed: int) -> None:
    document = chat(b"\x0a\x03abc", path="/xai_api.Chat/GetCompletion", content_type="application/grpc")
    turns = grpc.write(record(document), "gzip", random.Random(seed))
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":scheme", "https"), (":authority", "h"), (":path", "/")])
    events = client.receive_data(side(turns, Direction.READ))
    data = body_of(events)
    assert data[0] == 1 and int.from_bytes(data[1:5]) == len(data) - 5
    assert gzip.decompress(data[5:]) == b"\x0a\x03abc"
    [trailers] = [event for event in events if isinstance(event, h2.events.TrailersReceived)]
    assert named(trailers.headers)["grpc-status"] == "0"


def test_grpc_bodies_with_and_without_prefixes() -> None:
    one, two = b"\0\0\0\0\x03abc", b"\0\0\0\0\x02de"

    def written(body: bytes, *, unfinished: bool = False) -> bytes:
        return grpc._body([], body, "identity", unfinished=unfinished)

    assert written(one + two) == one + two
    assert written(b"abc") == one
    assert written(one + two[:6], unfinished=True) == one + two[:6]
    assert written(b"\x01\0\0\0\x02no") == b"\0\0\0\0\x07\x01\0\0\0\x02no"
    assert written(b"") == b""
    assert grpc._body([b"abc", b"de"], b"", "identity", unfinished=False) == one + two


@given(SEEDS, st.sampled_from(["identity", "deflate"]))
def test_websocket_is_what_websockets_reads(seed: int, name: str) -> None:
    texts = ['{"type":"session.update"}', "x" * 300, "y" * 70_000, ""]
    frames = [{"direction": way, "text": text} for text in texts for way in ("client", "server")]
    document = chat(method="GET", more={"frames": frames})
    document["response"]["status"] = 101
    turns = websocket.write(record(document), name, random.Random(seed))
    heads = [data for _, data in turns[:2]]
    assert b"\r\nupgrade: websocket\r\n" in heads[0] and heads[1].startswith(b"HTTP/1.1 101 ")
    fresh = b"no_context_takeover" in heads[1]
    for way, reader in ((Direction.WRITE, Side.SERVER), (Direction.READ, Side.CLIENT)):
        protocol = Protocol(reader)
        if name == "deflate":
            protocol.extensions = [PerMessageDeflate(fresh, fresh, 15, 15)]
        protocol.receive_data(side(turns[2:], way))
        protocol.receive_eof()
        assert protocol.parser_exc is None
        got: list[bytes] = []
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
                got.append(bytes(frame.data))
            elif frame.opcode is Opcode.CONT:
                got[-1] += bytes(frame.data)
        assert got == [text.encode() for text in texts]


@given(SEEDS, st.sampled_from(list(Cut)))
def test_cuts_keep_each_direction_whole(seed: int, cut: Cut) -> None:
    rng = random.Random(seed)
    turns = http1.write(record(), "chunked", "identity", rng)
    pieces = list(_pieces(turns, cut, rng))
    assert all(data for _, data in pieces)
    for way in Direction:
        assert side(pieces, way) == side(turns, way)
    assert pieces[0][0] is Direction.WRITE and pieces[-1][0] is Direction.READ


@given(SEEDS)
def test_what_is_said_after_an_answer_stays_there(seed: int) -> None:
    rng = random.Random(seed)
    goodbye = (Direction.WRITE, b"reset")
    turns = [*http1.write(record(), "length", "identity", rng), goodbye]
    pieces = list(_pieces(turns, Cut.MIXED, rng))
    last_answer = max(index for index, (way, _) in enumerate(pieces) if way is Direction.READ)
    assert side(pieces[last_answer:], Direction.WRITE) == b"reset"


def test_an_aborted_body_announces_more_than_comes() -> None:
    def tail(framing: str) -> tuple[bytes, bytes]:
        cut: Record = record(chat(b"{}", more={"aborted": True}))
        turns = http1.write(cut, framing, "identity", random.Random(1))
        head, _, body = side(turns, Direction.READ).partition(b"\r\n\r\n")
        return head, body

    head, body = tail("length")
    length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert body == b"{}" and length > 2
    assert tail("chunked")[1] == b"2\r\n{}"


def test_statuses_without_a_body() -> None:
    document = chat(b"ignored", status=204)
    turns = http1.write(record(document), "length", "gzip", random.Random(1))
    head, _, body = side(turns, Direction.READ).partition(b"\r\n\r\n")
    assert body == b"" and b"content-" not in head.replace(b"content-type", b"")

"""A gibibyte goes through every reader of a body, and none of them holds more than it says.

The bytes are a few blocks over and over: what is measured is what the reader keeps, and what it allocates for
a moment, besides the piece that it was given.
"""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from tests.proto.framing.test_eventstream import event

from mmproto.exchange import Exchange, ReadingRules, RequestHead
from mmproto.framing.bodies import MAX_PIECE, BodyDecoder
from mmproto.framing.documents import DocumentReader
from mmproto.framing.eventstream import FrameReader
from mmproto.framing.jsonarray import ArrayReader
from mmproto.framing.jsonpick import PRESENT, VALUE, JsonBody
from mmproto.framing.multipart import FormReader
from mmproto.framing.sse import EventReader
from mmproto.framing.websocket import Deflate, MessageReader

GIBIBYTE = 1 << 30
PIECE = 256 * 1024
KIB = 1024

BASE64 = b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=" * (PIECE // 36)
NUMBERS = b"-0.01234567,0.98765432,1.5e-05," * (PIECE // 31)
OBJECTS = (b'{"a":{"b":["c\\"d",{"e":[' + NUMBERS[:60_000] + b"0]}]}},") * (PIECE // 60_000)


def compressed() -> bytes:
    """Raw deflate that ends on a byte, so that it can be repeated."""
    coder = zlib.compressobj(6, wbits=-15)
    text = b"".join(b"%d," % (n * n) for n in range(40_000))[:PIECE]
    return coder.compress(text) + coder.flush(zlib.Z_FULL_FLUSH)


def json_body() -> Callable[[bytes], object]:
    return JsonBody({"input": PRESENT, "model": VALUE, "usage": VALUE}).feed


def form() -> Callable[[bytes], object]:
    reader = FormReader("multipart/form-data; boundary=sep")
    reader.feed(b'--sep\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n')
    return reader.feed


def decoder() -> Callable[[bytes], object]:
    undo = BodyDecoder("deflate")

    def feed(data: bytes) -> None:
        for piece in undo.feed(data):
            assert len(piece) <= MAX_PIECE

    return feed


def exchange() -> Callable[[bytes], object]:
    head = RequestHead("POST", "/v1/chat/completions", (("host", "api.openai.com"),))
    reader = Exchange(head, ReadingRules(), "id", 1)
    return lambda data: reader.request_body(data, 1)


FRAME = event("chunk", b'{"bytes":"' + b"QUJD" * 200_000 + b'"}')

# What is read, how it begins, what follows over and over, and what may be in memory besides the piece: what
# is held, and copies of the piece.
CASES: dict[str, tuple[Callable[[], Callable[[bytes], object]], bytes, bytes, int]] = {
    "document: a text": (json_body, b'{"input":"', BASE64, 3 * PIECE),
    "document: numbers": (json_body, b'{"input":[', NUMBERS, 3 * PIECE),
    "documents": (lambda: DocumentReader().feed, b'{"a":"', BASE64, 5 * PIECE),
    "array": (lambda: ArrayReader().feed, b'[{"a":[', OBJECTS, 5 * PIECE),
    "server-sent events": (lambda: EventReader().feed, b"data: ", BASE64, 5 * PIECE),
    "AWS event stream": (lambda: FrameReader().feed, b"", FRAME, 3 * len(FRAME)),
    "WebSocket": (
        lambda: MessageReader(Deflate(True)).feed,
        b"\x82\xff" + (GIBIBYTE * 2).to_bytes(8, "big") + b"mask",
        BASE64,
        8 * PIECE,
    ),
    "form": (form, b"", BASE64, 3 * PIECE),
    "deflate": (decoder, b"", compressed(), 3 * MAX_PIECE),
    "exchange": (exchange, b'{"messages":[{"content":[{"image_url":{"url":"data:', BASE64, 3 * PIECE),
}


def pieces(start: bytes, block: bytes, size: int) -> Iterator[bytes]:
    if start:
        yield start
    for _ in range(size // len(block)):
        yield block


@pytest.mark.parametrize("case", CASES)
def test_a_gibibyte_in_bounded_memory(case: str) -> None:
    new, start, block, bound = CASES[case]
    # What compression makes of the block counts, not the block.
    size = GIBIBYTE // (PIECE // len(block)) if case == "deflate" else GIBIBYTE
    tracemalloc.start()
    feed = new()
    for piece in pieces(start, block, size):
        feed(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < bound + 64 * KIB, peak

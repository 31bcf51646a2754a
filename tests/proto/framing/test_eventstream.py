"""AWS event streams, against botocore's decoder and frames written by the format's description."""

from __future__ import annotations

import binascii
import random
import struct
from collections.abc import Mapping

import pytest
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.framing.pieces import SIZES, data_of, read

from mmproto.framing import eventstream
from mmproto.framing.events import MAX_HELD
from mmproto.framing.eventstream import FrameReader

EVERY_TYPE = (
    b"\x04true\x00"
    b"\x05false\x01"
    b"\x04byte\x02\xff"
    b"\x05short\x03\x00\x01"
    b"\x03int\x04\x00\x00\x00\x01"
    b"\x04long\x05\x00\x00\x00\x00\x00\x00\x00\x01"
    b"\x05bytes\x06\x00\x02\x00\x01"
    b"\x04text\x07\x00\x02ab"
    b"\x04time\x08\x00\x00\x00\x00\x00\x00\x00\x01"
    b"\x04uuid\x09" + bytes(16)
)


def frame(payload: bytes, headers: Mapping[str, str], before: bytes = b"") -> bytes:
    """A frame with text headers, `before` being other headers as they are."""
    encoded = before
    for name, value in headers.items():
        encoded += (
            bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        )
    prelude = struct.pack(">II", len(encoded) + len(payload) + 16, len(encoded))
    prelude += struct.pack(">I", binascii.crc32(prelude))
    content = prelude + encoded + payload
    return content + struct.pack(">I", binascii.crc32(content))


def event(name: str, payload: bytes, before: bytes = b"") -> bytes:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(payload, headers, before)


@given(
    st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=300), st.booleans()), max_size=5),
    SIZES,
)
def test_equals_botocore_in_any_split(parts: list[tuple[str, bytes, bool]], sizes: list[int]) -> None:
    parts = [(name.encode("ascii", "ignore").decode(), payload, full) for name, payload, full in parts]
    body = b"".join(event(name, payload, EVERY_TYPE if full else b"") for name, payload, full in parts)
    peer = EventStreamBuffer()
    peer.add_data(body)
    expected = [(message.headers[":event-type"], message.payload) for message in peer]
    result = read(FrameReader, body, sizes=sizes)
    assert result.events == expected == [(name, payload) for name, payload, _ in parts]
    assert not result.problem
    assert not result.missing


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({":message-type": "exception", ":exception-type": "throttlingException"}, "throttlingException"),
        ({":message-type": "error", ":error-code": "500", ":error-message": "x"}, "500"),
        ({":message-type": "exception"}, ""),
    ],
)
def test_exceptions(headers: dict[str, str], name: str) -> None:
    assert read(FrameReader, frame(b"{}", headers)).events == [("exception:" + name, b"{}")]


def damaged(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize("position", [1, 6, 9, 15, -10, -1])
def test_a_damaged_frame_is_left_out_and_told(position: int, size: int) -> None:
    frames = [event("chunk", b'{"n":%d}' % n) for n in range(4)]
    frames[1] = damaged(frames[1], position % len(frames[1]))
    result = read(FrameReader, b"".join(frames), sizes=[size])
    assert result.events == [("chunk", b'{"n":%d}' % n) for n in (0, 2, 3)]
    assert result.missing == eventstream.BAD_CHECKSUM
    assert not result.problem


@pytest.mark.parametrize("before", [b"\x20x", b"\x01x\x0a", b"\x01x\x07\xff\xff", b"\x01x", b"\x00"])
def test_headers_that_cannot_be_read(before: bytes) -> None:
    result = read(FrameReader, frame(b"{}", {}, before) + event("chunk", b"{}"))
    assert result.events == [("chunk", b"{}")]
    assert result.missing == eventstream.BAD_HEADERS


def test_what_is_no_event_stream() -> None:
    assert read(FrameReader, b'{"message":"no"}', sizes=[5]).problem == eventstream.MALFORMED


@given(SIZES, st.booleans())
def test_a_large_frame_comes_in_pieces(sizes: list[int], sound: bool) -> None:
    large = event("chunk", b"x" * (3 * MAX_HELD))
    if not sound:
        large = damaged(large, len(large) - 1)
    body = event("a", b"1") + large + event("b", b"2")
    result = read(FrameReader, body, sizes=[max(900, min(size, 30_000)) for size in sizes])
    end = b"" if sound else b"\0"
    names = [name for name, _ in result.events]
    assert names == ["a", "chunk", "b"]
    assert result.events[1][1].endswith(b"x" if sound else b"\0")
    assert result.events[1][1].rstrip(b"\0") + end == result.events[1][1]
    assert result.missing == ("" if sound else eventstream.BAD_CHECKSUM)


def test_a_large_frame_is_not_held() -> None:
    data = event("chunk", b"x" * (16 * 1024 * 1024))
    reader = FrameReader()
    total = 0
    for start in range(0, len(data), 60_000):
        for piece in reader.feed(data[start : start + 60_000]):
            total += len(piece.data)
        assert len(reader._open._held) <= MAX_HELD
    assert total == 16 * 1024 * 1024
    assert not reader.missing


@pytest.mark.parametrize("seed", range(40))
def test_after_a_loss_the_next_frame_is_found(seed: int) -> None:
    rng = random.Random(seed)
    frames = [event("chunk", rng.randbytes(rng.randrange(1, 400))) for _ in range(6)]
    payloads = data_of(read(FrameReader, b"".join(frames)))
    first, second = sorted(rng.choices(range(len(frames[2]) + 1), k=2))
    before = b"".join(frames[:2]) + frames[2][:first]
    after = frames[2][second:] + b"".join(frames[3:])
    found = [data for _, data in read(FrameReader, before, after, sizes=[rng.randrange(1, 300)]).events]
    whole_again = [2] if (first, second) in ((len(frames[2]),) * 2, (0, 0)) else []
    assert found == [payloads[n] for n in (0, 1, *whole_again, 3, 4, 5)]

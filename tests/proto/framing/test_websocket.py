"""WebSocket messages as the `websockets` library writes them: compressed, damaged, lost, in any split."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.framing.pieces import SIZES, Read, cut, joined, read
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

from mmproto.framing import websocket, wsframes
from mmproto.framing.events import MAX_HELD, Event
from mmproto.framing.websocket import Deflate, MessageReader, negotiated

OPCODES = {"text": Opcode.TEXT, "binary": Opcode.BINARY}


@dataclass
class Sender:
    """Writes the frames of one direction."""

    mask: bool = False
    deflate: PerMessageDeflate | None = None

    def message(self, name: str, data: bytes, fragments: int = 1, ping: bool = False) -> bytes:
        size = max(1, -(-len(data) // fragments))
        parts = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
        out = b""
        for index, part in enumerate(parts):
            opcode = Opcode.CONT if index else OPCODES[name]
            out += self._frame(Frame(opcode, part, fin=index == len(parts) - 1))
            out += self._frame(Frame(Opcode.PING, b"ping")) if ping else b""
        return out

    def close(self, data: bytes = b"\x03\xe8bye") -> bytes:
        return self._frame(Frame(Opcode.CLOSE, data))

    def _frame(self, frame: Frame) -> bytes:
        return frame.serialize(mask=self.mask, extensions=[self.deflate] if self.deflate else [])


def compressing(takeover: bool, bits: int = 15) -> PerMessageDeflate:
    return PerMessageDeflate(not takeover, not takeover, bits, bits)


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(("text", "binary")),
        st.binary(max_size=400) | st.text(max_size=100).map(str.encode) | st.just(b"abc" * 30_000),
        st.integers(1, 4),
        st.booleans(),
    ),
    max_size=6,
)


@given(MESSAGES, st.booleans(), st.sampled_from((None, False, True)), st.integers(9, 15), SIZES)
def test_any_split_of_any_messages(
    messages: list[tuple[str, bytes, int, bool]],
    mask: bool,
    takeover: bool | None,
    bits: int,
    sizes: list[int],
) -> None:
    sender = Sender(mask, None if takeover is None else compressing(takeover, bits))
    body = b"".join(sender.message(*message) for message in messages) + sender.close()
    deflate = None if takeover is None else Deflate(takeover)
    result = read(lambda: MessageReader(deflate), body + b"after", sizes=sizes)
    expected = [(name, data) for name, data, _, _ in messages] + [("close", b"\x03\xe8bye")]
    assert result == Read(expected)


@given(st.binary(max_size=300), st.sampled_from((None, Deflate(False), Deflate(True))), SIZES)
def test_any_split_of_anything(body: bytes, deflate: Deflate | None, sizes: list[int]) -> None:
    def new() -> MessageReader:
        return MessageReader(deflate)

    assert read(new, body, sizes=sizes) == read(new, body)
    assert read(new, body, body, sizes=sizes) == read(new, body, body)


@pytest.mark.parametrize(
    ("extensions", "client", "server"),
    [
        ("", None, None),
        ("permessage-deflate", Deflate(True), Deflate(True)),
        ("permessage-deflate; server_no_context_takeover", Deflate(True), Deflate(False)),
        (
            "x-other, Permessage-Deflate;client_no_context_takeover ; server_max_window_bits=10",
            Deflate(False),
            Deflate(True),
        ),
        ("permessage-bzip2", None, None),
    ],
)
def test_negotiation(extensions: str, client: Deflate | None, server: Deflate | None) -> None:
    assert negotiated(extensions, from_client=True) == client
    assert negotiated(extensions, from_client=False) == server


@pytest.mark.parametrize(
    ("body", "deflate", "problem"),
    [
        (b"\x83\x01a", None, wsframes.MALFORMED),
        (b"\x80\x01a", None, wsframes.MALFORMED),
        (b"\x01\x01a\x81\x01b", None, wsframes.MALFORMED),
        (b"\x09\x01a", None, wsframes.MALFORMED),
        (b"\x89\x7e\x00\x7ea", None, wsframes.MALFORMED),
        (b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff", None, wsframes.MALFORMED),
        (b"\xc1\x01a", None, wsframes.EXTENSION),
        (b"\xa1\x01a", Deflate(True), wsframes.EXTENSION),
        (b"\xc1\x04\xff\xff\xff\xff", Deflate(True), websocket.BAD_COMPRESSION),
    ],
)
@pytest.mark.parametrize("size", [1, 100])
def test_damage(body: bytes, deflate: Deflate | None, problem: str, size: int) -> None:
    result = read(lambda: MessageReader(deflate), b"\x81\x01x" + body + b"\x81\x01y", sizes=[size])
    assert result == Read([("text", b"x")], problem=problem)


def test_a_last_block_says_nothing_about_the_next_message() -> None:
    """RFC 7692, 7.2.3.4: a message of one block with BFINAL."""
    message = bytes((0xC1, 8, 0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00))
    result = read(lambda: MessageReader(Deflate(True)), message * 2, sizes=[3])
    assert result == Read([("text", b"Hello"), ("text", b"Hello")])


@pytest.mark.parametrize("takeover", [None, True])
@given(sizes=SIZES)
def test_a_large_message_comes_in_pieces(takeover: bool | None, sizes: list[int]) -> None:
    sender = Sender(True, None if takeover is None else compressing(takeover))
    large = random.Random(1).randbytes(4 * MAX_HELD)
    body = (
        sender.message("text", b"a") + sender.message("binary", large, 7, True) + sender.message("text", b"b")
    )
    reader = MessageReader(None if takeover is None else Deflate(takeover))
    events = []
    for piece in cut(body, [max(size, 900) for size in sizes]):
        events += reader.feed(piece)
        assert len(reader._open._held) <= MAX_HELD
    assert joined(events) == ([("text", b"a"), ("binary", large), ("text", b"b")], b"")


def test_bombs() -> None:
    sender = Sender(deflate=compressing(True))
    bomb = sender.message("binary", bytes(256 << 20))
    reader = MessageReader(Deflate(True))
    for piece in cut(bomb, [32_000]):
        size = sum(len(event.data) for event in reader.feed(piece))
        assert size <= (4 << 20) + 200 * len(piece)
    assert reader.problem == websocket.BOMB


def responses(sender: Sender, count: int, rng: random.Random) -> tuple[list[bytes], list[bytes]]:
    """Messages as a realtime session has them, and their frames."""
    texts = [
        json.dumps(
            {"type": "response.delta", "delta": rng.randbytes(rng.randrange(200)).hex(), "n": n}
        ).encode()
        for n in range(count)
    ]
    return texts, [sender.message("text", text) for text in texts]


@pytest.mark.parametrize("seed", range(60))
def test_after_a_loss_of_unknown_size_the_next_message_is_found(seed: int) -> None:
    rng = random.Random(seed)
    mask, compressed = rng.random() < 0.5, rng.random() < 0.5
    texts, frames = responses(Sender(mask, compressing(False) if compressed else None), 30, rng)
    first, second = sorted((rng.randrange(len(frames[3])), rng.randrange(len(frames[3]))))
    before = b"".join(frames[:3]) + frames[3][:first]
    after = frames[3][second:] + b"".join(frames[4:])
    deflate = Deflate(False) if compressed else None
    result = read(lambda: MessageReader(deflate), before, after, sizes=[rng.randrange(1, 500)])
    found = [data for _, data in result.events]
    assert found[:3] == texts[:3]
    assert found[-26:] == texts[4:]
    assert result.problem == ""


@pytest.mark.parametrize("seed", range(30))
def test_a_loss_of_known_size_inside_of_a_message_costs_that_message(seed: int) -> None:
    rng = random.Random(seed)
    mask, compressed = rng.random() < 0.5, rng.random() < 0.5
    texts, frames = responses(Sender(mask, compressing(False) if compressed else None), 5, rng)
    header = 2 + (4 if mask else 0) + (2 if len(frames[2]) > 140 else 0)
    first, second = sorted((rng.randrange(header, len(frames[2])), rng.randrange(header, len(frames[2]) + 1)))
    reader = MessageReader(Deflate(False) if compressed else None)
    events = feed_all(reader, [b"".join(frames[:2]) + frames[2][:first]])
    reader.lose(second - first)
    events += feed_all(reader, [frames[2][second:], *frames[3:]])
    assert [event.data for event in events] == texts[:2] + texts[3:]


def feed_all(reader: MessageReader, pieces: Iterable[bytes]) -> list[Event]:
    return [event for piece in pieces for event in reader.feed(piece)]


def test_after_a_loss_a_compressed_stream_with_takeover_ends_with_a_reason() -> None:
    sender = Sender(deflate=compressing(True))
    first, second = (sender.message("text", b'{"a":1}' * 20) for _ in range(2))
    plain = Sender().message("text", b'{"plain":1}')
    result = read(lambda: MessageReader(Deflate(True)), first, plain + second + plain)
    assert result == Read([("text", b'{"a":1}' * 20), ("text", b'{"plain":1}')], problem=websocket.LOST)


def test_what_is_searched_is_bounded_and_noise_is_no_message() -> None:
    rng = random.Random(3)
    reader = MessageReader()
    reader.lose()
    for _ in range(300):
        assert reader.feed(rng.randbytes(16_000)) == []
        assert len(reader._held) <= wsframes.REACH + 16_000

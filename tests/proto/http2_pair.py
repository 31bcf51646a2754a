"""Both ends of an HTTP/2 connection by the `h2` library, and the bytes that they exchange, in their order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.settings
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, HeadersFrame
from tests.proto import wire

from mmproto.reader import Direction

READ, WRITE = Direction.READ, Direction.WRITE
Step = tuple[Direction, bytes]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_Headers = Mapping[str, str]


class Pair:
    """A client and a server. `steps` are seen by the client: what it writes and reads."""

    def __init__(self, *, table: int | None = None) -> None:
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.steps: list[Step] = []
        for end in (self.client, self.server):
            settings: dict[int, int] = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 30}
            if table is not None:
                settings[h2.settings.SettingCodes.HEADER_TABLE_SIZE] = table
            end.initiate_connection()
            end.update_settings(settings)
            end.increment_flow_control_window(1 << 29)
        self.pump()

    def pump(self) -> None:
        """Exchanges what is to be sent."""
        while True:
            sent, received = self.client.data_to_send(), self.server.data_to_send()
            if sent:
                self.steps.append((WRITE, sent))
                self.server.receive_data(sent)
            if received:
                self.steps.append((READ, received))
                self.client.receive_data(received)
            if not sent and not received:
                return

    def ask(
        self,
        document: Any = None,
        *,
        path: str = "/v1/chat/completions",
        host: str = "api.openai.com",
        method: str = "POST",
        headers: _Headers | None = None,
        end: bool = True,
        pad: int | None = None,
        indexed: bool = True,
        **priority: Any,
    ) -> int:
        """Sends a request; returns its stream. Not `indexed`: the path never enters the header table."""
        body = b"" if document is None else document if isinstance(document, bytes) else wire.dump(document)
        stream = self.client.get_next_available_stream_id()
        asked = (HeaderTuple if indexed else NeverIndexedHeaderTuple)(":path", path)
        fields = [HeaderTuple(":method", method), HeaderTuple(":scheme", "https"), asked]
        others = {":authority": host, "content-type": "application/json", **(headers or {})}
        fields += [HeaderTuple(name, value) for name, value in others.items()]
        self.client.send_headers(stream, fields, end_stream=end and not body, **priority)
        self._send(self.client, stream, [body], end=end, pad=pad)
        return stream

    def answer(
        self,
        stream: int,
        document: Any = None,
        *,
        status: int = 200,
        headers: _Headers | None = None,
        pieces: Sequence[bytes] = (),
        content_type: str = "application/json",
        trailers: _Headers | None = None,
        end: bool = True,
        pad: int | None = None,
    ) -> None:
        """Sends a response: a document, or a body in pieces of one frame each."""
        if document is not None:
            pieces = [document if isinstance(document, bytes) else wire.dump(document)]
        fields = [(":status", str(status)), ("content-type", content_type), *(headers or {}).items()]
        closes = end and not trailers
        self.server.send_headers(stream, fields, end_stream=closes and not pieces)
        self._send(self.server, stream, pieces, end=closes, pad=pad)
        if trailers:
            self.server.send_headers(stream, list(trailers.items()), end_stream=True)
            self.pump()

    def _send(
        self,
        sender: h2.connection.H2Connection,
        stream: int,
        pieces: Iterable[bytes],
        *,
        end: bool,
        pad: int | None,
    ) -> None:
        frames = [piece[i : i + 16_000] for piece in pieces for i in range(0, len(piece), 16_000)]
        for number, data in enumerate(frames, 1):
            sender.send_data(stream, data, end_stream=end and number == len(frames), pad_length=pad)
        self.pump()

    def bytes_of(self, direction: Direction) -> bytes:
        return b"".join(data for side, data in self.steps if side is direction)


def frame(kind: int, flags: int, payload: bytes, *, stream: int = 0) -> bytes:
    """One frame, whatever it says."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def reframed(steps: Iterable[Step], rng: random.Random) -> list[Step]:
    """The same streams in other frames: header blocks in CONTINUATIONs, DATA cut anew, padding, odd types."""
    return [(direction, _reframed(data, rng)) for direction, data in steps]


def _reframed(data: bytes, rng: random.Random) -> bytes:
    out = b""
    if data.startswith(PREFACE):
        out, data = PREFACE, data[len(PREFACE) :]
    while data:
        one, length = Frame.parse_frame_header(memoryview(data[:9]))
        one.parse_body(memoryview(data[9 : 9 + length]))
        out += b"".join(part.serialize() for part in _cut(one, rng))
        data = data[9 + length :]
        if rng.random() < 0.2:
            out += frame(0xBB, 7, b"odd", stream=5)  # of a type that nobody knows
    return out


def _cut(whole: Frame, rng: random.Random) -> list[Frame]:
    if isinstance(whole, HeadersFrame):
        cuts = sorted(rng.randrange(len(whole.data) + 1) for _ in range(rng.choice((0, 1, 3))))
        parts: list[Any] = [HeadersFrame(whole.stream_id)]
        parts += [ContinuationFrame(whole.stream_id) for _ in cuts]
        for part, begin, end in zip(parts, [0, *cuts], [*cuts, len(whole.data)], strict=True):
            part.data = whole.data[begin:end]
        if "END_STREAM" in whole.flags:
            parts[0].flags.add("END_STREAM")
        if rng.random() < 0.5:
            parts[0].flags.add("PADDED")
            parts[0].pad_length = rng.randrange(40)
        if rng.random() < 0.5:
            parts[0].flags.add("PRIORITY")
            parts[0].stream_weight = 7
        parts[-1].flags.add("END_HEADERS")
        return parts
    if isinstance(whole, DataFrame):
        cuts = sorted(rng.randrange(len(whole.data) + 1) for _ in range(rng.choice((0, 1, 3))))
        pieces: list[Any] = []
        for begin, end in zip([0, *cuts], [*cuts, len(whole.data)], strict=True):
            piece = DataFrame(whole.stream_id, whole.data[begin:end])
            if rng.random() < 0.3:
                piece.flags.add("PADDED")
                piece.pad_length = rng.randrange(200)
            pieces.append(piece)
        if "END_STREAM" in whole.flags:
            pieces[-1].flags.add("END_STREAM")
        return pieces
    return [whole]

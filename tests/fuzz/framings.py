"""Targets: what separates the events of a body, and what undoes its codings."""

from __future__ import annotations

import binascii
import gzip
import struct
import zlib
from collections.abc import Callable, Iterable

import brotli
import zstandard

from mmproto.framing import bodies, websocket
from mmproto.framing.bodies import BodyDecoder
from mmproto.framing.documents import DocumentReader
from mmproto.framing.events import Event, EventFraming
from mmproto.framing.eventstream import FrameReader
from mmproto.framing.grpc import GrpcReader
from mmproto.framing.jsonarray import ArrayReader
from mmproto.framing.multipart import FormReader
from mmproto.framing.sse import EventReader
from mmproto.framing.websocket import Deflate, MessageReader
from tests.fuzz.target import Target, cuts, held, rng_of

# What a reader may hold besides the bytes that it was given: names, boundaries, reasons.
SLACK = 1024


def drive(framing: EventFraming, pieces: Iterable[bytes], lost_after: int) -> tuple[object, ...]:
    """What comes out; bytes are missing after `lost_after` pieces where that is not negative."""
    events: list[Event] = []
    read = 0
    for index, piece in enumerate(pieces):
        if index == lost_after:
            framing.lose()
        events += framing.feed(piece)
        read += len(piece)
        if index % 50 == 0:
            assert held(framing) <= read + SLACK
    events += framing.finish()
    assert all(isinstance(event, Event) for event in events)
    return events, framing.problem, framing.missing


def framing(
    new: Callable[[int], EventFraming], repair: Callable[[bytes], bytes] = bytes
) -> Callable[[bytes], None]:
    """Any split gives the same. `new` is given a number from the input; odd inputs are `repair`ed first."""

    def run(data: bytes) -> None:
        if not data:
            return
        option, body = data[0], data[1:]
        if option & 1:
            body = repair(body)
        rng = rng_of(data)
        whole = drive(new(option >> 1), [body], -1)
        assert drive(new(option >> 1), cuts(body, rng), -1) == whole
        middle = rng.randint(0, len(body))
        parts = [body[:middle], body[middle:]]
        lost = drive(new(option >> 1), parts, 1)
        before, after = list(cuts(parts[0], rng)), list(cuts(parts[1], rng))
        if parts[0] and parts[1]:
            assert drive(new(option >> 1), [*before, *after], len(before)) == lost

    return run


def frames(body: bytes) -> bytes:
    """`body` as an event stream: its frames get the lengths and checksums that they should have."""
    out, position = b"", 0
    while position < len(body):
        size, headers = body[position], body[position + 1 : position + 2]
        content = body[position + 2 : position + 2 + size]
        header_size = min(headers[0] if headers else 0, len(content))
        prelude = struct.pack(">II", len(content) + 16, header_size)
        frame = prelude + struct.pack(">I", binascii.crc32(prelude)) + content
        out += frame + struct.pack(">I", binascii.crc32(frame))
        position += 2 + size
    return out


def new_socket(option: int) -> MessageReader:
    return MessageReader((None, Deflate(True), Deflate(False), None)[option & 3])


def run_websocket(data: bytes) -> None:
    """As `framing`; what bytes expand to is bounded, and where a bomb ends depends on how it was split."""
    reader = new_socket(data[0] >> 1 if data else 0)
    size = sum(len(event.data) for event in reader.feed(data[1:]))
    assert size <= (4 << 20) + 200 * len(data)
    if reader.problem != websocket.BOMB:
        _run_socket(data)


def _run_socket(data: bytes) -> None:
    if not data:
        return
    option, body = data[0] >> 1, data[1:]
    rng = rng_of(data)
    results = []
    for pieces in ([body], list(cuts(body, rng))):
        reader = new_socket(option)
        events = [event for piece in pieces for event in reader.feed(piece)]
        results.append((joined(events), reader.problem, reader.is_closed))
    assert results[0] == results[1]
    reader = new_socket(option)
    for piece in cuts(body, rng):
        if rng.random() < 0.2:
            reader.lose(rng.choice((None, 1, len(piece), 70_000)))
        reader.feed(piece)
    assert held(reader) <= len(body) * 1100 + SLACK
    reader.finish()


def joined(events: Iterable[Event]) -> list[tuple[str, bytes]]:
    """Whole events, the pieces of large ones put together."""
    whole: list[tuple[str, bytes]] = []
    pieces = b""
    for name, data, last in events:
        pieces += data
        if last:
            whole.append((name, pieces))
            pieces = b""
    return whole


_CODINGS = ("gzip", "deflate", "br", "zstd", "gzip, br", "zstd, gzip", "utf-8", "deflate, gzip", "br, zstd")
_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "utf-8": bytes,
}


def run_bodies(data: bytes) -> None:
    """Damage is found however it is split; what was encoded comes back; pieces are small."""
    if not data:
        return
    coding, body = _CODINGS[(data[0] >> 1) % len(_CODINGS)], data[1:]
    sound = bool(data[0] & 1) and coding != "utf-8"
    text = body
    if sound:
        for name in coding.split(", "):
            body = _ENCODERS[name](body)
    rng = rng_of(data)
    results = []
    for pieces in ([body], list(cuts(body, rng))):
        decoder = BodyDecoder(coding)
        out = [piece for given in pieces for piece in decoder.feed(given)]
        out += decoder.finish()
        assert all(len(piece) <= max(bodies.MAX_PIECE, len(body)) for piece in out)
        results.append((b"".join(out), decoder.problem, decoder.is_complete))
    (whole, problem, complete), (split, split_problem, split_complete) = results
    assert problem == split_problem
    assert complete == split_complete
    if problem:
        # How much comes out before damage is found depends on how it came.
        assert whole.startswith(split) or split.startswith(whole)
    else:
        assert whole == split
    if sound:
        assert (whole, problem, complete) == (text, "", True)


def run_multipart(data: bytes) -> None:
    results = []
    rng = rng_of(data)
    for pieces in ([data], list(cuts(data, rng))):
        reader = FormReader("multipart/form-data; boundary=b")
        for piece in pieces:
            reader.feed(piece)
        assert held(reader, 6) <= len(data) * 4 + SLACK
        form = reader.finish()
        form.document()
        results.append((form, reader.problem))
    assert results[0] == results[1]
    FormReader(data[:300].decode("latin-1")).feed(data)


def event_frame(name: str, payload: bytes) -> bytes:
    """A frame in the short form of `frames`."""
    headers = b"".join(
        bytes([len(key)]) + key + b"\x07" + len(value).to_bytes(2, "big") + value
        for key, value in ((b":event-type", name.encode()), (b":message-type", b"event"))
    )
    return bytes([len(headers) + len(payload), len(headers)]) + headers + payload


def socket_frame(flags: int, payload: bytes, mask: bytes = b"") -> bytes:
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload)) if mask else payload
    return bytes([flags, len(payload) | (0x80 if mask else 0)]) + mask + body


def grpc_message(payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">BI", flags, len(payload)) + payload


def _deflated(text: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return (coder.compress(text) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


_JSON = b'{"a":[1,{"b":"c\\"d"}],"usage":{"n":2}}'


_FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--b\r\nContent-Disposition: form-data; name="a[b]"; filename="x"\r\n'
    b"Content-Type: t/t\r\n\r\n\0\r\n--b--\r\n"
)


def _codings() -> list[bytes]:
    seeds = []
    for index, coding in enumerate(_CODINGS):
        body = _JSON
        for name in coding.split(", "):
            body = _ENCODERS[name](body)
        seeds += [bytes([index << 1]) + body, bytes([index << 1 | 1]) + _JSON, bytes([index << 1]) + _JSON]
    seeds.append(b"\x06\x5a\x2a\x4d\x18\x03\0\0\0abc" + zstandard.compress(_JSON))
    seeds.append(b"\0" + gzip.compress(_JSON[:9]) + gzip.compress(_JSON[9:]) + b"\0\0")
    return seeds


def _sockets() -> list[bytes]:
    fragments = socket_frame(0x01, _JSON[:9]) + socket_frame(0x89, b"ping") + socket_frame(0x80, _JSON[9:])
    compressed = socket_frame(0xC1, _deflated(_JSON)) + socket_frame(0xC2, _deflated(b"\0" * 99))
    return [
        b"\0" + socket_frame(0x81, _JSON) + fragments + socket_frame(0x88, b"\x03\xe8bye"),
        b"\0" + socket_frame(0x81, _JSON, b"mask") * 3,
        b"\x02" + compressed * 2,
        b"\x04" + compressed * 2 + socket_frame(0x81, _JSON),
    ]


TARGETS = {
    "sse": Target(
        framing(lambda _: EventReader()),
        lambda: [
            b"\0event: a\r\ndata: x\r\n\r\n: note\n\ndata: y\ndata: z\n\n",
            b"\0data: " + _JSON + b"\n\ndata: [DONE]\n\n",
            b"\0data\rid: 1\rretry: 2\r\rdata: cut",
        ],
    ),
    "documents": Target(
        framing(lambda _: DocumentReader()),
        lambda: [
            b"\0" + _JSON + b"\n" + _JSON,
            b'\0{"a":\n[\n]}{}\r\n1\n"x"\n{"b":"c\n{}\n',
            b"\0[[[[[[[]]]]]]]",
        ],
    ),
    "array": Target(
        framing(lambda _: ArrayReader()),
        lambda: [b"\0[" + _JSON + b"\n,\r\n" + _JSON + b"\n]\n", b'\0[1, "a" ,null,[]]', b"\0" + _JSON],
    ),
    "eventstream": Target(
        framing(lambda _: FrameReader(), frames),
        lambda: [
            b"\1" + event_frame("chunk", _JSON) * 2,
            b"\0" + frames(event_frame("metadata", _JSON)) + frames(event_frame("", b""))[:-1] + b"!",
        ],
    ),
    "grpc": Target(
        framing(lambda option: GrpcReader(("", "gzip", "deflate", "zstd")[option & 3])),
        lambda: [
            b"\0" + grpc_message(_JSON) + grpc_message(b"") + grpc_message(b"grpc-status:0", 0x80),
            b"\2" + grpc_message(gzip.compress(_JSON), 1) + grpc_message(_JSON, 1) + grpc_message(b"", 3),
            b"\6" + grpc_message(zstandard.compress(_JSON), 1),
        ],
    ),
    "websocket": Target(run_websocket, _sockets),
    "bodies": Target(run_bodies, _codings),
    "multipart": Target(
        run_multipart,
        lambda: [
            _FORM,
            b"form-data; boundary=\"b\"; name*=UTF-8''%c3%a9; x\n--b\n\nx\n--b--",
        ],
    ),
}

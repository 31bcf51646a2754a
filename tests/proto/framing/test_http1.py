"""HTTP/1.1 framing: one table of messages for both directions, whole and in every split."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.framing.http1 import (
    MAX_HEAD,
    Malformed,
    Mark,
    MessageReader,
    Part,
    RequestHead,
    ResponseHead,
)

END, GAP, LOST, OPAQUE = Mark.END, Mark.GAP, Mark.LOST, Mark.OPAQUE


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    parts: list[Part]
    method: str | None = None  # of the request that a response answers; None: `data` is a request
    closed: bool = False


def ok(*headers: tuple[str, str], status: int = 200) -> ResponseHead:
    return ResponseHead(status, headers)


CL5 = ("content-length", "5")
TE = ("transfer-encoding", "chunked")
POST5 = RequestHead("POST", "/a", (CL5,))
BIG = b"X-Big: " + b"x" * MAX_HEAD

CASES = [
    Case(
        "request without a body",
        b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
        [RequestHead("GET", "/a?b", (("host", "x"),)), END],
    ),
    Case("counted", b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", [POST5, b"hello", END]),
    Case("pipelined", b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello" * 2, [POST5, b"hello", END] * 2),
    Case("bare LF", b"POST /a HTTP/1.0\nContent-Length:5\n\nhello", [POST5, b"hello", END]),
    Case("blank lines before", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", [RequestHead("GET", "/", ()), END]),
    Case(
        "folded header",
        b"GET / HTTP/1.1\r\nA: b\r\n  c\r\n\r\n",
        [RequestHead("GET", "/", (("a", "b c"),)), END],
    ),
    Case(
        "odd header line",
        b"GET / HTTP/1.1\r\nnonsense\r\nA : b \r\n\r\n",
        [RequestHead("GET", "/", (("a", "b"),)), END],
    ),
    Case(
        "chunked with extension and trailers",
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n2 \r\nde\r\n0\r\nT: v\r\nU: w\r\n\r\n",
        [RequestHead("POST", "/a", (TE,)), b"abcde", END],
    ),
    Case(
        "same length twice",
        b"POST /a HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nhello",
        [RequestHead("POST", "/a", (("content-length", "5, 5"),)), b"hello", END],
    ),
    Case(
        "chunked wins over length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        [ok(CL5, TE), b"x", END],
        "GET",
    ),
    Case(
        "no reason phrase", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", [ok(CL5), b"hello", END], "GET"
    ),
    Case(
        "interim",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        [ok(CL5), b"hello", END],
        "POST",
    ),
    Case("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" * 2, [ok(CL5), END] * 2, "HEAD"),
    Case("204", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", [ok(CL5, status=204), END], "GET"),
    Case("304", b"HTTP/1.1 304 No\r\n\r\n", [ok(status=304), END], "GET"),
    Case("empty", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", [ok(("content-length", "0")), END], "GET"),
    Case("until close", b"HTTP/1.0 200 OK\r\n\r\nhello", [ok(), b"hello", END], "GET", closed=True),
    Case(
        "coding that is not chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
        [ok(("transfer-encoding", "gzip")), b"hi", END],
        "GET",
        closed=True,
    ),
    Case(
        "upgrade",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
        [ok(("upgrade", "websocket"), status=101), OPAQUE, b"\x81\x05hello"],
        "GET",
    ),
    Case("tunnel", b"HTTP/1.1 200 OK\r\n\r\n\x16\x03", [ok(), OPAQUE, b"\x16\x03"], "CONNECT"),
    Case("not http", b"\x00\x01\x02\x03garbage", [Malformed("not_http")]),
    Case("almost a request", b"POST /a\r\n\r\n", [Malformed("not_http")]),
    Case("words", b"hello world, this is text\r\n", [Malformed("not_http")]),
    Case("http/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [Malformed("not_http")]),
    Case("not an answer", b"SSH-2.0-x\r\n", [Malformed("not_http")], "GET"),
    Case("status out of range", b"HTTP/1.1 099 X\r\n\r\n", [Malformed("not_http")], "GET"),
    Case(
        "lengths differ",
        b"POST /a HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        [RequestHead("POST", "/a", (CL5, ("content-length", "6"))), Malformed("bad_content_length")],
    ),
    Case(
        "negative length",
        b"POST /a HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        [RequestHead("POST", "/a", (("content-length", "-5"),)), Malformed("bad_content_length")],
    ),
    Case(
        "absurd length",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
        [ok(("content-length", "9" * 19)), Malformed("bad_content_length")],
        "GET",
    ),
    Case(
        "bad chunk size",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        [ok(TE), Malformed("bad_chunk")],
        "GET",
    ),
    Case(
        "chunk longer than it says",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        [ok(TE), b"a", Malformed("bad_chunk")],
        "GET",
    ),
    Case(
        "endless chunk line",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000,
        [ok(TE), Malformed("bad_chunk")],
        "GET",
    ),
    Case("huge header", b"GET / HTTP/1.1\r\n" + BIG, [Malformed("header_too_large")]),
    Case("huge header, complete", b"GET / HTTP/1.1\r\n" + BIG + b"\r\n\r\n", [Malformed("header_too_large")]),
    Case(
        "huge trailers",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 20000,
        [ok(TE), Malformed("header_too_large")],
        "GET",
    ),
]


def run(case: Case, sizes: list[int]) -> list[Part]:
    """The parts of a case fed in pieces of `sizes` (the last one repeats), body slices joined."""
    reader = MessageReader() if case.method is None else MessageReader(lambda: case.method)
    parts: list[Part] = []
    position, index = 0, 0
    while position < len(case.data):
        size = sizes[min(index, len(sizes) - 1)]
        parts += reader.feed(case.data[position : position + size])
        position += size
        index += 1
    if case.closed:
        parts += reader.close()
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += part
        elif part != b"":
            joined.append(part)
    return joined


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_messages(case: Case) -> None:
    assert run(case, [1 << 30]) == case.parts


@pytest.mark.parametrize("case", [c for c in CASES if len(c.data) < 1000], ids=lambda case: case.name)
def test_messages_byte_by_byte(case: Case) -> None:
    assert run(case, [1]) == case.parts


@given(st.sampled_from(CASES), st.lists(st.integers(1, 60), max_size=20), st.integers(1000, 70_000))
def test_any_split_gives_the_same_parts(case: Case, sizes: list[int], rest: int) -> None:
    assert run(case, [*sizes, rest]) == case.parts


def answers(*, joined_late: bool = False) -> MessageReader:
    return MessageReader(lambda: "POST", joined_late=joined_late)


def test_offset_of_messages_counts_every_byte() -> None:
    reader = MessageReader()
    first = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    parts = reader.feed(first + b"\r\nGET / HTTP/1.1\r\n\r\n")
    reader.gap(1000)
    parts += reader.feed(b"GET / HTTP/1.1\r\n\r\n")
    offsets = [part.offset for part in parts if isinstance(part, RequestHead)]
    assert offsets == [0, len(first) + 2, len(first) + 2 + 18 + 1000]


def test_gap_inside_a_counted_body_keeps_the_framing() -> None:
    reader = answers()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
    assert reader.gap(6) == [GAP]
    assert reader.feed(b"cdHTTP/1.1 204 No\r\n\r\n") == [b"cd", END, ok(status=204), END]


def test_gap_that_ends_a_counted_body() -> None:
    reader = answers()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
    assert reader.gap(8) == [GAP, END]


def test_gap_beyond_a_counted_body_finds_the_next_message() -> None:
    reader = answers()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
    assert reader.gap(9) == [LOST]
    assert reader.feed(b"rest that says HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 204 No\r\nA: b\r\n\r\n") == [
        ok(("a", "b"), status=204),
        END,
    ]


def test_a_gap_after_an_upgrade_is_one_in_its_bytes() -> None:
    reader = answers()
    reader.feed(b"HTTP/1.1 101 Switching\r\n\r\nab")
    assert reader.gap(100) == [GAP]
    assert reader.feed(b"HTTP/1.1 200 OK\r\n\r\n") == [b"HTTP/1.1 200 OK\r\n\r\n"]


@pytest.mark.parametrize("sent", [b"", b"hel", b"hello"])
def test_a_message_that_may_have_been_given_up(sent: bytes) -> None:
    """The next one is found whether or not the rest of this one comes."""
    reader = MessageReader()
    reader.feed(b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
    reader.resynchronise()
    parts = reader.feed(sent + b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
    assert parts == [POST5, b"hello", END]


def test_gap_inside_a_chunk_keeps_the_framing() -> None:
    reader = answers()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nab")
    assert reader.gap(6) == [GAP]
    assert reader.feed(b"\r\n1\r\nx\r\n0\r\n\r\n") == [b"x", END]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_gap_over_chunks_finds_the_next_chunk(step: int) -> None:
    reader = answers()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nab")
    assert reader.gap(500) == [GAP]
    data = b"ata: x\n\n\r\n5\r\nhello\r\n0\r\n\r\n"
    parts = [part for i in range(0, len(data), step) for part in reader.feed(data[i : i + step])]
    assert b"".join(part for part in parts if isinstance(part, bytes)) == b"hello"
    assert parts[-1] is END


def test_gap_over_the_end_of_a_chunked_body_finds_the_next_message() -> None:
    reader = answers()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nab")
    reader.gap(500)
    assert reader.feed(b"HTTP/1.1 204 No\r\nA: b\r\n\r\n") == [LOST, ok(("a", "b"), status=204), END]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_joined_late_finds_the_next_request(sizes: list[int]) -> None:
    data = b'{"messages": "tail of a body GET / HTTP/1.1\\r\\n"}'
    data += b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
    reader = MessageReader(joined_late=True)
    parts: list[Part] = []
    position = 0
    while position < len(data):
        size = sizes[position % len(sizes)]
        parts += reader.feed(data[position : position + size])
        position += size
    assert parts[0] == POST5
    assert parts[-1] is END

"""Heads and framing: the same whatever the pieces, and nothing that could be read in two ways."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmrouter.server.wire import (
    ChunkedBody,
    FixedBody,
    Malformed,
    client_head,
    parse_request,
    parse_response,
    upstream_head,
)

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(marks)]


CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=8)
PLACES = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@given(CHUNKS, PLACES, st.binary(max_size=20))
def test_any_split_of_a_chunked_body_gives_the_same_payload(
    chunks: list[bytes], places: list[int], after: bytes
) -> None:
    framed = b"".join(b"%X;ext=1\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nT: 1\r\n\r\n"
    reader = ChunkedBody()
    payload = b""
    rest = b""
    for piece in cut(framed + after, places):
        if reader.done:
            rest += piece
        else:
            payload += b"".join(reader.feed(piece))
            rest = reader.excess
    assert reader.done
    assert payload == b"".join(chunks)
    assert rest == after


@given(st.binary(max_size=500), PLACES, st.binary(max_size=20))
def test_any_split_of_a_fixed_body_gives_the_same_payload(
    body: bytes, places: list[int], after: bytes
) -> None:
    reader = FixedBody(len(body))
    payload, rest = b"", b""
    for piece in cut(body + after, places):
        if reader.done:
            rest += piece
        else:
            payload += b"".join(reader.feed(piece))
            rest = reader.excess
    assert (payload, rest, reader.done) == (body, after, True)


@pytest.mark.parametrize(
    "framed",
    [
        b"5\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\rhello\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"5;" + b"x" * 400,
        b"0\r\n" + b"a: b\r\n" * 3000,
    ],
)
def test_ambiguous_chunks_are_malformed(framed: bytes) -> None:
    with pytest.raises(Malformed):
        ChunkedBody().feed(framed)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b" Folded: header\r\n",
        b"X: a\r\n b\r\n",
        b"X: a\x00b\r\n",
        b"Host: b\r\n",
        b"Expect: something-else\r\n",
        b"X: y\r\n" * 300,
    ],
)
def test_ambiguous_heads_are_malformed(lines: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(HEAD + lines + b"\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\n\r\n",
        b"POST http://a/v1/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET /\r\n\r\n",
    ],
)
def test_other_heads_that_are_refused(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_request(head)


def test_an_offer_to_upgrade_is_ignored() -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n"
    request = parse_request(HEAD + offer + b"Content-Length: 2\r\n\r\n")
    assert (request.content_length, request.keep_alive) == (2, True)
    head, _ = upstream_head(request, request.target, b"up", [])
    assert b"pgrade" not in head
    assert b"HTTP2" not in head


def test_what_is_sent_upstream_is_written_anew() -> None:
    request = parse_request(
        HEAD + b"Authorization: Bearer mmk-x\r\nX-API-Key: mmk-x\r\nX-ModelMeter-Call-Id: forged\r\n"
        b"Connection: close, X-Drop\r\nX-Drop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
        b"Proxy-Authorization: p\r\n"
        b"Accept-Encoding: br;q=1.0, gzip;q=0.8, zstd\r\nOpenAI-Project: proj_1\r\nExpect: 100-continue\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    assert not request.keep_alive
    assert request.expects_continue
    head, seen = upstream_head(request, "/p/v1/x", b"up:1", [(b"authorization", b"Bearer sk")])
    assert head == (
        b"POST /p/v1/x HTTP/1.1\r\nhost: up:1\r\nOpenAI-Project: proj_1\r\naccept-encoding: gzip;q=0.8\r\n"
        b"transfer-encoding: chunked\r\nauthorization: Bearer sk\r\n\r\n"
    )
    assert seen == [("host", "up:1"), ("openai-project", "proj_1")]


def test_encodings_that_cannot_be_read_are_not_asked_for() -> None:
    request = parse_request(HEAD + b"Accept-Encoding: br, zstd\r\n\r\n")
    assert b"accept-encoding: identity\r\n" in upstream_head(request, "/", b"up", [])[0]


def test_a_response_head_goes_back_as_it_came() -> None:
    lines = b"HTTP/1.1 299 Odd but Fine\r\nX-Request-ID: r\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n"
    response = parse_response(
        lines + b"Transfer-Encoding: chunked\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\n\r\n"
    )
    assert response.keep_alive
    assert client_head(response, http_1_0=False, close=True) == (
        lines + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    assert b"chunked" not in client_head(response, http_1_0=True, close=True)


@pytest.mark.parametrize("status", [204, 304])
def test_responses_without_a_body(status: int) -> None:
    response = parse_response(b"HTTP/1.1 %d X\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
    assert (response.content_length, response.chunked) == (0, False)

"""HTTP/1.1 on a pair of asyncio streams: a request read whole, an answer written piece by piece.

As much of it as real clients use: keep-alive, `Expect: 100-continue`, bodies by length or chunked, answers by
length or chunked, gzip.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

from tests.e2e.provider.answer import Answer, Request

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 256 * 1024 * 1024
GZIP_WINDOW = 31  # zlib's word for "with a gzip header"
LAST_CHUNK = b"0\r\n\r\n"


class MalformedRequest(ValueError):
    """Bytes that are no HTTP/1.1 request, or more of them than is taken."""


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request with its whole body; None where the client has closed between two requests.

    Raises MalformedRequest, asyncio.LimitOverrunError (a head above HEAD_LIMIT), asyncio.IncompleteReadError.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] != "HTTP/1.1":
        raise MalformedRequest(first[:40])
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise MalformedRequest("a header without a colon")
        headers[name.lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    target = urlsplit(words[1])
    return Request(
        words[0], target.path, dict(parse_qsl(target.query)), headers, await _body(reader, headers)
    )


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunked(reader)
    length = headers.get("content-length", "0")
    if not length.isdigit() or int(length) > BODY_LIMIT:
        raise MalformedRequest(f"content-length {length[:20]}")
    return await reader.readexactly(int(length))


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        line = (await reader.readuntil(b"\r\n")).split(b";")[0].strip()
        try:
            size = int(line, 16)
        except ValueError as error:
            raise MalformedRequest("a chunk without a size") from error
        if len(body) + size > BODY_LIMIT:
            raise MalformedRequest("body too large")
        if size == 0:
            break
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass  # trailers
    return bytes(body)


def response_bytes(request: Request, answer: Answer) -> Iterator[bytes]:
    """The answer as written: the head first, then one item for each piece, then what ends it.

    The LAST item completes a stream, so a caller who stops before it has cut the stream off.
    """
    compress = answer.compress and "gzip" in request.headers.get("accept-encoding", "")
    pieces = _compressed(answer) if compress else iter(answer.pieces)
    headers = {**answer.headers, "server": "modelmeter-local-provider"}
    if compress:
        headers["content-encoding"] = "gzip"
    if answer.stream:
        headers["transfer-encoding"] = "chunked"
        pieces = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
    elif answer.length is None:
        whole = b"".join(pieces)
        headers["content-length"] = str(len(whole))
        pieces = iter([whole])
    else:
        headers["content-length"] = str(answer.length)
    reason = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else ""
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    yield ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    yield from pieces
    yield LAST_CHUNK if answer.stream else b""


def _compressed(answer: Answer) -> Iterator[bytes]:
    """gzip, flushed after every piece so that a stream's events arrive when they are sent."""
    squeeze = zlib.compressobj(wbits=GZIP_WINDOW)
    for piece in answer.pieces:
        yield squeeze.compress(piece) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    yield squeeze.flush()

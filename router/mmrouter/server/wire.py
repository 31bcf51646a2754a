"""HTTP/1.1 heads and framing: what is accepted, and what is sent on.

llhttp (through httptools) reads heads and nothing else; bodies are counted here, because the router must
know to the byte where a message ends. A head that two servers could read differently is refused, and what
goes upstream is written anew from the parts that were understood, never copied: with one provider key
shared by all teams, a smuggled request would be spending that nobody is charged for.

Three-way contract of the body readers: `feed` returns the payload found in this piece, sets `done` at the
end of the body with what follows it in `excess`, or raises `Malformed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import httptools

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 200
# A chunk's size line: 16 hex digits and an extension nobody sends. Trailers are dropped, so they need be few.
_MAX_CHUNK_LINE = 256
_MAX_TRAILERS = 8 * 1024

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
# Replaced by the router's own, or never the upstream's business.
_NOT_FORWARDED = _HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"authorization",
    b"x-api-key",
    b"accept-encoding",
}
# Encodings whose usage can be read on the way through. Offering the others would make calls unmeasurable.
_READABLE_ENCODINGS = (b"gzip", b"deflate", b"identity")


class Malformed(Exception):
    """Bytes that are not one clear HTTP/1.1 message. str() says what is wrong, in one sentence."""


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a client's request, understood in exactly one way.

    `headers` have their names as they were sent; `fields` the first value of each, by its lower-case name.
    """

    method: str
    target: str
    headers: Headers
    fields: dict[bytes, bytes]
    http_1_0: bool
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header; `name` in lower case."""
        return self.fields.get(name)


@dataclass(frozen=True, slots=True)
class Response:
    """The head of an upstream's response; `headers` and `fields` as those of a request."""

    status: int
    reason: bytes
    headers: Headers
    fields: dict[bytes, bytes]
    content_length: int | None
    chunked: bool
    keep_alive: bool


class _Head:
    """Collects what llhttp finds in one head."""

    __slots__ = ("complete", "fields", "headers", "repeated", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: Headers = []
        self.fields: dict[bytes, bytes] = {}
        self.repeated: set[bytes] = set()
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))
        name = name.lower()
        if name in self.fields:
            self.repeated.add(name)
        else:
            self.fields[name] = value

    def on_headers_complete(self) -> None:
        self.complete = True

    def values(self, name: bytes) -> list[bytes]:
        """All values of a header; `name` in lower case."""
        if name in self.repeated:
            return [value for key, value in self.headers if key.lower() == name]
        return [self.fields[name]] if name in self.fields else []


def parse_request(head: bytes) -> Request:
    """A request from its head, closing empty line included. Raises Malformed."""
    found = _Head()
    parser = httptools.HttpRequestParser(found)
    _feed(parser, head, found)
    version: str = parser.get_http_version()
    if version not in ("1.0", "1.1"):
        raise Malformed(f"HTTP/{version} is not spoken here, only HTTP/1.1")
    length, chunked = _framing(found)
    if chunked and version == "1.0":
        raise Malformed("an HTTP/1.0 request cannot be chunked")
    expected = found.values(b"expect")
    if any(value.lower() != b"100-continue" for value in expected):
        raise Malformed("the only expectation that can be met is 100-continue")
    if version == "1.1" and (b"host" not in found.fields or b"host" in found.repeated):
        raise Malformed("a request needs exactly one Host header")
    if not found.target.startswith(b"/") or not found.target.isascii():
        raise Malformed("the request target must be a path")
    return Request(
        method=parser.get_method().decode("ascii"),
        target=found.target.decode("ascii"),
        headers=found.headers,
        fields=found.fields,
        http_1_0=version == "1.0",
        content_length=length,
        chunked=chunked,
        keep_alive=_keep_alive(parser, found),
        expects_continue=bool(expected) and version == "1.1",
    )


def parse_response(head: bytes) -> Response:
    """A response from its head, closing empty line included. Raises Malformed."""
    found = _Head()
    parser = httptools.HttpResponseParser(found)
    _feed(parser, head, found)
    length, chunked = _framing(found)
    status: int = parser.get_status_code()
    if 100 <= status < 200 or status in (204, 304):
        length, chunked = 0, False
    parts = head[: head.index(b"\r\n")].split(b" ", 2)
    return Response(
        status=status,
        reason=parts[2] if len(parts) == 3 else b"",
        headers=found.headers,
        fields=found.fields,
        content_length=length,
        chunked=chunked,
        keep_alive=_keep_alive(parser, found) and (chunked or length is not None),
    )


def _keep_alive(parser: httptools.HttpRequestParser | httptools.HttpResponseParser, found: _Head) -> bool:
    # llhttp answers False for a message that asks for an upgrade, though its connection lives on.
    if parser.should_upgrade():
        return not any(b"close" in value.lower() for value in found.values(b"connection"))
    return bool(parser.should_keep_alive())


def _feed(parser: object, head: bytes, found: _Head) -> None:
    try:
        parser.feed_data(head)  # type: ignore[attr-defined]
    except httptools.HttpParserUpgrade:
        pass  # an upgrade is an offer, and the router never takes it: RFC 9110, 7.8
    except httptools.HttpParserError as error:
        raise Malformed(str(error)) from None
    if not found.complete:
        raise Malformed("the head is not complete")
    if len(found.headers) > MAX_HEADERS:
        raise Malformed(f"more than {MAX_HEADERS} headers")


def _framing(found: _Head) -> tuple[int | None, bool]:
    """Content length and whether the body is chunked; anything ambiguous is refused."""
    lengths = found.values(b"content-length")
    codings = found.values(b"transfer-encoding")
    if codings:
        if lengths:
            raise Malformed("Content-Length and Transfer-Encoding in one message")
        if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
            raise Malformed("the only transfer coding is chunked")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > 18:
        raise Malformed("Content-Length is not one whole number")
    return int(lengths[0]), False


def upstream_head(
    request: Request, target: str, host: bytes, own: Headers
) -> tuple[bytes, list[tuple[str, str]]]:
    """The head to send upstream, and its headers as text for the reader of usage, without the `own` ones.

    `own` are the provider's credentials and the call id. Clients' credentials, hop-by-hop headers and
    headers that only the router may set never get through.
    """
    dropped = _named_by_connection(request)
    lines = [f"{request.method} {target} HTTP/1.1\r\n".encode("ascii"), b"host: ", host, b"\r\n"]
    seen: list[tuple[str, str]] = [("host", host.decode("latin-1"))]
    accepts: list[bytes] = []
    for name, value in request.headers:
        lowered = name.lower()
        if lowered in _NOT_FORWARDED or lowered in dropped or lowered.startswith(b"x-modelmeter-"):
            if lowered == b"accept-encoding":
                accepts.append(value)
            continue
        lines += (name, b": ", value, b"\r\n")
        seen.append((lowered.decode("latin-1"), value.decode("latin-1")))
    if accepts:
        lines += (b"accept-encoding: ", _readable_encodings(b",".join(accepts)), b"\r\n")
    if request.chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif request.content_length is not None:
        lines.append(b"content-length: %d\r\n" % request.content_length)
    for name, value in own:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines), seen


@lru_cache(maxsize=256)
def _readable_encodings(accepted: bytes) -> bytes:
    kept = [
        item.strip()
        for item in accepted.split(b",")
        if item.split(b";", 1)[0].strip().lower() in _READABLE_ENCODINGS
    ]
    return b", ".join(kept) or b"identity"


def client_head(response: Response, *, http_1_0: bool, close: bool) -> bytes:
    """The head to send to the client: the upstream's, with the hop-by-hop headers of this connection."""
    dropped = _named_by_connection(response)
    lines = [b"HTTP/1.1 %d " % response.status, response.reason, b"\r\n"]
    for name, value in response.headers:
        lowered = name.lower()
        if lowered in _HOP_BY_HOP or lowered in dropped:
            continue
        lines += (name, b": ", value, b"\r\n")
    if response.chunked and not http_1_0:
        lines.append(b"transfer-encoding: chunked\r\n")
    if close:
        lines.append(b"connection: close\r\n")
    elif http_1_0:
        lines.append(b"connection: keep-alive\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def _named_by_connection(message: Request | Response) -> frozenset[bytes]:
    """Names that a Connection header makes hop-by-hop; those that describe the body stay."""
    if b"connection" not in message.fields:
        return frozenset()
    named = [value for name, value in message.headers if name.lower() == b"connection"]
    names = {item.strip().lower() for item in b",".join(named).split(b",")}
    return frozenset(names - {b"content-length", b"content-type", b"content-encoding"})


class FixedBody:
    """A body of known length."""

    __slots__ = ("_left", "done", "excess")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = length == 0
        self.excess = b""

    def feed(self, data: bytes) -> list[bytes]:
        if len(data) < self._left:
            self._left -= len(data)
            return [data] if data else []
        payload, self.excess = (
            (data, b"") if len(data) == self._left else (data[: self._left], data[self._left :])
        )
        self._left = 0
        self.done = True
        return [payload] if payload else []


class EndlessBody:
    """A response body that ends with its connection."""

    __slots__ = ("done", "excess")

    def __init__(self) -> None:
        self.done = False
        self.excess = b""

    def feed(self, data: bytes) -> list[bytes]:
        return [data] if data else []


class ChunkedBody:
    """A chunked body. Strict where leniency is how requests are smuggled: CRLF only, hex digits only."""

    __slots__ = ("_left", "_line", "_state", "_trailers", "done", "excess")

    def __init__(self) -> None:
        self._state = _SIZE
        self._line = b""
        self._left = 0
        self._trailers = 0
        self.done = False
        self.excess = b""

    def feed(self, data: bytes) -> list[bytes]:
        payload: list[bytes] = []
        at = 0
        end = len(data)
        while at < end:
            if self._state == _DATA:
                taken = min(self._left, end - at)
                payload.append(data[at : at + taken] if taken != end else data)
                at += taken
                self._left -= taken
                if not self._left:
                    self._state = _DATA_END
                continue
            line, at = self._take_line(data, at)
            if line is None:
                break
            self._on_line(line)
            if self.done:
                self.excess = data[at:]
                break
        return payload

    def _take_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        newline = data.find(b"\n", at)
        stop = len(data) if newline < 0 else newline + 1
        line = self._line + data[at:stop]
        if len(line) > _MAX_CHUNK_LINE and self._state != _TRAILER:
            raise Malformed("a chunk's size line is too long")
        if len(line) > _MAX_TRAILERS:
            raise Malformed("a trailer is too long")
        if newline < 0:
            self._line = line
            return None, stop
        self._line = b""
        if not line.endswith(b"\r\n"):
            raise Malformed("a line of the chunked coding does not end in CRLF")
        return line[:-2], stop

    def _on_line(self, line: bytes) -> None:
        if self._state == _SIZE:
            size = line.split(b";", 1)[0].rstrip(b" \t")
            if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
                raise Malformed("a chunk's size is not a hexadecimal number")
            self._left = int(size, 16)
            self._state = _DATA if self._left else _TRAILER
        elif self._state == _DATA_END:
            if line:
                raise Malformed("a chunk is longer than its size")
            self._state = _SIZE
        elif line:
            self._trailers += len(line)
            if self._trailers > _MAX_TRAILERS:
                raise Malformed("too many trailers")
        else:
            self.done = True


_SIZE, _DATA, _DATA_END, _TRAILER = range(4)

BodyReader = FixedBody | EndlessBody | ChunkedBody

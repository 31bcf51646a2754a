"""HTTP/1.1 of one direction of one connection, sans-IO: bytes go in, parts of messages come out.

We are a bystander, not an endpoint. So this reader is lenient where an endpoint must be strict (bare LF, odd
header lines), never answers, and must survive what an endpoint never meets: bytes that are missing (`gap`)
and a connection that was joined in the middle. In both cases it finds the next message by its start line and
says that it skipped something.

`feed` has one contract: every byte is consumed or buffered, parts come out in order, and how the bytes were
split makes no difference to the parts (body slices aside). After `Malformed` nothing more comes; after
`Mark.OPAQUE` everything comes as it is.

Bounds: a head and the trailers hold at most `MAX_HEAD` bytes, a chunk-size line `MAX_CHUNK_LINE`; bodies are
passed on and never held; while lost, at most `MAX_HEAD` bytes of a possible start line are held.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

MAX_HEAD: Final = 64 * 1024
MAX_CHUNK_LINE: Final = 4096
# While lost only a plausible start line is waited for, not a whole head.
_MAX_LOST_LINE: Final = 8 * 1024

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request line and its headers; header names are lower-case, values stripped, both latin-1.

    `offset` is where in the direction's bytes the message began, missing bytes included.
    """

    method: str
    target: str
    headers: Headers
    offset: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The status and the headers of a final response (interim 1xx responses are skipped)."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class Malformed:
    """The bytes are no messages of the protocol: not_http, header_too_large, malformed_http2, ..."""

    reason: str


class Mark(Enum):
    """Parts that carry nothing but their meaning."""

    END = auto()  # the message is complete
    GAP = auto()  # bytes of this message's body are missing; the framing is intact
    LOST = auto()  # bytes are missing or unreadable and with them the framing: a new message comes next
    OPAQUE = auto()  # the connection speaks another protocol from here on: what follows are its bytes


Part = RequestHead | ResponseHead | bytes | Mark | Malformed


# States of a reader, in the order of `MessageReader._steps`.
(
    _HEAD,
    _FIXED,
    _CHUNK_SIZE,
    _CHUNK_DATA,
    _CHUNK_END,
    _TRAILERS,
    _UNTIL_CLOSE,
    _CHUNKS_LOST,
    _LOST,
    _OPAQUE,
    _DEAD,
) = range(11)
_CHUNKED_STATES: Final = (_CHUNK_SIZE, _CHUNK_DATA, _CHUNK_END, _TRAILERS, _CHUNKS_LOST)

_HEAD_END: Final = re.compile(rb"\n\r?\n")
_REQUEST_LINE: Final = re.compile(rb"([A-Za-z][A-Za-z-]{0,23}) ([^ \r\n]+) HTTP/1\.[01][ \t]*\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\n]*)?\r?\n")
# What the first bytes of a start line may look like before the line is complete.
_REQUEST_START: Final = re.compile(rb"[A-Za-z][A-Za-z-]{0,23}(?: |\Z)|\Z")
_STATUS_START: Final = b"HTTP/1."
# A start line in the middle of nowhere has to look the part: a real method, an origin or absolute target.
_LOST_REQUEST: Final = re.compile(
    rb"(?:GET|POST|PUT|PATCH|DELETE|HEAD|OPTIONS|CONNECT) [!-~]{1,7168} HTTP/1\.[01]\r\n"
)
_LOST_STATUS: Final = re.compile(rb"HTTP/1\.[01] [1-9]\d\d(?: [^\r\n]{0,128})?\r\n[A-Za-z0-9-]{1,128}:")
# What the bytes may end with of one of them. Only that much is searched again when more bytes come.
_HALF_REQUEST: Final = re.compile(rb"[A-Z]{1,7}(?: (?:[!-~]{1,7168}(?: [HTP/1.0]{0,8}\r?)?)?)?\Z")
_HALF_STATUS: Final = re.compile(
    rb"H[TP/1.0]{0,7}(?: [0-9]{0,3})?\Z"
    rb"|HTTP/1\.[01] [1-9]\d\d[^\r\n]{0,128}(?:\r(?:\n[A-Za-z0-9-]{0,128})?)?\Z"
)
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_HEADER_LINE: Final = re.compile(r"^([^\s:]+)[ \t]*:[ \t]*([^\r\n]*)", re.MULTILINE)
_CHUNK_LINE: Final = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
_LOST_CHUNK: Final = re.compile(rb"\r\n([0-9a-fA-F]{1,8})\r\n")
_HALF_CHUNK: Final = re.compile(rb"\r(?:\n[0-9a-fA-F]{0,8}\r?)?\Z")


class MessageReader:
    """The messages of one direction.

    `request_method` is given for the direction that carries responses: it names the method of the request
    that the next response answers (None where that request was not seen), because HEAD and CONNECT change
    how a response is framed.
    """

    def __init__(
        self, request_method: Callable[[], str | None] | None = None, *, joined_late: bool = False
    ) -> None:
        self._request_method = request_method
        self._state = _LOST if joined_late else _HEAD
        self._held = b""
        self._remaining = 0
        self._consumed = 0  # bytes of the stream before `_held`, missing ones included
        self._steps: tuple[Callable[[bytes, int, list[Part]], int], ...] = (
            self._read_head,
            self._read_counted,
            self._read_chunk,
            self._read_counted,
            self._read_chunk_end,
            self._read_trailers,
            self._read_all,
            self._find_chunk,
            self._find_message,
            self._read_all,
            self._discard,
        )

    @property
    def is_lost(self) -> bool:
        """Whether the next message still has to be found."""
        return self._state == _LOST

    @property
    def is_searching(self) -> bool:
        """Whether the framing is lost: the next message has to be found, or the next chunk."""
        return self._state in (_LOST, _CHUNKS_LOST)

    def feed(self, data: bytes) -> list[Part]:
        """The parts that `data`, the next bytes of the direction, complete."""
        parts: list[Part] = []
        if self._held:
            data = self._held + data
            self._held = b""
        position, size = 0, len(data)
        while position < size:
            reached = self._steps[self._state](data, position, parts)
            if reached < 0:  # more bytes are needed from `position` on
                self._held = data[position:]
                break
            position = reached
        self._consumed += position
        return parts

    def gap(self, size: int) -> list[Part]:
        """`size` bytes of the direction are missing here."""
        held, self._held = len(self._held), b""
        self._consumed += held + size
        state = self._state
        if state in (_DEAD, _LOST):
            return []
        if state in (_FIXED, _CHUNK_DATA) and size <= self._remaining:
            self._remaining -= size
            if self._remaining == 0 and state == _FIXED:
                return [Mark.GAP, self._end()]
            if self._remaining == 0:
                self._state = _CHUNK_END
        elif state in _CHUNKED_STATES and self._request_method is not None:
            # A long stream of small chunks is where usage comes last: look for the next chunk.
            self._state = _CHUNKS_LOST
        elif state not in (_UNTIL_CLOSE, _OPAQUE):
            self._state = _LOST
            return [Mark.LOST]
        return [Mark.GAP]

    def close(self) -> list[Part]:
        """The direction has ended: completes a body that lasts until the connection closes."""
        if self._state == _UNTIL_CLOSE:
            return [self._end()]
        return []

    def resynchronise(self) -> None:
        """The message under way may have been given up by its sender: goes on at the next one."""
        if self._state not in (_HEAD, _DEAD):
            self._state = _LOST

    def take_rest(self) -> bytes:
        """Ends the reading, and hands over what was held back for a message that did not come."""
        held, self._held = self._held, b""
        self._state = _DEAD
        return held

    # Each step takes (data, position) and returns the position it consumed up to, or -1 for "need more".

    def _read_head(self, data: bytes, position: int, parts: list[Part]) -> int:
        start = position
        while start < len(data) and data[start] in b"\r\n":
            start += 1
        if start == len(data):
            return start
        line_end = data.find(b"\n", start, start + MAX_HEAD)
        reason = self._wrong_start(data, start, line_end)
        if reason:
            return self._fail(reason, data, parts)
        match = _HEAD_END.search(data, line_end, start + MAX_HEAD) if line_end >= 0 else None
        if match is None:
            if len(data) - start >= MAX_HEAD:
                return self._fail("header_too_large", data, parts)
            return start if start > position else -1
        headers = _headers(data[line_end + 1 : match.start() + 1])
        if self._request_method is None:
            self._begin_request(data, start, headers, parts)
        else:
            self._begin_response(int(data[start + 9 : start + 12]), headers, parts)
        return match.end()

    def _wrong_start(self, data: bytes, start: int, line_end: int) -> str:
        """Why the start line cannot be one, or "" while it can. The same for any split of the bytes."""
        if self._request_method is not None:
            if line_end >= 0:
                return "" if _STATUS_LINE.match(data, start) else "not_http"
            head = data[start : start + len(_STATUS_START)]
            return "" if _STATUS_START.startswith(head) else "not_http"
        if line_end >= 0:
            return "" if _REQUEST_LINE.match(data, start) else "not_http"
        return "" if _REQUEST_START.match(data, start) else "not_http"

    def _begin_request(self, data: bytes, start: int, headers: Headers, parts: list[Part]) -> None:
        match = _REQUEST_LINE.match(data, start)
        if match is None:  # _wrong_start has let it pass
            raise AssertionError("a request line that is none")
        method, target = match[1].decode("ascii"), match[2].decode("latin-1")
        parts.append(RequestHead(method, target, headers, self._consumed + start))
        encoding, length, reason = _body_framing(headers)
        if reason:
            parts.append(Malformed(reason))
            self._state = _DEAD
        elif "chunked" in encoding:
            self._state = _CHUNK_SIZE
        elif length:
            self._state, self._remaining = _FIXED, length
        else:
            parts.append(self._end())

    def _begin_response(self, status: int, headers: Headers, parts: list[Part]) -> None:
        if 100 <= status < 200 and status != 101:
            return
        method = self._request_method() if self._request_method else None
        parts.append(ResponseHead(status, headers))
        encoding, length, reason = _body_framing(headers)
        if status == 101 or (method == "CONNECT" and 200 <= status < 300):
            parts.append(Mark.OPAQUE)
            self._state = _OPAQUE
        elif method == "HEAD" or status in (204, 304):
            parts.append(self._end())
        elif reason:
            parts.append(Malformed(reason))
            self._state = _DEAD
        elif "chunked" in encoding:
            self._state = _CHUNK_SIZE
        elif encoding or length is None:
            self._state = _UNTIL_CLOSE
        elif length:
            self._state, self._remaining = _FIXED, length
        else:
            parts.append(self._end())

    def _read_counted(self, data: bytes, position: int, parts: list[Part]) -> int:
        piece = data[position : position + self._remaining]
        self._remaining -= len(piece)
        parts.append(piece)
        if not self._remaining:
            if self._state == _FIXED:
                parts.append(self._end())
            else:
                self._state = _CHUNK_END
        return position + len(piece)

    def _read_chunk(self, data: bytes, position: int, parts: list[Part]) -> int:
        """Reads chunks for as long as they are whole, which in a stream of events nearly all are."""
        whole: list[bytes] = []
        while (match := _CHUNK_LINE.match(data, position, position + MAX_CHUNK_LINE)) is not None:
            size = int(match[1], 16)
            begin = match.end()
            end = begin + size
            if not size or data[end : end + 2] != b"\r\n":
                self._remaining = size
                self._state = _CHUNK_DATA if size else _TRAILERS
                position = begin
                break
            whole.append(data[begin:end])
            position = end + 2
        if whole:
            parts.append(whole[0] if len(whole) == 1 else b"".join(whole))
        if match is not None or position == len(data):
            return position
        if (
            data.find(b"\n", position, position + MAX_CHUNK_LINE) >= 0
            or len(data) - position >= MAX_CHUNK_LINE
        ):
            return self._fail("bad_chunk", data, parts)
        return position if whole else -1

    def _read_chunk_end(self, data: bytes, position: int, parts: list[Part]) -> int:
        if data.startswith(b"\n", position):
            self._state = _CHUNK_SIZE
            return position + 1
        if data.startswith(b"\r\n", position):
            self._state = _CHUNK_SIZE
            return position + 2
        if data[position:] == b"\r":
            return -1
        return self._fail("bad_chunk", data, parts)

    def _read_trailers(self, data: bytes, position: int, parts: list[Part]) -> int:
        line_end = data.find(b"\n", position, position + MAX_HEAD)
        if line_end < 0:
            if len(data) - position >= MAX_HEAD:
                return self._fail("header_too_large", data, parts)
            return -1
        if not data[position:line_end].strip():
            parts.append(self._end())
        else:
            self._remaining += line_end + 1 - position  # counts the bytes of all trailers
            if self._remaining > MAX_HEAD:
                return self._fail("header_too_large", data, parts)
        return line_end + 1

    def _read_all(self, data: bytes, position: int, parts: list[Part]) -> int:
        parts.append(data[position:] if position else data)
        return len(data)

    def _find_chunk(self, data: bytes, position: int, parts: list[Part]) -> int:
        chunk = _LOST_CHUNK.search(data, position)
        message = _LOST_STATUS.search(data, position)
        if message is not None and (chunk is None or message.start() < chunk.start()):
            self._state = _HEAD
            parts.append(Mark.LOST)
            return message.start()
        if chunk is not None:
            self._state = _CHUNK_SIZE
            return chunk.start() + 2
        return self._keep_tail(data, position, _HALF_STATUS, _HALF_CHUNK)

    def _find_message(self, data: bytes, position: int, parts: list[Part]) -> int:
        asks = self._request_method is None
        match = (_LOST_REQUEST if asks else _LOST_STATUS).search(data, position)
        if match is None:
            return self._keep_tail(data, position, _HALF_REQUEST if asks else _HALF_STATUS)
        self._state = _HEAD
        return match.start()

    def _keep_tail(self, data: bytes, position: int, *halves: re.Pattern[bytes]) -> int:
        """Skips what cannot be the beginning of what is sought; the tail waits for more bytes."""
        start = max(position, len(data) - _MAX_LOST_LINE)
        found = [match.start() for half in halves if (match := half.search(data, start)) is not None]
        tail = min(found, default=len(data))
        return tail if tail > position else -1

    def _discard(self, data: bytes, position: int, parts: list[Part]) -> int:
        return len(data)

    def _end(self) -> Part:
        self._state = _HEAD
        self._remaining = 0
        return Mark.END

    def _fail(self, reason: str, data: bytes, parts: list[Part]) -> int:
        parts.append(Malformed(reason))
        self._state = _DEAD
        return len(data)


def _headers(block: bytes) -> Headers:
    """Header lines as (lower-case name, value) pairs; a line that is none is skipped, a folded one joined."""
    text = block.decode("latin-1")
    if "\n " in text or "\n\t" in text:
        text = _FOLD.sub(" ", text)
    return tuple([(name.lower(), value.rstrip()) for name, value in _HEADER_LINE.findall(text)])


def _body_framing(headers: Headers) -> tuple[str, int | None, str]:
    """(transfer-encoding, content-length or None, reason why they are malformed or "")."""
    encoding, length = "", None
    for name, value in headers:
        if name == "transfer-encoding":
            encoding += value.lower()
        elif name == "content-length":
            # A repeated header, or a list in one, is fine as long as all say the same.
            for text in value.split(","):
                digits = text.strip()
                if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
                    return encoding, None, "bad_content_length"
                if length is not None and length != int(digits):
                    return encoding, None, "bad_content_length"
                length = int(digits)
    return encoding.replace("identity", "").strip(", "), length, ""

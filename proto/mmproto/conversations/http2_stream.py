"""One stream of HTTP/2 as one exchange: its headers in the terms of HTTP/1, which exchanges speak."""

from __future__ import annotations

import re
from typing import Final

from mmproto.conversations.connection import GAP, UPGRADED, finish
from mmproto.exchange import Exchange, Failed, Outcome, Recognised, RequestHead, ResponseHead
from mmproto.framing.http1 import Headers
from mmproto.framing.http2 import Block

# Fields of a request that it cannot be read without, or of an exchange that was read without some others.
UNRESOLVED: Final = "hpack_unresolved"
_GZIP: Final = b"\x1f\x8b"
_STATUS: Final = re.compile(r"[1-5][0-9][0-9]")
_OK: Final = 200
_SWITCHING: Final = 101


class Pseudo:
    """The pseudo-headers of a block, "" where there is none, and its other headers."""

    __slots__ = ("authority", "headers", "method", "path", "protocol", "status")

    def __init__(self, headers: Headers) -> None:
        found = {name: value for name, value in headers if name[0] == ":"}
        self.method = found.get(":method", "")
        self.path = found.get(":path", "")
        self.authority = found.get(":authority", "")
        self.protocol = found.get(":protocol", "")
        self.status = found.get(":status", "")
        self.headers = tuple([field for field in headers if field[0][0] != ":"])


def request_head(pseudo: Pseudo, offset: int) -> RequestHead | None:
    """The request as HTTP/1 would put it, None where it has no method or path.

    A WebSocket that is opened by an extended CONNECT (RFC 8441) becomes the GET that it stands for.
    """
    method, target, headers = pseudo.method, pseudo.path, pseudo.headers
    if method == "CONNECT" and pseudo.protocol:
        method, headers = "GET", (*headers, ("upgrade", pseudo.protocol))
    elif method == "CONNECT":
        target = target or pseudo.authority
    if not method or not target:
        return None
    if pseudo.authority:
        headers = (("host", pseudo.authority), *[field for field in headers if field[0] != "host"])
    return RequestHead(method, target, headers, offset)


class Stream:
    """An exchange that is under way. `unresolved` counts header fields that could not be read."""

    __slots__ = (
        "_first",
        "_head",
        "_tunnel",
        "exchange",
        "heard_ns",
        "is_lost",
        "is_receiving",
        "is_responding",
        "problem",
        "unresolved",
    )

    def __init__(self, exchange: Exchange, at_ns: int, *, tunnel: bool = False, unresolved: int = 0) -> None:
        self.exchange = exchange
        self.heard_ns = at_ns
        self.unresolved = unresolved
        self.is_receiving = True  # the request is still coming
        self.is_responding = False
        self.is_lost = False  # a hole may have taken anything of it, its end too
        self.problem = ""  # why the response cannot be read
        self._tunnel = tunnel
        self._head: ResponseHead | None = None  # held back for its body's first bytes
        self._first = b""

    def request_end(self, at_ns: int) -> None:
        """The request is complete."""
        if self.is_receiving:
            self.is_receiving = False
            self.exchange.request_end(at_ns)

    def response_head(self, block: Block, pseudo: Pseudo, at_ns: int) -> None:
        """The final response begins."""
        self.is_responding = True
        self.unresolved += block.unresolved
        if not _STATUS.fullmatch(pseudo.status):
            # Without unknown fields these are trailers, and the head was in a hole.
            self.problem = UNRESOLVED if block.unresolved else GAP
            return
        self.problem = ""
        status = int(pseudo.status)
        switches = self._tunnel and status == _OK
        head = ResponseHead(_SWITCHING if switches else status, pseudo.headers)
        if block.unresolved and not any(name == "content-encoding" for name, _ in head.headers):
            self._head = head
            return
        self.exchange.response_head(head, at_ns)
        if switches and not self.exchange.takes_upgrade:
            self.problem = UPGRADED

    def response_body(self, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """The next bytes of the response's body."""
        if not self.is_responding or self.problem:
            return
        if self._head is not None:
            self._first += data
            if len(self._first) < len(_GZIP):
                return
            data = self._release(at_ns)
        self.exchange.response_body(data, at_ns)
        outcomes.extend(self.exchange.further(at_ns))

    def response_trailers(self, headers: Headers, at_ns: int) -> None:
        """Headers that come after the response's body (grpc-status)."""
        self._flush(at_ns)
        if not self.problem:
            self.exchange.response_trailers(headers, at_ns)

    def _flush(self, at_ns: int) -> None:
        """The body has ended, however short it is."""
        if first := self._release(at_ns):
            self.exchange.response_body(first, at_ns)

    def _release(self, at_ns: int) -> bytes:
        """A head with unknown fields may have lost its coding, which the body's first bytes tell."""
        head, first, self._head, self._first = self._head, self._first, None, b""
        if head is not None:
            coded = (("content-encoding", "gzip"),) if first.startswith(_GZIP) else ()
            self.exchange.response_head(ResponseHead(head.status, (*head.headers, *coded)), at_ns)
        return first

    def gap(self, at_ns: int, *, of_response: bool) -> None:
        """Bytes are missing. Those of a response that has not begun say nothing about its request."""
        if not (of_response and self.is_receiving):
            self.exchange.gap(at_ns)

    def finish(self, cut_off: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Ends the exchange, with `cut_off` where no end was seen."""
        self._flush(at_ns)
        if self.is_lost:
            self.request_end(at_ns)  # whether its end was in the hole nobody knows, and unknown is not free
        if self.problem == UPGRADED and self.exchange.recognised:
            outcomes.append(Failed(UPGRADED))
            return
        begin = len(outcomes)
        finish(self.exchange, self.problem or cut_off, at_ns, outcomes)
        if self.unresolved and isinstance(outcome := outcomes[begin], Recognised):
            anomalies = (*outcome.anomalies, UNRESOLVED)
            outcomes[begin] = Recognised(outcome.call, outcome.headers, anomalies)

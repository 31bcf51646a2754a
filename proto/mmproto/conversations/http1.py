"""The exchanges of an HTTP/1.1 connection: responses answer requests in order, so a queue pairs them."""

from __future__ import annotations

from collections import deque
from typing import Final

from mmproto.conversations.connection import (
    CLOSED,
    GAP,
    MAX_OPEN,
    NOT_LLM,
    RESPONSE_WITHOUT_REQUEST,
    TOO_MANY,
    UPGRADED,
    Connection,
    Conversation,
    Direction,
    Verdict,
    finish,
)
from mmproto.conversations.http2 import Http2Conversation
from mmproto.conversations.server import ServerConversation
from mmproto.conversations.upgraded import UpgradedConversation
from mmproto.exchange import Dropped, Exchange, Failed, Outcome, RequestHead, ResponseHead
from mmproto.framing.http1 import Malformed, Mark, MessageReader, Part

_SWITCHING: Final = 101


class _Open:
    """An exchange whose end has not been seen."""

    __slots__ = ("after_hole", "exchange", "method", "responding", "upgrade")

    def __init__(self, exchange: Exchange, method: str) -> None:
        self.exchange = exchange
        self.method = method
        self.responding = False
        self.after_hole = False  # a hole may have taken the beginning of its answer
        self.upgrade = ""  # the protocol that the response changes to


class Http1Conversation:
    """The client's end of a connection.

    `late`: it was joined in the middle. Bytes are then skipped up to the first message, and it may turn out
    to be the server's end.
    """

    def __init__(self, connection: Connection, *, late: bool = False) -> None:
        self.successor: Conversation | None = None
        self._connection = connection
        self._open: deque[_Open] = deque()
        self._receiving: _Open | None = None  # the exchange whose request body is on its way
        self._requests = MessageReader(joined_late=late)
        self._responses = MessageReader(self._answered_method, joined_late=late)
        # Until it is known who the client is, requests are searched for both ways.
        self._served = MessageReader(joined_late=True) if late else None
        self._skipped_answer = False

    @property
    def is_settled(self) -> bool:
        """Whether it is known that this is HTTP/1 and which end asks."""
        return self._served is None

    @property
    def open_exchanges(self) -> int:
        """Exchanges that were begun and have no outcome yet."""
        return len(self._open)

    def feed(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes of a direction."""
        if direction is Direction.WRITE:
            for part in self._requests.feed(data):
                self._take_request_part(part, at_ns, outcomes)
                if self._connection.verdict is Verdict.NOT_LLM:
                    break
            return
        # Who asks is told by the head that is complete first, request or response, and heads end with lines.
        while self._served is not None and (end := data.find(b"\n") + 1):
            self._read(data[:end], at_ns, outcomes)
            data = data[end:]
            if self._connection.verdict is Verdict.NOT_LLM:
                return
        if data and self.successor is not None:
            self.successor.feed(direction, data, at_ns, outcomes)
        elif data:
            self._read(data, at_ns, outcomes)

    def _read(self, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes that this process reads."""
        if self._served is not None and self._is_served(data, outcomes):
            self._served = None
            return
        for part in self._responses.feed(data):
            if self.successor is not None and isinstance(part, bytes):
                self.successor.feed(Direction.READ, part, at_ns, outcomes)
            else:
                self._take_response_part(part, at_ns, outcomes)
            if self._connection.verdict is Verdict.NOT_LLM:
                break

    def gap(self, direction: Direction, size: int, at_ns: int, outcomes: list[Outcome]) -> None:
        """`size` bytes of `direction` are missing here."""
        if direction is Direction.WRITE:
            for part in self._requests.gap(size):
                self._take_request_part(part, at_ns, outcomes)
        else:
            if self._served is not None:
                self._served.gap(size)
            # A client asks again once it has its answer: of several open requests the hole has taken the
            # answers but for the last one's. It has taken the head of an only one's answer, unless that is
            # still being sent: then it may have been a 100 Continue.
            waits = len(self._open) > 1 or (bool(self._open) and self._receiving is self._open[-1])
            last = self._open[-1] if waits else None
            for part in self._responses.gap(size):
                self._take_response_part(part, at_ns, outcomes)
            if self._responses.is_lost or (last is not None and self._responses.is_searching):
                self._responses.resynchronise()
                self._lose_answers(last, at_ns, outcomes)

    def _lose_answers(self, last: _Open | None, at_ns: int, outcomes: list[Outcome]) -> None:
        """Ends what is open up to `last`, so that no answer after a hole goes to the wrong request."""
        while self._open and self._open[0] is not last:
            finish(self._open.popleft().exchange, GAP, at_ns, outcomes)
        if last is not None:
            last.after_hole = True

    def close(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection has ended: what is unfinished gets its outcome."""
        for part in self._responses.close():
            self._take_response_part(part, at_ns, outcomes)
        self.give_up(CLOSED, at_ns, outcomes)

    def give_up(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Nobody reads on: what is unfinished gets its outcome."""
        while self._open:
            finish(self._open.popleft().exchange, reason, at_ns, outcomes)
        self._receiving = None

    def _is_served(self, data: bytes, outcomes: list[Outcome]) -> bool:
        """Whether what this process reads holds a request."""
        self._skipped_answer = True
        reader, server = self._served, None
        for part in reader.feed(data) if reader is not None else ():
            if server is None and reader is not None and isinstance(part, RequestHead):
                self.successor = server = ServerConversation(self._connection, reader)
            if server is not None:
                server.take(part, outcomes)
        return server is not None

    def _take_request_part(self, part: Part, at_ns: int, outcomes: list[Outcome]) -> None:
        receiving = self._receiving
        if isinstance(part, bytes):
            if receiving is not None:
                receiving.exchange.request_body(part, at_ns)
        elif isinstance(part, RequestHead):
            self._begin(part, at_ns, outcomes)
        elif isinstance(part, Malformed):
            self._malformed(part.reason, at_ns, outcomes)
        elif receiving is not None and isinstance(part, Mark):
            if part is not Mark.END:
                receiving.exchange.gap(at_ns)
            if part is not Mark.GAP:
                receiving.exchange.request_end(at_ns)
                self._receiving = None

    def _begin(self, head: RequestHead, at_ns: int, outcomes: list[Outcome]) -> None:
        self._served = None
        if self._skipped_answer:  # joined in the middle of an answer whose head and request were not seen
            self._skipped_answer = False
            outcomes.append(Failed(RESPONSE_WITHOUT_REQUEST))
        if self._responses.is_lost and self._open and (self._open[0].responding or self._open[0].after_hole):
            # Its response ran into a gap, and a client that sends again has its answer: nothing more will
            # come.
            finish(self._open.popleft().exchange, GAP, at_ns, outcomes)
        if len(self._open) >= MAX_OPEN:
            finish(self._open.popleft().exchange, TOO_MANY, at_ns, outcomes)
        opened = _Open(self._connection.begin(head, str(head.offset), at_ns), head.method)
        self._open.append(opened)
        self._receiving = opened

    def _answered_method(self) -> str | None:
        return self._open[0].method if self._open else None

    def _take_response_part(self, part: Part, at_ns: int, outcomes: list[Outcome]) -> None:
        current = self._open[0] if self._open else None
        if isinstance(part, bytes):
            if current is not None and current.responding:
                current.exchange.response_body(part, at_ns)
                outcomes.extend(current.exchange.further(at_ns))
        elif isinstance(part, ResponseHead):
            self._served = None
            self._skipped_answer = False
            if current is None:
                outcomes.append(Failed(RESPONSE_WITHOUT_REQUEST))
            elif not current.responding:
                self._respond(current, part, at_ns)
        elif isinstance(part, Malformed):
            self._malformed(part.reason, at_ns, outcomes)
        elif part is Mark.OPAQUE:
            self._upgrade(at_ns, outcomes)
        elif current is not None and isinstance(part, Mark):
            self._take_response_mark(part, current, at_ns, outcomes)

    def _respond(self, current: _Open, head: ResponseHead, at_ns: int) -> None:
        current.responding = True
        if head.status == _SWITCHING:
            current.upgrade = next((value.lower() for name, value in head.headers if name == "upgrade"), "")
            if current.upgrade == "h2c":
                return  # the answer itself comes in the other protocol
        current.exchange.response_head(head, at_ns)

    def _take_response_mark(self, mark: Mark, current: _Open, at_ns: int, outcomes: list[Outcome]) -> None:
        if mark is Mark.GAP:
            current.exchange.gap(at_ns)
        elif not current.responding:
            return
        elif mark is Mark.END:
            self._finish(current, at_ns, outcomes)
        elif mark is Mark.LOST:
            self._open.popleft()
            current.exchange.gap(at_ns)
            finish(current.exchange, GAP, at_ns, outcomes)

    def _finish(self, current: _Open, at_ns: int, outcomes: list[Outcome]) -> None:
        self._open.popleft()
        if self._receiving is current:
            # Answered before it was sent whole: the client may send the rest, or not (100-continue).
            self._receiving = None
            self._requests.resynchronise()
        finish(current.exchange, "", at_ns, outcomes)
        if self._connection.is_foreign:
            self.give_up(NOT_LLM, at_ns, outcomes)
            self._connection.verdict = Verdict.NOT_LLM

    def _upgrade(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """From here on another protocol is spoken: what else was asked for in HTTP has no answer."""
        sent, self._receiving = self._requests.take_rest(), None
        current = self._open.popleft() if self._open else None
        if current is not None:
            self.successor = self._successor(current, at_ns)
            if self.successor is None:
                self._open.appendleft(current)
        while self._open:
            exchange = self._open.popleft().exchange
            if exchange.recognised:
                outcomes.append(Failed(UPGRADED))
            else:
                finish(exchange, "", at_ns, outcomes)
        if self.successor is None:
            self._connection.verdict = Verdict.NOT_LLM
        elif sent:
            self.successor.feed(Direction.WRITE, sent, at_ns, outcomes)

    def _successor(self, current: _Open, at_ns: int) -> Conversation | None:
        if current.upgrade == "h2c":
            return Http2Conversation.upgraded(self._connection, current.exchange, at_ns)
        if current.upgrade and current.exchange.takes_upgrade:
            return UpgradedConversation(current.exchange)
        return None

    def _malformed(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection cannot be read any further."""
        connection = self._connection
        if not self._open:
            # What is no HTTP at all carries no calls; broken HTTP to a provider has carried them.
            is_loss = connection.verdict is Verdict.LLM or (reason != "not_http" and connection.may_be_llm())
            outcomes.append(Failed(reason) if is_loss else Dropped(reason))
        self.give_up(reason, at_ns, outcomes)
        connection.verdict = Verdict.NOT_LLM

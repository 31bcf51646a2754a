"""The exchanges of an HTTP/2 connection: a stream is an exchange, and many are under way at once.

Joined late or after a hole much is unknown, and the rule is that a number is right or absent. A request whose
path cannot be read is a loss with a name; a response whose request was not seen is one too; bytes of streams
that are not known belong to nobody. A stream that a hole may have ended is waited for, and after
`_SILENCE_NS` without a word given its outcome.

Bounds: `MAX_OPEN` streams are followed, then the oldest ends; what one holds is bounded by `Exchange`, and
only those that are ours hold anything. Beside them a direction holds at most the headers that are coming, its
table, and what it takes to find a frame (`http2`, `hpack_block`, `http2_sync`), and the connection answers
whose requests are still to be seen (`http2_early`): under 600 KiB together.
"""

from __future__ import annotations

from typing import Final

from mmproto.conversations.connection import (
    CLOSED,
    GAP,
    MAX_OPEN,
    NOT_LLM,
    RESPONSE_WITHOUT_REQUEST,
    TOO_MANY,
    Connection,
    Conversation,
    Direction,
    Verdict,
)
from mmproto.conversations.http2_early import EarlyAnswers
from mmproto.conversations.http2_stream import UNRESOLVED, Pseudo, Stream, request_head
from mmproto.conversations.server import ServerConversation
from mmproto.exchange import Exchange, Outcome
from mmproto.framing.http1 import Malformed, Mark
from mmproto.framing.http2 import Block, BrokenBlock, GoAway, Part, Reset, StreamReader, TableSize
from mmproto.framing.http2_frames import MALFORMED, Piece

RESET_BY_CLIENT: Final = "stream_reset_by_client"
RESET_BY_SERVER: Final = "stream_reset_by_server"
REFUSED: Final = "stream_refused"

_REFUSED_STREAM: Final = 7  # error code: not processed at all
_UPGRADED_STREAM: Final = 1
# The providers' clients wait for ten minutes at most.
_SILENCE_NS: Final = 600 * 1_000_000_000


class Http2Conversation:
    """The client's end of a connection; one that is joined `late` may turn out to be the server's."""

    def __init__(self, connection: Connection, *, late: bool = False) -> None:
        self.successor: Conversation | None = None
        self._server: ServerConversation | None = None
        self._connection = connection
        self._sent = StreamReader(preface=not late, joined_late=late)
        self._received = StreamReader(joined_late=late)
        self._client_known = not late
        self._streams: dict[int, Stream] = {}
        # Requests were seen from this stream on, None before the first one: of those below, nothing is known.
        self._first: int | None = None
        # The highest stream of which a request was seen, None where some may not have been seen.
        self._highest: int | None = None if late else 0
        self._early = EarlyAnswers()
        self._lost = False  # some stream is

    @classmethod
    def upgraded(cls, connection: Connection, exchange: Exchange, at_ns: int) -> Http2Conversation:
        """Goes on after `Upgrade: h2c`: the request that asked for it is answered on stream 1."""
        conversation = cls(connection)
        conversation._streams[_UPGRADED_STREAM] = stream = Stream(exchange, at_ns)
        conversation._note(_UPGRADED_STREAM)
        stream.is_receiving = False
        return conversation

    @property
    def is_found(self) -> bool:
        """Whether frames of HTTP/2 have been found on a connection that was joined late."""
        return self._sent.has_frames or self._received.has_frames

    @property
    def is_settled(self) -> bool:
        """Whether it is known that this is HTTP/2, and which end asks."""
        return self._client_known

    @property
    def open_exchanges(self) -> int:
        """Exchanges that were begun and have no outcome yet."""
        return len(self._streams)

    def feed(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes of a direction."""
        reader = self._sent if direction is Direction.WRITE else self._received
        for part in reader.feed(data):
            if self._server is not None:
                self._server.take(part, outcomes)
                continue
            self._take(direction, part, at_ns, outcomes)
            if self._connection.verdict is Verdict.NOT_LLM:
                break

    def gap(self, direction: Direction, size: int, at_ns: int, outcomes: list[Outcome]) -> None:
        """`size` bytes of `direction` are missing here."""
        reader = self._sent if direction is Direction.WRITE else self._received
        for part in reader.gap(size):
            self._take(direction, part, at_ns, outcomes)

    def close(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection has ended: what is unfinished gets its outcome."""
        for direction, reader in ((Direction.WRITE, self._sent), (Direction.READ, self._received)):
            for part in reader.close():
                self._take(direction, part, at_ns, outcomes)
        self._highest = self._first = None
        for number in self._early.streams:
            self._replay(number, at_ns, outcomes)
        self.give_up(CLOSED, at_ns, outcomes)

    def give_up(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Nobody reads on: what is unfinished gets its outcome."""
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.finish(GAP if stream.is_lost else reason, at_ns, outcomes)

    def _take(self, direction: Direction, part: Part, at_ns: int, outcomes: list[Outcome]) -> None:
        if direction is Direction.READ and self._is_early(part):
            return
        if isinstance(part, Piece):
            self._take_piece(direction, part, at_ns, outcomes)
        elif isinstance(part, Block):
            self._take_block(direction, part, at_ns, outcomes)
        elif isinstance(part, BrokenBlock):
            self._take_broken(direction, part, at_ns, outcomes)
        elif isinstance(part, TableSize):
            (self._received if direction is Direction.WRITE else self._sent).allow_table(part.size)
        elif isinstance(part, Reset):
            self._take_reset(direction, part, at_ns, outcomes)
        elif isinstance(part, GoAway):
            if direction is Direction.READ:
                for number in [number for number in self._streams if number > part.last]:
                    self._end(number, REFUSED, at_ns, outcomes)
        elif isinstance(part, Malformed):
            self._malformed(part.reason, at_ns, outcomes)
        elif part is Mark.LOST:
            self._lose(direction, at_ns)

    def _take_piece(self, direction: Direction, piece: Piece, at_ns: int, outcomes: list[Outcome]) -> None:
        stream = self._streams.get(piece.stream)
        if stream is None:
            if piece.end:
                self._end_unknown(direction, piece.stream, outcomes)
            return
        stream.is_lost = False
        if piece.missing:
            stream.gap(at_ns, of_response=direction is Direction.READ)
        if direction is Direction.READ:
            stream.heard_ns = at_ns
            if piece.data:
                stream.response_body(piece.data, at_ns, outcomes)
            if piece.end:
                self._end(piece.stream, "" if stream.is_responding else GAP, at_ns, outcomes)
            return
        if piece.data:
            stream.exchange.request_body(piece.data, at_ns)
            outcomes.extend(stream.exchange.further(at_ns))
        if piece.end:
            stream.request_end(at_ns)

    def _take_block(self, direction: Direction, block: Block, at_ns: int, outcomes: list[Outcome]) -> None:
        pseudo = Pseudo(block.headers)
        stream = self._streams.get(block.stream)
        if not self._client_known and self._is_server(direction, block, pseudo, outcomes):
            return
        if pseudo.method or pseudo.path:
            if stream is None and direction is Direction.WRITE:
                self._begin(block, pseudo, at_ns, outcomes)
        elif stream is None:
            self._take_unknown_block(direction, block, pseudo, outcomes)
        elif direction is Direction.READ:
            self._respond(stream, block, pseudo, at_ns, outcomes)
        elif block.end:
            stream.request_end(at_ns)

    def _is_server(self, direction: Direction, block: Block, pseudo: Pseudo, outcomes: list[Outcome]) -> bool:
        """Finds out which end this is, where the headers tell."""
        asks = bool(pseudo.method or pseudo.path)
        if not asks and not pseudo.status:
            return False
        self._client_known = True
        if asks == (direction is Direction.WRITE):
            return False
        self.successor = self._server = ServerConversation(self._connection, self._received)
        if asks:
            self._server.take(block, outcomes)
        return True

    def _take_unknown_block(
        self, direction: Direction, block: Block, pseudo: Pseudo, outcomes: list[Outcome]
    ) -> None:
        opens = block.unresolved and not pseudo.status and self._first is not None
        if direction is Direction.WRITE and self._client_known and opens:
            # Trailers of a stream that is over have no unknown fields: this is a request.
            self._unreadable(block.stream, UNRESOLVED, pseudo.authority, outcomes)
        elif block.end:
            self._end_unknown(direction, block.stream, outcomes)

    def _is_early(self, part: Part) -> bool:
        """Holds what answers a request that is yet to be seen."""
        if not isinstance(part, Piece | Block) or self._highest is None or part.stream <= self._highest:
            return False
        if part.stream % 2 == 0:
            return False
        self._early.hold(part)
        return True

    def _replay(self, number: int, at_ns: int, outcomes: list[Outcome]) -> None:
        for part in self._early.take(number):
            self._take(Direction.READ, part, at_ns, outcomes)

    def _begin(self, block: Block, pseudo: Pseudo, at_ns: int, outcomes: list[Outcome]) -> None:
        head = request_head(pseudo, block.offset)
        if head is None:
            reason = UNRESOLVED if block.unresolved else MALFORMED
            self._unreadable(block.stream, reason, pseudo.authority, outcomes)
            return
        self._note(block.stream)
        if self._lost:
            self._end_silent(at_ns, outcomes)
        if len(self._streams) >= MAX_OPEN:
            self._end(next(iter(self._streams)), TOO_MANY, at_ns, outcomes)
        exchange = self._connection.begin(head, f"s{block.stream}", at_ns)
        tunnel = pseudo.method != head.method
        stream = Stream(exchange, at_ns, tunnel=tunnel, unresolved=block.unresolved)
        self._streams[block.stream] = stream
        if block.end or tunnel:
            stream.request_end(at_ns)
        if self._early:
            self._replay(block.stream, at_ns, outcomes)

    def _respond(
        self, stream: Stream, block: Block, pseudo: Pseudo, at_ns: int, outcomes: list[Outcome]
    ) -> None:
        stream.is_lost = False
        stream.heard_ns = at_ns
        is_interim = pseudo.status.startswith("1") and not block.end
        # A status that could not be read may have been an interim one.
        is_first = not stream.is_responding or (stream.problem == UNRESOLVED and bool(pseudo.status))
        if is_first and not is_interim:
            stream.response_head(block, pseudo, at_ns)
        if block.end:
            if not is_first:
                stream.response_trailers(pseudo.headers, at_ns)
            self._end(block.stream, "", at_ns, outcomes)

    def _take_broken(
        self, direction: Direction, broken: BrokenBlock, at_ns: int, outcomes: list[Outcome]
    ) -> None:
        stream = self._streams.get(broken.stream)
        if stream is None:
            if direction is Direction.WRITE and self._client_known:
                self._unreadable(broken.stream, broken.reason, "", outcomes)
            elif broken.end:
                self._end_unknown(direction, broken.stream, outcomes)
        elif direction is Direction.READ:
            if not stream.is_responding:
                stream.is_responding, stream.problem = True, broken.reason
            if broken.end:
                self._end(broken.stream, "", at_ns, outcomes)
        elif broken.end:
            stream.request_end(at_ns)

    def _take_reset(self, direction: Direction, reset: Reset, at_ns: int, outcomes: list[Outcome]) -> None:
        if reset.stream not in self._streams:
            self._end_unknown(direction, reset.stream, outcomes)
        elif direction is Direction.WRITE:
            self._end(reset.stream, RESET_BY_CLIENT, at_ns, outcomes)
        else:
            reason = REFUSED if reset.code == _REFUSED_STREAM else RESET_BY_SERVER
            self._end(reset.stream, reason, at_ns, outcomes)

    def _end(self, number: int, cut_off: str, at_ns: int, outcomes: list[Outcome]) -> None:
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        stream.finish(cut_off, at_ns, outcomes)
        if self._connection.is_foreign:
            self._connection.verdict = Verdict.NOT_LLM
            self.give_up(NOT_LLM, at_ns, outcomes)

    def _end_unknown(self, direction: Direction, number: int, outcomes: list[Outcome]) -> None:
        """A stream is over that is not known: an answer whose request was not seen, or one that has ended."""
        is_before = self._first is None or number < self._first
        if self._client_known and direction is Direction.READ and number % 2 and is_before:
            outcomes.append(self._connection.loss(RESPONSE_WITHOUT_REQUEST))

    def _end_silent(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """Ends streams that have said nothing for long after a hole: it may have held their end."""
        lost = [(number, stream) for number, stream in self._streams.items() if stream.is_lost]
        self._lost = bool(lost)
        for number, stream in lost:
            if at_ns - stream.heard_ns > _SILENCE_NS:
                self._end(number, GAP, at_ns, outcomes)

    def _unreadable(self, number: int, reason: str, host: str, outcomes: list[Outcome]) -> None:
        """A request that cannot be read."""
        self._note(number)
        self._early.take(number)
        connection = self._connection
        outcomes.append(connection.loss(reason, host))
        named = host or connection.sni
        if not named or not connection.is_llm_host(named):
            connection.foreign += 1
            if connection.is_foreign and not self._streams:
                connection.verdict = Verdict.NOT_LLM

    def _note(self, number: int) -> None:
        if self._first is None:
            self._first = number
        self._highest = max(self._highest or 0, number)

    def _lose(self, direction: Direction, at_ns: int) -> None:
        """A hole has taken the framing of a direction with it."""
        if direction is Direction.WRITE:
            self._first = self._highest = None
        else:
            self._early.clear()
        for stream in self._streams.values():
            if direction is Direction.READ or stream.is_receiving:
                stream.gap(at_ns, of_response=direction is Direction.READ)
                stream.is_lost = self._lost = True

    def _malformed(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection cannot be read any further."""
        if not self._streams:
            outcomes.append(self._connection.loss(reason))
        self.give_up(reason, at_ns, outcomes)
        self._connection.verdict = Verdict.NOT_LLM

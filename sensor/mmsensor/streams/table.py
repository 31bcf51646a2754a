"""The connections of a node: puts records into streams, sees what is missing, forgets what is over.

A record says where in its direction its bytes stand, and the kernel moves that position whether or not
the bytes found room in the ring. So every hole shows as a position beyond the expected one, with its exact
size: at the next record of the direction, at the end of the connection (which carries the final
positions), or, where neither comes, when `compare` is told how far the kernel has got.

Memory: a live connection costs a few hundred bytes here and no payload is ever held. At most
`max_connections` are live; beyond that the one silent for longest is closed as idle.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import TypeVar

from mmproto.endpoint import Endpoint
from mmproto.reader import Direction
from mmsensor.capture.kernel.abi import PEER, PROCESS, Flag, Kind, Record
from mmsensor.streams.events import Bytes, Closed, ConnectionKey, Gap, Opened, Owner, Peer, Sni, StreamEvent

#: (bytes read, bytes written) of a connection at its end, None where the kernel has already let it go.
Position = Callable[[ConnectionKey], tuple[int, int] | None]

_T = TypeVar("_T")
_Place = tuple[int, int, int]  # pid, process start, SSL object: where connections follow each other


#: Connections of which records may still be in the ring when nobody wants them any more. The kernel says
#: nothing more of them, not even their end, so this bounds the table: more than a ring of some MiB holds.
_IGNORED = 8192
_DIRECTIONS = (Direction.WRITE, Direction.READ)


class _Stream:
    __slots__ = ("expected", "key", "last_ns", "noted", "place")

    def __init__(self, key: ConnectionKey, at_ns: int, expected: list[int]) -> None:
        self.key = key
        self.place: _Place = key[:3]
        self.last_ns = at_ns
        self.expected = expected  # by Direction: offset of the next byte
        self.noted: tuple[int, int, bool] | None = None  # how far the kernel was at the last look


class StreamTable:
    """`position` is asked for the connections of a process that has exited."""

    def __init__(
        self, position: Position = lambda _key: None, *, idle_ns: int, max_connections: int = 65536
    ) -> None:
        self._position = position
        self._idle_ns = idle_ns
        self._max = max_connections
        # In the order of last activity, the most silent first.
        self._streams: OrderedDict[_Place, _Stream] = OrderedDict()
        self._processes: dict[tuple[int, int], set[_Place]] = {}
        # Closed as idle but alive in the kernel: where they would go on.
        self._parked: OrderedDict[ConnectionKey, list[int]] = OrderedDict()
        # Nobody wants them: what was already on its way is swallowed.
        self._ignored: OrderedDict[ConnectionKey, None] = OrderedDict()
        #: Records, and bytes in them, of a place that is taken already: calls in the same direction of one
        #: connection at the same time, which Go allows. Nobody knows their order, so they count as lost.
        self.overlapping = 0
        self.overlapping_bytes = 0

    def __len__(self) -> int:
        return len(self._streams)

    def live(self) -> list[ConnectionKey]:
        return [stream.key for stream in self._streams.values()]

    def processes(self) -> list[tuple[int, int]]:
        """(pid, start) of every process with a live connection."""
        return list(self._processes)

    # -- what comes from the ring ------------------------------------------------------------------

    def feed(self, record: Record) -> Iterable[StreamEvent]:
        # Nearly every record is the next piece of a known stream: that way is kept short.
        stream = self._streams.get((record.pid, record.started_ns, record.ssl))
        if (
            stream is not None
            and record.kind is Kind.DATA
            and stream.key.generation == record.generation
            and stream.expected[record.direction] == record.offset
        ):
            stream.last_ns = record.at_ns
            self._streams.move_to_end(stream.place)
            stream.expected[record.direction] += len(record.data)
            direction = _DIRECTIONS[record.direction]
            return (Bytes(stream.key, direction, record.offset, record.data, record.at_ns),)
        return self._feed_any(record)

    def _feed_any(self, record: Record) -> Iterator[StreamEvent]:
        if record.kind is Kind.EXIT:
            yield from self.end_process(record.pid, record.started_ns, record.at_ns)
            return
        key = ConnectionKey(record.pid, record.started_ns, record.ssl, record.generation)
        if key in self._ignored:
            if record.kind is Kind.FREE:
                del self._ignored[key]
            return
        stream = yield from self._stream_of(key, record)
        if key in self._ignored:  # by whoever took the event
            return
        if record.kind is Kind.DATA:
            yield from self._data(stream, record)
        elif record.kind is Kind.SNI:
            yield Sni(key, record.data.decode("ascii", "replace"))
        elif record.kind is Kind.PEER:
            yield Peer(key, _endpoint(record))
        elif record.kind is Kind.FREE:
            yield from self._end(stream, (record.read_offset, record.write_offset), record.at_ns, "ssl_free")

    def _stream_of(self, key: ConnectionKey, record: Record) -> Generator[StreamEvent, None, _Stream]:
        place = key[:3]
        stream = self._streams.get(place)
        if stream is not None and stream.key != key:
            yield self._close(stream, record.at_ns, "reused")
            stream = None
        if stream is None:
            if len(self._streams) >= self._max:
                yield self._park(next(iter(self._streams.values())), record.at_ns)
            expected = self._parked.pop(key, None)
            late = expected is not None or bool(record.flags & Flag.LATE)
            stream = _Stream(key, record.at_ns, expected or [0, 0])
            self._streams[place] = stream
            self._processes.setdefault(place[:2], set()).add(place)
            yield Opened(key, record.at_ns, late, _owner(record) if record.kind is Kind.OPEN else None)
        else:
            self._streams.move_to_end(place)
            stream.last_ns = record.at_ns
        return stream

    def _data(self, stream: _Stream, record: Record) -> Iterator[StreamEvent]:
        direction = Direction(record.direction)
        data = record.data
        offset = record.offset
        missing = offset - stream.expected[direction]
        if missing > 0:
            yield Gap(stream.key, direction, stream.expected[direction], missing, record.at_ns)
        elif missing < 0:
            self.overlapping += 1
            self.overlapping_bytes += min(-missing, len(data))
            data = data[-missing:]
            offset -= missing
        if data:
            stream.expected[direction] = offset + len(data)
            yield Bytes(stream.key, direction, offset, data, record.at_ns)

    def _advance(self, stream: _Stream, read: int, written: int, at_ns: int) -> Iterator[StreamEvent]:
        for direction, position in ((Direction.WRITE, written), (Direction.READ, read)):
            offset = stream.expected[direction]
            if position > offset:
                yield Gap(stream.key, direction, offset, position - offset, at_ns)
                stream.expected[direction] = position

    # -- what comes from looking -------------------------------------------------------------------

    def end_process(self, pid: int, started_ns: int, at_ns: int) -> Iterator[StreamEvent]:
        for place in sorted(self._processes.get((pid, started_ns), ())):
            stream = self._streams[place]
            yield from self._end(stream, self._position(stream.key), at_ns, "process_exit")

    def compare(
        self, positions: Mapping[ConnectionKey, tuple[int, int, bool]], at_ns: int
    ) -> Iterator[StreamEvent]:
        """Takes (read, written, ended) as the kernel has them now; call it at intervals while bytes are lost.
        `ended`: the connection was freed, and the ring had no room to say so.

        A position counts only when it still has not been reached by the next call, because its record may
        be in the ring. The ring must have been drained to its end in between.
        """
        for key, position in positions.items():
            stream = self._streams.get(key[:3])
            if stream is None or stream.key != key:
                continue
            if stream.noted:
                read, written, ended = stream.noted
                if ended:
                    yield from self._end(stream, (read, written), at_ns, "ssl_free")
                else:
                    yield from self._advance(stream, read, written, at_ns)
            stream.noted = position

    def expire(self, now_ns: int) -> Iterator[StreamEvent]:
        """Closes what has been silent for the idle time."""
        while self._streams:
            stream = next(iter(self._streams.values()))
            if now_ns - stream.last_ns < self._idle_ns:
                return
            yield self._park(stream, now_ns)

    def ignore(self, keys: Iterable[ConnectionKey]) -> None:
        """Nothing more is wanted of these connections: no further event comes, not even Closed."""
        for key in keys:
            stream = self._streams.get(key[:3])
            if stream is not None and stream.key == key:
                self._remove(stream)
            _remember(self._ignored, key, None, _IGNORED)

    # -- bookkeeping -------------------------------------------------------------------------------

    def _end(
        self, stream: _Stream, final: tuple[int, int] | None, at_ns: int, reason: str
    ) -> Iterator[StreamEvent]:
        """`final` is (read, written), None where nobody knows."""
        if final:
            yield from self._advance(stream, *final, at_ns)
        if stream.key not in self._ignored:
            yield self._close(stream, at_ns, reason)

    def _close(self, stream: _Stream, at_ns: int, reason: str) -> Closed:
        self._remove(stream)
        return Closed(stream.key, at_ns, reason)

    def _park(self, stream: _Stream, at_ns: int) -> Closed:
        _remember(self._parked, stream.key, stream.expected, self._max)
        return self._close(stream, at_ns, "idle")

    def _remove(self, stream: _Stream) -> None:
        place = stream.key[:3]
        del self._streams[place]
        places = self._processes[place[:2]]
        places.discard(place)
        if not places:
            del self._processes[place[:2]]


def _owner(record: Record) -> Owner:
    cgroup, uid, _gid, comm = PROCESS.unpack(record.data)
    return Owner(comm.rstrip(b"\0").decode("utf-8", "replace"), uid, cgroup)


def _endpoint(record: Record) -> Endpoint:
    address, family, port = PEER.unpack(record.data)
    size = 4 if family == socket.AF_INET else 16
    # A socket for both families has its IPv4 peers written as IPv6.
    text = str(ip_address(address[:size])).removeprefix("::ffff:")
    return Endpoint(text, port)


def _remember(table: OrderedDict[ConnectionKey, _T], key: ConnectionKey, value: _T, limit: int) -> None:
    table[key] = value
    if len(table) > limit:
        table.popitem(last=False)

"""What the rest of the sensor hears of a connection.

For one connection the order is always Opened, then any number of Sni, Peer, Bytes and Gap, then Closed.
Within a direction Bytes and Gap together cover every byte exactly once, in order, from offset 0. All `at_ns`
are unix time in nanoseconds; offsets and sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mmproto.endpoint import Endpoint
from mmproto.reader import Direction


class ConnectionKey(NamedTuple):
    """One use of one SSL object by one process, unique on a node since its boot.

    `process_started_ns` and `generation` are times on the kernel's boot clock, taken as identities: when
    the process started and when the connection was first seen.
    """

    pid: int
    process_started_ns: int
    ssl: int
    generation: int


class Owner(NamedTuple):
    """What the kernel said of a connection's process, which may be gone before /proc is read. `cgroup` is the
    id of its cgroup in the unified hierarchy: the inode number of its folder."""

    command: str
    uid: int
    cgroup: int


@dataclass(frozen=True, slots=True)
class Opened:
    """`late`: the connection was not seen from its birth, earlier bytes are probably missing. `owner` is None
    where the record that says so was lost."""

    key: ConnectionKey
    at_ns: int
    late: bool
    owner: Owner | None = None


@dataclass(frozen=True, slots=True)
class Bytes:
    key: ConnectionKey
    direction: Direction
    offset: int
    data: bytes
    at_ns: int


@dataclass(frozen=True, slots=True)
class Gap:
    """`size` bytes from `offset` were moved and not captured; the statistics count why."""

    key: ConnectionKey
    direction: Direction
    offset: int
    size: int
    at_ns: int


@dataclass(frozen=True, slots=True)
class Sni:
    """The host name that the client asked TLS for."""

    key: ConnectionKey
    host: str


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of the socket."""

    key: ConnectionKey
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Closed:
    """`reason`: ssl_free, process_exit, reused (the SSL object serves another connection), idle."""

    key: ConnectionKey
    at_ns: int
    reason: str


StreamEvent = Opened | Bytes | Gap | Sni | Peer | Closed

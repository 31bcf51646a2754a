"""Rows on their way to the warehouse, in lanes that are delivered apart from each other.

A lane is a partition of the calls topic, or HTTP_LANE. A batch is sealed before it is delivered: its rows
get a token, and what has a token never changes, so that delivering it again is delivering the same. The
token names the store, the lane and the offsets; and the first row's own number, since several blocks may
come from the same offsets.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from mmpipeline.store.control.tables import outbox

# The lane of what did not come from Kafka.
HTTP_LANE = -1

# Blocks that are looked at for one batch: each holds hundreds of rows or more where many wait.
_BLOCKS = 1_000


@dataclass(frozen=True, slots=True)
class Block:
    """Rows in the warehouse's own form; the offsets of the calls they come from, first and last."""

    lane: int
    rows: int
    payload: bytes
    first_offset: int = 0
    last_offset: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed batch: always the same payloads under the same token."""

    token: str
    lane: int
    rows: int
    payloads: tuple[bytes, ...]


def queue(connection: Connection, block: Block, at_unix_ns: int) -> None:
    """Put a block on its way."""
    connection.execute(
        outbox.insert(),
        {
            "lane": block.lane,
            "first_offset": block.first_offset,
            "last_offset": block.last_offset,
            "rows": block.rows,
            "queued_at_unix_ns": at_unix_ns,
            "payload": block.payload,
        },
    )


def waits(connection: Connection, lane: int) -> bool:
    """Whether there is anything to deliver in a lane."""
    return connection.execute(select(outbox.c.seq).where(outbox.c.lane == lane).limit(1)).first() is not None


def seal(
    connection: Connection, store_id: str, lane: int, max_rows: int, max_bytes: int = 4 << 20
) -> Batch | None:
    """The oldest sealed batch of a lane, or a new one of its oldest blocks; None where there is nothing.

    A block that is larger than the limits goes alone.
    """
    c = outbox.c
    waiting = connection.execute(
        select(c.seq, c.token, c.rows, func.length(c.payload), c.first_offset, c.last_offset)
        .where(c.lane == lane)
        .order_by(c.seq)
        .limit(_BLOCKS)
        .with_for_update()
    ).all()
    if not waiting:
        return None
    token = waiting[0].token
    if token is None:
        last, rows, size = waiting[0], 0, 0
        for block in waiting:
            rows, size = rows + block[2], size + block[3]
            if block is not waiting[0] and (block.token is not None or rows > max_rows or size > max_bytes):
                break
            last = block
        first = waiting[0]
        token = f"{store_id}-{lane}-{first.first_offset}-{last.last_offset}-{first.seq}"
        connection.execute(
            update(outbox)
            .where(c.lane == lane, c.token.is_(None), c.seq.between(first.seq, last.seq))
            .values(token=token)
        )
    content = connection.execute(
        select(c.rows, c.payload).where(c.lane == lane, c.token == token).order_by(c.seq)
    ).all()
    return Batch(token, lane, sum(rows for rows, _ in content), tuple(payload for _, payload in content))


def delivered(connection: Connection, batch: Batch) -> None:
    """Forget a batch that is delivered."""
    connection.execute(delete(outbox).where(outbox.c.lane == batch.lane, outbox.c.token == batch.token))


@dataclass(frozen=True, slots=True)
class OutboxState:
    """What is on its way to the warehouse, and since when the oldest of it waits."""

    rows: int
    oldest_unix_ns: int | None


def state(connection: Connection) -> OutboxState:
    """How far delivery is behind the ledger, over all lanes."""
    rows, oldest = connection.execute(
        select(func.coalesce(func.sum(outbox.c.rows), 0), func.min(outbox.c.queued_at_unix_ns))
    ).one()
    return OutboxState(int(rows), oldest)

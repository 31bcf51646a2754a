"""How far each partition of a topic is charged: committed with the charges, never apart from them.

Kafka's own committed offsets are not used for this: a crash between the two commits would lose or double
calls. After a rebalance two workers may hold the same partition for a moment; the row's lock and what it
says decide which of them charges, and the other's transaction does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select, update

from mmpipeline.store.control.bulk import insert_ignoring
from mmpipeline.store.control.tables import positions


def take(connection: Connection, topic: str, partition: int, expected: int) -> bool:
    """Lock the position of a partition for this transaction; False where it is not `expected`.

    A partition without a row takes `expected` for its beginning. Take several in the order of their numbers.
    """
    found = _locked(connection, topic, partition)
    if found is None:
        row = {"topic": topic, "partition": partition, "next_offset": expected, "at_unix_ns": 0}
        insert_ignoring(connection, positions, [row])
        found = _locked(connection, topic, partition)
    return found == expected


def advance(connection: Connection, topic: str, partition: int, next_offset: int, at_unix_ns: int) -> None:
    """Move a position that `take` has locked."""
    connection.execute(
        update(positions)
        .where(positions.c.topic == topic, positions.c.partition == partition)
        .values(next_offset=next_offset, at_unix_ns=at_unix_ns)
    )


def of(connection: Connection, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The next offset of each of `partitions` that has ever been charged."""
    wanted: Sequence[int] = list(partitions)
    rows = connection.execute(
        select(positions.c.partition, positions.c.next_offset).where(
            positions.c.topic == topic, positions.c.partition.in_(wanted)
        )
    )
    return {row.partition: row.next_offset for row in rows}


def all_of(connection: Connection, topic: str) -> dict[int, int]:
    """The next offset of every partition that has ever been charged."""
    rows = connection.execute(
        select(positions.c.partition, positions.c.next_offset).where(positions.c.topic == topic)
    )
    return {row.partition: row.next_offset for row in rows}


def _locked(connection: Connection, topic: str, partition: int) -> int | None:
    return connection.execute(
        select(positions.c.next_offset)
        .where(positions.c.topic == topic, positions.c.partition == partition)
        .with_for_update()
    ).scalar()

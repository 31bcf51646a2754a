"""The ledger, the outbox and the counters: what one ingest transaction writes.

Functions take the connection of a running `ControlStore.write()`; those that read take the store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from mmpipeline.store.control.store import ControlStore

# Ids per lookup: a fixed number, so that SQLite keeps one prepared statement.
_CHUNK = 256
_MARKS = ",".join("?" * _CHUNK)
_KNOWN = f"SELECT id, observer, quality FROM ledger WHERE live = 1 AND id IN ({_MARKS})"  # noqa: S608


class LedgerRow(NamedTuple):
    """One row of the ledger, in the order of its columns (without `seq`)."""

    id: bytes
    live: int
    sign: int
    observer: int
    quality: int
    started_at_unix_ns: int
    cost_nano_usd: int | None
    unpriced_reason: str
    rate_card: str
    tenant: str
    team: str
    application: str
    user: str
    request_model: str
    response_model: str
    virtual_key_id: str
    call: bytes


_COLUMNS = ", ".join(LedgerRow._fields)
_VALUES = f"({','.join('?' * len(LedgerRow._fields))})"
_INSERT = f"INSERT INTO ledger ({_COLUMNS}) VALUES "  # noqa: S608
# Rows of one statement. sqlite3 gives up the interpreter lock at each step, and with `executemany` each row
# is one: beside a busy thread the next row then waits for its turn, milliseconds each.
_ROWS_AT_ONCE = (256, 16, 1)


def known(connection: sqlite3.Connection, ids: Sequence[bytes]) -> dict[bytes, tuple[int, int]]:
    """Which of `ids` are charged already: observer and usage quality of the row that holds."""
    found: dict[bytes, tuple[int, int]] = {}
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        padded = (*chunk, *(None,) * (_CHUNK - len(chunk)))
        for call_id, observer, quality in connection.execute(_KNOWN, padded):
            found[call_id] = (observer, quality)
    return found


def take_out(connection: sqlite3.Connection, call_id: bytes) -> LedgerRow:
    """The live row of a call, which is live no longer; the caller appends the row that takes it back."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM ledger WHERE live = 1 AND id = ?",  # noqa: S608
        (call_id,),
    ).fetchone()
    connection.execute("UPDATE ledger SET live = 0 WHERE live = 1 AND id = ?", (call_id,))
    return LedgerRow(*row)


def append(connection: sqlite3.Connection, rows: Sequence[LedgerRow]) -> None:
    """Append rows."""
    start = 0
    for size in _ROWS_AT_ONCE:
        statement = _INSERT + ",".join([_VALUES] * size)
        while len(rows) - start >= size:
            connection.execute(statement, list(chain.from_iterable(rows[start : start + size])))
            start += size


def queue(connection: sqlite3.Connection, rows: int, payload: bytes, at_unix_ns: int) -> None:
    """Put rows on their way to the warehouse."""
    connection.execute(
        "INSERT INTO outbox (rows, queued_at_unix_ns, payload) VALUES (?, ?, ?)", (rows, at_unix_ns, payload)
    )


class DecisionRow(NamedTuple):
    """A routing decision, in the order of its columns."""

    id: str
    decided_at_unix_ns: int
    outcome: int
    tenant: str
    team: str
    application: str
    budget_id: str
    reason: str
    requested_model: str
    decision: bytes


def decide(connection: sqlite3.Connection, decisions: Iterable[DecisionRow]) -> None:
    """Record what the router decided; a decision that is on record already is left as it is."""
    connection.executemany("INSERT OR IGNORE INTO routing_decisions VALUES (?,?,?,?,?,?,?,?,?,?)", decisions)


def count(connection: sqlite3.Connection, counts: Mapping[str, int]) -> None:
    """Add to the counters."""
    connection.executemany(
        "INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value",
        counts.items(),
    )


def count_unpriced(
    connection: sqlite3.Connection, counts: Mapping[tuple[str, str, str], int], at_unix_ns: int
) -> list[tuple[str, str, str]]:
    """Add to the calls without a price by (provider, model, reason); returns those seen first now."""
    new = []
    for key, calls in counts.items():
        known_already = connection.execute(
            "SELECT 1 FROM unpriced WHERE provider = ? AND model = ? AND reason = ?", key
        ).fetchone()
        if known_already is None and calls > 0:
            new.append(key)
        connection.execute(
            "INSERT INTO unpriced VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
            "calls = calls + excluded.calls, last_at_unix_ns = excluded.last_at_unix_ns",
            (*key, calls, at_unix_ns),
        )
    return new


@dataclass(frozen=True, slots=True)
class Batch:
    """A sealed batch of the outbox: always the same payloads under the same number."""

    number: int
    rows: int
    payloads: tuple[bytes, ...]


def seal(store: ControlStore, max_rows: int) -> Batch | None:
    """The oldest sealed batch, or a new one of the oldest rows; None where the outbox is empty."""
    sealed = store.read("SELECT min(batch) FROM outbox WHERE batch IS NOT NULL")[0][0]
    if sealed is None:
        waiting = store.read(
            "SELECT seq, rows FROM outbox WHERE batch IS NULL ORDER BY seq LIMIT ?", (max_rows,)
        )
        if not waiting:
            return None
        last, total = waiting[0]
        for seq, rows in waiting[1:]:
            if total + rows > max_rows:
                break
            last, total = seq, total + rows
        with store.write() as connection:
            previous = connection.execute("SELECT value FROM meta WHERE key = 'last_batch'").fetchone()
            sealed = int(previous[0]) + 1 if previous else 1
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('last_batch', ?)", (str(sealed),))
            connection.execute("UPDATE outbox SET batch = ? WHERE batch IS NULL AND seq <= ?", (sealed, last))
    content = store.read("SELECT rows, payload FROM outbox WHERE batch = ? ORDER BY seq", (sealed,))
    return Batch(sealed, sum(rows for rows, _ in content), tuple(payload for _, payload in content))


def delivered(store: ControlStore, batch: Batch) -> None:
    """Forget a batch that the warehouse has."""
    with store.write() as connection:
        connection.execute("DELETE FROM outbox WHERE batch = ?", (batch.number,))


@dataclass(frozen=True, slots=True)
class OutboxState:
    """What is on its way to the warehouse, and since when the oldest of it waits."""

    rows: int
    oldest_unix_ns: int | None


def outbox_state(store: ControlStore) -> OutboxState:
    """How far the warehouse is behind the ledger."""
    rows, oldest = store.read("SELECT coalesce(sum(rows), 0), min(queued_at_unix_ns) FROM outbox")[0]
    return OutboxState(rows, oldest)


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over the whole ledger: what every other view of the money must agree with."""

    calls: int
    cost_nano_usd: int
    unpriced_calls: int


# The ledger's sums are kept as counters of these names: reading them must not read the whole ledger.
_SUMS = ("ledger.calls", "ledger.cost_nano_usd", "ledger.unpriced_calls")


def add_to_totals(connection: sqlite3.Connection, rows: Iterable[LedgerRow]) -> None:
    """Add rows that were appended to the ledger's sums."""
    calls = cost = without_price = 0
    for row in rows:
        calls += row.sign
        if row.cost_nano_usd is None:
            without_price += row.sign
        else:
            cost += row.sign * row.cost_nano_usd
    count(connection, dict(zip(_SUMS, (calls, cost, without_price), strict=True)))


def totals(store: ControlStore) -> LedgerTotals:
    """The ledger's sums as they are kept."""
    kept = dict(store.read("SELECT name, value FROM counters WHERE name LIKE 'ledger.%'"))
    return LedgerTotals(*(kept.get(name, 0) for name in _SUMS))


def summed(store: ControlStore) -> LedgerTotals:
    """The ledger's sums as its rows give them: reads all of it, to hold other numbers against."""
    row = store.read(
        "SELECT coalesce(sum(sign), 0), coalesce(sum(cost_nano_usd * sign), 0), "
        "coalesce(sum(sign) FILTER (WHERE cost_nano_usd IS NULL), 0) FROM ledger"
    )[0]
    return LedgerTotals(*row)


def counters(store: ControlStore) -> dict[str, int]:
    """What ingest counted, by name."""
    return dict(store.read("SELECT name, value FROM counters WHERE name NOT LIKE 'ledger.%' ORDER BY name"))


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Calls without a price, by what has none."""

    provider: str
    model: str
    reason: str
    calls: int
    last_at_unix_ns: int


def unpriced(store: ControlStore, limit: int = 100) -> list[Unpriced]:
    """What has no price, the most calls first."""
    rows = store.read(
        "SELECT provider, model, reason, calls, last_at_unix_ns FROM unpriced WHERE calls > 0 "
        "ORDER BY calls DESC, provider, model, reason LIMIT ?",
        (limit,),
    )
    return [Unpriced(*row) for row in rows]

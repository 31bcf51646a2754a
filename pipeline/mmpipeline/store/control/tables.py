"""The tables of the control store, once for SQLite and PostgreSQL.

Money is integer nano-dollars, times are unix nanoseconds, a `day` is whole days since 1970 in UTC. What
grows with the calls (`call_ids`, `charges`) is partitioned by the day the call started on PostgreSQL, so
that a day is dropped and not deleted row by row; hence `day` in their keys.

Tables with `tenant_id` are under row-level security on PostgreSQL (see security.py); what has none holds
nothing of any tenant that another could learn from, or is granted to workers alone.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

_Number = BigInteger().with_variant(Integer, "sqlite")


def _tenant() -> Column[str]:
    return Column("tenant_id", Text, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, _Number, nullable=False)


# Which calls are charged, and by which report: what makes a resent call a duplicate. `seq` is the charge
# that holds now.
call_ids = Table(
    "call_ids",
    metadata,
    Column("id", LargeBinary(16), nullable=False),
    Column("day", Integer, nullable=False),
    _tenant(),
    Column("observer", SmallInteger, nullable=False),
    Column("quality", SmallInteger, nullable=False),
    _number("seq"),
    PrimaryKeyConstraint("id", "day"),
    postgresql_partition_by="RANGE (day)",
    sqlite_with_rowid=False,
)

# Every charge and every charge taken back (sign -1), appended and never changed: a sum over
# cost_nano_usd * sign is right whatever was replaced or repriced.
charges = Table(
    "charges",
    metadata,
    _number("seq"),
    Column("day", Integer, nullable=False),
    Column("id", LargeBinary(16), nullable=False),
    _tenant(),
    Column("sign", SmallInteger, CheckConstraint("sign IN (1, -1)"), nullable=False),
    _number("started_at_unix_ns"),
    _number("charged_at_unix_ns"),
    # NULL: the price is not known, and unpriced_reason says why.
    Column("cost_nano_usd", _Number),
    _text("unpriced_reason"),
    _text("rate_card"),
    _text("team"),
    _text("application"),
    _text("user"),
    _text("provider"),
    _text("request_model"),
    _text("response_model"),
    _text("virtual_key_id"),
    # The protobuf Call as it was charged: what takes the row back in the warehouse, and what a reprice rates.
    Column("call", LargeBinary, nullable=False),
    PrimaryKeyConstraint("seq", "day"),
    # Where days are no partitions.
    Index("charges_day", "day").ddl_if(dialect="sqlite"),
    postgresql_partition_by="RANGE (day)",
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", Text, primary_key=True),
    _tenant(),
    _text("name"),
    # Which of team, application, user, model, key, and its name.
    Column("scope", JSON, nullable=False),
    _text("period"),
    # IANA name: where the period's days begin and end.
    _text("time_zone"),
    # Array of {"percent", "action"}.
    Column("thresholds", JSON, nullable=False),
    _number("created_at_unix_ns"),
    UniqueConstraint("tenant_id", "name"),
)

# What a budget was worth from when on: the newest row that is in force holds.
budget_amounts = Table(
    "budget_amounts",
    metadata,
    _text("budget_id"),
    _tenant(),
    _number("from_unix_ns"),
    _number("limit_nano_usd"),
    PrimaryKeyConstraint("budget_id", "from_unix_ns"),
    ForeignKeyConstraint(["budget_id"], ["budgets.id"], ondelete="CASCADE"),
)

# Spend by budget and period, kept in the transaction that appends the charges.
budget_spend = Table(
    "budget_spend",
    metadata,
    _text("budget_id"),
    _tenant(),
    _number("period_start_unix_ns"),
    _number("spent_nano_usd"),
    _number("calls"),
    _number("unpriced_calls"),
    PrimaryKeyConstraint("budget_id", "period_start_unix_ns"),
    ForeignKeyConstraint(["budget_id"], ["budgets.id"], ondelete="CASCADE"),
)

# Thresholds that were reached, each once in a period.
budget_crossings = Table(
    "budget_crossings",
    metadata,
    _text("budget_id"),
    _tenant(),
    _number("period_start_unix_ns"),
    Column("percent", Integer, nullable=False),
    _text("action"),
    _number("spent_nano_usd"),
    _number("at_unix_ns"),
    PrimaryKeyConstraint("budget_id", "period_start_unix_ns", "percent"),
    ForeignKeyConstraint(["budget_id"], ["budgets.id"], ondelete="CASCADE"),
)

# `dedup_key` says once.
alerts = Table(
    "alerts",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    _tenant(),
    _text("dedup_key"),
    _text("kind"),
    _text("summary"),
    _number("at_unix_ns"),
    UniqueConstraint("tenant_id", "dedup_key"),
)

# Calls without a price, by what has none.
unpriced = Table(
    "unpriced",
    metadata,
    _tenant(),
    _text("provider"),
    _text("model"),
    _text("reason"),
    _number("calls"),
    _number("last_at_unix_ns"),
    PrimaryKeyConstraint("tenant_id", "provider", "model", "reason"),
)

# What the router decided about requests: the ones it refused are in no other table.
routing_decisions = Table(
    "routing_decisions",
    metadata,
    Column("id", Text, nullable=False),
    _tenant(),
    _number("decided_at_unix_ns"),
    Column("outcome", SmallInteger, nullable=False),
    _text("team"),
    _text("application"),
    _text("budget_id"),
    _text("reason"),
    _text("requested_model"),
    Column("decision", LargeBinary, nullable=False),
    PrimaryKeyConstraint("tenant_id", "id"),
    Index("routing_decisions_at", "decided_at_unix_ns"),
)

# Rows on their way to the warehouse, by lane: the partition that their calls came from, -1 for what came
# over HTTP. A row without a batch is not sealed yet; what a batch holds never changes once it has a token.
outbox = Table(
    "outbox",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("lane", Integer, nullable=False),
    # Offsets of the calls topic that the block's calls stand at, first and last; the outbox's own numbers
    # where they did not come from Kafka.
    _number("first_offset"),
    _number("last_offset"),
    Column("token", Text),
    Column("rows", Integer, nullable=False),
    _number("queued_at_unix_ns"),
    Column("payload", LargeBinary, nullable=False),
    Index("outbox_lane", "lane", "seq"),
    # A number must never come again: it is part of the token.
    sqlite_autoincrement=True,
)

# How far each partition is charged: the next offset to read. Committed with the charges, so that neither
# can be without the other.
positions = Table(
    "positions",
    metadata,
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    _number("next_offset"),
    _number("at_unix_ns"),
    PrimaryKeyConstraint("topic", "partition"),
)

# What ingest did, by outcome and lane (lanes, so that workers do not wait for each other): accepted,
# duplicates, replaced, rejected:<reason>, adjusted:<what>, undecodable; and the sums over the charges,
# ledger.<what>.
counters = Table(
    "counters",
    metadata,
    _text("name"),
    Column("lane", Integer, nullable=False),
    _number("value"),
    PrimaryKeyConstraint("name", "lane"),
)

# Facts about this store: its id, the version of the budgets, up to which day calls are dropped.
meta = Table("meta", metadata, Column("key", Text, primary_key=True), _text("value"))

# Prices are only ever appended, in five tables that say one thing each (prices.py). A card by its id, which
# carries a digest of its prices, so that one id never means two; when it ends and who says so belongs to
# the book that holds it.
rate_cards = Table(
    "rate_cards",
    metadata,
    Column("id", Text, primary_key=True),
    _text("provider"),
    _text("model"),
    _text("service_tier"),
    _number("effective_from_unix_ns"),
    Column("card", JSON, nullable=False),
    Index("rate_cards_model", "provider", "model"),
)

# The models of a provider, in the order in which names are matched, by a digest of what it says: books
# that agree about a provider share it. Array of {"model", "match", "cards": [{"id", "effective_to"?,
# "sources"}]}.
rate_shelves = Table(
    "rate_shelves",
    metadata,
    Column("id", Text, primary_key=True),
    _text("provider"),
    Column("models", JSON, nullable=False),
)

# A book by its version, which carries a digest of all that it holds. `aliases`: other names of providers.
rate_books = Table(
    "rate_books",
    metadata,
    Column("version", Text, primary_key=True),
    Column("aliases", JSON, nullable=False),
)

rate_book_shelves = Table(
    "rate_book_shelves",
    metadata,
    _text("version"),
    _text("provider"),
    Column("is_override", Boolean, nullable=False),
    _text("shelf"),
    PrimaryKeyConstraint("version", "provider", "is_override"),
    ForeignKeyConstraint(["version"], ["rate_books.version"]),
    ForeignKeyConstraint(["shelf"], ["rate_shelves.id"]),
)

# When which book was imported: the newest that holds is charged by. A book that is imported again after
# another holds again.
rate_imports = Table(
    "rate_imports",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    _text("version"),
    _number("at_unix_ns"),
    # What it was made from, for people.
    _text("source"),
    # A digest of what a process that starts would make a book from; "" where a command was told a file.
    _text("made_from"),
    # False where it only says that this `made_from` makes a book that was imported before.
    Column("holds", Boolean, nullable=False),
    ForeignKeyConstraint(["version"], ["rate_books.version"]),
)

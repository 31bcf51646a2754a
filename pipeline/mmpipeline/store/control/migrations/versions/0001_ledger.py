"""The ledger, budgets, prices, and the way of the rows to the warehouse.

What tables.py said when this step was made; later changes are steps of their own.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mmpipeline.store.control import security

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    op.create_table(
        "alerts",
        sa.Column("seq", NUMBER, autoincrement=True, nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("dedup_key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("at_unix_ns", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("tenant_id", "dedup_key"),
    )
    op.create_table(
        "budgets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("scope", sa.JSON(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.Text(), nullable=False),
        sa.Column("thresholds", sa.JSON(), nullable=False),
        sa.Column("created_at_unix_ns", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant_id", "name"),
    )
    op.create_table(
        "call_ids",
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("observer", sa.SmallInteger(), nullable=False),
        sa.Column("quality", sa.SmallInteger(), nullable=False),
        sa.Column("seq", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("id", "day"),
        postgresql_partition_by="RANGE (day)",
        sqlite_with_rowid=False,
    )
    op.create_table(
        "charges",
        sa.Column("seq", NUMBER, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("sign", sa.SmallInteger(), sa.CheckConstraint("sign IN (1, -1)"), nullable=False),
        sa.Column("started_at_unix_ns", NUMBER, nullable=False),
        sa.Column("charged_at_unix_ns", NUMBER, nullable=False),
        sa.Column("cost_nano_usd", NUMBER, nullable=True),
        sa.Column("unpriced_reason", sa.Text(), nullable=False),
        sa.Column("rate_card", sa.Text(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("request_model", sa.Text(), nullable=False),
        sa.Column("response_model", sa.Text(), nullable=False),
        sa.Column("virtual_key_id", sa.Text(), nullable=False),
        sa.Column("call", sa.LargeBinary(), nullable=False),
        # Without days that are partitions the number alone is the key, and the row's place.
        sa.PrimaryKeyConstraint("seq") if is_sqlite else sa.PrimaryKeyConstraint("seq", "day"),
        postgresql_partition_by="RANGE (day)",
    )
    if is_sqlite:
        op.create_index("charges_day", "charges", ["day"], unique=False)
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("value", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("name", "lane"),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "outbox",
        sa.Column("seq", NUMBER, autoincrement=True, nullable=False),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("first_offset", NUMBER, nullable=False),
        sa.Column("last_offset", NUMBER, nullable=False),
        sa.Column("token", sa.Text(), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("queued_at_unix_ns", NUMBER, nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_lane", "outbox", ["lane", "seq"], unique=False)
    op.create_table(
        "positions",
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("next_offset", NUMBER, nullable=False),
        sa.Column("at_unix_ns", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition"),
    )
    op.create_table(
        "rate_books",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("aliases", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "rate_cards",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("service_tier", sa.Text(), nullable=False),
        sa.Column("effective_from_unix_ns", NUMBER, nullable=False),
        sa.Column("card", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("rate_cards_model", "rate_cards", ["provider", "model"], unique=False)
    op.create_table(
        "rate_shelves",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "routing_decisions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("decided_at_unix_ns", NUMBER, nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("team", sa.Text(), nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("budget_id", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("requested_model", sa.Text(), nullable=False),
        sa.Column("decision", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.create_index("routing_decisions_at", "routing_decisions", ["decided_at_unix_ns"], unique=False)
    op.create_table(
        "unpriced",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("calls", NUMBER, nullable=False),
        sa.Column("last_at_unix_ns", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "provider", "model", "reason"),
    )
    op.create_table(
        "budget_amounts",
        sa.Column("budget_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("from_unix_ns", NUMBER, nullable=False),
        sa.Column("limit_nano_usd", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("budget_id", "from_unix_ns"),
    )
    op.create_table(
        "budget_crossings",
        sa.Column("budget_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("period_start_unix_ns", NUMBER, nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("spent_nano_usd", NUMBER, nullable=False),
        sa.Column("at_unix_ns", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("budget_id", "period_start_unix_ns", "percent"),
    )
    op.create_table(
        "budget_spend",
        sa.Column("budget_id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("period_start_unix_ns", NUMBER, nullable=False),
        sa.Column("spent_nano_usd", NUMBER, nullable=False),
        sa.Column("calls", NUMBER, nullable=False),
        sa.Column("unpriced_calls", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["budget_id"], ["budgets.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("budget_id", "period_start_unix_ns"),
    )
    op.create_table(
        "rate_book_shelves",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("is_override", sa.Boolean(), nullable=False),
        sa.Column("shelf", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["shelf"],
            ["rate_shelves.id"],
        ),
        sa.ForeignKeyConstraint(
            ["version"],
            ["rate_books.version"],
        ),
        sa.PrimaryKeyConstraint("version", "provider", "is_override"),
    )
    op.create_table(
        "rate_imports",
        sa.Column("seq", NUMBER, autoincrement=True, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("at_unix_ns", NUMBER, nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("made_from", sa.Text(), nullable=False),
        sa.Column("holds", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version"],
            ["rate_books.version"],
        ),
        sa.PrimaryKeyConstraint("seq"),
    )
    if not is_sqlite:
        security.protect(connection)

"""The ledger, budgets, prices, and the way of the rows to the warehouse."""

from __future__ import annotations

from alembic import op

from mmpipeline.store.control import security
from mmpipeline.store.control.tables import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    metadata.create_all(connection)
    if connection.dialect.name == "postgresql":
        security.protect(connection)

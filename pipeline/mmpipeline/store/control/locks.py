"""Who waits for whom on PostgreSQL, where transactions run beside each other.

A budget that is created or changed is counted anew from the charges. A charge that another transaction has
written and not committed is in no such count, and that transaction may not know the budget: the charge
would be missed, or, with the budget known and the charge seen, counted twice. So:

    counting      by every transaction that charges calls of a tenant, before it asks which budgets there
                  are: shared, so that workers do not wait for each other
    recounting    by every transaction that creates, changes or removes a budget, before it looks at
                  anything: exclusive, so that it sees all charges, and those who come after it see its
                  budget
    keeping       by whoever sums charges and relies on how far back they are kept: shared
    pruning       by whoever drops charges: exclusive

All last until the transaction ends. A transaction takes at most one exclusive lock, and takes it first, so
that nobody waits in a circle. Waiting is in the order of arrival: a stream of charges cannot starve a
change. On SQLite all writers follow one another anyway, and these do nothing.
"""

from __future__ import annotations

from sqlalchemy import Connection


def counting(connection: Connection, tenant: str) -> None:
    """Until the transaction ends no budget of the tenant is created, changed or removed."""
    _lock(connection, "pg_advisory_xact_lock_shared", f"budgets/{tenant}")


def recounting(connection: Connection, tenant: str) -> None:
    """Until the transaction ends nobody else charges the tenant's calls or changes its budgets."""
    _lock(connection, "pg_advisory_xact_lock", f"budgets/{tenant}")


def keeping(connection: Connection) -> None:
    """Until the transaction ends no charges are dropped."""
    _lock(connection, "pg_advisory_xact_lock_shared", "charges")


def pruning(connection: Connection) -> None:
    """Until the transaction ends nobody relies on the charges that are dropped."""
    _lock(connection, "pg_advisory_xact_lock", "charges")


def _lock(connection: Connection, function: str, what: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT {function}(hashtextextended(%s, 0))", (f"modelmeter/{what}",))

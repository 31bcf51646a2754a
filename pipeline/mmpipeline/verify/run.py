"""A verification as a whole, for `mmpipeline ledger verify` and for the route of a running pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from mmpipeline.store.control import charged
from mmpipeline.store.control.database import Database
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmpipeline.verify import ledger, roll_ups
from mmpipeline.verify.findings import Findings


class UnknownTenants(Exception):
    """This role is not told which tenants there are; str() says what to do."""

    def __init__(self) -> None:
        super().__init__(
            "this role of PostgreSQL sees no list of tenants: name them with --tenant, or set control.url "
            "to a login role that is a member of modelmeter_worker"
        )


def verify(
    database: Database,
    warehouse: Warehouse | None,
    tenants: Sequence[str],
    now_unix_ns: int,
    pause: Callable[[float], None] = time.sleep,
) -> Findings:
    """Hold everything of `tenants`, or of all, against the charges.

    Raises UnknownTenants, StoreBusy, WarehouseError.
    """
    findings = Findings(now_unix_ns)
    with database.read() as connection:
        everybody = charged.tenants(connection)
        chosen = sorted(set(tenants)) if tenants else everybody
        if chosen is None:
            raise UnknownTenants
        findings.tenants = tuple(chosen)
        are_all = everybody is not None and set(everybody) <= set(chosen)
        ledger.check(connection, findings, chosen, are_all=are_all)
    if warehouse is None:
        findings.not_compared.append("the warehouse: it was not asked")
    else:
        roll_ups.check(database, warehouse, findings, chosen, pause)
    return findings

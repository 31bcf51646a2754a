"""Who may see which rows on PostgreSQL: three roles, and row-level security that nobody passes.

    modelmeter_owner    owns the tables; migrates and prunes, serves nothing
    modelmeter_worker   charges calls: the rows of the tenant that its transaction names; and, of all
                        tenants, which calls are charged (a call that two tenants report is one call)
                        and which budgets there are (it tells routers their states)
    modelmeter_app      API, pages and command line: the rows of the tenant that its transaction names;
                        nothing of call ids, of the outbox no contents

None of them logs in: an operator makes login roles and grants one of these. The tenant is the setting
`modelmeter.tenant_id` of the transaction; without it, or with an empty one, there are no rows. FORCE holds
the owner to it as well.

The days of `call_ids` and `charges` are partitions. An ordinary role cannot make them, so a function of the
owner does, for days that a call can have and for no others.
"""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

OWNER = "modelmeter_owner"
WORKER = "modelmeter_worker"
APP = "modelmeter_app"

# Partitioned by day.
BY_DAY = ("call_ids", "charges")

_OWN = "tenant_id = nullif(current_setting('modelmeter.tenant_id', true), '')"

_READ = "SELECT"
_ADD = "SELECT, INSERT"
_KEEP = "SELECT, INSERT, UPDATE"
_ALL = "SELECT, INSERT, UPDATE, DELETE"
# Table: what the worker may, what the app may. "" is nothing.
_GRANTS: dict[str, tuple[str, str]] = {
    "call_ids": (_KEEP, ""),
    "charges": (_ADD, _READ),
    "budgets": (_READ, _ALL),
    "budget_amounts": (_READ, _ALL),
    "budget_spend": (_ALL, _ALL),
    "budget_crossings": (_ALL, _ALL),
    "alerts": (_ADD, _ADD),
    "unpriced": (_KEEP, _READ),
    "routing_decisions": (_ADD, _READ),
    "outbox": (_ALL, "SELECT (seq, lane, token, rows, queued_at_unix_ns)"),
    "positions": (_KEEP, _READ),
    "counters": (_KEEP, _KEEP),
    "meta": (_KEEP, _KEEP),
    "rate_cards": (_ADD, _ADD),
    "rate_shelves": (_ADD, _ADD),
    "rate_books": (_ADD, _ADD),
    "rate_book_shelves": (_ADD, _ADD),
    "rate_imports": (_ADD, _ADD),
    "alembic_version": (_READ, _READ),
}


def make_roles(connection: Connection) -> None:
    """Make the roles that are missing, and let the login role act as the owner."""
    for role in (OWNER, WORKER, APP):
        if (
            connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar()
            is None
        ):
            connection.execute(text(f"CREATE ROLE {role} NOLOGIN"))
    is_member = text(f"SELECT pg_has_role(current_user, '{OWNER}', 'MEMBER')")
    if not connection.execute(is_member).scalar_one():
        connection.execute(text(f"GRANT {OWNER} TO CURRENT_USER"))
    may_create = text(f"SELECT has_schema_privilege('{OWNER}', 'public', 'CREATE')")
    if not connection.execute(may_create).scalar_one():
        connection.execute(text(f"GRANT USAGE, CREATE ON SCHEMA public TO {OWNER}"))


def protect(connection: Connection) -> None:
    """Row-level security, grants and the function that makes days, on tables that were just made."""
    tables = inspect(connection)
    names = tables.get_table_names()
    for name in names:
        if any(column["name"] == "tenant_id" for column in tables.get_columns(name)):
            for statement in _row_security(name, f'"{name}"'):
                connection.exec_driver_sql(statement)
        if name == "budgets":
            connection.exec_driver_sql(
                f"CREATE POLICY worker_reads ON budgets FOR SELECT TO {WORKER} USING (true)"
            )
    connection.exec_driver_sql("ALTER TABLE meta ENABLE ROW LEVEL SECURITY")
    connection.exec_driver_sql("CREATE POLICY read ON meta FOR SELECT USING (true)")
    # The store's id and the horizons are the owner's alone to change.
    connection.exec_driver_sql(
        f"CREATE POLICY versions ON meta TO {WORKER}, {APP} "
        "USING (key LIKE '%%\\_version') WITH CHECK (key LIKE '%%\\_version')"
    )
    connection.exec_driver_sql("ALTER TABLE counters ENABLE ROW LEVEL SECURITY")
    connection.exec_driver_sql("CREATE POLICY read ON counters FOR SELECT USING (true)")
    connection.exec_driver_sql(f"CREATE POLICY counts ON counters TO {WORKER} USING (true) WITH CHECK (true)")
    # That somebody has looked after the dead letters is said from the command line.
    connection.exec_driver_sql(
        f"CREATE POLICY looked ON counters TO {APP} "
        "USING (name = 'dead_letters.acknowledged') WITH CHECK (name = 'dead_letters.acknowledged')"
    )
    connection.exec_driver_sql(_MAKE_DAYS)
    connection.exec_driver_sql("REVOKE ALL ON FUNCTION modelmeter_make_days(integer[]) FROM PUBLIC")
    connection.exec_driver_sql(f"GRANT EXECUTE ON FUNCTION modelmeter_make_days(integer[]) TO {WORKER}")
    connection.exec_driver_sql("CREATE SEQUENCE charges_seq INCREMENT BY 1000")
    connection.exec_driver_sql(f"GRANT USAGE ON SEQUENCE charges_seq TO {WORKER}")
    connection.exec_driver_sql(f"GRANT USAGE ON SEQUENCE alerts_seq_seq TO {WORKER}, {APP}")
    connection.exec_driver_sql(f"GRANT USAGE ON SEQUENCE outbox_seq_seq TO {WORKER}")
    connection.exec_driver_sql(f"GRANT USAGE ON SEQUENCE rate_imports_seq_seq TO {WORKER}, {APP}")
    for name in names:
        worker, app = _GRANTS[name]
        for role, rights in ((WORKER, worker), (APP, app)):
            if rights:
                connection.exec_driver_sql(f'GRANT {rights} ON "{name}" TO {role}')


def _row_security(name: str, table: str) -> list[str]:
    """What a table with tenant_id, or one of its days, is put under."""
    statements = [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY own_tenant ON {table} USING ({_OWN}) WITH CHECK ({_OWN})",
    ]
    if name == "call_ids":
        statements.append(f"CREATE POLICY worker ON {table} TO {WORKER} USING (true) WITH CHECK (true)")
    return statements


def _make_day(name: str) -> str:
    statements = [
        f"CREATE TABLE %1$I PARTITION OF {name} FOR VALUES FROM (%2$s) TO (%3$s)",
        *_row_security(name, "%1$I"),
    ]
    quoted = "; ".join(statements).replace("'", "''")
    return (
        f"IF to_regclass('public.{name}_' || wanted) IS NULL THEN "
        f"EXECUTE format('{quoted}', '{name}_' || wanted, wanted, wanted + 1); END IF;"
    )


# The lock keeps two workers from making the same day; the bounds keep a call's made-up day from becoming a
# table. Days are those that ingest takes: after the horizon, and not in a future that no clock excuses.
_MAKE_DAYS = f"""
CREATE FUNCTION modelmeter_make_days(days integer[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    wanted integer;
    today integer := floor(extract(epoch FROM now()) / 86400);
    horizon integer := coalesce((SELECT value::integer FROM meta WHERE key = 'ids_from_day'), 0);
BEGIN
    PERFORM pg_advisory_xact_lock(1296911684);
    FOR wanted IN SELECT DISTINCT d FROM unnest(days) AS d ORDER BY d LOOP
        IF wanted <= horizon OR wanted > today + 2 OR wanted < 18262 THEN
            RAISE EXCEPTION 'day % is out of bounds', wanted USING ERRCODE = 'check_violation';
        END IF;
        {" ".join(_make_day(name) for name in BY_DAY)}
    END LOOP;
END $$
""".replace("%", "%%")  # noqa: S608 - of our own names

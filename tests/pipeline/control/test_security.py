"""Row-level security on a real PostgreSQL: what roles see and do of tenants other than theirs is nothing."""

# Statements are put together from the names of our own tables.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, exc, text

from mmlocal.services.postgresql import PostgreSQL
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import schema
from mmpipeline.store.control.database import Database, DatabaseError, postgresql_engine, use_tenant
from mmpipeline.store.control.tables import metadata
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision
from tests.pipeline.calls import NOW, make_call
from tests.services.postgresql import ControlDatabase, databases

TENANTS = ("a", "b")
OF_TENANTS = sorted(name for name, table in metadata.tables.items() if "tenant_id" in table.c)
# What a worker reads of all tenants: which calls are charged (a call that two tenants report is one), and
# which budgets there are (routers are told their states).
WORKER_READS_ALL = {"call_ids", "budgets"}
WORKER_WRITES_ALL = {"call_ids"}


@pytest.fixture(scope="module")
def filled(postgresql: PostgreSQL) -> Iterator[ControlDatabase]:
    """A database in which both tenants have rows in every table; no test of these can change a row."""
    with databases(postgresql) as make_database:
        made = make_database()
        _fill(made)
        yield made


def _fill(made: ControlDatabase) -> None:
    app, worker = Database.open(made.app, "app"), Database.open(made.worker, "worker")
    posts = []
    for number, tenant in enumerate(TENANTS):
        BudgetService(app, lambda: NOW).set("all", tenant=tenant, limit_nano_usd=1)
        calls = [
            make_call(f"0000000{number}-0000-4000-8000-00000000000{n}", tenant=tenant, request_model=model)
            for n, model in enumerate(("gpt-4o", "gpt-99"))
        ]
        decision = RoutingDecision(id=f"d-{tenant}", tenant=tenant, decided_at_unix_ns=NOW)
        posts.append(Post(IngestBatch(calls=calls, routing_decisions=[decision])))
    Ledgering(worker, RatingService.open()).write(posts, NOW)
    for tenant in TENANTS:
        with worker.read(tenant) as connection:
            for table in OF_TENANTS:
                assert _count(connection, table, tenant) > 0, f"{table} has no rows of {tenant}"
    app.close()
    worker.close()


def test_every_table_with_a_tenant_is_under_forced_row_security(filled: ControlDatabase) -> None:
    engine = postgresql_engine(filled.owner)
    with engine.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, c.relispartition,"
                " ARRAY(SELECT pg_get_expr(p.polqual, c.oid) || '|' || pg_get_expr(p.polwithcheck, c.oid)"
                "  FROM pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = 'own_tenant') AS own,"
                " ARRAY(SELECT p.polname || ':' || p.polcmd::text || ':' ||"
                "   ARRAY(SELECT rolname FROM pg_roles WHERE oid = ANY(p.polroles))::text"
                "  FROM pg_policy AS p"
                "  WHERE p.polrelid = c.oid AND p.polname <> 'own_tenant' ORDER BY 1) AS others,"
                " pg_get_userbyid(c.relowner) AS owner"
                " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND EXISTS ("
                "  SELECT FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')"
            )
        ).all()
    engine.dispose()
    names = {row.relname for row in rows}
    assert set(OF_TENANTS) <= names
    assert sum(row.relispartition for row in rows) >= 2
    for row in rows:
        assert (row.relrowsecurity, row.relforcerowsecurity) == (True, True), row.relname
        assert row.owner == "modelmeter_owner", row.relname
        (own,) = row.own
        for half in own.split("|"):
            assert "tenant_id = NULLIF(current_setting('modelmeter.tenant_id'" in half, row.relname
        if row.relname.startswith("call_ids"):
            assert row.others == ["worker:*:{modelmeter_worker}"]
        elif row.relname == "budgets":
            assert row.others == ["worker_reads:r:{modelmeter_worker}"]
        else:
            assert row.others == [], row.relname


def test_no_role_passes_row_security_or_owns_anything(filled: ControlDatabase) -> None:
    engine = postgresql_engine(filled.owner)
    with engine.begin() as connection:
        roles = connection.execute(
            text("SELECT rolsuper, rolbypassrls, rolcanlogin FROM pg_roles WHERE rolname LIKE 'modelmeter%'")
        ).all()
        granted = connection.execute(
            text(
                "SELECT DISTINCT relname FROM pg_class, aclexplode(relacl) AS acl"
                " WHERE relispartition AND acl.grantee IN (SELECT oid FROM pg_roles"
                "  WHERE rolname IN ('modelmeter_app', 'modelmeter_worker'))"
            )
        ).all()
    engine.dispose()
    assert [(row.rolsuper, row.rolbypassrls, row.rolcanlogin) for row in roles] == [(False,) * 3] * 3
    assert granted == []  # days are reached through their tables alone


@pytest.fixture(params=["app", "worker"])
def role(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(filled: ControlDatabase, role: str) -> Iterator[Database]:
    opened = Database.open(getattr(filled, role), "app" if role == "app" else "worker")
    yield opened
    opened.close()


@pytest.mark.parametrize("tenant", ["a", "", None])
def test_other_tenants_rows_read_written_and_counted_are_none(
    database: Database, role: str, tenant: str | None
) -> None:
    """`a` looks at b; nobody, and a tenant without a name, look at everybody."""
    for table in OF_TENANTS:
        others = [other for other in TENANTS if other != tenant]
        reads_all = role == "worker" and table in WORKER_READS_ALL
        writes_all = role == "worker" and table in WORKER_WRITES_ALL
        if not reads_all:
            seen = _tried(database, tenant, f'SELECT count(*) FROM "{table}"')
            assert seen is None or seen == _own(database, tenant, table), table
        for other in others:
            where = f"tenant_id = '{other}'"
            if not reads_all:
                assert not _tried(database, tenant, f'SELECT count(*) FROM "{table}" WHERE {where}'), table
            if not writes_all:
                assert not _tried(database, tenant, f'DELETE FROM "{table}" WHERE {where}'), table
                for name in _assignable(table):
                    change = f'UPDATE "{table}" SET "{name}" = "{name}" WHERE {where}'
                    assert not _tried(database, tenant, change), table
                assert _tried(database, tenant, _copy_to(table, other)) is None, table


def test_an_own_row_cannot_be_given_to_another(database: Database, role: str) -> None:
    for table in OF_TENANTS:
        if role == "worker" and table in WORKER_WRITES_ALL:
            continue
        given = f"UPDATE \"{table}\" SET tenant_id = 'b' WHERE tenant_id = 'a'"
        assert _tried(database, "a", given) is None, table


def test_the_setting_ends_with_its_transaction(database: Database) -> None:
    with database.read("a") as connection:
        assert _count(connection, "alerts") == 4
    for _ in range(3):  # the same connections of the pool
        with database.read() as connection:
            assert _count(connection, "alerts") == 0


def test_one_transaction_may_serve_tenants_one_after_the_other(database: Database) -> None:
    with database.read() as connection:
        for tenant in TENANTS:
            use_tenant(connection, tenant)
            rows = connection.execute(text("SELECT DISTINCT tenant_id FROM alerts")).scalars().all()
            assert rows == [tenant]


def test_the_app_sees_no_call_ids_and_no_payloads(filled: ControlDatabase) -> None:
    app = Database.open(filled.app, "app")
    assert _tried(app, "a", "SELECT count(*) FROM call_ids") is None
    assert _tried(app, "a", "SELECT count(payload) FROM outbox") is None
    assert _tried(app, "a", "DELETE FROM outbox") is None
    assert _tried(app, "a", "SELECT modelmeter_make_days(ARRAY[20000])") is None
    app.close()


def test_facts_of_the_store_are_nobodys_to_change(database: Database) -> None:
    assert not _tried(database, None, "UPDATE meta SET value = 'x' WHERE key IN ('store_id', 'ids_from_day')")
    assert _tried(database, None, "INSERT INTO meta VALUES ('ids_from_day', '30000')") is None
    assert _tried(database, None, "DELETE FROM meta") is None


def test_days_are_made_within_bounds_alone(filled: ControlDatabase) -> None:
    worker = Database.open(filled.worker, "worker")
    today = NOW // 86_400_000_000_000
    with worker.write() as connection:
        connection.execute(text("SELECT modelmeter_make_days(:days)"), {"days": [today - 5, today - 5]})
    for day in (-1, 0, 10_000, 200_000):
        assert _tried(worker, None, f"SELECT modelmeter_make_days(ARRAY[{today}, {day}])") is None
    worker.close()


def test_roles_that_pass_row_security_serve_nothing(filled: ControlDatabase) -> None:
    superuser = filled.owner.replace("mm_owner", "postgres")
    for url in (filled.owner, superuser):
        with pytest.raises(DatabaseError, match="may pass row-level security"):
            Database.open(url)


def test_a_role_that_is_not_what_is_needed_is_refused(filled: ControlDatabase) -> None:
    with pytest.raises(DatabaseError, match="GRANT modelmeter_worker TO mm_app"):
        Database.open(filled.app, "worker")


def test_migrating_again_changes_nothing(filled: ControlDatabase) -> None:
    engine = postgresql_engine(filled.owner)
    schema.migrate(engine)
    engine.dispose()
    worker = Database.open(filled.worker, "worker")
    with worker.read("a") as connection:
        assert _count(connection, "charges") == 2
    worker.close()


def _count(connection: Connection, table: str, tenant: str | None = None) -> int:
    where = "" if tenant is None else f"WHERE tenant_id = '{tenant}'"
    return int(connection.execute(text(f'SELECT count(*) FROM "{table}" {where}')).scalar_one())


def _own(database: Database, tenant: str | None, table: str) -> int:
    if not tenant:
        return 0
    with database.read(tenant) as connection:
        return _count(connection, table, tenant)


def _tried(database: Database, tenant: str | None, statement: str) -> int | None:
    """Rows that a statement read or wrote; None where it is not allowed at all."""
    try:
        with database.write(tenant) as connection:
            result = connection.execute(text(statement))
            return int(result.scalar_one()) if statement.startswith("SELECT") else result.rowcount
    except exc.DBAPIError as error:
        assert (
            "permission denied" in str(error)
            or "row-level security" in str(error)
            or ("out of bounds" in str(error))
        ), error
        return None


def _assignable(table: str) -> list[str]:
    return [column.name for column in metadata.tables[table].c][:1]


def _copy_to(table: str, other: str) -> str:
    """A new row for another tenant, of made-up values."""
    columns = metadata.tables[table].c
    made = {"tenant_id": f"'{other}'"}
    for column in columns:
        if column.name not in made:
            made[column.name] = {"INTEGER": "20780", "BIGINT": "20780", "SMALLINT": "1"}.get(
                str(column.type), "'{}'" if str(column.type) in ("JSON", "TEXT") else "'\\x00'::bytea"
            )
    names = ", ".join(f'"{name}"' for name in made)
    return f'INSERT INTO "{table}" ({names}) VALUES ({", ".join(made.values())})'

"""Which revision of the schema a control store has, and how it gets to the newest.

The steps are alembic revisions in `migrations/`. Alembic is only loaded where a step is missing, so that
opening a store stays quick. A store that newer code wrote is refused: this code would read a schema that it
does not know.

Errors: SchemaError, with a hint.
"""

from __future__ import annotations

import uuid
from importlib.resources import files

from sqlalchemy import Connection, Engine, inspect, select, text

from mmpipeline.store.control import security
from mmpipeline.store.control.tables import meta

# The newest revision in migrations/versions.
HEAD = "0001"

# Two that migrate at once follow one another by this lock of PostgreSQL.
_MIGRATION_LOCK = 0x4D4D_4C44


class SchemaError(Exception):
    """The schema of a store does not fit this code. `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def revision(connection: Connection) -> str | None:
    """The revision that a store has; None where it is empty. Raises SchemaError."""
    tables = inspect(connection)
    if tables.has_table("alembic_version"):
        found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        if found is not None and not _is_known(found):
            raise SchemaError(
                f"the store has the schema {found}, which this version does not know",
                "a newer ModelMeter wrote it: install that version or a later one",
            )
        return found
    if tables.has_table("schema_migrations"):
        raise SchemaError(
            "an unreleased ModelMeter wrote this store, in a layout that is gone",
            "move it away to start with an empty one",
        )
    return None


def upgrade(connection: Connection) -> None:
    """Bring a store up to the newest revision, in the transaction of `connection`. Raises SchemaError."""
    if revision(connection) == HEAD:
        return
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(files("mmpipeline.store.control") / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    if connection.execute(select(meta.c.value).where(meta.c.key == "store_id")).scalar() is None:
        connection.execute(meta.insert(), {"key": "store_id", "value": uuid.uuid4().hex})


def migrate(owner: Engine) -> None:
    """Bring PostgreSQL up to the newest revision, with its roles. Raises SchemaError, SQLAlchemyError.

    `owner` logs in as a role that may make the three roles of security.py, or that is a member of the one
    that owns the tables.
    """
    with owner.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        security.make_roles(connection)
        connection.execute(text(f"SET LOCAL ROLE {security.OWNER}"))
        upgrade(connection)


def check_revision(connection: Connection) -> None:
    """Raises SchemaError where the schema is not the one that this code knows."""
    found = revision(connection)
    if found != HEAD:
        has = "no tables yet" if found is None else f"the schema {found}, and this version needs {HEAD}"
        raise SchemaError(f"the store has {has}", "run `mmpipeline ledger migrate`")


def check_role(connection: Connection, role: str | None) -> None:
    """Raises SchemaError where the login role passes row-level security or lacks what it needs."""
    user, passes = connection.execute(
        text(
            "SELECT current_user, rolsuper OR rolbypassrls OR EXISTS (SELECT FROM pg_roles AS o"
            " WHERE o.rolname = :owner AND pg_has_role(current_user, o.oid, 'MEMBER'))"
            " FROM pg_roles WHERE rolname = current_user"
        ),
        {"owner": security.OWNER},
    ).one()
    if passes:
        raise SchemaError(
            f"the role {user} may pass row-level security and is not taken for serving",
            f"log in as an ordinary role that is a member of {security.APP} or {security.WORKER}",
        )
    if role is None:
        return
    needed = {"worker": security.WORKER, "app": security.APP}[role]
    has = connection.execute(
        text(
            "SELECT EXISTS (SELECT FROM pg_roles AS r"
            " WHERE r.rolname = :needed AND pg_has_role(current_user, r.oid, 'MEMBER'))"
        ),
        {"needed": needed},
    ).scalar_one()
    if not has:
        raise SchemaError(
            f"the role {user} is not a member of {needed}", f"run `GRANT {needed} TO {user}` as its owner"
        )


def store_id(connection: Connection) -> str:
    """What tells this store from every other: part of every token that the warehouse gets."""
    return str(connection.execute(select(meta.c.value).where(meta.c.key == "store_id")).scalar_one())


def _is_known(found: str) -> bool:
    return found <= HEAD

"""How alembic runs the revisions: on the connection it is given, in that connection's transaction."""

from __future__ import annotations

from alembic import context

from mmpipeline.store.control.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()

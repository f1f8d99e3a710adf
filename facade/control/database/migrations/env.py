"""Alembic's entry: runs the steps on the connection that `control.database.migrate` hands over.

Guarantees: touches no other database and opens no transaction of its own; SQLite's DDL is part of the
caller's transaction, because the engine begins it explicitly.
"""

from alembic import context

from facade.control.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,  # SQLite alters a table by copying it
)
with context.begin_transaction():
    context.run_migrations()

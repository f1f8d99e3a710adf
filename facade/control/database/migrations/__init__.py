"""The schema's history, for Alembic. `control.database.migrate` runs it."""

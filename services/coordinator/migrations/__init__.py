"""The history of the record's tables, applied by Alembic at start."""

"""Find what differs between a database and the metadata, and write the revision that fixes it.

Modules in the order in which data flows through them:

- `plugin`: Alembic calls it for `alembic check` and `revision --autogenerate`; `check` serves `check --against`.
- `reading`: reads both sides. `catalog` reads one, `standin` builds one to read, `sources` finds the SQL as it was
  written.
- `compare`: decides which differences are ours.
- `plan`: puts the changes in order. `statements` has the SQL for each.
"""

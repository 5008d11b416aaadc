"""The one operation that revisions have beside Alembic's own; all that a revision may import of this package.

Revisions that have landed call it: what it does never changes.
"""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

from alembic import op
from alembic.operations import MigrateOperation, Operations

if TYPE_CHECKING:
    from collections.abc import Callable


@Operations.register_operation("run_sql")
class RunSQL(MigrateOperation):
    """One SQL statement, sent as it is written: no colon is a parameter, no percent sign an escape."""

    def __init__(self, sql: str) -> None:
        self.sql = sql

    @classmethod
    def run_sql(cls, operations: Operations, sql: str) -> None:
        """Run `sql`, or print it for --sql."""
        operations.invoke(cls(sql))


@Operations.implementation_for(RunSQL)
def _run(operations: Operations, operation: RunSQL) -> None:
    migration = operations.migration_context
    if migration.as_sql:
        migration.impl.static_output(f"{operation.sql};")
    else:
        operations.get_bind().exec_driver_sql(operation.sql, execution_options={"no_parameters": True})


def run_sql(sql: str) -> None:
    """Run one SQL statement as it is written, online or as part of the script that --sql prints.

    Text that begins with a line break is a block: its common indentation and the white space around it are not part of
    the statement. Raises sqlalchemy.exc.DBAPIError where PostgreSQL refuses it.
    """
    run: Callable[[str], None] = op.run_sql  # type: ignore[attr-defined]
    run(unindented(sql))


def unindented(sql: str) -> str:
    """`sql`, of which a block stands at the margin."""
    return dedent(sql).strip() if sql.startswith("\n") else sql


def literal(sql: str) -> str:
    """Python's source for `sql`, which `unindented()` turns into exactly that; a block where it may be one."""
    lines = sql.split("\n")
    if len(lines) == 1:
        return repr(sql)
    block = "\n".join(["", *lines, ""])
    # A line that ends with a blank would lose it where Alembic indents the revision.
    if '"""' in sql or unindented(block) != sql or any(line != line.rstrip() for line in lines):
        return "\n".join(repr(line) for line in sql.splitlines(keepends=True))
    raw = "r" if "\\" in sql else ""
    return f'{raw}"""{block}"""'

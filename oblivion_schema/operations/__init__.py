"""The operations for revisions, beside Alembic's own: a revision imports nothing else of this package.

Frozen revisions call them, so their behaviour never changes.
"""

from __future__ import annotations

import io
import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from alembic import op
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import event

from oblivion_schema.declare.sql import statements_of, text_literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from alembic.script import Script
    from sqlalchemy import Connection

_P = ParamSpec("_P")


@dataclass(frozen=True)
class Request:
    """One call of an operation by a revision: the function's name, and its arguments by name."""

    function: str
    arguments: Mapping[str, Any]


_heard: Final[ContextVar[list[Request] | None]] = ContextVar("heard", default=None)


def requests_of(scripts: Iterable[Script]) -> list[Request]:
    """The operations that the upgrades of revisions call, in order. None of them is executed."""
    requests: list[Request] = []
    token = _heard.set(requests)
    # Alembic would log that it generates a script here, which the user did not ask for.
    log = logging.getLogger("alembic.runtime.migration")
    was_disabled, log.disabled = log.disabled, True
    try:
        # Alembic's own operations write their SQL into this buffer, which nobody reads.
        nowhere = MigrationContext.configure(
            dialect_name="postgresql", opts={"as_sql": True, "output_buffer": io.StringIO()}
        )
        with Operations.context(nowhere):
            for script in scripts:
                script.module.upgrade()
    finally:
        log.disabled = was_disabled
        _heard.reset(token)
    return requests


def statements_of_revisions(scripts: Iterable[Script]) -> list[str]:
    """The SQL statements in the upgrades of revisions and in their .sql files, in order."""
    found = []
    for request in requests_of(scripts):
        if "file" in request.arguments:
            found += statements_of(request.arguments["file"])
        elif request.function == "run_sql":
            found.append(unindented(request.arguments["sql"]))
    return found


def heard(function: Callable[_P, None]) -> Callable[_P, None]:
    """Decorate an operation: within `requests_of()` it records its call, and does nothing else."""

    @wraps(function)
    def hear_or_do(*args: _P.args, **kwargs: _P.kwargs) -> None:
        requests = _heard.get()
        if requests is None:
            function(*args, **kwargs)
        else:
            asked = signature(function).bind(*args, **kwargs)
            asked.apply_defaults()
            for value in asked.arguments.values():
                if isinstance(value, Path):
                    require_file(value)
            requests.append(Request(function.__name__, asked.arguments))

    return hear_or_do


@Operations.register_operation("run_sql")
class RunSQL(MigrateOperation):
    """One SQL statement, sent as it was written: no colon is a parameter, no percent sign an escape."""

    def __init__(self, sql: str) -> None:
        self.sql = sql

    @classmethod
    def run_sql(cls, operations: Operations, sql: str) -> None:
        """Execute `sql`, or print it if --sql is given."""
        operations.invoke(cls(sql))


@Operations.implementation_for(RunSQL)
def _run(operations: Operations, operation: RunSQL) -> None:
    migration = operations.migration_context
    batch = _batch.get()
    if migration.as_sql:
        migration.impl.static_output(f"{operation.sql};")
    elif batch is not None:
        batch.append(operation.sql)
    else:
        operations.get_bind().exec_driver_sql(operation.sql, execution_options={"no_parameters": True})


# Drivers that prepare what they execute, and PostgreSQL prepares one statement at a time.
_PREPARES: Final = frozenset({"asyncpg"})


class _Batch(list[str]):
    """Statements that are sent together."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection

    def send(self, *_: object) -> None:
        """Send what was collected."""
        collected = self[:]
        self.clear()
        if collected and self.connection.dialect.driver not in _PREPARES:
            collected = ["\n;\n".join(collected)]  # a statement may end with a comment
        for sql in collected:
            self.connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


_batch: Final[ContextVar[_Batch | None]] = ContextVar("batch", default=None)


@contextmanager
def in_batches(connection: Connection) -> Iterator[None]:
    """Within it `run_sql()` sends statements together: clients wait for the locks in a few round trips, not hundreds.

    What is collected is sent before any other statement on `connection`, and at the end.
    """
    batch = _Batch(connection)
    token = _batch.set(batch)
    event.listen(connection, "before_cursor_execute", batch.send)
    try:
        yield
        batch.send()
    finally:
        event.remove(connection, "before_cursor_execute", batch.send)
        _batch.reset(token)


def send_batch() -> None:
    """Send what `in_batches()` has collected."""
    if batch := _batch.get():
        batch.send()


def require_file(file: Path) -> None:
    """Raise CommandError if an .sql file of a revision does not exist."""
    if not file.is_file():
        raise CommandError(f"{file} is missing, but its revision needs it: restore the file.")


def require_own_environment() -> None:
    """Raise CommandError in somebody else's Alembic environment, which combines these revisions with its own.

    They need a version table, settings and a turn of their own, which `oblivion_schema.deploy.environment` gives them.
    """
    migration = op.get_context()
    if migration.environment_context is not None and migration.version_table_schema != "oblivion":
        raise CommandError(
            "The revisions of oblivion_schema run in an environment of their own: take their folder out of"
            " version_locations, and run oblivion-schema upgrade head, or oblivion_schema.upgrade(url), before this"
            " command."
        )


@heard
def run_sql(sql: str) -> None:
    """Execute one SQL statement as it was written, or print it if --sql is given.

    Text that begins with a line break is a block: its common indentation and the white space around it are removed.
    Raises sqlalchemy.exc.DBAPIError if PostgreSQL refuses it.
    """
    run: Callable[[str], None] = op.run_sql  # type: ignore[attr-defined]
    run(unindented(sql))


@heard
def run_file(file: Path) -> None:
    """Execute the statements of an .sql file, each as `run_sql()` does; an empty line separates them.

    Raises CommandError if the file does not exist.
    """
    require_file(file)
    for statement in statements_of(file):
        run_sql(statement)


@heard
def join_realtime(table: str) -> None:
    """Add `public.<table>` to Supabase's publication, if that exists, this role owns it, and the table is not in it."""
    run_sql(_JOIN_REALTIME.replace("<table>", table))


def keep_grants(*names: str) -> None:
    """Save the grants on views, functions and columns that are dropped and created again, for `restore_grants()`.

    Only grants to roles other than PostgREST's. `names`: for example `public.active_calls`, `public.tokens_due(text)`
    and the column `public.token_usage.cost`.
    """
    relations = ", ".join(text_literal(name) for name in names if not name.endswith(")"))
    functions = ", ".join(f"{text_literal(name)}::regprocedure" for name in names if name.endswith(")"))
    run_sql(_KEEP_GRANTS.format(relations=relations, functions=functions or "NULL"))


def restore_grants() -> None:
    """Give the grants again that `keep_grants()` saved."""
    run_sql(_RESTORE_GRANTS)


_JOIN_REALTIME = """
DO $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_publication AS p
    WHERE pubname = 'supabase_realtime' AND NOT puballtables AND pg_has_role(pubowner, 'USAGE')
      -- Of all sequences, since 19.
      AND NOT coalesce((to_jsonb(p) ->> 'puballsequences')::boolean, false)
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_publication_rel
        WHERE prpubid = p.oid AND prrelid = 'public.<table>'::regclass
      )
  ) THEN
    ALTER PUBLICATION supabase_realtime ADD TABLE public.<table>;
  END IF;
END
$$
"""
_KEEP_GRANTS = """
DO $$
BEGIN
  PERFORM set_config('oblivion.grants', coalesce(string_agg(format(
    'GRANT %s%s ON %s TO %I%s',
    privilege_type, of_column, name, rolname, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END
  ), chr(31)), ''), true)
  FROM (
    SELECT concat('TABLE ', c.oid::regclass) AS name, NULL AS of_column, relowner AS owner, (aclexplode(relacl)).*
    FROM pg_catalog.unnest(ARRAY[{relations}]::text[]) AS named
    CROSS JOIN parse_ident(named) AS part
    JOIN pg_catalog.pg_class AS c ON c.oid = to_regclass(format('%I.%I', part[1], part[2]))
    WHERE cardinality(part) = 2
    UNION ALL
    SELECT concat('TABLE ', c.oid::regclass), format(' (%I)', attname), relowner, (aclexplode(attacl)).*
    FROM pg_catalog.unnest(ARRAY[{relations}]::text[]) AS named
    CROSS JOIN parse_ident(named) AS part
    JOIN pg_catalog.pg_class AS c ON c.oid = to_regclass(format('%I.%I', part[1], part[2]))
    JOIN pg_catalog.pg_attribute ON attrelid = c.oid AND attname = coalesce(part[3], attname)
    UNION ALL
    SELECT concat('ROUTINE ', oid::regprocedure), NULL, proowner, (aclexplode(proacl)).*
    FROM pg_catalog.pg_proc
    WHERE oid IN ({functions})
  ) AS kept
  JOIN pg_catalog.pg_roles AS r ON r.oid = grantee
  WHERE grantee <> owner AND rolname NOT IN ('anon', 'authenticated', 'service_role');
END
$$
"""
_RESTORE_GRANTS = """
DO $$
DECLARE
  statement text;
BEGIN
  FOREACH statement IN ARRAY string_to_array(current_setting('oblivion.grants'), chr(31)) LOOP
    BEGIN
      EXECUTE statement;
    EXCEPTION
      WHEN undefined_column THEN
        -- Of a view that has lost the column.
        NULL;
    END;
  END LOOP;
END
$$
"""


def unindented(sql: str) -> str:
    """`sql`; text that begins with a line break loses its common indentation and the white space around it."""
    return dedent(sql).strip() if sql.startswith("\n") else sql


def literal(sql: str) -> str:
    """Python source for `sql`, a triple-quoted block if possible; `unindented()` of its value is exactly `sql`."""
    lines = sql.split("\n")
    if len(lines) == 1:
        return repr(sql)
    block = "\n".join(["", *lines, ""])
    # Alembic removes blanks at the end of a line when it indents the revision.
    if '"""' in sql or unindented(block) != sql or any(line != line.rstrip() for line in lines):
        return "\n".join(repr(line) for line in sql.splitlines(keepends=True))
    raw = "r" if "\\" in sql else ""
    return f'{raw}"""{block}"""'

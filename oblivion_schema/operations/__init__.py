"""The operations that revisions have beside Alembic's own; all that a revision may import of this package.

Revisions that have landed call them: what they do never changes.
"""

from __future__ import annotations

import io
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from alembic import op
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError

from oblivion_schema.declare.sql import statements_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from alembic.script import Script

_P = ParamSpec("_P")


@dataclass(frozen=True)
class Request:
    """What a revision asks for: a function of this package, and its arguments by their names."""

    function: str
    arguments: Mapping[str, Any]


_heard: Final[ContextVar[list[Request] | None]] = ContextVar("heard", default=None)


def requests_of(scripts: Iterable[Script]) -> list[Request]:
    """What the upgrades of revisions ask for, in their order; none of it is done."""
    requests: list[Request] = []
    token = _heard.set(requests)
    # What Alembic's own operations would do goes nowhere.
    nowhere = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": io.StringIO()}
    )
    try:
        with Operations.context(nowhere):
            for script in scripts:
                script.module.upgrade()
    finally:
        _heard.reset(token)
    return requests


def statements_of_revisions(scripts: Iterable[Script]) -> list[str]:
    """The statements that stand in the upgrades of revisions and in their files, in order."""
    found = []
    for request in requests_of(scripts):
        if "file" in request.arguments:
            found += statements_of(request.arguments["file"])
        elif request.function == "run_sql":
            found.append(unindented(request.arguments["sql"]))
    return found


def heard(function: Callable[_P, None]) -> Callable[_P, None]:
    """Let `requests_of()` hear what the function is asked for."""

    @wraps(function)
    def hear_or_do(*args: _P.args, **kwargs: _P.kwargs) -> None:
        requests = _heard.get()
        if requests is None:
            function(*args, **kwargs)
        else:
            asked = signature(function).bind(*args, **kwargs)
            asked.apply_defaults()
            requests.append(Request(function.__name__, asked.arguments))

    return hear_or_do


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


@heard
def run_sql(sql: str) -> None:
    """Run one SQL statement as it is written, online or as part of the script that --sql prints.

    Text that begins with a line break is a block: its common indentation and the white space around it are not part of
    the statement. Raises sqlalchemy.exc.DBAPIError where PostgreSQL refuses it.
    """
    run: Callable[[str], None] = op.run_sql  # type: ignore[attr-defined]
    run(unindented(sql))


@heard
def run_file(file: Path) -> None:
    """Run the statements of an .sql file, each as `run_sql()` does; an empty line stands between them.

    Raises CommandError where the revision came without it.
    """
    if not file.is_file():
        raise CommandError(f"{file} is missing: a revision is not whole without its .sql files. Restore it.")
    for statement in statements_of(file):
        run_sql(statement)


@heard
def join_realtime(table: str) -> None:
    """Add `public.<table>` to Supabase's publication, where there is one that this role owns and that lacks it."""
    run_sql(_JOIN_REALTIME.replace("<table>", table))


def keep_grants(*names: str) -> None:
    """Note what other roles than PostgREST's may do with views and functions that make way, until `restore_grants()`.

    `names`: such as `public.active_calls` and `public.tokens_due(text)`.
    """
    views = ", ".join(f"'{name}'::regclass" for name in names if not name.endswith(")"))
    functions = ", ".join(f"'{name}'::regprocedure" for name in names if name.endswith(")"))
    run_sql(_KEEP_GRANTS.format(views=views or "NULL", functions=functions or "NULL"))


def restore_grants() -> None:
    """Give other roles what `keep_grants()` noted."""
    run_sql(_RESTORE_GRANTS)


_JOIN_REALTIME = """
DO $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_publication AS p
    WHERE pubname = 'supabase_realtime' AND NOT puballtables AND pg_has_role(pubowner, 'USAGE') AND NOT EXISTS (
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
    'GRANT %s ON %s TO %I%s', privilege_type, name, rolname, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END
  ), '; '), ''), true)
  FROM (
    SELECT concat('TABLE ', oid::regclass) AS name, relowner AS owner, (aclexplode(relacl)).*
    FROM pg_catalog.pg_class
    WHERE oid IN ({views})
    UNION ALL
    SELECT concat('FUNCTION ', oid::regprocedure), proowner, (aclexplode(proacl)).*
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
BEGIN
  IF current_setting('oblivion.grants') <> '' THEN
    EXECUTE current_setting('oblivion.grants');
  END IF;
END
$$
"""


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

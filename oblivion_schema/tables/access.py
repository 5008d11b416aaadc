"""Who may do what: row level security, policies and grants, each declared below the table that it guards.

A database is in one of two modes. In the open one everybody who holds the project's public key may read and write, as
the deployed browser clients expect; in the authenticated one a signed-in user reaches the own rows, and a visitor next
to nothing. The mode is what the function `oblivion.open_access()` returns, a constant: PostgreSQL folds it into a plan,
of which only the condition on the own rows is left, or nothing, and plans anew in every session when it is replaced.
Policies are the same in both modes; grants are not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import text

from oblivion_schema.declare.access import EXECUTE, REALTIME, is_guarded, is_published
from oblivion_schema.declare.ddl import (
    declare,
    declared,
    describe_function,
    function,
    granted,
    qualified,
)
from oblivion_schema.declare.privileges import PUBLIC, all_grants, use_schema_public
from oblivion_schema.declare.sql import add_to_publication, block, indented, statements_of, text_literal
from oblivion_schema.tables.base import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

SQL: Final = Path(__file__).with_suffix("")

Mode = Literal["open", "authenticated"]
MODES: Final[tuple[Mode, ...]] = ("open", "authenticated")


_CREATE_OPEN_ACCESS, _COMMENT_ON_OPEN_ACCESS = statements_of(SQL / "oblivion.open_access.sql")


def _open_access(mode: Mode) -> str:
    """The statement that makes the function, whose result is the mode."""
    _, create, rest = _CREATE_OPEN_ACCESS.partition("CREATE OR REPLACE ")
    return f"{create}{rest};".replace("RETURN true", f"RETURN {str(mode == 'open').lower()}")


# Whoever may query a table, an operator's own role too, has to be able to call what its policies call.
_ANYBODY: Final = {PUBLIC: EXECUTE}

# A database that is in a mode stays in it; a new one is in the mode that the setting names, or open.
declare(
    metadata,
    "function",
    "oblivion.open_access",
    block(
        [
            "  IF to_regprocedure('oblivion.open_access()') IS NOT NULL THEN",
            "    NULL;",
            "  ELSIF current_setting('oblivion.access', true) = 'authenticated' THEN",
            *indented(_open_access("authenticated"), 4),
            "  ELSE",
            *indented(_open_access("open"), 4),
            "  END IF;",
        ]
    ),
)
describe_function(metadata, _COMMENT_ON_OPEN_ACCESS, granted=_ANYBODY)
function(metadata, SQL / "oblivion.is_service_role.sql", granted=_ANYBODY)
function(metadata, SQL / "oblivion.current_user_id.sql", granted=_ANYBODY)


def current_mode(connection: Connection) -> Mode:
    """The mode that the database is in; one without these functions is open."""
    known = connection.scalar(text("SELECT to_regprocedure('oblivion.open_access()') IS NOT NULL"))
    return "open" if not known or connection.scalar(text("SELECT oblivion.open_access()")) else "authenticated"


def others_policies(connection: Connection, metadata: MetaData) -> list[str]:
    """A line for each policy that somebody else added to the tables: it lets through what it says, in both modes."""
    tables = [table for table in metadata.tables.values() if table.schema is None]
    ours = [f"{item.name} on {table.name}" for table in tables for item in declared(table) if item.kind == "policy"]
    found = connection.scalars(
        text(
            "SELECT concat(policyname, ' on ', tablename) AS policy FROM pg_policies WHERE schemaname = 'public'"
            " AND permissive = 'PERMISSIVE' AND tablename = ANY (:tables)"
            " AND concat(policyname, ' on ', tablename) <> ALL (:ours) ORDER BY 1"
        ),
        {"tables": [table.name for table in tables], "ours": ours},
    )
    return [f"Not ours, and lets through what it says whatever the mode: policy {policy}" for policy in found]


def switch(metadata: MetaData, mode: Mode) -> str:
    """One statement that takes a database to `mode`: in all sessions at once, with no lock that a query waits for.

    It gives all grants anew, and tells Realtime, so that roles and publications that were made meanwhile get theirs.
    It raises object_not_in_prerequisite_state where the mode would not be that: where somebody else granted more, or
    row level security was switched off.
    """
    relations = [table for table in metadata.tables.values() if table.schema is None or is_guarded(table)]
    published = [table for table in relations if is_published(table)]
    checks = _IS_IN_FORCE.replace("<relations>", ", ".join(text_literal(qualified(table)) for table in relations))
    return block(
        [
            *indented(_open_access(mode), 2),
            *all_grants((target, its[mode]) for target, its in granted(metadata)),
            *use_schema_public(),
            *(line for table in published for line in add_to_publication(REALTIME, qualified(table))),
            *checks.splitlines(),
        ],
        ["  wrong text;"],
    )


_IS_IN_FORCE: Final = """\
  SELECT string_agg(DISTINCT what, ', ') INTO wrong
  FROM (
    SELECT format('%s granted %s on %s', grantor::regrole, privilege_type, relation) AS what
    FROM (
      SELECT oid::regclass AS relation, relowner, (aclexplode(relacl)).*
      FROM pg_catalog.pg_class
      WHERE oid = ANY (ARRAY[<relations>]::regclass[])
    ) AS given
    WHERE grantor <> relowner AND (grantee = 0 OR grantee::regrole::text IN ('anon', 'authenticated', 'service_role'))
    UNION ALL
    SELECT format('row level security is off on %s', oid::regclass)
    FROM pg_catalog.pg_class
    WHERE oid = ANY (ARRAY[<relations>]::regclass[]) AND relkind = 'r' AND NOT relrowsecurity
  ) AS found;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'The access mode would not hold: %', wrong
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Mend that first: the grantor has to REVOKE, the owner to ENABLE ROW LEVEL SECURITY';
  END IF;"""

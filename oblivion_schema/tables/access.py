"""Access modes, which decide what row level security, policies and grants allow; each table declares its own.

A database is in one of two modes. In the open mode everybody who has the project's public key may read and write, as
the deployed browser clients expect. In the authenticated mode a signed-in user reaches only the user's own rows, and a
visitor almost nothing.

The function `oblivion.open_access()` returns the mode as a constant. PostgreSQL folds the constant into each plan, so
that a plan has the condition on own rows or no condition. When the function is replaced, all sessions plan again.
Policies are the same in both modes; grants differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import text

from oblivion_schema.declare.access import EXECUTE, REALTIME, is_guarded, is_published
from oblivion_schema.declare.ddl import (
    declare,
    declared,
    definition,
    describe_function,
    function,
    granted,
    qualified,
)
from oblivion_schema.declare.privileges import PUBLIC, all_grants, use_schema_public
from oblivion_schema.declare.sql import add_to_publication, block, indented, text_literal
from oblivion_schema.tables.base import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData

SQL: Final = Path(__file__).with_suffix("")

Mode = Literal["open", "authenticated"]
MODES: Final[tuple[Mode, ...]] = ("open", "authenticated")


_CREATE_OPEN_ACCESS, _COMMENT_ON_OPEN_ACCESS = definition(SQL / "oblivion.open_access.sql")


def _open_access(mode: Mode) -> str:
    """The statement that creates `oblivion.open_access()` for `mode`."""
    _, create, rest = _CREATE_OPEN_ACCESS.partition("CREATE OR REPLACE ")
    return f"{create}{rest};".replace("RETURN true", f"RETURN {str(mode == 'open').lower()}")


# Policies call these functions, so every role that may query a table needs EXECUTE, an operator's own role too.
_ANYBODY: Final = {PUBLIC: EXECUTE}

# An existing database keeps its mode. A new one gets the mode of the setting oblivion.access, and is open without it.
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
    """The mode of the database; a database without these functions is open."""
    known = connection.scalar(text("SELECT to_regprocedure('oblivion.open_access()') IS NOT NULL"))
    return "open" if not known or connection.scalar(text("SELECT oblivion.open_access()")) else "authenticated"


def others_policies(connection: Connection, metadata: MetaData) -> list[str]:
    """A line for each permissive policy on the tables that is not ours: it allows access in both modes."""
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
    return [f"Policy {policy} is not ours, and allows access in both modes" for policy in found]


def switch(metadata: MetaData, mode: Mode) -> str:
    """One statement that switches a database to `mode`, in all sessions at once, without a lock that queries wait for.

    It renews all grants, and adds the tables to Realtime's publication, so that roles and publications that were
    created since get theirs. It raises object_not_in_prerequisite_state if the mode would not hold: if another role
    granted more, or row level security is off.
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
        HINT = 'Correct that first: the grantor has to REVOKE, the owner has to ENABLE ROW LEVEL SECURITY';
  END IF;"""

"""Modes, which decide what row level security, policies and grants allow, and who bills the calls of pages.

A database is in one of two access modes. In the open mode everybody who has the project's public key may read and
write, as the deployed browser clients expect. In the authenticated mode a signed-in user reaches only the user's own
rows, and a visitor almost nothing.

The second mode is that of pages which bill their calls by themselves. They are trusted to, or they are metered: then
the token engine bills their calls, and what they write to a balance has no effect.

The functions `oblivion.open_access()` and `oblivion.page_billing()` return the modes as constants. PostgreSQL folds
them into each plan, so that a plan has the condition on own rows or no condition. When such a function is replaced, all
sessions plan again. Policies are the same in all modes; grants differ.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    identities,
    qualified,
)
from oblivion_schema.declare.privileges import (
    API_ROLES,
    PUBLIC,
    all_grants,
    if_role_exists,
    take_back_all,
    use_schema_public,
)
from oblivion_schema.declare.sql import add_to_publication, block, indented, text_literal
from oblivion_schema.tables.base import PRIVATE_SCHEMA, metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, MetaData

    from oblivion_schema.declare.privileges import GrantMode, Grants

SQL: Final = Path(__file__).with_suffix("")

Mode = Literal["open", "authenticated"]
MODES: Final[tuple[Mode, ...]] = ("open", "authenticated")

PageBilling = Literal["trusted", "metered"]
PAGE_BILLINGS: Final[tuple[PageBilling, ...]] = ("trusted", "metered")


@dataclass(frozen=True)
class Modes:
    """The two modes of a database: who may do what, and who bills the calls of pages."""

    access: Mode = "open"
    pages: PageBilling = "trusted"

    @property
    def grants(self) -> GrantMode:
        """The mode that decides what is granted."""
        return "metered" if self == Modes("authenticated", "metered") else self.access


class _Constant:
    """A function of an .sql file that returns a mode as a constant; `values` has the SQL of each mode.

    The file has the first of them. The setting `oblivion.<setting>` gives the mode of a new database.
    """

    def __init__(self, name: str, setting: str, values: Mapping[str, str]) -> None:
        self.create, self.comment = definition(SQL / f"{name}.sql")
        self.name, self.setting, self.values = name, setting, values

    def returning(self, mode: str) -> str:
        """The statement that creates the function for `mode`."""
        _, create, rest = self.create.partition("CREATE OR REPLACE ")
        first = next(iter(self.values.values()))
        return f"{create}{rest};".replace(f"RETURN {first}", f"RETURN {self.values[mode]}")

    def declare(self, granted: Grants) -> None:
        """Declare the function: an existing database keeps its mode, and a new one gets the mode of the setting."""
        first, other = self.values
        lines = [
            f"  IF to_regprocedure('{self.name}()') IS NOT NULL THEN",
            "    NULL;",
            f"  ELSIF current_setting('oblivion.{self.setting}', true) = '{other}' THEN",
            *indented(self.returning(other), 4),
            "  ELSE",
            *indented(self.returning(first), 4),
            "  END IF;",
        ]
        declare(metadata, "function", self.name, block(lines))
        describe_function(metadata, self.comment, granted=granted)

    def exists(self, connection: Connection) -> bool:
        """Whether the database has the function."""
        return bool(connection.scalar(text("SELECT to_regprocedure(:name) IS NOT NULL"), {"name": f"{self.name}()"}))


_ACCESS: Final = _Constant("oblivion.open_access", "access", {"open": "true", "authenticated": "false"})
_PAGES: Final = _Constant("oblivion.page_billing", "pages", {"trusted": "'trusted'", "metered": "'metered'"})

# Policies call these functions, so every role that may query a table needs EXECUTE, an operator's own role too.
_ANYBODY: Final = {PUBLIC: EXECUTE}

_ACCESS.declare(_ANYBODY)
_PAGES.declare(_ANYBODY)
function(metadata, SQL / "public.page_billing.sql", granted=dict.fromkeys(API_ROLES, EXECUTE))
function(metadata, SQL / "oblivion.is_service_role.sql", granted=_ANYBODY)
function(metadata, SQL / "oblivion.current_user_id.sql", granted=_ANYBODY)


def has_modes(connection: Connection) -> bool:
    """Whether the database has an access mode; a hand-made one has none."""
    return _ACCESS.exists(connection)


def current_modes(connection: Connection) -> Modes:
    """The modes of the database; one without these functions is open, and its pages are trusted."""
    is_open = not has_modes(connection) or connection.scalar(text("SELECT oblivion.open_access()"))
    is_metered = _PAGES.exists(connection) and connection.scalar(text("SELECT oblivion.page_billing() = 'metered'"))
    return Modes("open" if is_open else "authenticated", "metered" if is_metered else "trusted")


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


def switch(metadata: MetaData, *, access: Mode | None = None, pages: PageBilling | None = None) -> str:
    """One statement that switches modes of a database, in all sessions at once, without a lock that queries wait for.

    With `access` it renews all grants, also those of schema oblivion, and adds the tables to Realtime's publication: so
    roles and publications that were created since get theirs, and what somebody granted is taken back. It raises
    object_not_in_prerequisite_state if the mode would not hold: if another role granted more, or row level security is
    off.
    """
    lines = [] if pages is None else indented(_PAGES.returning(pages), 2)
    if access is None:
        state: GrantMode = "metered" if pages == "metered" else "authenticated"
        differ = [(target, its[state]) for target, its in granted(metadata) if _further(its)]
        grants = [f"  {line}" for line in all_grants(differ)]
        return block([*lines, "  IF NOT oblivion.open_access() THEN", *grants, "  END IF;"])
    lines += indented(_ACCESS.returning(access), 2)
    lines += take_back_all(PRIVATE_SCHEMA)
    its_own = ((target, its[access]) for target, its in granted(metadata))
    lines += all_grants([*its_own, *((f"SEQUENCE {name}", {}) for name in identities(metadata))])
    if access == "authenticated":
        further = [
            f"GRANT {', '.join(more)} ON {target} TO {role};"
            for target, its in granted(metadata)
            for role, more in _further(its).items()
        ]
        lines += ["  IF oblivion.page_billing() = 'metered' THEN"]
        lines += [f"  {line}" for line in if_role_exists("authenticated", further)]
        lines += ["  END IF;"]
    relations = [table for table in metadata.tables.values() if table.schema is None or is_guarded(table)]
    published = [table for table in relations if is_published(table)]
    checks = _IS_IN_FORCE
    for name, its_names in {
        "<relations>": [*map(qualified, relations), *identities(metadata)],
        "<functions>": [
            name for kind, _, name in (target.partition(" ") for target, _ in granted(metadata)) if kind == "FUNCTION"
        ],
    }.items():
        checks = checks.replace(name, ", ".join(map(text_literal, its_names)))
    return block(
        [
            *lines,
            *use_schema_public(),
            *(line for table in published for line in add_to_publication(REALTIME, qualified(table))),
            *checks.splitlines(),
        ],
        ["  wrong text;"],
    )


def _further(by_mode: Mapping[GrantMode, Grants]) -> dict[str, list[str]]:
    """The privileges that roles have besides in the authenticated mode, if pages are metered."""
    closed, metered = by_mode["authenticated"], by_mode["metered"]
    more = {role: [p for p in privileges if p not in closed.get(role, ())] for role, privileges in metered.items()}
    return {role: privileges for role, privileges in more.items() if privileges}


_IS_IN_FORCE: Final = """\
  SELECT string_agg(DISTINCT what, ', ') INTO wrong
  FROM (
    SELECT format('%s granted %s on %s', grantor::regrole, privilege_type, object) AS what
    FROM (
      SELECT c.oid::regclass::text AS object, c.relowner AS owner, a.*
      FROM pg_catalog.pg_class AS c
      CROSS JOIN LATERAL (
        SELECT * FROM aclexplode(c.relacl)
        UNION
        SELECT p.* FROM pg_catalog.pg_attribute AS t CROSS JOIN aclexplode(t.attacl) AS p WHERE t.attrelid = c.oid
      ) AS a
      WHERE c.oid = ANY (ARRAY[<relations>]::regclass[]) OR c.relnamespace = 'oblivion'::regnamespace
      UNION ALL
      SELECT p.oid::regprocedure::text, p.proowner, a.*
      FROM pg_catalog.pg_proc AS p
      CROSS JOIN aclexplode(p.proacl) AS a
      WHERE p.oid = ANY (ARRAY[<functions>]::regprocedure[])
      UNION ALL
      SELECT 'schema oblivion', n.nspowner, a.*
      FROM pg_catalog.pg_namespace AS n
      CROSS JOIN aclexplode(n.nspacl) AS a
      WHERE n.nspname = 'oblivion'
    ) AS given
    WHERE grantor <> owner AND (grantee = 0 OR grantee::regrole::text IN ('anon', 'authenticated', 'service_role'))
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

"""The words for who may do what: row level security, policies, grants and Realtime, each declared below its table.

Policies are the same in both access modes; grants are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oblivion_schema.declare.ddl import declare, declared, grants, qualified
from oblivion_schema.declare.privileges import API_ROLES, Grants
from oblivion_schema.declare.sql import add_to_publication, block, quoted

if TYPE_CHECKING:
    from sqlalchemy import Table

REALTIME: Final = "supabase_realtime"
"""The publication of Supabase's Realtime."""

_PUBLISHED: Final = "oblivion_schema.published"

READ: Final = ("SELECT",)
READ_WRITE: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
EXECUTE: Final = ("EXECUTE",)

# What a policy lets through: the condition that a row has to meet.
EVERYBODY: Final = "true"
SERVICE: Final = "oblivion.is_service_role()"
WHEN_OPEN: Final = f"oblivion.open_access() OR {SERVICE}"


# Of a trigger. PostgreSQL parses this condition on every statement, so it is kept short.
IS_API_ROLE: Final = "current_user::text = ANY ('{anon,authenticated,service_role}'::text[])"


def own(column: str, *, further: str = "") -> str:
    """The condition that `column` names the signed-in user, and `further`; in the open mode any row meets it."""
    # In a subquery it is called once for each statement, and an index can be asked for what it returns.
    condition = f"{column} = (SELECT oblivion.current_user_id())"
    return f"{WHEN_OPEN} OR ({condition} AND {further})" if further else f"{WHEN_OPEN} OR {condition}"


def row_level_security(
    table: Table[Any], *, select: str, insert: str = WHEN_OPEN, update: str = WHEN_OPEN, delete: str = WHEN_OPEN
) -> None:
    """Guard `table` by row level security: the condition that a row has to meet for each command.

    One policy per command, named `<table>_<command>`: several for the same command would all be evaluated for each row.
    An updated row has to meet its condition before and after.
    """
    on = qualified(table)
    declare(table, "row level security", table.name, f"ALTER TABLE {on} ENABLE ROW LEVEL SECURITY")
    for command, rows in {
        "select": f"USING ({select})",
        "insert": f"WITH CHECK ({insert})",
        "update": f"USING ({update}) WITH CHECK ({update})",
        "delete": f"USING ({delete})",
    }.items():
        name = f"{table.name}_{command}"
        create = f"CREATE POLICY {quoted(name)} ON {on} FOR {command.upper()} TO public {rows}"
        declare(table, "policy", name, create)


def is_guarded(table: Table[Any]) -> bool:
    """Whether row level security is declared on `table`."""
    return any(item.kind == "row level security" for item in declared(table))


def grant(relation: Table[Any], *, when_open: Grants, authenticated: Grants) -> None:
    """Give the API roles, where they exist, these privileges on a table or view in each mode, and nothing else.

    Raises ValueError for a role that is not one of `API_ROLES`.
    """
    if unknown := {*when_open, *authenticated} - set(API_ROLES):
        raise ValueError(f"{', '.join(unknown)}: only grants to {', '.join(API_ROLES)} are kept and compared.")
    grants(relation, relation.name, f"TABLE {qualified(relation)}", when_open, authenticated)


def grant_reading(view: Table[Any]) -> None:
    """Let the API roles read a view of rows that policies guard; in the authenticated mode not visitors."""
    grant(view, when_open=dict.fromkeys(API_ROLES, READ), authenticated=dict.fromkeys(API_ROLES[1:], READ))


def publish(table: Table[Any]) -> None:
    """Let Realtime tell clients of changes in `table`: it joins Supabase's publication, where there is one of ours."""
    declare(table, "publication", REALTIME, block(add_to_publication(REALTIME, qualified(table))))
    table.info[_PUBLISHED] = True


def is_published(table: Table[Any]) -> bool:
    """Whether Realtime is to tell of changes in `table`."""
    return _PUBLISHED in table.info

"""Declare who may do what on a table: row level security, policies, grants and Realtime.

Policies are the same in both access modes, because their conditions ask for the mode; grants are not.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from oblivion_schema.declare.ddl import declare, declared, grants, qualified, trigger
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

# Conditions of policies: a row is visible, or may be written, if it meets the condition.
EVERYBODY: Final = "true"
SERVICE: Final = "oblivion.is_service_role()"
WHEN_OPEN: Final = f"oblivion.open_access() OR {SERVICE}"
IS_NO_PAGE: Final = "current_user NOT IN ('anon', 'authenticated')"

# The WHEN condition of a trigger. PostgreSQL parses it on every statement, so it is kept short.
IS_NOT_THE_ENGINE: Final = "NOT has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION')"
"""The current role is not the owner, as whom the token engine runs.

Only the owner has the grant option, even where somebody granted all privileges on all tables to everybody.
"""

METERED: Final = "oblivion.page_billing() = 'metered'"
"""Pages are metered: a policy lets them make writes that have no effect on what a call costs."""


def own(column: str, *, further: str = "") -> str:
    """The condition that `column` holds the id of the signed-in user, and that `further` holds.

    Every row meets it in the open mode, and for the service role.
    """
    # The subquery makes PostgreSQL call the function once for each statement, and search an index for its result.
    condition = f"{column} = (SELECT oblivion.current_user_id())"
    return f"{WHEN_OPEN} OR ({condition} AND {further})" if further else f"{WHEN_OPEN} OR {condition}"


def row_level_security(
    table: Table[Any],
    *,
    select: str,
    insert: str = WHEN_OPEN,
    update: str | tuple[str, str] = WHEN_OPEN,
    delete: str = WHEN_OPEN,
) -> None:
    """Enable row level security on `table`, and declare a policy `<table>_<command>` for each command.

    `select`, `insert`, `update` and `delete` are the conditions that a row has to meet; an updated row has to meet its
    condition before and after, or of two conditions one before and one after. There is one policy for each command,
    because PostgreSQL evaluates all policies of a command for each row.
    """
    on = _enable_row_level_security(table)
    before, after = (update, update) if isinstance(update, str) else update
    for command, rows in {
        "select": f"USING ({select})",
        "insert": f"WITH CHECK ({insert})",
        "update": f"USING ({before}) WITH CHECK ({after})",
        "delete": f"USING ({delete})",
    }.items():
        name = f"{table.name}_{command}"
        create = f"CREATE POLICY {quoted(name)} ON {on} FOR {command.upper()} TO public {rows}"
        declare(table, "policy", name, create)


def keep_pages_out(table: Table[Any]) -> None:
    """Enable row level security on a private table, so that pages reach no row of it, whatever was granted to them."""
    on = _enable_row_level_security(table)
    name = f"{table.name}_all"
    declare(table, "policy", name, f"CREATE POLICY {quoted(name)} ON {on} FOR ALL TO public USING ({IS_NO_PAGE})")


def _enable_row_level_security(table: Table[Any]) -> str:
    """Declare it, and that no page empties the table, which policies would let through; returns the table's name."""
    on = qualified(table)
    declare(table, "row level security", table.name, f"ALTER TABLE {on} ENABLE ROW LEVEL SECURITY")
    trigger(table, "bar_truncate", "BEFORE TRUNCATE", "oblivion.bar_truncate")
    return on


def is_guarded(table: Table[Any]) -> bool:
    """Whether row level security is declared on `table`."""
    return any(item.kind == "row level security" for item in declared(table))


def grant(
    relation: Table[Any], *, when_open: Grants, authenticated: Grants, when_metered: Grants = MappingProxyType({})
) -> None:
    """Declare the privileges of the API roles on a table or view in each access mode; they get no others.

    `when_metered`: the privileges that roles have besides, in the authenticated mode, if pages are metered. A role that
    the server lacks is skipped. Raises ValueError for a role that is not in `API_ROLES`.
    """
    if unknown := {*when_open, *authenticated, *when_metered} - set(API_ROLES):
        raise ValueError(f"{', '.join(unknown)}: only grants to {', '.join(API_ROLES)} can be declared.")
    metered = {role: [*its, *when_metered.get(role, ())] for role, its in authenticated.items()}
    grants(relation, relation.name, f"TABLE {qualified(relation)}", when_open, authenticated, metered=metered)


def grant_reading(view: Table[Any]) -> None:
    """Let the API roles read a view whose rows policies guard; in the authenticated mode all of them except anon."""
    grant(view, when_open=dict.fromkeys(API_ROLES, READ), authenticated=dict.fromkeys(API_ROLES[1:], READ))


def publish(table: Table[Any]) -> None:
    """Let Supabase's Realtime send changes of `table` to clients: the table joins the publication `REALTIME`.

    Nothing happens in a database without that publication, or if the deployer does not own it.
    """
    declare(table, "publication", REALTIME, block(add_to_publication(REALTIME, qualified(table))))
    table.info[_PUBLISHED] = True


def is_published(table: Table[Any]) -> bool:
    """Whether `publish()` was called for `table`."""
    return _PUBLISHED in table.info

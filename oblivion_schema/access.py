"""Who may do what: row level security, policies and grants, each declared below the table that it guards.

The database is open to whoever holds the project's public key, as its deployed browser clients expect: policies let
every row through, and the roles of PostgREST may read and write. Reference tables are read-only to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from .ddl import declare
from .privileges import API_ROLES, exact_grants
from .sql import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Table

Command = Literal["select", "insert", "update", "delete"]

READ_WRITE: Final[tuple[Command, ...]] = ("select", "insert", "update", "delete")
READ_ONLY: Final[tuple[Command, ...]] = ("select",)


def open_to_clients(table: Table[Any], *commands: Command) -> None:
    """Guard `table` by row level security, and let everybody use `commands` on all of its rows.

    One policy per command, named `<table>_<command>`: several for the same command would all be evaluated for each row.
    """
    on = quoted("public", table.name)
    declare(table, "row level security", table.name, f"ALTER TABLE {on} ENABLE ROW LEVEL SECURITY")
    for command in commands:
        rows = {"insert": "WITH CHECK (true)", "update": "USING (true) WITH CHECK (true)"}.get(command, "USING (true)")
        name = f"{table.name}_{command}"
        create = f"CREATE POLICY {quoted(name)} ON {on} FOR {command.upper()} TO public {rows}"
        declare(table, "policy", name, create)
    grant(table, *commands)


def grant(relation: Table[Any], *commands: Command, to: Sequence[str] = API_ROLES) -> None:
    """Let the roles `to`, where they exist, use `commands` on a table or view, and API roles nothing else.

    Raises ValueError for a role that is not one of `API_ROLES`.
    """
    if unknown := set(to) - set(API_ROLES):
        raise ValueError(f"{', '.join(unknown)}: only grants to {', '.join(API_ROLES)} are kept and compared.")
    privileges = [command.upper() for command in commands]
    declare(
        relation,
        "grant",
        relation.name,
        exact_grants(f"TABLE {quoted('public', relation.name)}", dict.fromkeys(to, privileges)),
    )

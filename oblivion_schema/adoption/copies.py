"""Copies of our database that are not whole: of schema public alone, or of the schema without its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from oblivion_schema.tables.ledger import token_ledger

if TYPE_CHECKING:
    from sqlalchemy import Connection

_FOUND = """
SELECT to_regclass('oblivion.call_meters') IS NOT NULL
FROM pg_catalog.pg_class AS c
WHERE c.oid = to_regclass('public.token_ledger') AND obj_description(c.oid, 'pg_class') = :comment
"""
_WAY_ON = "make a new database with upgrade head, and load the rows into it: docs/operations.md, Rows alone"


def what_is_missing(connection: Connection) -> str:
    """What a database that is at no revision lacks of ours, and the way on; nothing if it is not a copy of ours."""
    has_meters = connection.scalar(text(_FOUND), {"comment": token_ledger.comment})
    if has_meters is None:
        return ""
    if has_meters:
        return (
            "Our tables are here, and no revision in oblivion.alembic_version, as after a restore of the schema without"
            f" its rows: {_WAY_ON}. If all rows are here, too, name the revision: oblivion-schema stamp head"
        )
    return (
        "Our tables are here, and schema oblivion is not, as after a restore of schema public alone: the revision, the"
        " meters of calls and the roll-ups are missing, and the triggers, policies and functions that need them:"
        f" {_WAY_ON}"
    )

"""Pages that bill their calls by themselves: whether a database has such pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.errors import sqlstate
from oblivion_schema.tables.access import current_modes

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SQL: Final = Path(__file__).with_suffix("")
_MAY_NOT_OR_NO_TABLE: Final = {"42501", "42P01"}

HINT: Final = (
    "pages bill calls by themselves, which loses tokens when calls end together: oblivion-schema pages reports how many"
)
"""What people are told of a database whose pages bill."""


def pages_bill(connection: Connection) -> bool:
    """Whether pages billed calls by themselves lately, and are trusted to: a cheap look at the newest usage.

    Without the token engine any row of `token_usage` is one of theirs. False for a role that may not look.
    """
    try:
        with connection.begin_nested():
            if not connection.scalar(text("SELECT to_regclass('oblivion.call_meters') IS NOT NULL")):
                return bool(connection.scalar(text("SELECT EXISTS (SELECT FROM public.token_usage)")))
            if current_modes(connection).pages == "metered":
                return False
            sql = (_SQL / "pages_bill.sql").read_text(encoding="utf-8")
            return bool(connection.scalar(text(sql.replace("::", r"\:\:"))))
    except DBAPIError as error:
        if sqlstate(error) in _MAY_NOT_OR_NO_TABLE:
            return False
        raise

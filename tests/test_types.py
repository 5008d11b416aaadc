"""Rows are typed: what `select()` of a table, a view or a function gives is what its columns hold.

A class of columns says it once more, in `__row_pos__`: a type checker reads the types of a row there.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, assert_type, get_args
from uuid import UUID

import pytest
from sqlalchemy import Row, Select, TypedColumns, select
from typed_rows import CLASSES, annotated, columns_of

import oblivion_schema
import oblivion_schema.billing
from oblivion_schema import active_calls, metadata, token_usage, user_accounts

if TYPE_CHECKING:
    from sqlalchemy import Connection


@pytest.mark.parametrize("columns", CLASSES, ids=lambda columns: columns.__name__)
def test_row_has_the_types_of_the_columns_in_their_order(columns: type[TypedColumns]) -> None:
    assert get_args(annotated(columns)["__row_pos__"]) == tuple(columns_of(columns).values())


def test_every_table_and_view_has_such_a_row() -> None:
    named = {tuple(columns_of(columns)) for columns in CLASSES}
    assert {tuple(table.c.keys()) for table in metadata.tables.values()} - named == set()


def test_rows_of_tables_and_views_are_typed() -> None:
    """Mypy fails where one of these types is another."""
    accounts = select(user_accounts)
    assert_type(accounts, Select[str, int, datetime, datetime, str | None, str])
    assert_type(accounts.where(user_accounts.c.user_id == "ada"), Select[str, int, datetime, datetime, str | None, str])
    assert_type(user_accounts.select(), Select[str, int, datetime, datetime, str | None, str])
    assert_type(select(active_calls), Select[UUID, str, str, bool, datetime, timedelta | None])
    assert_type(select(user_accounts, token_usage.c.mode), Select[str, int, datetime, datetime, str | None, str, str])

    def read(connection: Connection) -> None:
        row = connection.execute(accounts).one()
        assert_type(row, Row[str, int, datetime, datetime, str | None, str])
        user_id, tokens, *_ = row
        assert_type(user_id, str)
        assert_type(row[1], int)
        # A row has no types by name: SQLAlchemy gives Any.
        assert_type(row.tokens_remaining, Any)
        del tokens

    assert callable(read)


def test_version_is_that_of_the_installed_package() -> None:
    assert oblivion_schema.__version__ == version("oblivion-schema")

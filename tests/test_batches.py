"""An upgrade sends its statements together: clients wait for its locks in a few round trips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError

import oblivion_schema
from oblivion_schema.operations import in_batches, run_sql

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection


def test_upgrade_takes_few_round_trips(empty: URL) -> None:
    sent: list[object] = []

    def count(*statement: object) -> None:
        sent.append(statement[2])

    event.listen(Engine, "before_cursor_execute", count)
    try:
        oblivion_schema.upgrade(empty)
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert len(sent) < 50, f"{len(sent)} statements were sent one by one"


@pytest.fixture
def connection(empty: URL) -> object:
    with create_engine(empty, poolclass=NullPool).connect() as connection:
        yield connection


def test_statements_keep_their_order_among_others(connection: Connection) -> None:
    with Operations.context(MigrationContext.configure(connection)), in_batches(connection):
        run_sql("CREATE TABLE numbers (place integer GENERATED ALWAYS AS IDENTITY, number integer)")
        run_sql("INSERT INTO numbers (number) VALUES (1) -- with a remark at its end")
        run_sql("INSERT INTO numbers (number) VALUES (2)")
        connection.execute(text("INSERT INTO numbers (number) VALUES (3)"))
        run_sql("INSERT INTO numbers (number) SELECT length('%:a')")
        assert connection.scalars(text("SELECT number FROM numbers ORDER BY place")).all() == [1, 2, 3, 3]
        run_sql("INSERT INTO numbers (number) VALUES (5)")
    assert connection.scalar(text("SELECT count(*) FROM numbers")) == 5


def test_failure_ends_it_and_nothing_is_sent_later(connection: Connection) -> None:
    def fail() -> None:
        with Operations.context(MigrationContext.configure(connection)), in_batches(connection):
            run_sql("CREATE TABLE numbers (number integer)")
            run_sql("SELECT 1 / 0")
            connection.execute(text("SELECT 2"))

    with pytest.raises(DBAPIError, match="division by zero"):
        fail()
    connection.rollback()
    assert connection.scalar(text("SELECT to_regclass('numbers')")) is None
    with Operations.context(MigrationContext.configure(connection)):
        run_sql("CREATE TABLE numbers (number integer)")
    assert connection.scalar(text("SELECT count(*) FROM numbers")) == 0

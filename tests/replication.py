"""Copies of a database that take over: what tests and the soak do with them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import psycopg
from support import execute, libpq, query, wait_until

import oblivion_schema
from oblivion_schema import metadata

if TYPE_CHECKING:
    from sqlalchemy import URL

SETTINGS: Final = """
wal_level = logical
fsync = off
autovacuum = off
max_worker_processes = 20
max_logical_replication_workers = 18
max_sync_workers_per_subscription = 16
wal_retrieve_retry_interval = 100ms
"""
TABLES: Final = [
    "oblivion.alembic_version",
    *sorted(f"{table.schema or 'public'}.{table.name}" for table in metadata.tables.values() if not table.is_view),
]
# On the subscriber, after the upgrade and before it subscribes: rows that the publisher sends, too.
BEFORE_THE_COPY: Final = "TRUNCATE oblivion.alembic_version, public.token_rates"
RESTART: Final = "SELECT oblivion.restart_identities()"
BEHIND: Final = """
SELECT i.relation
FROM (
  SELECT 'public.token_ledger', max(id) FROM public.token_ledger
  UNION ALL
  SELECT 'oblivion.billing_incidents', max(id) FROM oblivion.billing_incidents
  UNION ALL
  SELECT 'oblivion.adoption_log', max(id) FROM oblivion.adoption_log
) AS i (relation, newest)
WHERE newest > coalesce(pg_sequence_last_value(pg_get_serial_sequence(relation, 'id')::regclass), 0)
ORDER BY 1
"""


def do(url: URL, sql: str) -> list[Any]:
    """Run a statement that refuses a transaction."""
    # What somebody is told of is there, also on a server that would not wait for that.
    options = "-c synchronous_commit=on"
    with closing(psycopg.connect(libpq(url), autocommit=True, options=options)) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def subscribed(url: URL, publisher: URL) -> None:
    """Make a subscriber, as documented, and wait for its first copy."""
    oblivion_schema.upgrade(url, demo=False)
    assert sorted(table for table in TABLES if query(url, f"SELECT FROM {table} LIMIT 1")) == [
        "oblivion.alembic_version",
        "public.token_rates",
    ]
    execute(url, BEFORE_THE_COPY)
    do(url, f"CREATE SUBSCRIPTION moving CONNECTION '{libpq(publisher)}' PUBLICATION moving")
    wait_until(lambda: not query(url, "SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r'"))


def caught_up(publisher: URL, seconds: float = 30) -> None:
    """Wait until all that was written is there, too."""
    [(written,)] = query(publisher, "SELECT pg_current_wal_lsn()::text")
    wait_until(lambda: query(publisher, f"SELECT FROM pg_stat_replication WHERE replay_lsn >= '{written}'"), seconds)


def contents(url: URL) -> dict[str, list[tuple[object, ...]]]:
    return {table: query(url, f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in TABLES}

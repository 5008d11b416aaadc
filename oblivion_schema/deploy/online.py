"""What an upgrade of big tables does before and after its transaction, while clients go on.

Before it, the indexes that big hand-made tables lack are built CONCURRENTLY. After it, `oblivion.backfill()` fills in
roll-ups and opening rows. The next run goes on where one was interrupted, and the database is right without any of it.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.inspection import inspect
from oblivion_schema.adoption.preparation import has_big_tables, run, steps
from oblivion_schema.deploy.turns import BUILDERS_LOCK, wait_for_other_deployers
from oblivion_schema.drift.check import take_time
from oblivion_schema.errors import UserError, explain, interrupted, primary_message
from oblivion_schema.operations import requests_of
from oblivion_schema.tables.backfills import backfills

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

    from oblivion_schema.deploy.options import Options
    from oblivion_schema.server.database import Database

_LOG: Final = logging.getLogger("oblivion_schema")


def build_indexes(connection: Connection, database: Database, revisions: ScriptDirectory, options: Options) -> None:
    """Build the indexes that big hand-made tables of `database` lack. Raises UserError if PostgreSQL refuses."""
    try:
        is_big = has_big_tables(connection)
        connection.rollback()
        if not is_big:
            return
        # An upgrade that would not go through changes nothing.
        found = inspect(connection, revisions, demo=options.demo, lock_timeout=options.lock_timeout)
        connection.rollback()
        if found.obstacles:
            return
        requests = requests_of(reversed(list(revisions.walk_revisions())))
        builds = [step for step in steps(requests, options.lock_timeout) if step.is_query]
        # Not the lock of the upgrade: a script may wait in that with a snapshot, for which the build would wait.
        with connection.begin(), database.connect() as builder:
            take_time(connection)
            wait_for_other_deployers(connection, BUILDERS_LOCK)
            builder.execution_options(isolation_level="AUTOCOMMIT")
            for statement in run(builder, builds):
                _LOG.info("%s", statement)
    except DBAPIError as error:
        raise explain(error, connection.engine) from error
    except KeyboardInterrupt:
        raise interrupted() from None


def backfill(connection: Connection, *, joined: bool) -> None:
    """Fill in what an upgrade left, in a transaction of its own. If it joined the caller's, only tell what is left.

    Raises UserError if PostgreSQL refuses, or is interrupted; then nothing was filled in.
    """
    with nullcontext() if joined else connection.begin():
        if not connection.scalar(select(func.to_regprocedure("oblivion.backfill()"))):
            return
        left = ", ".join(connection.scalars(select(backfills.c.name).order_by(backfills.c.name)))
        if not left:
            return
        if joined:
            _LOG.info("SELECT oblivion.backfill(), after the commit, fills in what is left: %s.", left)
            return
        _LOG.info("Filling in what the upgrade left, while clients go on: %s.", left)
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        try:
            connection.execute(text("SELECT oblivion.backfill()"))
        except (DBAPIError, KeyboardInterrupt) as error:
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else primary_message(error)
            raise UserError(
                f"The database is upgraded, but not filled in yet: {left} ({why}). Reports are right meanwhile, but"
                " slow. Run upgrade head again, or SELECT oblivion.backfill() as the owner of the tables."
            ) from None

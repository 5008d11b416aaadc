"""The checklist of `oblivion-schema verify`, from what is defined over what is stored to what is tried."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import text

from oblivion_schema.adoption.copies import what_is_missing
from oblivion_schema.adoption.snapshot import read_facts, read_versions
from oblivion_schema.verification import data, definitions, objects, trial
from oblivion_schema.verification.check import Check, attempt, lacks, not_tried, result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection


def verify(connection: Connection, revisions: ScriptDirectory) -> Iterator[Check]:
    """Run all checks on the database of `connection`; whatever they write is rolled back.

    What this role, this server or this revision does not let them try, they say. Raises sqlalchemy.exc.DBAPIError if
    the connection is lost.
    """
    with connection.begin_nested() as everything:
        connection.execute(text("SET LOCAL search_path = public"))
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        # A scan of a big table takes longer than some roles' statements may.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        yield from _checks(connection, revisions)
        everything.rollback()


def _checks(connection: Connection, revisions: ScriptDirectory) -> Iterator[Check]:
    head = revisions.get_current_head()
    facts = read_facts(connection)
    subject = f"revision {head}"
    if facts.has_version_table and not facts.may_read_version:
        at = head
        yield not_tried(subject, "this role may not read oblivion.alembic_version, so the newest one is taken for it")
    else:
        at = ", ".join(read_versions(connection)) if facts.has_version_table else ""
        yield result(subject, _behind(connection, at, revisions))
        if not at:
            return
    if at == head:
        gone = set()
        for check in objects.check_objects(connection):
            if check.failed:
                gone.add(check.subject.partition(" ")[2].partition(",")[0])
            yield check
        compare = partial(definitions.check_definitions, revisions=revisions, missing=gone)
        yield from attempt(connection, definitions.SUBJECT, compare)
    else:
        yield not_tried(definitions.SUBJECT, "they are compared with the newest revision only")
    yield from data.check_data(connection)
    if missing := lacks(connection, "oblivion.call_meters"):
        yield not_tried("what pages and functions do", f"there is no {missing}")
    else:
        yield from trial.try_it(connection)


def _behind(connection: Connection, at: str, revisions: ScriptDirectory) -> str:
    """What is wrong with the revision of the database; empty if it is the newest one."""
    if at == revisions.get_current_head():
        return ""
    if not at:
        way_on = (
            what_is_missing(connection) or "oblivion-schema inspect tells what is there, upgrade head makes the rest"
        )
        return f"the database is at none: {way_on}"
    if at in {script.revision for script in revisions.walk_revisions()}:
        return f"the database is at {at}: upgrade head"
    return f"the database is at {at}, which this version does not have: install the version that upgraded it"

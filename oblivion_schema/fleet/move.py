"""`fleet SITES.toml move NAME --to URL`: a site moves to another server while its clients go on.

PostgreSQL's logical replication copies it, and the source takes the writes until the decision: `fleet/fence.py`. Each
step does nothing where it is done already, so that the same command goes on where one was interrupted, at any point.
"""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from oblivion_schema import progress
from oblivion_schema.deploy.turns import ADVISORY_LOCK
from oblivion_schema.errors import UserError, primary_message
from oblivion_schema.fleet import add as adding
from oblivion_schema.fleet import fence, movable, replication
from oblivion_schema.fleet.sites import place
from oblivion_schema.server.database import Database, require_own_session
from oblivion_schema.tables.access import current_modes
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, Row

    from oblivion_schema.deploy.options import Options
    from oblivion_schema.fleet.report import Report
    from oblivion_schema.fleet.sites import Site

_MOVERS_LOCK: Final = ADVISORY_LOCK + 2
_AS_BEFORE: Final = "The site takes writes, as before."
_WILL: Final = "The target takes the writes, or will as soon as it has the decision."
_POLL_SECONDS: Final = 0.5
_POLL_HELD_SECONDS: Final = 0.005
_CAUGHT_UP_SECONDS: Final = 1
"""A target that gets a mark later than this is behind, and writes are not held yet."""
_HELD_SECONDS: Final = 10
"""Writes are let go after these, if the target does not have everything by then."""
_DECISION_SECONDS: Final = 60
_SETTINGS: Final = """
SET statement_timeout = 0; SET idle_session_timeout = 0; SET lock_timeout = '5s';
SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET search_path = '';
SET standard_conforming_strings = on; SET synchronous_commit = on
"""


class Step(Enum):
    """The steps, in their order."""

    DATABASE = "make the target's database, if it is missing, and upgrade it to the site's revision"
    PUBLISH = "publish the site's tables, and keep what is written from now on for the target, in a replication slot"
    SUBSCRIBE = "let the target refuse writes, and subscribe to the site"
    COPY = "wait until everything is copied, while clients go on"
    HOLD = "hold the site's writes, and wait until the target has them all"
    COMPARE = "take over the numbers of identities, and compare the sums of both sides"
    DECIDE = "let the old side refuse writes, and the target take them"
    CLEAN = "drop the subscription, the slot and the publication"
    FILE = "write the new URL into the file, and say what to tell PgBouncer and PostgREST"
    VERIFY = "verify the target, and compare its definitions with the code"


@dataclass(frozen=True)
class Wanted:
    """What was asked of a move.

    - `site`, `target`: the site as the file has it, and as it is to be.
    - `source_url`: how the target's server reaches the source, if not by the URL of the file.
    - `leave_others`: whether tables that are not ours stay behind, and differences from the code are lost.
    - `dry_run`: nothing is changed.
    """

    site: Site
    target: Site
    source_url: Database | None = None
    leave_others: bool = False
    dry_run: bool = False


class Move:
    """A move, and its connections. Raises UserError, which says who takes writes then."""

    def __init__(self, wanted: Wanted, revisions: ScriptDirectory, options: Options, report: Report) -> None:
        self.wanted, self.revisions, self.options, self.report = wanted, revisions, options, report
        self.name = wanted.site.name
        self.tables = list(replication.tables())
        self.is_begun = False
        """Whether the target is this move's already; `obstacles()` finds out."""
        self.who = "Nothing was changed."
        """Who takes writes, for what an error says."""
        self._lock: Connection | None = None
        self._own: set[Database] = set()
        self.held: float | None = None
        """Seconds for which neither side took writes; None if another run decided."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within this context no other process moves the site. If it cannot be asked, that is not known."""
        with self._told(), ExitStack() as stack:
            with suppress(UserError):
                self._lock = stack.enter_context(self._session(self.wanted.site.database))
            if self._lock and not self._lock.scalar(select(func.pg_try_advisory_lock(_MOVERS_LOCK))):
                raise UserError("Another process moves this site: wait until it ends.")
            yield

    def _require_lock(self, source: Connection) -> None:
        """Raise UserError unless this process has moved the site alone, and nobody has decided before it."""
        if self._lock is None:
            raise UserError("The site's server did not answer: run the command again.")
        self._lock.scalar(text("SELECT 1"))
        if fence.is_decided(source):
            raise UserError("Another process has decided meanwhile: run the command again to finish.")

    @contextmanager
    def _session(self, database: Database) -> Iterator[Connection]:
        """A connection in autocommit, with settings of its own. Raises UserError behind a transaction pooler."""
        with database.connect() as connection:
            connection.rollback()
            connection.execution_options(isolation_level="AUTOCOMMIT")
            if database not in self._own:
                require_own_session(connection, str(database))
                self._own.add(database)
            connection.exec_driver_sql(_SETTINGS)
            try:
                yield connection
            finally:
                connection.invalidate()  # it may be lost meanwhile: then nothing can be reset

    def say(self, step: Step) -> None:
        """Tell which step begins."""
        self.report.note(self.name, f"{step.value[0].upper()}{step.value[1:]}.")

    # -- What there is

    def is_decided(self) -> bool:
        """Whether an earlier run has decided: then this one has to finish. Raises UserError if it is another move."""
        target_url = self.wanted.target.database
        try:
            with self._told(), self._session(self.wanted.site.database) as source:
                self._clear(source)
                its, decided = fence.part(source, "source"), fence.is_decided(source)
        except UserError:
            with suppress(UserError, DBAPIError), self._session(target_url) as target:
                there = fence.part(target, "target")
                if there and there.other == place(self.wanted.site) and fence.is_decided(target):
                    return True
            raise
        if its is None or not decided:
            self.who = _AS_BEFORE
            if its and its.other != place(self.wanted.target):
                raise UserError(f"This site moves to {its.other} already: name that, or take it back with --cancel.")
            return False
        self.who = _WILL
        with self._told(), self._session(target_url) as target:
            found = fence.part(target, "target")
            if found is None or found.id != its.id:
                raise UserError(
                    f"This site has moved to {its.other}, and not to {target_url}. Say --to with that database, or"
                    " correct the file."
                )
        return True

    def _clear(self, source: Connection) -> None:
        """Drop what the move left that brought the site here."""
        if fence.part(source, "target"):
            if not fence.is_decided(source):
                raise UserError("This database is the target of a move that goes on: finish that, or take it back.")
            if not self.wanted.dry_run:
                fence.open_target(source, self.tables)
                fence.drop(source)

    def obstacles(self) -> Iterator[str]:
        """What is in the way, each a line with what mends it. Nothing is changed."""
        wanted = self.wanted
        with self._told(), self._session(wanted.site.database) as source:
            self._require_head(source)
            move = fence.part(source, "source")
            its = movable.facts(source, "source")
            yield from movable.of_source(source, its, is_begun=replication.slot(source) is not None)
            if not wanted.leave_others and (others := movable.others(source)):
                yield (
                    f"Tables that are not the schema's would stay behind: {', '.join(others)}. Move them yourself, and"
                    " say --leave-others."
                )
            grants = movable.grants(source)
        database, is_there = _server_of(wanted.target.database)
        with self._told(), self._session(database) as target:
            there = movable.facts(target, "target")
            found = fence.part(target, "target") or fence.part(target, "source")
            self.is_begun = bool(found and move and found.side == "target" and found.id == move.id)
            yield from self._of_target(target, its, there, is_there=is_there)
            yield from movable.missing_roles(target, {*grants.values()})
        if is_there and found is not None and not self.is_begun:
            yield "The target takes part in another move, or did: name another database, or drop that one first."
        elif is_there and not self.is_begun:
            yield from self._holds()

    def _of_target(self, target: Connection, its: Row[Any], there: Row[Any], *, is_there: bool) -> Iterator[str]:
        lacks = [*movable.of_target(there, its, is_begun=self.is_begun, is_there=is_there)]
        try:
            way = self._way()
        except UserError as error:
            lacks.append(str(error))
        else:
            lacks += movable.needs_password(there, way)
            # A subscription is tried where the role surely may make one.
            if not lacks and not self.is_begun and (is_there or there.is_superuser):
                lacks += movable.reach(target, way)
        yield from lacks

    def _holds(self) -> Iterator[str]:
        try:
            adding.require_new_or_ours(self.wanted.target.database, self.revisions, self.options)
        except UserError as error:
            yield f"The target: {error}"
            return
        with self._told(), self._session(self.wanted.target.database) as target:
            if target.scalar(text(f"SELECT to_regclass('{PRIVATE_SCHEMA}.alembic_version') IS NULL")):
                return
            if found := [*movable.rows(target), *movable.others(target)]:
                yield (
                    f"The target holds rows, or tables that are not ours: {', '.join(found)}. Name an empty database."
                )

    def _require_head(self, source: Connection) -> None:
        head = self.revisions.get_current_head()
        there = source.scalar(text(f"SELECT to_regclass('{PRIVATE_SCHEMA}.alembic_version') IS NOT NULL"))
        at = source.scalars(text(_VERSION)).all() if there else []
        if at != [head]:
            raise UserError(f"The site is at {', '.join(at) or 'no revision'}, not at {head}: upgrade it first.")
        if source.scalar(text(f"SELECT true FROM {PRIVATE_SCHEMA}.backfills LIMIT 1")):  # noqa: S608
            raise UserError("An upgrade of the site has rows to fill in: run upgrade again first.")

    def _way(self) -> str:
        source = self.wanted.source_url or self.wanted.site.database
        return replication.way_to(source, str(source))

    # -- The steps until the decision

    def modes(self) -> list[str]:
        """The options of the upgrade that gives the target the site's modes."""
        with self._told(), self._session(self.wanted.site.database) as source:
            modes = current_modes(source)
        return ["-x", f"access={modes.access}", "-x", f"pages={modes.pages}"]

    def copy_and_decide(self) -> None:
        """From an upgraded target to one that takes the writes."""
        site, target = self.wanted.site.database, self.wanted.target.database
        with self._told(), self._session(site) as source, self._session(target) as there:
            self._require_lock(source)
            self._copy(source, there)
            with self._session(site) as holder:
                self._decide(source, holder, there)

    def _copy(self, source: Connection, target: Connection) -> None:
        self.say(Step.PUBLISH)
        if not fence.is_made(source):
            with _transaction(source):
                fence.make(source, str(uuid.uuid4()), "source", place(self.wanted.target))
                replication.publish(source)
        slot, is_subscribed = replication.slot(source), replication.is_subscribed(target)
        if is_subscribed if slot is None else not slot.is_whole:
            raise UserError(replication.THROWN_AWAY)
        if slot is None:
            if others := replication.transactions(source):
                self.report.note(self.name, f"PostgreSQL makes the slot when these transactions are over: {others}.")
            with progress.shown("make the slot", source):
                replication.make_slot(source)
        self.say(Step.SUBSCRIBE)
        if not is_subscribed:
            self._subscribe(source, target)
        self.say(Step.COPY)
        began, patience = time.monotonic(), replication.Patience(source, target)
        while True:
            ready, count = patience.look()
            if ready == count:
                break
            progress.draw(f"{self.name}, {time.monotonic() - began:.0f} s: {ready} of {count} tables are copied")
            time.sleep(_POLL_SECONDS)
        # So that plans are as good as before, and the sums need not look up which transactions are over.
        target.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(self.tables)}")
        while not self._waits_for_mark(source, target, _CAUGHT_UP_SECONDS, _POLL_SECONDS / 5):
            patience.look()
            progress.draw(f"{self.name}, {time.monotonic() - began:.0f} s: the target catches up")
        progress.clear()

    def _subscribe(self, source: Connection, target: Connection) -> None:
        granted, its = movable.grants(source), fence.part(source, "source")
        if its is None or fence.is_made(target) or movable.rows(target):
            raise UserError("The target, or the site, is not as it was a moment ago: run the command again.")
        with _transaction(target):
            for statement in granted.keys() - movable.grants(target).keys():
                target.exec_driver_sql(statement, execution_options={"no_parameters": True})
            target.exec_driver_sql("TRUNCATE public.token_rates")  # those of the site are copied
            fence.make(target, its.id, "target", place(self.wanted.site))
            fence.close_target(target, self.tables)
            replication.subscribe(target, self._way(), replication.slot_name(source))

    def _decide(self, source: Connection, holder: Connection, target: Connection) -> None:
        self.say(Step.HOLD)
        with fence.writes_held(holder, self.tables) as since:
            self._require_lock(holder)
            if not holder.scalar(select(func.pg_try_advisory_xact_lock(ADVISORY_LOCK))):
                raise UserError("An upgrade, or another deployer, works on the site: wait until it ends.")
            if not self._waits_for_mark(source, target, _HELD_SECONDS, _POLL_HELD_SECONDS):
                raise UserError(
                    f"The target had not caught up after {_HELD_SECONDS} s, and writes were let go. Run the command"
                    " again when less is written."
                )
            self.say(Step.COMPARE)
            self._compare(holder, target)
            self.say(Step.DECIDE)
            decision = fence.decide(holder, self.tables)
            self.who = "Whether the site has moved is not known."
        self.who = _WILL
        ends = time.monotonic() + _DECISION_SECONDS
        while not fence.has_mark(target, decision):
            if time.monotonic() > ends:
                raise UserError("The target does not have the decision yet: run the command again to finish.")
            time.sleep(_POLL_HELD_SECONDS)
        self.held = time.monotonic() - since

    def _compare(self, holder: Connection, target: Connection) -> None:
        """Take over identities and compare. Raises UserError if a side differs."""
        if holder.scalars(text(_VERSION)).all() != target.scalars(text(_VERSION)).all():
            raise UserError("The site was upgraded meanwhile. Take the move back with --cancel, and begin again.")
        if current_modes(holder) != current_modes(target):
            raise UserError(
                "A mode was switched on one side only. Switch it on the other side, too, and run this again."
            )
        with ThreadPoolExecutor(1) as pool:
            there = pool.submit(replication.sums, target)
            here = replication.sums(holder)
            found = there.result()
        if differ := [name for name in here if here[name] != found[name]]:
            raise UserError(
                f"The copy differs in {', '.join(differ)}: {here[differ[0]]} rows and sums of {differ[0]} at the site,"
                f" {found[differ[0]]} at the target. Take the move back with --cancel, and begin again."
            )
        replication.set_numbers(target, replication.numbers(holder, self.tables))

    @staticmethod
    def _waits_for_mark(source: Connection, target: Connection, seconds: float, pause: float) -> bool:
        """Write a mark, and wait so long until the target has it."""
        number, ends = fence.mark(source), time.monotonic() + seconds
        while not fence.has_mark(target, number):
            if time.monotonic() > ends:
                return False
            time.sleep(pause)
        return True

    # -- The steps after it

    def finish(self, write: Callable[[], None]) -> None:
        """Clean up behind a decision; `write` writes the file. Of a site that has moved, it does what is left."""
        self.who = _WILL
        with self._told():
            self._await_decision()
            self.say(Step.CLEAN)
            with self._session(self.wanted.target.database) as target:
                replication.unsubscribe(target)
                fence.open_target(target, self.tables)
            try:
                with self._session(self.wanted.site.database) as source:
                    replication.drop_slot(source)
                    replication.unpublish(source)
            except (UserError, DBAPIError) as error:
                said = primary_message(error) if isinstance(error, DBAPIError) else error
                self.report.line(
                    self.name,
                    f"The old server may still have the slot, and keep all WAL for it ({said}). There, drop the slot of"
                    " pg_replication_slots that begins with oblivion_move_, by pg_drop_replication_slot(slot_name).",
                    error=True,
                )
            self.say(Step.FILE)
            write()
            with self._session(self.wanted.target.database) as target:
                fence.drop(target)

    def is_left(self) -> bool:
        """Whether a run that had written the file left something on the target; drops it."""
        self.who = "The target takes the writes."
        with self._told(), self._session(self.wanted.target.database) as target:
            is_left = fence.part(target, "target") is not None
            self._clear(target)
            return is_left

    def _await_decision(self) -> None:
        with self._session(self.wanted.target.database) as target:
            ends = time.monotonic() + _DECISION_SECONDS
            while not fence.is_decided(target):
                if time.monotonic() > ends or not self._can_come():
                    raise UserError(
                        "The target does not have the decision, which comes by replication. Run the command again; if"
                        " it can never come, --cancel takes the move back."
                    )
                time.sleep(_POLL_SECONDS)
        self.who = "The target takes the writes."

    def _can_come(self) -> bool:
        """Whether the decision can still reach the target, as far as the site's server tells."""
        with suppress(UserError, DBAPIError), self._session(self.wanted.site.database) as source:
            slot = replication.slot(source)
            return slot is not None and slot.is_whole
        return True

    # -- Back

    def take_back(self) -> None:
        """Leave the site as it was, and the target empty. Raises UserError if the target has the decision, or may."""
        site = self.wanted.site.database
        with self._told(), self._session(site) as source, self._session(site) as holder:
            its = fence.part(source, "source")
            if its is None:
                self.report.note(self.name, "There is no move to take back.")
                return
            self.who = _WILL if fence.is_decided(source) else _AS_BEFORE
            if its.other != place(self.wanted.target):
                raise UserError(f"This site moves to {its.other}: name that with --to.")
            with _transaction(holder):
                # A decision that is being committed has this lock, also if nobody waits for it any more.
                holder.exec_driver_sql(f"LOCK TABLE {fence.MARKS} IN ACCESS EXCLUSIVE MODE")
                is_decided = fence.is_decided(holder)
                self.who = _WILL if is_decided else _AS_BEFORE
                stays = self._unsubscribe_for_good(its.id, is_decided=is_decided)
                replication.drop_slot(source)
                replication.unpublish(holder)
                if is_decided:
                    fence.drop_triggers(holder, self.tables)
                fence.drop(holder)
            self.who = _AS_BEFORE
            if stays:
                self.report.note(self.name, f"The target stays as it is: {stays}")
                return
            with self._session(self.wanted.target.database) as target, _transaction(target):
                fence.drop_triggers(target, self.tables)
                self._empty(target)
                fence.drop(target)
            self.report.note(self.name, f"{self.wanted.target.database} is empty: drop it.")

    def _unsubscribe_for_good(self, move: str, *, is_decided: bool) -> str:
        """See to it that the target never gets the decision; why it stays as it is, if it does."""
        try:
            with self._session(self.wanted.target.database) as target:
                found = fence.part(target, "target")
                if found and found.id == move:
                    replication.unsubscribe(target)
                    self._require_undecided(target)
                    return ""
                why = f"{self.wanted.target.database} has no part in this move any more, or not yet."
        except _MovedError:
            raise
        except UserError as error:
            why = str(error)
        if is_decided:
            raise UserError(
                f"{why} The target may have the decision. If it is lost for good, let the old side take the writes"
                " again, as its owner: DROP SCHEMA oblivion_move CASCADE."
            )
        return why

    def _require_undecided(self, target: Connection) -> None:
        if fence.is_decided(target):
            self.who = "The target takes the writes."
            raise _MovedError("The site has moved: run the command without --cancel, which finishes the move.")

    def _empty(self, target: Connection) -> None:
        for what in ("DISABLE", "ENABLE"):  # or they would write what comes of that into the ledger
            for table in self.tables:
                target.exec_driver_sql(f"ALTER TABLE {table} {what} TRIGGER USER")
            if what == "DISABLE":
                target.exec_driver_sql(f"TRUNCATE {', '.join(self.tables)}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Let an error of a server be one line, which ends with who takes writes."""
        try:
            yield
        except _ToldError:
            raise
        except DBAPIError as error:
            said = primary_message(error)
            raise _ToldError(f"{said}. {self.who} Run the command again: it goes on from there.") from error
        except UserError as error:
            raise _ToldError(f"{error} {self.who}") from error


class _ToldError(UserError):
    """An error that says who takes writes."""


class _MovedError(UserError):
    """A move cannot be taken back."""


_VERSION: Final = f"SELECT version_num FROM {PRIVATE_SCHEMA}.alembic_version ORDER BY 1"  # noqa: S608 - a constant


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """A transaction of a connection in autocommit."""
    connection.exec_driver_sql("BEGIN")
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


def _server_of(database: Database) -> tuple[Database, bool]:
    """The database, or one beside it on its server if it is missing; whether it is there."""
    try:
        with database.connect():
            return database, True
    except UserError as error:
        for beside in adding.beside(database):
            with suppress(UserError), beside.connect():
                return beside, False
        raise error from None

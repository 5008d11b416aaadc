"""Plan a revision: refuse what would be wrong, and try the rest there and back before anybody reads it.

The trial runs in the stand-in of the revisions, which is rolled back: what a revision meets on the databases of others.
Its tables are empty, so what only rows can refuse stands as a comment in the revision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from alembic.operations import Operations
from sqlalchemy import func, select, true
from sqlalchemy.exc import DBAPIError

from oblivion_schema import operations
from oblivion_schema.drift.catalog import Catalog, read
from oblivion_schema.drift.compare import Drift, drift_of
from oblivion_schema.drift.plan import Call, File, Step, in_the_way, plan
from oblivion_schema.drift.reading import EXPRESSIONS, both_read
from oblivion_schema.drift.standin import execute
from oblivion_schema.errors import UserError, primary_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.drift.catalog import Object
    from oblivion_schema.drift.plan import Statement


@dataclass(frozen=True)
class Revision:
    """The differences, and the statements there and back; `untried` says why they were not tried, if so."""

    drift: Drift
    upgrade: Sequence[Statement]
    downgrade: Sequence[Statement]
    untried: str = ""


def plan_revision(
    database: Connection,
    scratch: MigrationContext,
    metadata: MetaData,
    revisions: ScriptDirectory,
    *,
    drop_unknown: bool = False,
) -> Revision:
    """Compare as `find_drift()`, and plan the revision that turns `database` into what `metadata` declares.

    Raises UserError if the schema cannot be built, or the revision would be wrong or would not run there and back.
    """
    with both_read(database, scratch, metadata, revisions, writes_revision=True) as reading:
        drift = drift_of(reading, drop_unknown=drop_unknown)
        _refuse(drift)
        upgrade, downgrade = drift.upgrade(), drift.downgrade()
        untried = ""
        if upgrade:
            trial = _Trial(scratch, metadata)
            untried = trial.prepare(reading.made, drift.steps)
            if not untried:
                trial.run(drift.steps, upgrade, downgrade)
        return Revision(drift, upgrade, downgrade, untried)


class _Trial:
    """Run statements where there is what the revisions build; all is rolled back later."""

    def __init__(self, scratch: MigrationContext, metadata: MetaData) -> None:
        self.scratch = scratch
        self.metadata = metadata
        self.connection: Connection = Operations(scratch).get_bind()
        self.before = Catalog({})
        self.connection.execute(select(func.set_config("oblivion.drop_data", "yes", true())))

    def prepare(self, made: Catalog, steps: Sequence[Step]) -> str:
        """Alter what the database has otherwise than the revisions build it; returns why that failed, if it did."""
        theirs = {step.before.key: step.before for step in steps if step.before}
        ours = {key: made[key] for step in steps if (key := step.either.key) in made} | {
            key: made[key] for key in theirs if key in made
        }
        pairs = [(ours.get(key), theirs.get(key)) for key in {**theirs, **ours}]
        changes = [Step(one, other, _differ(one, other)) for one, other in pairs]
        self.before = made
        if all(one and other and not _differ(one, other) for one, other in pairs):
            return ""
        try:
            with self.connection.begin_nested():
                for statement in plan(changes):
                    self._execute(statement)
                self.before = read(self.connection, self.metadata)
        except (DBAPIError, UserError) as error:
            cause = primary_message(error) if isinstance(error, DBAPIError) else str(error)
            return f"The revision was not tried, because what was altered by hand could not be built again: {cause}"
        return ""

    def run(self, steps: Sequence[Step], upgrade: Sequence[Statement], downgrade: Sequence[Statement]) -> None:
        """Run both. Raises UserError if one fails, or does not leave what it should."""
        before = self.before
        self._run("upgrade", upgrade)
        wanted = {step.after.key: step.after for step in steps if step.after}
        unwanted = {step.before.key for step in steps if step.before} - wanted.keys()
        after = read(self.connection, self.metadata)
        wrong = [str(item) for key, item in wanted.items() if _differ(item, after.objects.get(key))]
        self._complain("upgrade", wrong + [str(after[key]) for key in unwanted & after.objects.keys()])
        self._run("downgrade", downgrade)
        back = read(self.connection, self.metadata)
        keys = {**before.objects, **back.objects}
        wrong = [" ".join(key) for key in keys if _differ(before.objects.get(key), back.objects.get(key))]
        self._complain("downgrade", wrong)

    def _run(self, direction: str, statements: Sequence[Statement]) -> None:
        for statement in statements:
            try:
                self._execute(statement)
            except DBAPIError as error:
                shown = statement.name if isinstance(statement, File) else str(statement)
                raise UserError(
                    f"The revision's {direction} would fail: {primary_message(error)}, in {' '.join(shown.split())}."
                    f" {_BY_HAND}"
                ) from error

    def _execute(self, statement: Statement) -> None:
        with Operations.context(self.scratch):
            if isinstance(statement, Call):
                getattr(operations, statement.function)(*statement.arguments)
            else:
                execute(self.connection, statement.text if isinstance(statement, File) else statement)

    def _complain(self, direction: str, wrong: Sequence[str]) -> None:
        if wrong:
            raise UserError(f"The revision's {direction} would not leave {', '.join(wrong)} as it should. {_BY_HAND}")


_BY_HAND: Final = "Nothing was written: go in smaller steps, or write this revision by hand."


def _differ(one: Object | None, other: Object | None) -> bool:
    """Whether two objects differ; what was made from PostgreSQL's print of an expression may be printed otherwise."""
    if one is None or other is None:
        return one is not other
    return one.kind not in EXPRESSIONS and one.definition != other.definition


def _refuse(drift: Drift) -> None:
    """Raise UserError if the revision would be wrong, or would not run."""
    if drift.missing_roles:
        raise UserError(
            f"This server has no role {', '.join(drift.missing_roles)}, so the revision would lack their grants: create"
            " these roles, or write the revision on a database that a superuser upgraded, such as the embedded one."
        )
    if blocked := in_the_way(drift.steps, drift.others):
        raise UserError(
            f"{', '.join(map(str, blocked))}: not ours, but depends on an object that the revision drops or alters."
            " Drop it before the upgrade, and create it again afterwards."
        )
    if tables := [table for table in drift.misplaced if _reads_in_order(drift.steps, table)]:
        raise UserError(
            f"{', '.join(tables)}: the columns stand in another order than in the database, where a new column is"
            " always the last. Move new columns to the end of the definition."
        )
    if drift.unwritten:
        raise UserError(
            f"{', '.join(drift.unwritten)}: this database already is as the metadata says, but the revisions build it"
            " otherwise, so this revision would leave it out. Undo what was changed here by hand, or write the revision"
            " on another database, such as a new one."
        )
    if drift.unclear:
        raise UserError(
            f"{', '.join(drift.unclear)}: gone from the metadata, but a new column of the same type may be the same"
            " column renamed. Write two revisions: one drops the old column, the other adds the new one."
        )
    if tables := [item.name for item in drift.kept if item.kind == "table" and item.change == "extra"]:
        raise UserError(
            f"{', '.join(tables)}: no longer in the metadata. Put it back, or drop it with all its rows:"
            " alembic -x drop-unknown=yes revision --autogenerate."
        )


def _reads_in_order(steps: Sequence[Step], table: str) -> bool:
    """Whether a changed view or function may read the table's columns by their places: PostgreSQL names them so.

    A function may by `SELECT *`, and a view of a function's rows.
    """
    addresses = {
        side.address for step in steps for side in (step.before, step.after) if side and side.own_name == table
    }
    columns = tuple(address.replace("relation", "column") + "." for address in addresses if address)
    for step in steps:
        item = step.after
        if item is None or not (step.differs or step.before is None):
            continue
        if item.kind == "function" and any(need in addresses or need.startswith(columns) for need in item.needs):
            return True
        if item.kind == "view" and any(need.startswith("function ") for need in item.needs):
            return True
    return False

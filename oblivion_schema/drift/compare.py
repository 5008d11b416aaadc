"""What differs between the metadata and a database, and the revision that makes them the same: an Alembic plugin.

PostgreSQL prints both states. In a savepoint that is always rolled back the schemas are renamed away, and
`metadata.create_all()` builds what should be there under their names; `alembic check` and `revision --autogenerate`
then compare two catalogs. No reader or writer waits for that, for nothing of the tables themselves is touched.

What the metadata does not know is ours where the revisions make it, built in the same way. All else is somebody
else's: it is named, and left alone.
"""

from __future__ import annotations

import difflib
import logging
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.plugins import Plugin
from alembic.util import PriorityDispatchResult
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.log import noted
from oblivion_schema.declare.privileges import API_ROLES, exact_grants
from oblivion_schema.declare.sql import quoted
from oblivion_schema.drift import statements
from oblivion_schema.drift.catalog import COLUMN_STATES, CONSTRAINTS, PUBLICATIONS, Catalog, Key, Object, read
from oblivion_schema.drift.plan import Call, ModeGrants, Rename, Step, grant_target, in_the_way, plan
from oblivion_schema.drift.standin import build, execute, made_by_revisions, reread, stand_in
from oblivion_schema.errors import UserError
from oblivion_schema.operations import literal
from oblivion_schema.tables.access import MODES, current_mode
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.tables.access import Mode

PLUGIN: Final = "oblivion_schema.drift"
_LOG: Final = logging.getLogger(PLUGIN)

# PostgreSQL may print these differently once it has read its own print.
_EXPRESSIONS: Final = frozenset({"check constraint", "index", "policy", "view", "default", "trigger"})
# Without a name of their own, these are how an object is, and so never somebody else's.
_STATES: Final = COLUMN_STATES | {
    "storage parameter", "setting", "trigger state", "row level security", "owner", "grant", "publication", "comment",
}  # fmt: skip
_SHOWN: Final = 30


class Difference(NamedTuple):
    """One object that is not in the database as the metadata has it; `metadata` and `database` are the definitions.

    `unknown` is what no revision makes either.
    """

    change: Literal["missing", "different", "renamed", "extra", "unknown"]
    kind: str
    name: str
    metadata: str = ""
    database: str = ""

    def __repr__(self) -> str:
        says = {
            "missing": "is missing",
            "different": "differs",
            "renamed": f"is {self.metadata} in the metadata",
            "extra": "is not in the metadata",
            "unknown": "is in neither the metadata nor a revision",
        }
        return f"{self.kind} {self.name} {says[self.change]}".lstrip()

    def explained(self) -> str:
        """The difference with both definitions, line by line."""
        if self.change != "different":
            return repr(self)
        lines = difflib.ndiff(self.database.splitlines(), self.metadata.splitlines())
        shown = [f"  {line.rstrip()}" for line in lines if not line.startswith("?")]
        return "\n".join([f"{self!r} (- database, + metadata)", *shown])


@dataclass(frozen=True)
class Drift:
    """What differs, and the steps that mend it.

    `kept` of the differences are dropped only when asked for; `left_alone` is somebody else's, and `others` is all that
    no step touches; the columns of `misplaced` tables are in another order than a revision can give them; grants to
    `missing_roles` were not compared. `unclear` columns may have got one of several new names; what is `by_hand` no
    revision made so. `grants_after` and `grants_before` are those that depend on the access mode.
    """

    differences: tuple[Difference, ...]
    steps: tuple[Step, ...]
    renames: tuple[Rename, ...]
    left_alone: tuple[str, ...]
    kept: tuple[Difference, ...]
    others: tuple[Object, ...]
    misplaced: tuple[str, ...] = ()
    missing_roles: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    by_hand: tuple[str, ...] = ()
    grants_after: Mapping[str, ModeGrants] = field(default_factory=dict)
    grants_before: Mapping[str, ModeGrants] = field(default_factory=dict)

    def report(self) -> Iterator[str]:
        """Each difference, line by line, and what was not compared."""
        for difference in self.differences:
            yield difference.explained()
        if self.kept:
            yield "What the metadata does not know, a revision drops only when told: alembic -x drop-unknown=yes"
        if self.left_alone:
            more = len(self.left_alone) - _SHOWN
            rest = f" and {more} more" if more > 0 else ""
            yield f"Not ours, left alone: {', '.join(self.left_alone[:_SHOWN])}{rest}"
        if self.by_hand:
            yield (
                f"Altered by hand, for the revisions make it otherwise: {', '.join(self.by_hand)}."
                " The revision fits this database, and may not fit others."
            )
        if self.missing_roles:
            yield f"Not compared, for there is no such role: grants to {', '.join(self.missing_roles)}"

    def upgrade(self) -> list[str | Call]:
        """The statements that make the database what the metadata is."""
        return plan(self.steps, self.renames, self.grants_after)

    def downgrade(self) -> list[str | Call]:
        """The statements that make it what it was."""
        back = [step.reversed() for step in self.steps]
        return plan(back, [rename.reversed() for rename in self.renames], self.grants_before)


def find_drift(
    database: Connection,
    scratch: MigrationContext,
    metadata: MetaData,
    revisions: ScriptDirectory,
    *,
    drop_unknown: bool = False,
    writes_revision: bool = False,
) -> Drift:
    """Compare `database` with what `metadata` builds on the connection of `scratch`, which may be the same one.

    `database` is read only. On the other everything is rolled back; it needs the rights that an upgrade needs. With
    `drop_unknown` the steps drop what the metadata does not know, tables included; with `writes_revision` they are
    compared with what the revisions make, too, and grants in both access modes. Raises UserError where nothing can be
    built, or the metadata is not valid.
    """
    connection = Operations(scratch).get_bind()
    mode = current_mode(database)
    left = {(entry.kind, entry.name) for entry in noted(database) if entry.kind != "table"}
    roles = _existing_roles(database)
    live = read(database, metadata, roles)
    published = _publications(database)
    with stand_in(connection):
        elsewhere = _publications(connection)
        for name in sorted(published - elsewhere):
            execute(connection, f"CREATE PUBLICATION {quoted(name)}")
        build(connection, metadata, mode)
        compared = sorted(set(roles) & set(_existing_roles(connection)))
        missing = tuple(sorted(set(API_ROLES) - set(compared)))
        live = live.without_grants_to(missing)

        def read_built() -> Catalog:
            return read(connection, metadata, compared).without_publications(elsewhere - published)

        want = read_built()
        if want.unsupported:
            raise UserError(
                f"The metadata makes {', '.join(map(str, want.unsupported))}, which is no kind that is compared"
                " (oblivion_schema.catalog.KINDS): use another, or add the kind."
            )
        renames, unclear = _renames(live, want)
        gone = any(item.kind not in _STATES and key not in want for key, item in live.objects.items())
        made = made_by_revisions(scratch, metadata, revisions, mode) if gone or writes_revision else Catalog({})
        renames = [rename for rename in renames if ("column", rename.names[0]) in made]
        with connection.begin_nested() as savepoint:
            for rename in renames:
                back = rename.reversed()
                execute(connection, statements.rename_column(back.table, back.before, back.after))
            # In the names of the database, so that PostgreSQL's own renaming is no difference.
            like_live = read_built() if renames else want
            steps = _steps(live, like_live, want)
            for step in steps:
                if step.differs and step.before and step.before.kind in _EXPRESSIONS:
                    wanted = like_live[step.before.key]
                    step.differs = reread(connection, metadata, wanted).definition != step.before.definition
            steps = [_with_cast(connection, step) for step in steps]
            savepoint.rollback()
        before, after = {mode: live}, {mode: want}
        if writes_revision:
            [other] = set(MODES) - {mode}
            before[other] = made_by_revisions(scratch, metadata, revisions, other).without_grants_to(missing)
            with stand_in(connection):
                build(connection, metadata, other)
                after[other] = read(connection, metadata, compared)
    # What is no kind that is compared is never dropped, but on an object of ours it is a difference.
    ours = {step.before.address for step in steps if step.before and step.after and step.before.address}
    on_ours = [
        item
        for item in live.unsupported
        if (item.part_of in ours or f" {PRIVATE_SCHEMA}." in item.own_name)
        and tuple(item.own_name.split(" ", 1)) not in left
    ]
    others = [str(item) for item in live.unsupported if item not in on_ours]
    drift = _sort_out(steps, renames, set(made.objects), left, drop_unknown=drop_unknown)
    grants_after, grants_before = _grants_by_mode(before, after), _grants_by_mode(after, before)
    in_the_other = [
        Difference("different", "grant", f"on {target} in the {' and '.join(its.differs_in)} mode")
        for target, its in grants_after.items()
        if its.differs_in and mode not in its.differs_in
    ]
    return replace(
        drift,
        differences=(
            *drift.differences,
            *in_the_other,
            *(Difference("unknown", "", item.own_name) for item in on_ours),
        ),
        grants_after=grants_after,
        grants_before=grants_before,
        left_alone=(*sorted(others), *drift.left_alone),
        others=(*drift.others, *live.unsupported),
        misplaced=tuple(_misplaced(live, want, renames)),
        missing_roles=missing,
        unclear=tuple(name for name in unclear if ("column", name) in made),
        by_hand=_by_hand(drift, made) if writes_revision else (),
    )


def _grants_by_mode(before: Mapping[Mode, Catalog], after: Mapping[Mode, Catalog]) -> dict[str, ModeGrants]:
    """The grants that are not the same in both modes, before or after, by what GRANT calls their object."""
    if len(after) < len(MODES):
        return {}
    old, new = ({mode: catalog.grants() for mode, catalog in side.items()} for side in (before, after))
    found = {}
    for target in filter(None, dict.fromkeys(grant_target(item) for item in after["open"].objects.values())):
        was, becomes = ({mode: side[mode].get(target, {}) for mode in MODES} for side in (old, new))
        if any(its["open"] != its["authenticated"] for its in (was, becomes)):
            statement = exact_grants(target, becomes["open"], becomes["authenticated"])
            found[target] = ModeGrants(statement, tuple(mode for mode in MODES if was[mode] != becomes[mode]))
    return found


def _publications(connection: Connection) -> set[str]:
    """The publications there are of those whose members are compared."""
    found = connection.scalars(
        text("SELECT pubname FROM pg_publication WHERE pubname = ANY (:names)"), {"names": list(PUBLICATIONS)}
    )
    return set(found)


def _existing_roles(connection: Connection) -> list[str]:
    """The API roles that the server has."""
    found = connection.scalars(
        text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:roles)"), {"roles": list(API_ROLES)}
    )
    return sorted(found)


def _sort_out(
    steps: Sequence[Step], renames: Sequence[Rename], known: set[Key], left: set[Key], *, drop_unknown: bool
) -> Drift:
    """Tell our differences from what is somebody else's, which no step touches unless it is asked for.

    `left` is what an adoption found on a table, and left.
    """
    owners = _owners(steps)
    renamed = {("column", rename.names[0]) for rename in renames}
    differences = [Difference("renamed", "column", *rename.names) for rename in renames]
    kept: dict[Step, Difference | None] = {}
    for step in steps:
        item, owner = step.either, owners[step]
        if owner is not None and not (owner.before and owner.after):
            continue  # it comes, or goes, with that
        if step.before and step.after:
            if _only_not_valid(step) and ("not valid", item.name) in left:
                kept[step] = None
            elif step.differs and item.key not in renamed:
                shown = _shown(step.after), _shown(step.before)
                differences.append(Difference("different", item.kind, step.before.name, *shown))
        elif step.after:
            differences.append(Difference("missing", item.kind, item.name, _shown(item)))
        elif (item.key in left or _is_somebody_elses(item, known, owner)) and not (
            drop_unknown and item.kind != "reference row"
        ):
            kept[step] = None
        else:
            ours = item.key in known or item.kind in _STATES
            differences.append(Difference("extra" if ours else "unknown", item.kind, item.name, "", _shown(item)))
            if not drop_unknown and (not ours or item.kind == "table"):
                kept[step] = differences[-1]

    def is_kept(step: Step) -> bool:
        owner = owners[step]
        return step in kept or (owner is not None and is_kept(owner))

    return Drift(
        differences=tuple(differences),
        steps=tuple(step for step in steps if not is_kept(step)),
        renames=tuple(renames),
        left_alone=tuple(
            f"{step.either}{' (NOT VALID: oblivion-schema verify names the rows that break it)' * step.differs}"
            for step, told in kept.items()
            if told is None and step.either.kind != "reference row"
        ),
        kept=tuple(filter(None, kept.values())),
        others=tuple(step.before for step in steps if step.before and is_kept(step)),
    )


def _owners(steps: Sequence[Step]) -> dict[Step, Step | None]:
    """What each object is part of."""
    before = {step.before.address: step for step in steps if step.before and step.before.address}
    after = {step.after.address: step for step in steps if step.after and step.after.address}
    return {step: before.get(step.before.part_of) if step.before else after.get(step.either.part_of) for step in steps}


def _only_not_valid(step: Step) -> bool:
    """Whether all that differs is that rows which were there before may break a constraint."""
    before, after = step.before, step.after
    return bool(
        before and after and before.kind in CONSTRAINTS and before.definition == f"{after.definition} NOT VALID"
    )


def _is_somebody_elses(item: Object, known: set[Key], owner: Step | None) -> bool:
    """Whether no revision makes it and it stands beside our objects: in public, or among the reference rows."""
    if item.key in known or item.kind in _STATES:
        return False
    return item.kind == "reference row" or (owner is None and item.own_name.startswith("public."))


def _shown(item: Object) -> str:
    return statements.create(item) if item.kind in {"policy", "view", "function", "trigger"} else item.definition


def _steps(live: Catalog, like_live: Catalog, want: Catalog) -> list[Step]:
    wanted = {_identity(item): item for item in want.objects.values()}
    steps = [
        Step(item, wanted[_identity(found)], found.definition != item.definition)
        if (found := like_live.objects.get(key)) is not None
        else Step(item, None)
        for key, item in live.objects.items()
    ]
    return steps + [Step(None, wanted[_identity(item)]) for key, item in like_live.objects.items() if key not in live]


def _identity(item: Object) -> tuple[str, ...]:
    """Which object it is in its own catalog, whatever its column is called."""
    match item.kind:
        case "grant":
            return item.kind, item.part_of, item.on_name, item.role, item.own_name.partition(" ")[0]
        case "comment" | "reference row":
            return item.kind, item.part_of, str(item.sort), item.own_name.partition(" ")[0]
        case _ if item.address:
            return item.kind, item.address
        case "type" | "nullability":
            return item.kind, item.part_of
        case _:
            return item.kind, item.part_of, item.own_name


def _renames(live: Catalog, want: Catalog) -> tuple[list[Rename], list[str]]:
    """The columns that have another name in the same place and of the same type, and those that may or may not.

    New columns go last: one that is gone and one that is new, in one place, are the same.
    """
    sure, unclear = [], []
    wanted = want.columns()
    for table, columns in live.columns().items():
        names = [column.own_name for column in columns]
        new_names = [column.own_name for column in wanted.get(table, ())]
        gone = [column for column in columns if column.own_name not in new_names]
        new = [column for column in wanted.get(table, ()) if column.own_name not in names]
        like = {
            old.name: [
                other for other in new if live["type", old.name].definition == want["type", other.name].definition
            ]
            for old in gone
        }
        for old in gone:
            match like[old.name]:
                case [other] if len(gone) == len(new) == 1 and (
                    names.index(old.own_name) == new_names.index(other.own_name)
                ):
                    sure.append(Rename(table, old.own_name, other.own_name))
                case [_, *_]:
                    unclear.append(old.name)
    return sure, unclear


def _misplaced(live: Catalog, want: Catalog, renames: Sequence[Rename]) -> Iterator[str]:
    """Tables whose new columns are not the last ones in their definition."""
    new_names = {rename.names[0]: rename.after for rename in renames}
    wanted = want.columns()
    for table, columns in live.columns().items():
        names = [column.own_name for column in wanted.get(table, ())]
        old = [new_names.get(column.name, column.own_name) for column in columns]
        if names != [*(name for name in old if name in names), *(name for name in names if name not in old)]:
            yield table


def _with_cast(scratch: Connection, step: Step) -> Step:
    """The step with the types marked to which PostgreSQL converts only by a cast."""
    if not (step.differs and step.before and step.after and step.before.kind == "type"):
        return step

    def marked(source: Object, target: Object) -> Object:
        with scratch.begin_nested() as savepoint:
            execute(scratch, f"CREATE TABLE public.oblivion_cast (value {source.definition})")
            try:
                execute(scratch, f"ALTER TABLE public.oblivion_cast ALTER value TYPE {target.definition}")
            except DBAPIError:
                target = replace(target, shape=statements.NEEDS_CAST)
            savepoint.rollback()
        return target

    return Step(marked(step.after, step.before), marked(step.before, step.after), differs=True)


def _by_hand(drift: Drift, made: Catalog) -> tuple[str, ...]:
    """What of the differences the revisions do not make as it is in the database."""
    named = {(difference.kind, difference.name) for difference in drift.differences}
    found = []
    for step in drift.steps:
        if step.either.key in named or (step.before and step.before.key in named):
            key = step.before.key if step.before else step.either.key
            theirs = made.objects.get(key)
            if (theirs and theirs.definition) != (step.before and step.before.definition):
                found.append(str(step.either))
    return tuple(found)


# The plugin.


class ChangeSchema(MigrateOperation):
    """All that a revision does, both ways."""

    def __init__(
        self, upgrade: Sequence[str | Call], downgrade: Sequence[str | Call], differences: Iterable[Difference] = ()
    ) -> None:
        self.upgrade = upgrade
        self.downgrade = downgrade
        self.ops = [_Found(difference) for difference in differences]

    def reverse(self) -> ChangeSchema:
        """The downgrade."""
        return ChangeSchema(self.downgrade, self.upgrade)


class _Found(MigrateOperation):
    """One difference, as `alembic check` lists them."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference

    def to_diff_tuple(self) -> Difference:
        return self.difference


@renderers.dispatch_for(ChangeSchema)
def _render(context: AutogenContext, change: ChangeSchema) -> list[str]:
    lines = []
    for statement in change.upgrade:
        if isinstance(statement, Call):
            context.imports.add(f"from oblivion_schema.operations import {statement.function}")
            lines.append(f"{statement.function}({', '.join(map(repr, statement.arguments))})")
        elif "\n" in (source := literal(statement)):
            lines.append("run_sql(\n    " + source.replace("\n", "\n    ") + "\n)")
        else:
            lines.append(f"run_sql({source})")
    return lines


def _compare(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    connection = Operations(context.migration_context).get_bind()
    drift = find_drift(
        connection,
        context.migration_context,
        context.opts["target_metadata"],
        context.opts["revisions"],
        drop_unknown=context.opts["drop_unknown"],
        writes_revision=context.opts["writes_revision"],
    )
    if context.opts["writes_revision"]:
        _refuse_revision(drift)
    for line in drift.report():
        _LOG.info("%s", line)
    if drift.differences:
        both = (drift.upgrade(), drift.downgrade()) if context.opts["writes_revision"] else ([], [])
        upgrade.ops.append(ChangeSchema(*both, drift.differences))
    return PriorityDispatchResult.CONTINUE


def _refuse_revision(drift: Drift) -> None:
    """Raise UserError where a revision would be wrong, or would not run."""
    if drift.missing_roles:
        raise UserError(
            f"This server has no role {', '.join(drift.missing_roles)}, so the revision would grant them nothing: write"
            " it on a database that a superuser upgraded, such as the embedded one, or create the roles."
        )
    if blocked := in_the_way(drift.steps, drift.others):
        raise UserError(
            f"{', '.join(map(str, blocked))}: not ours, and on or above something that has to make way. Drop it first,"
            " and make it again after the upgrade."
        )
    reordered = [step.after for step in drift.steps if step.differs and step.after and step.after.kind == "view"]
    if drift.misplaced and any(need.startswith("function ") for view in reordered for need in view.needs):
        # PostgreSQL prints the columns of a function's rows by their place: the view would read other ones.
        raise UserError(
            f"{', '.join(drift.misplaced)}: new columns go last in a definition, as they do in a database."
            " Put them there."
        )
    if drift.unclear:
        raise UserError(
            f"{', '.join(drift.unclear)}: gone, while the table has a new column of the same type in another place, or"
            " several, which may be its new name. Write one revision for what is gone, and another for what is new."
        )
    if tables := [item.name for item in drift.kept if item.kind == "table" and item.change == "extra"]:
        raise UserError(
            f"{', '.join(tables)}: no longer in the metadata. Put it back, or drop it, rows included, by"
            " alembic -x drop-unknown=yes revision --autogenerate."
        )


def setup(plugin: Plugin) -> None:
    """Register the comparison; Alembic's own ones are not needed beside it."""
    plugin.add_autogenerate_comparator(_compare, "autogenerate", qualifier="postgresql")


Plugin.setup_plugin_from_module(sys.modules[__name__], PLUGIN)

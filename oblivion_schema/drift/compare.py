"""Deciding what differs, what of it is ours, and which steps mend it: from a reading to a `Drift`.

What the metadata does not know is ours where the revisions make it. All else is somebody else's: it is named, and left
alone.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from oblivion_schema.declare.privileges import exact_grants
from oblivion_schema.drift import statements
from oblivion_schema.drift.catalog import CONSTRAINTS, STATES, Catalog, Key, Object
from oblivion_schema.drift.plan import ModeGrants, Rename, Step, grant_target, plan
from oblivion_schema.drift.reading import Reading, read_both
from oblivion_schema.tables.access import MODES
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.drift.plan import Statement
    from oblivion_schema.tables.access import Mode

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

    def upgrade(self) -> list[Statement]:
        """The statements that make the database what the metadata is."""
        return plan(self.steps, self.renames, self.grants_after)

    def downgrade(self) -> list[Statement]:
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
    reading = read_both(database, scratch, metadata, revisions, writes_revision=writes_revision)
    drift = _sort_out(reading, drop_unknown=drop_unknown)
    after, before = reading.after, reading.before
    drift = replace(drift, grants_after=_grants_by_mode(before, after), grants_before=_grants_by_mode(after, before))
    foreign = _not_compared_on_ours(reading)
    others = [item for item in reading.live.unsupported if item not in foreign]
    return replace(
        drift,
        differences=(
            *drift.differences,
            *_grants_of_the_other_mode(drift, reading.mode),
            *(Difference("unknown", "", item.own_name) for item in foreign),
        ),
        left_alone=(*sorted(map(str, others)), *drift.left_alone),
        others=(*drift.others, *reading.live.unsupported),
        misplaced=tuple(_misplaced(reading)),
        missing_roles=reading.missing_roles,
        unclear=reading.unclear,
        by_hand=_by_hand(drift, reading.made) if writes_revision else (),
    )


def _not_compared_on_ours(reading: Reading) -> list[Object]:
    """What is no kind that is compared, and so never dropped, but a difference, for it is on an object of ours."""
    ours = {step.before.address for step in reading.steps if step.before and step.after and step.before.address}
    return [
        item
        for item in reading.live.unsupported
        if (item.part_of in ours or f" {PRIVATE_SCHEMA}." in item.own_name)
        and tuple(item.own_name.split(" ", 1)) not in reading.left
    ]


def _grants_of_the_other_mode(drift: Drift, mode: Mode) -> Iterator[Difference]:
    """Grants that are right in the mode that the database is in, and not in the other."""
    for target, its in drift.grants_after.items():
        if its.differs_in and mode not in its.differs_in:
            yield Difference("different", "grant", f"on {target} in the {' and '.join(its.differs_in)} mode")


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


def _sort_out(reading: Reading, *, drop_unknown: bool) -> Drift:
    """Tell our differences from what is somebody else's, which no step touches unless it is asked for."""
    steps, renames, left, known = reading.steps, reading.renames, reading.left, set(reading.made.objects)
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
            ours = item.key in known or item.kind in STATES
            differences.append(Difference("extra" if ours else "unknown", item.kind, item.name, "", _shown(item)))
            if not drop_unknown and (not ours or item.kind == "table"):
                kept[step] = differences[-1]

    def is_kept(step: Step) -> bool:
        owner = owners[step]
        return step in kept or (owner is not None and is_kept(owner))

    return Drift(
        differences=tuple(differences),
        steps=tuple(step for step in steps if not is_kept(step)),
        renames=renames,
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
    if item.key in known or item.kind in STATES:
        return False
    return item.kind == "reference row" or (owner is None and item.own_name.startswith("public."))


def _shown(item: Object) -> str:
    printed = replace(item, source="")
    return statements.create(printed) if item.kind in {"policy", "view", "function", "trigger"} else item.definition


def _misplaced(reading: Reading) -> Iterator[str]:
    """Tables whose new columns are not the last ones in their definition."""
    new_names = {rename.names[0]: rename.after for rename in reading.renames}
    wanted = reading.want.columns()
    for table, columns in reading.live.columns().items():
        names = [column.own_name for column in wanted.get(table, ())]
        old = [new_names.get(column.name, column.own_name) for column in columns]
        if names != [*(name for name in old if name in names), *(name for name in names if name not in old)]:
            yield table


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

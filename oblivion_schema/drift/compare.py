"""Decide which differences are ours, and which steps fix them: `find_drift()` turns a `Reading` into a `Drift`.

An object that the metadata does not declare is ours if the revisions build it: it is dropped. Any other belongs to
somebody else: it is reported, and never changed unless asked for.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from oblivion_schema.declare.privileges import GRANT_MODES, exact_grants
from oblivion_schema.drift import statements
from oblivion_schema.drift.catalog import CONSTRAINTS, STATES, Catalog, Key, Object
from oblivion_schema.drift.plan import ModeGrants, Rename, Step, grant_target, plan
from oblivion_schema.drift.reading import Reading, both_read
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.declare.privileges import GrantMode
    from oblivion_schema.drift.plan import Statement
    from oblivion_schema.tables.access import Mode

_SHOWN: Final = 30
_LINES_AROUND: Final = 3


class Difference(NamedTuple):
    """One object that the database does not have as the metadata declares it.

    `metadata` and `database` are its definitions on the two sides; `renamed` has the column's new name in `metadata`.
    `extra` is an object that the revisions build and the metadata lacks; `unknown` one that neither of them has.
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
        """The difference; if both sides have a definition, its changed lines, each with three lines around it."""
        database, metadata = self.database.splitlines(), self.metadata.splitlines()
        lines = list(difflib.unified_diff(database, metadata, n=_LINES_AROUND, lineterm=""))[2:]  # no file names
        if self.change != "different" or not lines:
            return repr(self)
        shown = [f"  {line[0]} {line[1:]}".rstrip() if line[:2] != "@@" else "  ..." for line in lines]
        starts_at_the_top = lines[0].startswith(("@@ -0", "@@ -1 ", "@@ -1,"))
        return "\n".join([f"{self!r} (- database, + metadata)", *shown[1 if starts_at_the_top else 0 :]])


@dataclass(frozen=True)
class Drift:
    """The differences, and the steps that fix them.

    - `kept`: the differences that no step fixes unless `drop_unknown` is given.
    - `left_alone`: names of objects that belong to somebody else.
    - `others`: all objects that no step touches; they may block a step.
    - `misplaced`: tables whose columns stand in an order that no revision can give them.
    - `missing_roles`: roles whose grants were not compared.
    - `unclear`: columns that may have one of several new names.
    - `by_hand`: objects that differ from what the revisions build.
    - `unwritten`: objects that the revisions build otherwise, while the database already is as the metadata says.
    - `access`: the access mode of the database.
    - `grants_after`, `grants_before`: grants that are not the same in all modes, by their target in GRANT.
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
    unwritten: tuple[str, ...] = ()
    access: Mode = "open"
    grants_after: Mapping[str, ModeGrants] = field(default_factory=dict)
    grants_before: Mapping[str, ModeGrants] = field(default_factory=dict)

    def report(self) -> Iterator[str]:
        """A text for each difference, then a line for each thing that was kept, left alone or not compared."""
        for difference in self.differences:
            yield difference.explained()
        if self.kept:
            yield "A revision drops what the metadata does not know only when told: alembic -x drop-unknown=yes"
        if self.left_alone:
            more = len(self.left_alone) - _SHOWN
            rest = f" and {more} more" if more > 0 else ""
            yield f"Not ours, left alone: {', '.join(self.left_alone[:_SHOWN])}{rest}"
        if self.missing_roles:
            yield f"Not compared, because the role does not exist: grants to {', '.join(self.missing_roles)}"

    def upgrade(self) -> list[Statement]:
        """The statements that turn the database into what the metadata declares. Raises UserError as `plan()`."""
        return plan(self.steps, self.renames, self.grants_after)

    def downgrade(self) -> list[Statement]:
        """The statements that turn it back. Raises UserError as `plan()`."""
        back = [step.reversed() for step in self.steps]
        return plan(back, [rename.reversed() for rename in self.renames], self.grants_before)


def find_drift(
    database: Connection,
    scratch: MigrationContext,
    metadata: MetaData,
    revisions: ScriptDirectory,
    *,
    drop_unknown: bool = False,
) -> Drift:
    """Compare `database` with what `metadata` builds on the connection of `scratch`, which may be the same one.

    `database` is only read. Everything on `scratch` is rolled back; its role needs the rights that an upgrade needs.
    `drop_unknown` lets the steps drop what the metadata does not declare, tables included. Raises UserError if the
    schema cannot be built, or the metadata is not valid.
    """
    with both_read(database, scratch, metadata, revisions) as reading:
        return drift_of(reading, drop_unknown=drop_unknown)


def drift_of(reading: Reading, *, drop_unknown: bool) -> Drift:
    """What a reading says; of a revision also what other databases have in other modes, or may not have."""
    drift = _classify(reading, drop_unknown=drop_unknown)
    after, before = reading.after, reading.before
    wanted = [step.after for step in drift.steps if step.after]
    ours = [step.before for step in drift.steps if step.before and step.before.key in reading.made]
    drift = replace(
        drift,
        grants_after=_grants_by_mode(before, after, wanted),
        grants_before=_grants_by_mode(after, before, ours),
    )
    foreign = _not_compared_on_ours(reading)
    others = [item for item in reading.live.unsupported if item not in foreign]
    drift = replace(
        drift,
        differences=(
            *drift.differences,
            *_grants_of_other_modes(drift, reading.mode),
            *(Difference("unknown", "", item.own_name) for item in foreign),
        ),
        left_alone=(*sorted(map(str, others)), *drift.left_alone),
        others=(*drift.others, *reading.live.unsupported, *reading.live.dependents),
        misplaced=tuple(_misplaced(reading)),
        missing_roles=reading.missing_roles,
        access="open" if reading.mode == "open" else "authenticated",
        unclear=reading.unclear,
    )
    if reading.writes_revision:
        return replace(drift, by_hand=_by_hand(drift, reading.made), unwritten=_unwritten(reading))
    return drift


def _not_compared_on_ours(reading: Reading) -> list[Object]:
    """Objects of ours carry these, in kinds that are not compared: a difference, but no revision drops them."""
    ours = {step.before.address for step in reading.steps if step.before and step.after and step.before.address}
    return [
        item
        for item in reading.live.unsupported
        if (item.part_of in ours or f" {PRIVATE_SCHEMA}." in item.own_name)
        and tuple(item.own_name.split(" ", 1)) not in reading.left
    ]


def _grants_of_other_modes(drift: Drift, mode: GrantMode) -> Iterator[Difference]:
    """Grants that are right in the database's mode, and wrong in another."""
    for target, its in drift.grants_after.items():
        if its.differs_in and mode not in its.differs_in:
            yield Difference("different", "grant", f"on {target} in the {' and '.join(its.differs_in)} mode")


def _grants_by_mode(
    before: Mapping[GrantMode, Catalog], after: Mapping[GrantMode, Catalog], items: Iterable[Object]
) -> dict[str, ModeGrants]:
    """The grants on `items` that differ between the modes, before or after, by their target in GRANT."""
    if len(after) < len(GRANT_MODES):
        return {}
    old, new = ({mode: catalog.grants() for mode, catalog in side.items()} for side in (before, after))
    # What a role passed on looks the same, and has another grantor.
    passed_on = {
        (mode, item.on_name)
        for mode, catalog in before.items()
        for item in catalog.objects.values()
        if item.kind == "grant" and item.grantors
    }
    found = {}
    for target in dict.fromkeys(filter(None, map(grant_target, items))):
        was, becomes = ({mode: side[mode].get(target, {}) for mode in GRANT_MODES} for side in (old, new))
        if any(its["open"] != its[mode] for its in (was, becomes) for mode in GRANT_MODES):
            statement = exact_grants(target, becomes)
            found[target] = ModeGrants(
                statement,
                tuple(mode for mode in GRANT_MODES if was[mode] != becomes[mode] or (mode, target) in passed_on),
            )
    return found


def _classify(reading: Reading, *, drop_unknown: bool) -> Drift:
    """Separate our differences from somebody else's objects, which no step touches unless `drop_unknown`.

    `kept` has each step that is not taken, with the difference that it would fix; None if the object is not ours.
    """
    steps, renames, left, known = reading.steps, reading.renames, reading.left, set(reading.made.objects)
    owners = _owners(steps)
    renamed = {("column", rename.names[0]) for rename in renames}
    differences = [Difference("renamed", "column", *rename.names) for rename in renames]
    kept: dict[Step, Difference | None] = {}
    for step in steps:
        item, owner = step.either, owners[step]
        if owner is not None and not (owner.before and owner.after):
            continue  # created or dropped together with its owner
        if step.before and step.after:
            if _only_not_valid(step) and ("not valid", item.name) in left:
                kept[step] = None
            elif step.differs and item.key not in renamed:
                shown = _readable(step.after), _readable(step.before)
                differences.append(Difference("different", item.kind, step.before.name, *shown))
        elif step.after:
            differences.append(Difference("missing", item.kind, item.name, _readable(item)))
        elif (item.key in left or _is_somebody_elses(item, known, owner)) and not (
            drop_unknown and item.kind != "reference row"
        ):
            kept[step] = None
        else:
            ours = item.key in known or item.kind in STATES
            differences.append(Difference("extra" if ours else "unknown", item.kind, item.name, "", _readable(item)))
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
    """For each step, the step of the object that this one is part of."""
    before = {step.before.address: step for step in steps if step.before and step.before.address}
    after = {step.after.address: step for step in steps if step.after and step.after.address}
    return {step: before.get(step.before.part_of) if step.before else after.get(step.either.part_of) for step in steps}


def _only_not_valid(step: Step) -> bool:
    """Whether the database's constraint differs only by NOT VALID: old rows may break it."""
    before, after = step.before, step.after
    return bool(
        before and after and before.kind in CONSTRAINTS and before.definition == f"{after.definition} NOT VALID"
    )


def _is_somebody_elses(item: Object, known: set[Key], owner: Step | None) -> bool:
    """Whether no revision builds it, and it stands by itself in schema public or is a row of a reference table."""
    if item.key in known or item.kind in STATES:
        return False
    return item.kind == "reference row" or (owner is None and item.own_name.startswith("public."))


def _readable(item: Object) -> str:
    """The definition as PostgreSQL prints it, laid out as in a revision."""
    printed = replace(item, source="")
    return statements.create(printed) if item.kind in {"policy", "view", "function", "trigger"} else item.definition


def _misplaced(reading: Reading) -> Iterator[str]:
    """Tables whose metadata does not list the columns as the database would: the old ones in order, then the new."""
    new_names = {rename.names[0]: rename.after for rename in reading.renames}
    wanted = reading.want.columns()
    for table, columns in reading.live.columns().items():
        names = [column.own_name for column in wanted.get(table, ())]
        old = [new_names.get(column.name, column.own_name) for column in columns]
        if names != [*(name for name in old if name in names), *(name for name in names if name not in old)]:
            yield table


def _by_hand(drift: Drift, made: Catalog) -> tuple[str, ...]:
    """The differing objects whose state in the database is not what the revisions build."""
    named = {(difference.kind, difference.name) for difference in drift.differences}
    found = []
    for step in drift.steps:
        if step.either.key in named or (step.before and step.before.key in named):
            key = step.before.key if step.before else step.either.key
            theirs = made.objects.get(key)
            if (theirs and theirs.definition) != (step.before and step.before.definition):
                found.append(str(step.either))
    return tuple(found)


def _unwritten(reading: Reading) -> tuple[str, ...]:
    """The objects that no revision builds as the metadata says, although the database shows no difference.

    Somebody tried the change on this database by hand: a revision written here would leave it out.
    """
    if reading.renames:
        return ()
    found = {
        key
        for step in reading.steps
        if step.differs or not (step.before and step.after)
        for key in (step.before and step.before.key, step.after and step.after.key)
    }
    want, made, live = reading.want.objects, reading.made.objects, reading.live.objects

    def is_built_so(key: Key) -> bool:
        """As the metadata says, or as it is here: the two may be two prints of one expression."""
        there = [catalog[key].definition for catalog in (want, live) if key in catalog]
        return made[key].definition in there if key in made else not there

    return tuple(
        str(want.get(key) or made.get(key))
        for key in {**want, **made}
        if key not in found and "oblivion.alembic_version" not in key[1] and not is_built_so(key)
    )

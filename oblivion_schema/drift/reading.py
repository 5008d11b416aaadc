"""Read both sides: the database as it is, and the schema that the metadata and the revisions build.

PostgreSQL itself prints both, so that equal objects have equal texts. The schema is built in the same database: a
savepoint renames the schemas away (`standin`), `metadata.create_all()` builds new ones under the old names, and the
savepoint is always rolled back. Renaming a schema locks no table, so no reader or writer waits.

`read_both()` goes in this order:

1. Read the database (`live`) and the schema that the metadata builds (`want`).
2. Find renamed columns.
3. Pair the objects of both sides into steps, and decide for each whether it differs.
4. For a revision: read both sides in the other modes too, and look up the SQL of functions and views.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from alembic.operations import Operations
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.log import noted
from oblivion_schema.declare.privileges import API_ROLES, existing_roles
from oblivion_schema.declare.sql import quoted
from oblivion_schema.drift import statements
from oblivion_schema.drift.beyond import beyond, rows_written
from oblivion_schema.drift.catalog import PUBLICATIONS, STATES, Catalog, Key, Object, read, read_grants
from oblivion_schema.drift.plan import Rename, Step, touched
from oblivion_schema.drift.sources import declared_sources, sources_of
from oblivion_schema.drift.standin import (
    build,
    confirmed,
    execute,
    made_by_revisions,
    oldest_first,
    reread,
    stand_in,
    stand_in_of_revisions,
)
from oblivion_schema.errors import UserError, sqlstate
from oblivion_schema.operations import statements_of_revisions
from oblivion_schema.tables.access import Modes, current_modes
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.declare.privileges import GrantMode

# PostgreSQL may print these differently once they are created from their own printed text, as in a restored database.
EXPRESSIONS: Final = frozenset(
    {"check constraint", "exclusion constraint", "index", "policy", "view", "default", "trigger", "column", "function"}
) | {"publication"}
_OTHER_MODES: Final = (Modes(), Modes("authenticated"), Modes("authenticated", "metered"))
_PRINTS: Final = 3
"""So often such a print may change."""


@dataclass(frozen=True)
class Reading:
    """Both sides, and what is needed to tell whether a difference is ours.

    - `mode`: the mode that decides what is granted in the database.
    - `live`, `want`: the objects in the database, and those that the metadata builds.
    - `made`: the objects that the revisions build; empty if nothing depends on it.
    - `steps`: the objects of `live` and `want` in pairs.
    - `renames`: columns that have a new name in the metadata.
    - `unclear`: columns that may have one of several new names, or none.
    - `left`: objects that the adoption of a hand-made database found and kept.
    - `missing_roles`: API roles that one of the servers lacks, so grants to them were not compared.
    - `before`, `after`: `live` and `want` in each mode that was read.
    - `writes_revision`: whether all was read that a revision needs.
    """

    mode: GrantMode
    live: Catalog
    want: Catalog
    made: Catalog
    steps: tuple[Step, ...]
    renames: tuple[Rename, ...]
    unclear: tuple[str, ...]
    left: frozenset[Key]
    missing_roles: tuple[str, ...]
    before: Mapping[GrantMode, Catalog]
    after: Mapping[GrantMode, Catalog]
    writes_revision: bool


@contextmanager
def both_read(
    database: Connection,
    scratch: MigrationContext,
    metadata: MetaData,
    revisions: ScriptDirectory,
    *,
    writes_revision: bool = False,
) -> Iterator[Reading]:
    """Read `database`, and what `metadata` and the revisions build on the connection of `scratch`.

    Both may be the same connection. `writes_revision` reads all modes that grant otherwise, and adds to each function
    and view that a step touches the SQL as it was written; within this context there is what the revisions build.
    Raises UserError if the schema cannot be built, or the metadata creates an object of a kind that is not compared.
    """
    connection = Operations(scratch).get_bind()
    modes = current_modes(database)
    roles = existing_roles(database)
    live = read(database, metadata, roles)
    left = frozenset((entry.kind, entry.name) for entry in noted(database) if entry.kind != "table")
    published, elsewhere = _publications(database), _publications(connection)

    def read_built() -> Catalog:
        return read(connection, metadata, compared).without_publications(set(PUBLICATIONS) - published)

    with ExitStack() as stack:
        made = Catalog({})
        if writes_revision:
            # A revision is also for databases that have the publication: this one is read as if it had.
            new = stack.enter_context(_new_publications(connection))
            published, elsewhere = published | new, elsewhere | new
            revisions_again = stack.enter_context(stand_in_of_revisions(scratch, revisions, modes))
            made = read(connection, metadata)
            live = live.published_as(made) if new else live
        with stand_in(connection):
            for name in sorted(published - elsewhere):
                execute(connection, f"CREATE PUBLICATION {quoted(name)}")
            rows_before = rows_written(connection)
            metadata_again = build(connection, metadata, modes)
            # The API roles are there now, where the role may create them.
            compared = sorted(set(roles) & set(existing_roles(connection)))
            missing = tuple(sorted(set(API_ROLES) - set(compared)))
            live = live.without_grants_to(missing)
            want = read(connection, metadata, compared)
            _require_supported(beyond(connection, rows_before, want))
            want = want.without_publications(set(PUBLICATIONS) - published)

            possible_renames, unclear = _renames(live, want)
            if not writes_revision and any(
                item.kind not in STATES and key not in want for key, item in live.objects.items()
            ):
                made = made_by_revisions(scratch, metadata, revisions, modes)
            # Only a column that the revisions made is ours to rename, or to name back.
            renames = [rename for rename in possible_renames if any(("column", name) in made for name in rename.names)]

            with _old_names(connection, renames):
                like_live = read_built() if renames else want
                steps = [_settled(connection, metadata, step, like_live) for step in _steps(live, like_live, want)]

            before, after = {modes.grants: live}, {modes.grants: want}
            changed = touched(steps) if writes_revision else set()
            declared = confirmed(connection, want, declared_sources(metadata, want).only(changed))
            for other in _OTHER_MODES if writes_revision else ():
                if other.grants not in before:
                    for side, again in ((before, revisions_again), (after, metadata_again)):
                        with stand_in(connection):
                            again(other)
                            side[other.grants] = read_grants(connection, compared)
        if changed:
            written = sources_of(made, statements_of_revisions(oldest_first(revisions))).only(changed)
            written = confirmed(connection, made, written).agreed(made, live)
            steps = [Step(written.put_on(step.before), declared.put_on(step.after), step.differs) for step in steps]
        yield Reading(
            mode=modes.grants,
            live=live,
            want=want,
            made=made,
            steps=tuple(steps),
            renames=tuple(renames),
            unclear=tuple(name for name in unclear if ("column", name) in made),
            left=left,
            missing_roles=missing,
            before=before,
            after=after,
            writes_revision=writes_revision,
        )


def _require_supported(names: Sequence[str]) -> None:
    if names:
        serial = ""
        if any(name.startswith("sequence ") for name in names):
            serial = " SQLAlchemy makes a serial of an integer key: give it Identity(), or autoincrement=False."
        raise UserError(
            f"The metadata makes or alters {', '.join(names)}, which is not compared. Nothing was changed: use a kind"
            f" that docs/drift.md lists, or let a hand-written revision do it.{serial}"
        )


@contextmanager
def _old_names(scratch: Connection, renames: Sequence[Rename]) -> Iterator[None]:
    """Within this context the renamed columns of the built schema have their old names, those in the database.

    A rename also changes the text of each view and constraint that reads the column, which is no difference.
    """
    with scratch.begin_nested() as savepoint:
        for rename in renames:
            back = rename.reversed()
            for sql in back.statements():
                execute(scratch, sql)
        yield
        savepoint.rollback()


def _settled(scratch: Connection, metadata: MetaData, step: Step, like_live: Catalog) -> Step:
    """The step, with the final answer whether it differs, and whether a new column type needs a cast.

    If two expressions differ, ours is created from PostgreSQL's text and compared again.
    """
    if not (step.differs and step.before and step.before.kind in EXPRESSIONS):
        return _with_cast(scratch, step)
    like = like_live[step.before.key]
    parts = [item for item in like_live.objects.values() if item.part_of == like.address]
    for _ in range(_PRINTS):
        again = reread(scratch, metadata, like, parts)
        if again.definition == step.before.definition:
            return Step(step.before, step.after)
        if again.definition == like.definition:
            break
        like = again
    return step


def _steps(live: Catalog, like_live: Catalog, want: Catalog) -> list[Step]:
    """Pair each object of `live` with the one of `want`; what only one side has gets a step of its own.

    `like_live` is `want` under the column names of `live`, so that the definitions can be compared as text.
    """
    wanted = {_identity(item): item for item in want.objects.values()}
    steps = [
        Step(item, wanted[_identity(found)], found.definition != item.definition)
        if (found := like_live.objects.get(key)) is not None
        else Step(item, None)
        for key, item in live.objects.items()
    ]
    return steps + [Step(None, wanted[_identity(item)]) for key, item in like_live.objects.items() if key not in live]


def _identity(item: Object) -> tuple[str, ...]:
    """A key that is equal in `want` and `like_live`, although a rename changes the names of columns."""
    match item.kind:
        case "grant":
            return item.kind, item.part_of, item.role, item.privilege, str(item.sort)
        case "comment" | "reference row":
            return item.kind, item.part_of, str(item.sort), item.own_name.partition(" ")[0]
        case "setting" if item.part_of.startswith("column "):
            return item.kind, item.part_of, item.own_name.partition(" ")[0]
        case _ if item.address:
            return item.kind, item.address
        case "type" | "nullability":
            return item.kind, item.part_of
        case _:
            return item.kind, item.part_of, item.own_name


def _with_cast(scratch: Connection, step: Step) -> Step:
    """The step; of a column's type, `shape` says how PostgreSQL converts old values to it."""
    if not (step.differs and step.before and step.after and step.before.kind == "type"):
        return step

    def marked(source: Object, target: Object) -> Object:
        """Of `target`, `shape` is empty if every value of `source` fits: if PostgreSQL converts it unasked."""
        for shape in ("" if _fits(scratch, source, target) else statements.MAY_NOT_FIT, statements.NEEDS_CAST):
            retyped = replace(target, own_name="value", on_name="public.oblivion_cast", shape=shape)
            with suppress(DBAPIError), scratch.begin_nested() as savepoint:
                execute(scratch, f"CREATE TABLE public.oblivion_cast (value {source.definition})")
                execute(scratch, statements.alter(retyped))
                savepoint.rollback()
                return replace(target, shape=shape)
        return replace(target, shape=statements.NEEDS_TEXT)

    return Step(marked(step.after, step.before), marked(step.before, step.after), differs=True)


# The type's name, what stands in its parentheses, and the rest, such as `with time zone`.
_TYPE: Final = re.compile(r"(?P<name>[^(\[]+)(?:\((?P<size>[\d,-]+)\)(?P<rest>[^\[]*))?(?P<array>(?:\[\])*)$")


_TEXTS: Final = frozenset({"text", "character varying"})
_ROUNDED: Final = frozenset({"time", "timestamp", "interval"})


def _fits(scratch: Connection, source: Object, target: Object) -> bool:
    """Whether every value of a column of type `source` has a place in one of type `target`; it may be rounded."""
    old, new = (_TYPE.match(kind.definition.partition(" COLLATE ")[0]) for kind in (source, target))
    if old is None or new is None or old["array"] != new["array"]:
        return False
    if new["name"] in _TEXTS and not new["size"]:
        return True
    names = {side: kind["name"] + (kind["rest"] or "") for side, kind in (("source", old), ("target", new))}
    if names["source"] != names["target"]:
        return not new["size"] and bool(scratch.scalar(_IMPLICIT, names))
    if not new["size"] or not old["size"] or new["name"] in _ROUNDED:
        return not new["size"] or new["name"] in _ROUNDED
    before, after = ([*map(int, kind["size"].split(",")), 0][:2] for kind in (old, new))
    return before == after if new["name"] == "bit" else after[0] - after[1] >= before[0] - before[1]


_IMPLICIT: Final = text(
    """
    SELECT EXISTS (
      SELECT FROM pg_cast
      WHERE castsource = to_regtype(:source) AND casttarget = to_regtype(:target) AND castcontext = 'i'
    )
    """
)


def _renames(live: Catalog, want: Catalog) -> tuple[list[Rename], list[str]]:
    """The columns that were renamed, and the names of those that may have been.

    A column was renamed if it is the only one that is gone, and the only new one has its type and its position: a
    column that was added, not renamed, would stand last. It is unclear if only the type fits.
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
                other
                for other in new
                # A generated column has nothing to keep.
                if not (old.definition or other.definition)
                and live["type", old.name].definition == want["type", other.name].definition
            ]
            for old in gone
        }
        for old in gone:
            match like[old.name]:
                case [other] if len(gone) == len(new) == 1 and (
                    names.index(old.own_name) == new_names.index(other.own_name)
                ):
                    sure.append(Rename(table, old.own_name, other.own_name, _sequences(live, want, old, other)))
                case [_, *_]:
                    unclear.append(old.name)
    return sure, unclear


def _sequences(live: Catalog, want: Catalog, old: Object, other: Object) -> tuple[str, str]:
    """The sequences of a renamed identity; empty for another column."""
    before, after = live.objects.get(("identity", old.name)), want.objects.get(("identity", other.name))
    return (before.sequence, after.sequence) if before and after else ("", "")


def _publications(connection: Connection) -> set[str]:
    """The publications whose members are compared, as in catalog.sql."""
    return set(connection.scalars(text(_PUBLICATIONS), {"names": list(PUBLICATIONS), "private": PRIVATE_SCHEMA}))


@contextmanager
def _new_publications(scratch: Connection) -> Iterator[set[str]]:
    """Within this context there are the publications that were missing, unless the role may not create them."""
    missing = set(PUBLICATIONS) - set(scratch.scalars(select(text("pubname FROM pg_publication"))))
    with scratch.begin_nested() as savepoint:
        try:
            with scratch.begin_nested():
                for name in sorted(missing):
                    execute(scratch, f"CREATE PUBLICATION {quoted(name)}")
        except DBAPIError as error:
            if sqlstate(error) != "42501":
                raise
            missing = set()
        yield missing
        savepoint.rollback()


# Of all tables, or of all sequences, a publication has no members; one that another role owns no upgrade changes.
_PUBLICATIONS: Final = """
SELECT pubname
FROM pg_publication AS p
WHERE pubname = ANY (:names) AND NOT puballtables
  AND NOT coalesce(CAST(to_jsonb(p) ->> 'puballsequences' AS boolean), false)
  AND pg_has_role(
    coalesce(
      (SELECT nspowner FROM pg_namespace WHERE nspname = :private),
      (SELECT oid FROM pg_roles WHERE rolname = current_user)
    ),
    pubowner,
    'USAGE'
  )
"""

"""Reading both sides: the database as it is, and what the metadata and the revisions make of an empty one.

PostgreSQL prints both states. In a savepoint that is always rolled back the schemas are renamed away, and
`metadata.create_all()` builds what should be there under their names. No reader or writer waits for that, for nothing
of the tables themselves is touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from alembic.operations import Operations
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.log import noted
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.declare.sql import quoted
from oblivion_schema.drift import statements
from oblivion_schema.drift.catalog import PUBLICATIONS, STATES, Catalog, Key, Object, read
from oblivion_schema.drift.plan import Rename, Step
from oblivion_schema.drift.sources import Sources, declared_sources
from oblivion_schema.drift.standin import build, confirmed, execute, made_by_revisions, reread, stand_in
from oblivion_schema.errors import UserError
from oblivion_schema.tables.access import MODES, current_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.tables.access import Mode

# PostgreSQL may print these differently once it has read its own print.
_EXPRESSIONS: Final = frozenset({"check constraint", "index", "policy", "view", "default", "trigger"})


@dataclass(frozen=True)
class Reading:
    """Both sides, and what tells whose a difference is.

    `steps` pair the objects of `live`, the database, with those of `want`, the metadata. `made` is what the revisions
    make, empty where nobody has to know; `left` is what an adoption found on a table, and left. Grants to
    `missing_roles` were not read. `unclear` columns may have got one of several new names. `before` and `after` are the
    two sides in each access mode that was read.
    """

    mode: Mode
    live: Catalog
    want: Catalog
    made: Catalog
    steps: tuple[Step, ...]
    renames: tuple[Rename, ...]
    unclear: tuple[str, ...]
    left: frozenset[Key]
    missing_roles: tuple[str, ...]
    before: Mapping[Mode, Catalog]
    after: Mapping[Mode, Catalog]


def read_both(
    database: Connection,
    scratch: MigrationContext,
    metadata: MetaData,
    revisions: ScriptDirectory,
    *,
    writes_revision: bool,
) -> Reading:
    """Read `database`, and what `metadata` and the revisions build on the connection of `scratch`, maybe the same one.

    With `writes_revision` both access modes are read, and steps carry the text by which functions and views were
    written. Raises UserError where nothing can be built, or the metadata makes what is not compared.
    """
    connection = Operations(scratch).get_bind()
    mode = current_mode(database)
    roles = _existing_roles(database)
    compared = sorted(set(roles) & set(_existing_roles(connection)))
    missing = tuple(sorted(set(API_ROLES) - set(compared)))
    live = read(database, metadata, roles).without_grants_to(missing)
    published, elsewhere = _publications(database), _publications(connection)

    def read_built() -> Catalog:
        return read(connection, metadata, compared).without_publications(elsewhere - published)

    with stand_in(connection):
        for name in sorted(published - elsewhere):
            execute(connection, f"CREATE PUBLICATION {quoted(name)}")
        build(connection, metadata, mode)
        want = read_built()
        _require_supported(want)
        found, unclear = _renames(live, want)
        gone = any(item.kind not in STATES and key not in want for key, item in live.objects.items())
        made, written = Catalog({}), Sources({})
        if gone or writes_revision:
            made, written = made_by_revisions(scratch, metadata, revisions, mode)
        renames = [rename for rename in found if ("column", rename.names[0]) in made]
        with connection.begin_nested() as savepoint:
            for rename in renames:
                back = rename.reversed()
                execute(connection, statements.rename_column(back.table, back.before, back.after))
            # In the names of the database, so that PostgreSQL's own renaming is no difference.
            like_live = read_built() if renames else want
            steps = [_settled(connection, metadata, step, like_live) for step in _steps(live, like_live, want)]
            savepoint.rollback()
        before, after = {mode: live}, {mode: want}
        if writes_revision:
            declared = confirmed(connection, want, declared_sources(metadata, want))
            written = written.agreed(made, live)
            steps = [Step(written.put_on(step.before), declared.put_on(step.after), step.differs) for step in steps]
            [other] = set(MODES) - {mode}
            in_other, _ = made_by_revisions(scratch, metadata, revisions, other)
            before[other] = in_other.without_grants_to(missing)
            with stand_in(connection):
                build(connection, metadata, other)
                after[other] = read(connection, metadata, compared)
    return Reading(
        mode=mode,
        live=live,
        want=want,
        made=made,
        steps=tuple(steps),
        renames=tuple(renames),
        unclear=tuple(name for name in unclear if ("column", name) in made),
        left=frozenset((entry.kind, entry.name) for entry in noted(database) if entry.kind != "table"),
        missing_roles=missing,
        before=before,
        after=after,
    )


def _require_supported(want: Catalog) -> None:
    if want.unsupported:
        raise UserError(
            f"The metadata makes {', '.join(map(str, want.unsupported))}, which is no kind that is compared"
            " (oblivion_schema.drift.catalog.KINDS): use another, or add the kind."
        )


def _settled(scratch: Connection, metadata: MetaData, step: Step, like_live: Catalog) -> Step:
    """The step, once it is known whether only its print differs, and whether its type needs a cast."""
    if step.differs and step.before and step.before.kind in _EXPRESSIONS:
        again = reread(scratch, metadata, like_live[step.before.key])
        return Step(step.before, step.after, again.definition != step.before.definition)
    return _with_cast(scratch, step)


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

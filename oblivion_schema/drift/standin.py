"""A stand-in: empty schemas in which the metadata or the revisions are built, to be read and always rolled back."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from alembic.operations import Operations
from psycopg2.extensions import encodings
from sqlalchemy import event, func, select, text, true
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from oblivion_schema.declare.sql import quoted
from oblivion_schema.drift import statements
from oblivion_schema.drift.catalog import SCHEMAS, Catalog, Object, read
from oblivion_schema.drift.sources import as_replacement
from oblivion_schema.errors import UserError, invalid_declaration, primary_message, sqlstate, where_it_failed
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection, MetaData

    from oblivion_schema.drift.sources import Sources
    from oblivion_schema.tables.access import Modes

_VERSION_TABLE: Final = f"""\
CREATE TABLE {PRIVATE_SCHEMA}.alembic_version (
  version_num varchar(32) NOT NULL,
  CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""


# What this role grants on all new objects would be on what is built, and seem to be declared.
_NO_DEFAULT_PRIVILEGES: Final = """\
DO $$
DECLARE
  defaults record;
BEGIN
  FOR defaults IN
    SELECT DISTINCT
      CASE defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' ELSE 'SCHEMAS' END
        AS kind,
      CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
    FROM pg_catalog.pg_default_acl
    CROSS JOIN LATERAL aclexplode(defaclacl)
    WHERE defaclrole = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) AND defaclnamespace = 0
      AND defaclobjtype IN ('r', 'S', 'f', 'n')
      AND grantee <> defaclrole
  LOOP
    EXECUTE format('ALTER DEFAULT PRIVILEGES REVOKE ALL ON %s FROM %s', defaults.kind, defaults.role);
  END LOOP;
END
$$"""


Again: TypeAlias = "Callable[[Modes], None]"
"""Builds the same once more in a new stand-in, in other modes."""


class MayNotBuildError(UserError):
    """The role lacks the rights to build a stand-in."""


@contextmanager
def stand_in(connection: Connection) -> Iterator[None]:
    """Within this context there is an empty schema public, and no private one; all is rolled back at its end.

    The real schemas are renamed meanwhile. Raises MayNotBuildError.
    """
    with connection.begin_nested() as savepoint:
        there = set(connection.scalars(select(text("nspname FROM pg_namespace"))))
        try:
            with _told_what_hinders(connection):
                away = {}
                for schema in SCHEMAS:
                    if schema in there:
                        names = (f"{PRIVATE_SCHEMA}_aside_{schema}_{number}" for number in count())
                        away[schema] = next(name for name in names if name not in there)
                        execute(connection, f"ALTER SCHEMA {schema} RENAME TO {away[schema]}")
                execute(connection, _NO_DEFAULT_PRIVILEGES)
                execute(connection, "CREATE SCHEMA public")
                _take_along(connection, away.get("public", ""))
        except DBAPIError as error:
            if sqlstate(error) not in {"42501", "25006"}:
                raise
            raise MayNotBuildError(
                "The comparison builds the schema a second time, and rolls that back; this role may not: it has to own"
                " schema public and to have CREATE on the database, which must not be read-only."
                " Run it as the database's owner, or compare read-only: oblivion-schema check --against URL."
            ) from error
        yield
        savepoint.rollback()


# A view of an extension would be locked against its readers.
_EXTENSIONS: Final = """
SELECT extname
FROM pg_extension AS e
WHERE extnamespace = (SELECT oid FROM pg_namespace WHERE nspname = :schema) AND extrelocatable
  AND NOT EXISTS (
    SELECT FROM pg_depend AS d
    JOIN pg_class AS c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e' AND c.relkind <> 'c'
  )
ORDER BY e.oid
"""


def _take_along(connection: Connection, away: str) -> None:
    """Move the extensions of the real schema public into the stand-in's: the metadata may use their types.

    Those that stay are named if it does: `_left_behind()`.
    """
    for name in connection.scalars(text(_EXTENSIONS.replace("::", r"\:\:")), {"schema": away}).all():
        with suppress(DBAPIError), connection.begin_nested():
            execute(connection, f"ALTER EXTENSION {quoted(name)} SET SCHEMA public")


# What an extension makes, and PostgreSQL says does not exist, or has no operator.
_UNDEFINED: Final = frozenset({"42704", "42883", "42P01"})


_LEFT: Final = """
SELECT extname
FROM pg_extension
JOIN pg_namespace AS n ON n.oid = extnamespace
WHERE nspname ~ :aside
ORDER BY 1
"""
_EVENT_TRIGGERS: Final = """
SELECT evtname, proname
FROM pg_event_trigger
JOIN pg_proc AS p ON p.oid = evtfoid
WHERE evtenabled <> 'D'
ORDER BY 1
"""


@contextmanager
def _told_what_hinders(
    connection: Connection, explain: Callable[[DBAPIError], UserError] | None = None
) -> Iterator[None]:
    """Within this context an error of PostgreSQL becomes that of `explain`, with what this database adds to it."""
    try:
        with connection.begin_nested():
            yield
    except DBAPIError as error:
        if (hindered := _stopped_by_an_event_trigger(connection, error)) is not None:
            raise hindered from error
        if explain is None:
            raise
        raise UserError(f"{explain(error)}{_left_behind(connection, error)}") from error


def _stopped_by_an_event_trigger(connection: Connection, error: DBAPIError) -> UserError | None:
    running = where_it_failed(error)
    for name, function in connection.exec_driver_sql(_EVENT_TRIGGERS).all():
        if f"{function}(" in running:
            return UserError(
                f"The event trigger {name} fails while the schema is built for comparison, where schema public has ours"
                f" alone: {primary_message(error)}. Nothing was changed: ALTER EVENT TRIGGER {quoted(name)} DISABLE"
                " before the comparison, and ENABLE after it, or compare on another server: oblivion-schema check"
                " --against URL."
            )
    return None


def _left_behind(connection: Connection, error: DBAPIError) -> str:
    """What to do if something is missing that an extension has which a stand-in cannot take along; empty otherwise."""
    left = connection.scalars(text(_LEFT), {"aside": f"^{PRIVATE_SCHEMA}_aside_public_"}).all()
    if sqlstate(error) not in _UNDEFINED or not left:
        return ""
    moves = "; ".join(f"ALTER EXTENSION {quoted(name)} SET SCHEMA extensions" for name in left)
    return (
        f" If that belongs to the extension {' or '.join(left)}: the schema is built for comparison in a schema public"
        " of its own, and this role may not move the extension there. Run this as a superuser, or let one move it out"
        f" of schema public first: CREATE SCHEMA IF NOT EXISTS extensions; {moves}."
    )


def build(connection: Connection, metadata: MetaData, modes: Modes) -> Again:
    """Build the metadata in a stand-in, in these modes; returns how to build it again.

    Raises UserError that names the object which PostgreSQL rejects.
    """

    def run() -> None:
        try:
            with _told_what_hinders(connection, invalid_declaration):
                metadata.create_all(connection, checkfirst=False)
                execute(connection, f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}")
                execute(connection, _VERSION_TABLE)
        except SQLAlchemyError as error:
            raise invalid_declaration(error) from error

    return _recorded(connection, run, modes)


@contextmanager
def stand_in_of_revisions(scratch: MigrationContext, revisions: ScriptDirectory, modes: Modes) -> Iterator[Again]:
    """Within this context there is what all revisions build, in these modes, and nothing else.

    Raises UserError if a revision fails.
    """
    connection = Operations(scratch).get_bind()

    def run() -> None:
        execute(connection, f"CREATE SCHEMA {PRIVATE_SCHEMA}")
        for script in oldest_first(revisions):
            wrong = partial(_wrong_revision, script.revision)
            with Operations.context(scratch), _told_what_hinders(connection, wrong):
                script.module.upgrade()

    with stand_in(connection):
        yield _recorded(connection, run, modes)


def _wrong_revision(revision: str, error: DBAPIError) -> UserError:
    return UserError(
        f"Revision {revision} fails on an empty database: {primary_message(error)}."
        " Nothing was changed: fix the revision first."
    )


def oldest_first(revisions: ScriptDirectory) -> list[Script]:
    """All revisions, in the order in which they run."""
    return list(revisions.walk_revisions())[::-1]


def made_by_revisions(
    scratch: MigrationContext, metadata: MetaData, revisions: ScriptDirectory, modes: Modes
) -> Catalog:
    """What all revisions build, in a stand-in of their own. Raises UserError if a revision fails."""
    with stand_in_of_revisions(scratch, revisions, modes):
        return read(Operations(scratch).get_bind(), metadata)


def _recorded(connection: Connection, run: Callable[[], None], modes: Modes) -> Again:
    """Run it in these modes; returns what does so again in others, in a stand-in, without the comments.

    That sends all statements at once, unless one of them brought rows: the next ones may depend on those.
    """
    said: list[str] = []
    asked = False

    def listen(_: object, cursor: Any, *__: object) -> None:
        nonlocal asked
        asked = asked or cursor.description is not None
        said.append(cursor.query.decode(encodings[cursor.connection.encoding]))

    def again(other: Modes) -> None:
        _set_modes(connection, other)
        if asked:
            run()
        else:
            execute(connection, "\n;\n".join(sql for sql in said if not sql.startswith("COMMENT ON ")))

    _set_modes(connection, modes)
    event.listen(connection, "after_cursor_execute", listen)
    try:
        run()
    finally:
        event.remove(connection, "after_cursor_execute", listen)
    return again


def _set_modes(connection: Connection, modes: Modes) -> None:
    # A demo account is a row, which may refuse what no other row of the stand-in does.
    for name, mode in (("access", modes.access), ("pages", modes.pages), ("demo", "no")):
        connection.execute(select(func.set_config(f"{PRIVATE_SCHEMA}.{name}", mode, true())))


def confirmed(scratch: Connection, made: Catalog, sources: Sources) -> Sources:
    """The statements that still create what is in `made`: an object that a later statement altered drops out.

    `scratch` must have all of `made`.
    """
    if not sources.statements:
        return sources
    with scratch.begin_nested() as savepoint:
        for sql in sources.statements.values():
            with suppress(DBAPIError), scratch.begin_nested():
                execute(scratch, as_replacement(sql))
        again = read(scratch)
        savepoint.rollback()
    return sources.agreed(made, again)


def reread(scratch: Connection, metadata: MetaData, item: Object, parts: Sequence[Object] = ()) -> Object:
    """Create `item` from its own printed text, and return it as PostgreSQL prints it then; all is rolled back.

    A restored database has such objects. `scratch` must have an object of that name, which this replaces; a column is
    created with its `parts`.
    """
    with scratch.begin_nested() as savepoint:
        if item.kind in {"default", "function"}:
            # The text of a body is not read again, and may have the new name of a column that has its old one here.
            execute(scratch, "SET LOCAL check_function_bodies = off")
            execute(scratch, statements.alter(item))
        else:
            cascade = "" if item.kind == "publication" else " CASCADE"
            execute(scratch, statements.remove(item) + cascade)
            execute(scratch, statements.create(item, parts))
        again = read(scratch, metadata)[item.key]
        savepoint.rollback()
    return again


def execute(connection: Connection, sql: str) -> None:
    """Run one or more statements as they are written: no colon is a parameter, no percent sign an escape."""
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

"""alembic/env.py runs this: a run is one transaction, and one deployer works on a database at a time.

A command that fails, is killed or loses its connection leaves the database unchanged; the same holds for the script
that `--sql` prints. A revision must therefore not leave the transaction, as `autocommit_block()` does.

What takes long with big tables is not done in that transaction, in which clients wait: see `deploy/online.py`.

Revisions are static SQL. The options of a run reach them as PostgreSQL settings (`oblivion.demo`, `oblivion.drop_data`,
`oblivion.access`, `oblivion.pages`), so that the script of `--sql` does the same as a run on a database.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, TextIO

from alembic import context
from alembic.operations import Operations
from alembic.script.revision import MultipleHeads
from alembic.util import CommandError, to_tuple
from sqlalchemy import Connection, event, func, select, true
from sqlalchemy.exc import DBAPIError

from oblivion_schema import progress
from oblivion_schema.adoption.copies import what_is_missing
from oblivion_schema.adoption.log import noted, report
from oblivion_schema.adoption.pages import HINT, pages_bill
from oblivion_schema.declare.privileges import API_ROLES, existing_roles
from oblivion_schema.deploy.online import backfill, build_indexes
from oblivion_schema.deploy.options import MODES_ARE_FOR_UPGRADES, Options
from oblivion_schema.deploy.revisions import require_one_head
from oblivion_schema.deploy.target import find_database, name_it
from oblivion_schema.deploy.turns import ADVISORY_LOCK, wait_for_other_deployers
from oblivion_schema.drift.plugin import PLUGIN
from oblivion_schema.errors import UserError, explain, interrupted
from oblivion_schema.operations import RunSQL, in_batches
from oblivion_schema.operations.files import next_number, require_sound_files
from oblivion_schema.server import database
from oblivion_schema.tables.access import others_policies, switch
from oblivion_schema.tables.base import PRIVATE_SCHEMA, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from alembic.operations import MigrationScript
    from alembic.runtime.migration import MigrationContext
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Engine


_LOG: Final = logging.getLogger("oblivion_schema")


def run() -> None:
    """Run Alembic's command. Raises UserError, one line, for a problem that the user can fix."""
    if _command():  # a service that calls upgrade() sets up its own logging
        _log(quiet=getattr(context.config.cmd_opts, "quiet", False))
    options = Options.from_config(context.config)
    _look_at_revisions(context.script, options)
    if context.is_offline_mode():
        context.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},  # pyformat would double every percent sign in the script
            **_configuration(options),
        )
        with progress.while_read() if _command() else nullcontext(), context.begin_transaction():
            # The script may wait in the lock: it never builds an index CONCURRENTLY, which would wait for the waiter.
            context.execute(f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({ADVISORY_LOCK}); END $$")
            _migrate(options)
        return
    if _is_about_files_alone():
        context.configure(dialect_name="postgresql", as_sql=True, **_configuration(options))
        context.run_migrations()
        return
    given: Connection | Engine | None = context.config.attributes.get("connection")
    if isinstance(given, Connection):
        database.require_supported_server(given, "The given connection")
        database.require_read_committed(given, "The given connection")
        _run_on(given, options)
    elif given is not None:
        with database.connected(given, "the given engine") as connection:
            _run_on(connection, options)
    else:
        found = find_database(context.config)
        if found.is_behind_transaction_pooler:
            progress.say(database.TRANSACTION_POOLER)
        with found.connect() as connection:
            if not _command():
                _run_on_found(connection, found, options)
                return
            name_it(context.config, found, connection)
            with progress.shown(_command(), connection):
                _run_on_found(connection, found, options)


def _run_on_found(connection: Connection, found: database.Database, options: Options) -> None:
    if _command():
        database.hear_interrupts()
    if _upgrades_to_the_newest():
        build_indexes(connection, found, context.script, options)
    _run_on(connection, options)


def _is_about_files_alone() -> bool:
    """Whether the command needs no database; Alembic runs env.py for it only because of `revision_environment`."""
    options = context.config.cmd_opts
    match _command():
        case "merge":
            return True
        case "revision":
            return not getattr(options, "autogenerate", False)
        case "history":
            asks = getattr(options, "indicate_current", False) or "current" in (getattr(options, "rev_range", "") or "")
            return not asks
    return False


def _look_at_revisions(revisions: ScriptDirectory, options: Options) -> None:
    """Raise UserError if the command cannot do with these revisions, or does not reach the newest and should."""
    require_sound_files(revisions.versions)
    if _needs_one_head():
        require_one_head(revisions)
    if _command() == "merge":
        _number_merge(revisions, getattr(context.config.cmd_opts, "rev_id", None))
    if options.sets_modes:
        _require_upgrade_to_the_newest()


def _needs_one_head() -> bool:
    """Whether the command is about the newest revision, of which there must be one."""
    match _command():
        case "check":
            return True
        case "revision":
            return getattr(context.config.cmd_opts, "head", None) in {None, "head"}
    if _is_upgrade():
        try:
            context.get_revision_argument()
        except KeyError:  # another program looks at something, and goes nowhere
            return False
        except CommandError as error:
            return isinstance(error.__cause__, MultipleHeads)
    return False


def _number_merge(revisions: ScriptDirectory, rev_id: str | None) -> None:
    """Let Alembic's merge, which asks no hook for the id, write a revision with the next number and a message."""
    write = revisions.generate_revision

    def numbered(_: str, message: str | None, head: str | list[str] | None = None, **more: Any) -> Script | None:
        merged = sorted(script.revision for script in revisions.get_revisions(head or "heads"))
        if len(merged) == 1:
            raise UserError(f"There is one newest revision, {merged[0]}: there is nothing to merge.")
        message = _message(message or f"merge {' and '.join(merged)}")
        return write(_number(revisions, rev_id), message, head=head, **more)

    revisions.generate_revision = numbered  # type: ignore[method-assign, assignment]


def _command() -> str:
    """Name of the command on Alembic's command line; empty if a service calls upgrade()."""
    function, *_ = getattr(context.config.cmd_opts, "cmd", (None,))
    return getattr(function, "__name__", "")


def _is_upgrade() -> bool:
    return _command() in {"", "upgrade"}


def _run_on(connection: Connection, options: Options) -> None:
    if _command():
        database.hear_interrupts()
    context.configure(connection=connection, **_configuration(options))
    opts = context.get_context().opts
    looks = "destination_rev" not in opts and opts["fn"].__name__ != "do_ensure_version"
    if looks or opts.get("destination_rev") == "base":
        opts["dont_mutate"] = True  # otherwise Alembic creates its version table, even if there is nothing to do
    joined = connection.in_transaction()
    try:
        _run_in_transaction(connection, options, looks=looks)
        if _is_upgrade():
            backfill(connection, joined=joined)
    except DBAPIError as error:
        raise explain(error, connection.engine) from error
    except KeyboardInterrupt:
        raise interrupted() from None
    except CommandError as error:
        if fixed := _with_fix(error):
            raise fixed from error
        raise


def _require_whole(connection: Connection) -> None:
    """Raise UserError for an upgrade of a copy that is not whole."""
    upgrades = _is_upgrade() and not context.get_context().get_current_heads()
    if upgrades and (missing := what_is_missing(connection)):
        raise UserError(f"{missing}. Nothing was changed.")


def _run_in_transaction(connection: Connection, options: Options, *, looks: bool) -> None:
    # A caller's open transaction goes on afterwards, so its settings are restored.
    joined = connection.in_transaction()
    before = {name: _setting(connection, name) for name in options.settings()} if joined else {}
    began = None
    with context.begin_transaction():
        if not looks or _command() in {"check", "revision"}:
            wait_for_other_deployers(connection)
        _require_whole(connection)
        with nullcontext() if looks else in_batches(connection):
            _migrate(options)
        if not looks:
            began = connection.scalar(select(func.now()))
    if began is not None:
        # Not under the locks of the transaction above.
        with nullcontext() if joined else connection.begin():
            connection.execute(select(func.set_config("search_path", "public", true())))
            _report(connection, options, began)
    for name, value in before.items():
        connection.execute(select(func.set_config(name, value or "", true())))


def _with_fix(error: CommandError) -> UserError | None:
    """Alembic's error with what to do about it, where Alembic does not say."""
    said = str(error).rstrip(".")
    if "Target database is not up to date" in said:
        return UserError("The database is not at the newest revision: run upgrade head first.")
    if said == "Ambiguous walk":
        return UserError(
            "A merge has several revisions before it, so one step back leads to none of them: name the revision to go"
            " to."
        )
    if "Can't locate revision" in said:
        return UserError(
            f"{said}: this version of oblivion_schema does not have the revision that the database, or the command,"
            " names. Install the version that has it, or a newer one; in a checkout, restore the deleted revision."
        )
    return None


def _report(connection: Connection, options: Options, began: datetime) -> None:
    """Log what this run's adoption found and kept, which foreign policies ignore the access mode, and if pages bill."""
    for line in report([entry for entry in noted(connection) if entry.logged_at == began]):
        _LOG.info("%s", line)
    for line in others_policies(connection, metadata) if options.access else ():
        _LOG.warning("%s", line)
    if not _is_upgrade():
        return
    there = existing_roles(connection)
    if missing := ", ".join(role for role in API_ROLES if role not in there):
        _LOG.info(
            "Mind that this server has no role %s, which got no grants: create it, and run oblivion-schema access with"
            " the mode, if clients come through PostgREST.",
            missing,
        )
    if pages_bill(connection):
        _LOG.info("Mind that %s.", HINT)


def _setting(connection: Connection, name: str) -> str | None:
    return connection.scalar(select(func.current_setting(name, true())))


def _configuration(options: Options) -> dict[str, Any]:
    return {
        "target_metadata": metadata,
        "version_table_schema": PRIVATE_SCHEMA,
        "on_version_apply": _leave_nothing_behind,
        "process_revision_directives": _number_revision,
        "autogenerate_plugins": [PLUGIN],
        "revisions": context.script,
        "drop_unknown": options.drop_unknown,
        "writes_revision": _command() == "revision",
    }


def _migrate(options: Options) -> None:
    migration = context.get_context()
    # The version table is in the private schema: in public any visitor could delete it.
    event.listen(
        # A private attribute: the documented hook, a subclass of Impl, would change every Alembic in this process.
        migration._version,  # noqa: SLF001
        "before_create",
        lambda *_, **__: migration.execute(f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}"),
    )
    # In a script DROP ... IF EXISTS would print a notice for each missing object; online nobody reads them.
    quiet = {"client_min_messages": "warning"} if context.is_offline_mode() else {}
    for name, value in (options.settings() | quiet).items():
        context.execute(f"SET LOCAL {name} = '{value}'")
    context.run_migrations()
    if options.sets_modes:
        Operations(migration).invoke(RunSQL(switch(metadata, access=options.access, pages=options.pages)))


def _require_upgrade_to_the_newest() -> None:
    """Raise UserError unless the run upgrades to the newest revision: the switch names objects of that one."""
    if not _upgrades_to_the_newest():
        raise UserError(MODES_ARE_FOR_UPGRADES)


def _upgrades_to_the_newest() -> bool:
    found = None
    if _is_upgrade():
        with suppress(CommandError):  # the revision does not exist, or is relative to the database's
            found = context.get_revision_argument()
    return found is not None and {*to_tuple(found)} == {*context.script.get_heads()}


def _leave_nothing_behind(*, ctx: MigrationContext, step: Any, heads: Iterable[str], **_: Any) -> None:
    """Drop the version table and its schema after the downgrade to base."""
    if not heads and not step.is_upgrade and not step.is_stamp:
        _drop_version_table(ctx)


def _drop_version_table(migration: MigrationContext) -> None:
    migration.execute(f"DROP TABLE {PRIVATE_SCHEMA}.{migration.version_table}")
    migration.execute(f"DROP SCHEMA {PRIVATE_SCHEMA}")


def _number_revision(_: MigrationContext, __: object, directives: list[MigrationScript]) -> None:
    """Give a new revision the next number. Raises UserError as `_message()` and `_number()`."""
    for directive in directives:
        if _command() == "revision":
            _message(directive.message)
        directive.rev_id = _number(context.script, getattr(context.config.cmd_opts, "rev_id", None))


def _message(message: str | None) -> str:
    """The message of a new revision. Raises UserError if its file could not have it."""
    if not message or not message.strip() or '"""' in message or "\\" in message:
        raise UserError('A revision needs a message, without """ and \\: -m "add feature".')
    return message


def _number(directory: ScriptDirectory, given: str | None) -> str:
    """The next number, such as 006, or the id of --rev-id. Raises UserError if a revision has that already."""
    revisions = [script.revision for script in directory.walk_revisions()]
    if given in revisions:
        raise UserError(f"--rev-id {given}: there is a revision {given} already. Leave the option out.")
    return given or next_number(revisions)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to stderr, where a line about progress may stand."""

    def emit(self, record: logging.LogRecord) -> None:
        progress.clear()
        super().emit(record)


def _log(*, quiet: bool) -> None:
    logging.basicConfig(format="%(levelname)-5.5s [%(name)s] %(message)s", handlers=[_Handler()])
    for name in ("alembic", "oblivion_schema"):
        logging.getLogger(name).setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    # Our command line prints errors already; Alembic prints them a second time, except with -q or --sql.
    if not quiet and not context.is_offline_mode():
        logging.getLogger("alembic.util.messaging").setLevel(logging.CRITICAL)

"""What alembic/env.py runs: which database, which options, one deployer at a time, all or nothing.

A run is one transaction, online and in `--sql` output: a command that fails, is killed or is cut off leaves the
database as it was; so a revision must not leave the transaction, as `autocommit_block()` does. Revisions are static
SQL; what a run is told reaches them as PostgreSQL settings (`oblivion.demo`, `oblivion.drop_data`, `oblivion.access`),
so that both ways do the same.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from alembic import context
from alembic.operations import Operations
from alembic.util import CommandError
from sqlalchemy import Connection, event, func, select, true
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.log import noted, report
from oblivion_schema.deploy.options import ACCESS_IS_FOR_UPGRADES, Options, find_database
from oblivion_schema.deploy.turns import ADVISORY_LOCK, say, wait_for_other_deployers
from oblivion_schema.drift.plugin import PLUGIN
from oblivion_schema.errors import UserError, explain, interrupted
from oblivion_schema.operations import RunSQL
from oblivion_schema.server import database
from oblivion_schema.tables.access import others_policies, switch
from oblivion_schema.tables.base import PRIVATE_SCHEMA, metadata

if TYPE_CHECKING:
    from collections.abc import Iterable

    from alembic.operations import MigrationScript
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Engine


_LOG: Final = logging.getLogger("oblivion_schema")


def run() -> None:
    """Run the command that Alembic was given. Raises UserError, one line, where its user can mend it."""
    if _command():  # a service's process is its own to arrange
        _log(quiet=getattr(context.config.cmd_opts, "quiet", False))
    options = Options.from_config(context.config)
    if options.access:
        _require_upgrade_to_the_newest()
    if context.is_offline_mode():
        context.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},  # pyformat would double every percent sign in the script
            **_configuration(options),
        )
        with context.begin_transaction():
            # Nobody builds an index CONCURRENTLY by such a script, so it may block.
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
        found = context.config.attributes.get("database") or find_database(context.config)
        if found.is_behind_transaction_pooler:
            say(database.TRANSACTION_POOLER)
        if found.source == database.EMBEDDED:
            say(
                f"{found.source} at {found.url.query.get('host')}."
                " Open it: oblivion-schema psql. Stop it: oblivion-schema stop."
            )
        with found.connect() as connection:
            _run_on(connection, options)


def _is_about_files_alone() -> bool:
    """Whether no database is needed: Alembic runs env.py for these only because `revision_environment` is set."""
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


def _command() -> str:
    """Name of the command on Alembic's command line; none where a service calls upgrade()."""
    function, *_ = getattr(context.config.cmd_opts, "cmd", (None,))
    return getattr(function, "__name__", "")


def _run_on(connection: Connection, options: Options) -> None:
    if _command():
        database.hear_interrupts()
    context.configure(connection=connection, **_configuration(options))
    opts = context.get_context().opts
    looks = "destination_rev" not in opts and opts["fn"].__name__ != "do_ensure_version"
    if looks or opts.get("destination_rev") == "base":
        opts["dont_mutate"] = True  # Alembic would make its version table to find that there is nothing to do
    # A caller's transaction goes on after this, under the caller's own settings.
    joined = connection.in_transaction()
    try:
        before = {name: _setting(connection, name) for name in options.settings()} if joined else {}
        with context.begin_transaction():
            if not looks or _command() in {"check", "revision"}:
                wait_for_other_deployers(connection)
            _migrate(options)
            if not looks:
                _report(connection, options)
        for name, value in before.items():
            connection.execute(select(func.set_config(name, value or "", true())))
    except DBAPIError as error:
        raise explain(error, connection.engine) from error
    except KeyboardInterrupt:
        raise interrupted() from None
    except CommandError as error:
        if "Can't locate revision" in str(error):
            raise UserError(
                f"{str(error).rstrip('.')}: the database, or the command, names a revision that this version of"
                " oblivion_schema does not have. Install the version that wrote it, or a newer one."
            ) from error
        raise


def _report(connection: Connection, options: Options) -> None:
    """Say what the run found that is not as the revisions make it."""
    began = connection.scalar(select(func.now()))
    for line in report([entry for entry in noted(connection) if entry.logged_at == began]):
        _LOG.info("%s", line)
    for line in others_policies(connection, metadata) if options.access else ():
        _LOG.warning("%s", line)


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
    # In public the version table would be one that any visitor may delete.
    event.listen(
        # Private, but the documented hook, an Impl of our own, would serve every other Alembic of this process, too.
        migration._version,  # noqa: SLF001
        "before_create",
        lambda *_, **__: migration.execute(f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}"),
    )
    for name, value in options.settings().items():
        context.execute(f"SET LOCAL {name} = '{value}'")
    context.run_migrations()
    if options.access:
        Operations(migration).invoke(RunSQL(switch(metadata, options.access)))


def _require_upgrade_to_the_newest() -> None:
    """Raise UserError where the run does not end at the revision whose objects the access mode is about."""
    found = None
    if _command() in {"", "upgrade"}:
        with suppress(CommandError):  # of a revision that is none, or that depends on where the database is
            found = context.get_revision_argument()
    head = context.script.get_current_head()
    if found not in {head, (head,)}:
        raise UserError(ACCESS_IS_FOR_UPGRADES)


def _leave_nothing_behind(*, ctx: MigrationContext, step: Any, heads: Iterable[str], **_: Any) -> None:
    if not heads and not step.is_upgrade and not step.is_stamp:
        _drop_version_table(ctx)


def _drop_version_table(migration: MigrationContext) -> None:
    migration.execute(f"DROP TABLE {PRIVATE_SCHEMA}.{migration.version_table}")
    migration.execute(f"DROP SCHEMA {PRIVATE_SCHEMA}")


def _number_revision(_: MigrationContext, __: object, directives: list[MigrationScript]) -> None:
    for directive in directives:
        message = directive.message or ""
        if _command() == "revision" and (not message.strip() or '"""' in message or "\\" in message):
            raise UserError('A revision needs a message that names it: -m "add feature", without """ and \\ in it.')
    if getattr(context.config.cmd_opts, "rev_id", None):
        return
    numbers = [int(script.revision) for script in context.script.walk_revisions() if script.revision.isdecimal()]
    for directive in directives:
        directive.rev_id = f"{max(numbers, default=0) + 1:03}"


def _log(*, quiet: bool) -> None:
    logging.basicConfig(format="%(levelname)-5.5s [%(name)s] %(message)s")
    for name in ("alembic", "oblivion_schema"):
        logging.getLogger(name).setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    # Alembic prints each error, too: but for -q, and where the script goes, with --sql
    if not quiet and not context.is_offline_mode():
        logging.getLogger("alembic.util.messaging").setLevel(logging.CRITICAL)

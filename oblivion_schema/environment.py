"""What alembic/env.py runs: which database, which options, one deployer at a time, all or nothing.

A run is one transaction, online and in `--sql` output: a command that fails, is killed or is cut off leaves the
database as it was. Revisions are static SQL; what a run is told reaches them as PostgreSQL settings (`oblivion.demo`,
`oblivion.drop_data`), so that both ways do the same.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, event, func, select, text, true
from sqlalchemy.exc import DBAPIError

from . import url
from .base import PRIVATE_SCHEMA, metadata
from .errors import UserError, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from alembic.config import Config
    from alembic.operations import MigrationScript
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Engine
    from sqlalchemy.sql.schema import SchemaItem

ADVISORY_LOCK: Final = 0x0B11_1710_5C4E_3A00
"""Key of the advisory lock that a run holds in its transaction."""

_POLL_SECONDS: Final = 0.1
_YES_NO: Final = ("yes", "no")


@dataclass(frozen=True)
class Options:
    """The `-x key=value` options of the command line."""

    url: str | None = None
    demo: bool = True
    drop_data: bool = False
    lock_timeout: str = "5s"

    @classmethod
    def from_config(cls, config: Config) -> Options:
        """Read them from the command line that Alembic parsed. Raises UserError."""
        given = (option.partition("=") for option in getattr(config.cmd_opts, "x", None) or ())
        return cls.parse({key: value for key, _, value in given})

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Options:
        """Read them. Raises UserError for an unknown key or value."""
        known = {"demo", "drop-data", "lock-timeout", "url"}
        for key in given.keys() - known:
            raise UserError(f"Unknown option -x {key}: the options are {', '.join(sorted(known))}.")
        for key in ("demo", "drop-data"):
            if given.get(key, "no") not in _YES_NO:
                raise UserError(f"-x {key}={given[key]}: say {key}=yes or {key}=no.")
        timeout = given.get("lock-timeout", cls.lock_timeout)
        if not re.fullmatch(r"\d{1,6}(ms|s|min)", timeout):
            raise UserError(f"-x lock-timeout={timeout}: give a number and its unit, ms, s or min, such as 5s.")
        if given.get("url") == "":
            raise UserError("-x url is empty: write -x url=postgresql://user:password@host:5432/database.")
        return cls(given.get("url"), given.get("demo") != "no", given.get("drop-data") == "yes", timeout)

    def settings(self) -> dict[str, str]:
        """PostgreSQL settings for the run's transaction; what a revision's SQL reads is set only where it matters."""
        settings = {"lock_timeout": self.lock_timeout}
        if not self.demo:
            settings[f"{PRIVATE_SCHEMA}.demo"] = "no"
        if self.drop_data:
            settings[f"{PRIVATE_SCHEMA}.drop_data"] = "yes"
        return settings


def run() -> None:
    """Run the command that Alembic was given. Raises UserError, one line, where its user can mend it."""
    _log_as_command_line()
    options = Options.from_config(context.config)
    if context.is_offline_mode():
        context.configure(
            dialect_name="postgresql",
            dialect_opts={"paramstyle": "named"},  # pyformat would double every percent sign in the script
            **_configuration(),
        )
        with context.begin_transaction():
            _migrate(options)
        return
    given: Connection | Engine | None = context.config.attributes.get("connection")
    if given is not None:
        with nullcontext(given) if isinstance(given, Connection) else given.connect() as connection:
            url.require_supported_server(connection, "The given connection")
            _run_on(connection, options)
        return
    database = url.find_or_start(options.url, context.config.get_main_option("sqlalchemy.url"), os.environ)
    if database.is_behind_transaction_pooler:
        _say("Port 6543 is Supabase's transaction pooler; use port 5432, direct or session mode.")
    if database.source == url.EMBEDDED:
        _say(
            f"{database.source} at {database.url.query.get('host')}."
            " Open it: oblivion-schema psql. Stop it: oblivion-schema stop."
        )
    with database.connect() as connection:
        _run_on(connection, options)


def _run_on(connection: Connection, options: Options) -> None:
    context.configure(connection=connection, **_configuration())
    # A caller's transaction goes on after this, under the caller's own timeout.
    before = connection.scalar(text("SHOW lock_timeout")) if connection.in_transaction() else None
    try:
        with context.begin_transaction():
            if _is_read_only():
                with connection.begin_nested() as savepoint:  # Alembic makes its version table even to read
                    _migrate(options)
                    savepoint.rollback()
            else:
                _wait_for_other_deployers(connection)
                _migrate(options)
        if before is not None:
            connection.execute(select(func.set_config("lock_timeout", before, true())))
    except DBAPIError as error:
        raise explain(error, connection.engine) from error
    except CommandError as error:
        if "Can't locate revision" in str(error):
            raise UserError(
                f"{str(error).rstrip('.')}: the database, or the command, names a revision that this version of"
                " oblivion_schema does not have. Install the version that wrote it, or a newer one."
            ) from error
        raise


def _configuration() -> dict[str, Any]:
    return {
        "target_metadata": metadata,
        "version_table_schema": PRIVATE_SCHEMA,
        "on_version_apply": _leave_nothing_behind,
        "process_revision_directives": _number_revision,
        "include_object": _is_compared,
    }


def _migrate(options: Options) -> None:
    migration = context.get_context()
    made_version_table = []

    def make_schema(*_: object, **__: object) -> None:
        made_version_table.append(True)
        migration.execute(f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}")

    # In public the version table would be one that any visitor may delete.
    event.listen(
        migration._version,  # noqa: SLF001 - Alembic has no hook between describing this table and creating it
        "before_create",
        make_schema,
    )
    for name, value in options.settings().items():
        context.execute(f"SET LOCAL {name} = '{value}'")
    context.run_migrations()
    if made_version_table and migration.opts.get("destination_rev") == "base":
        _drop_version_table(migration)  # there was nothing to downgrade


def _is_read_only() -> bool:
    """Whether the command only looks: it goes to no revision, and is not the one that makes the version table."""
    opts = context.get_context().opts
    return "destination_rev" not in opts and opts["fn"].__name__ != "do_ensure_version"


def _wait_for_other_deployers(connection: Connection) -> None:
    # Polled: a waiter that blocked would hold a snapshot, for which CREATE INDEX CONCURRENTLY waits in its turn.
    # In the transaction: a pooler may hand a lock of the session to somebody else.
    attempt = select(func.pg_try_advisory_xact_lock(ADVISORY_LOCK))
    if connection.scalar(attempt):
        return
    _say("Another upgrade is running on this database: waiting until it ends.")
    while not connection.scalar(attempt):
        time.sleep(_POLL_SECONDS)


def _leave_nothing_behind(*, ctx: MigrationContext, step: Any, heads: Iterable[str], **_: Any) -> None:
    if not heads and not step.is_upgrade and not step.is_stamp:
        _drop_version_table(ctx)


def _drop_version_table(migration: MigrationContext) -> None:
    migration.execute(f"DROP TABLE {PRIVATE_SCHEMA}.{migration.version_table}")
    migration.execute(f"DROP SCHEMA {PRIVATE_SCHEMA}")


def _number_revision(_: MigrationContext, __: object, directives: list[MigrationScript]) -> None:
    script = context.script
    numbers = [int(revision.revision) for revision in script.walk_revisions()]
    for directive in directives:
        directive.rev_id = f"{max(numbers, default=0) + 1:03}"


def _is_compared(item: SchemaItem, _name: str | None, kind: str, _reflected: bool, _to: SchemaItem | None) -> bool:  # noqa: FBT001 - Alembic's signature
    # Alembic takes a view for a table, and sees no index predicate.
    return kind != "index" and not (kind == "table" and getattr(item, "is_view", False))


def _log_as_command_line() -> None:
    options = context.config.cmd_opts
    if options is not None and hasattr(options, "cmd"):  # not for a service that calls upgrade()
        logging.basicConfig(format="%(levelname)-5.5s [%(name)s] %(message)s")
        logging.getLogger("alembic").setLevel(logging.WARNING if options.quiet else logging.INFO)
        logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
        if not context.is_offline_mode():  # Alembic prints each error, too: where the script goes, with --sql
            logging.getLogger("alembic.util.messaging").setLevel(logging.CRITICAL)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")

"""Upgrade from Python: run Alembic on the revisions of the checkout or of the installed wheel."""

# Functions import Alembic themselves, so that a service which only queries does not load it.

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from alembic.config import Config
    from sqlalchemy import URL, Connection, Engine

    from oblivion_schema.tables.access import Mode, PageBilling

_PACKAGE = Path(__file__).parents[1]
_PACKAGED = _PACKAGE / "migrations"
_ONE_AT_A_TIME = threading.Lock()

# The settings of alembic.ini, which the wheel lacks.
_OPTIONS = {"file_template": "%%(rev)s_%%(slug)s", "path_separator": "os", "revision_environment": "true"}


def is_packaged() -> bool:
    """Whether the revisions come from an installed wheel, which takes no new ones."""
    return _PACKAGED.is_dir()


def config(cmd_opts: Namespace | None = None) -> Config:
    """Alembic's configuration: the file of `-c`, or the wheel's revisions, or the checkout's alembic.ini.

    Raises CommandError if the file of `-c` does not exist.
    """
    from alembic.config import Config
    from alembic.util import CommandError

    if cmd_opts is not None and getattr(cmd_opts, "config", None):
        if not Path(cmd_opts.config[-1]).is_file():
            raise CommandError(f"-c {cmd_opts.config[-1]}: the file does not exist. Check its path.")
        return Config(cmd_opts.config[-1], ini_section=cmd_opts.name, cmd_opts=cmd_opts, stdout=sys.stdout)
    if is_packaged():
        configuration = Config(cmd_opts=cmd_opts, stdout=sys.stdout)
        for name, value in _OPTIONS.items():
            configuration.set_main_option(name, value)
        configuration.set_main_option("script_location", str(_PACKAGED).replace("%", "%%"))
        return configuration
    return Config(_PACKAGE.parent / "alembic.ini", cmd_opts=cmd_opts, stdout=sys.stdout)


def upgrade(
    target: str | URL | Engine | Connection,
    revision: str = "head",
    *,
    demo: bool = True,
    access: Mode | None = None,
    pages: PageBilling | None = None,
) -> None:
    """Bring a database to `revision`, the newest by default.

    - `demo=False` leaves the demo accounts out.
    - `access` switches the access mode, as `oblivion-schema access` does. Without it the mode stays as it is; a new
      database is in the open mode.
    - `pages` switches who bills the calls of pages, as `oblivion-schema pages` does. Without it that stays as it is; in
      a new database pages are trusted.

    If the connection has an open transaction, the upgrade joins it, and the caller commits; otherwise the upgrade is a
    transaction of its own. After that it fills in what big tables lack; a caller whose transaction it joined calls
    `oblivion.backfill()` after the commit. For a URL it builds the indexes of big hand-made tables before. One upgrade
    runs at a time: on a database because of a lock, in a process because Alembic's state is global.

    Raises alembic.util.CommandError, whose text is one line, if the database cannot be reached or PostgreSQL refuses;
    then nothing was changed, except for an index that was built before. If only the filling in failed, it says so.
    """
    from argparse import Namespace

    from alembic import command, context
    from alembic.util import CommandError
    from sqlalchemy import Connection, Engine, make_url

    from oblivion_schema.server.database import parse

    modes = {"access": access, "pages": pages}
    options = [
        f"demo={'yes' if demo else 'no'}",
        *(f"{name}={mode}" for name, mode in modes.items() if mode is not None),
    ]
    configuration = config(Namespace(x=options))
    if type(target).__module__.startswith("sqlalchemy.ext.asyncio"):  # which is not imported: it needs greenlet
        raise CommandError(
            f"upgrade() got an {type(target).__name__}, and runs synchronously: await connection.run_sync(upgrade) in"
            " async with engine.begin() as connection, or give a URL."
        )
    if isinstance(target, Connection | Engine):
        configuration.attributes["connection"] = target
    else:
        url = target if isinstance(target, str) else make_url(target).render_as_string(hide_password=False)
        configuration.attributes["database"] = parse(url, "the given URL")
    with _ONE_AT_A_TIME:
        with suppress(NameError, AttributeError):  # Alembic raises these if none of its commands is running
            context.is_offline_mode()
            raise CommandError("upgrade() was called inside an Alembic command: call it before or after the command.")
        command.upgrade(configuration, revision)

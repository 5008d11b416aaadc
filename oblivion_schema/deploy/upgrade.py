"""Upgrading from Python: Alembic on the revisions of the checkout or of the installed wheel."""

# Alembic is imported in the functions: a service that only queries does not pay for it.

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

    from oblivion_schema.tables.access import Mode

_PACKAGE = Path(__file__).parents[1]
_PACKAGED = _PACKAGE / "migrations"
_ONE_AT_A_TIME = threading.Lock()

# What alembic.ini says in the checkout; the wheel has none.
_OPTIONS = {"file_template": "%%(rev)s_%%(slug)s", "path_separator": "os", "revision_environment": "true"}


def is_packaged() -> bool:
    """Whether the revisions are those of an installed wheel, where no new ones belong."""
    return _PACKAGED.is_dir()


def config(cmd_opts: Namespace | None = None) -> Config:
    """Alembic's configuration: the file that `-c` names, alembic.ini of the checkout, or what the wheel carries."""
    from alembic.config import Config
    from alembic.util import CommandError

    if cmd_opts is not None and getattr(cmd_opts, "config", None):
        if not Path(cmd_opts.config[-1]).is_file():
            raise CommandError(f"-c {cmd_opts.config[-1]}: there is no such file.")
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
) -> None:
    """Bring a database to `revision`, the newest by default; `demo=False` leaves the demo accounts out.

    `access` says who may do what, as `oblivion-schema access` does; else the mode stays, open in a new database.

    A connection's open transaction is joined, and is the caller's to commit; otherwise the upgrade is a transaction of
    its own. Upgrades take turns: those of one database on the server, those of one process here, for Alembic's state is
    global. Raises alembic.util.CommandError, whose text is one line, where the database cannot be reached or refuses;
    nothing was changed then.
    """
    from argparse import Namespace

    from alembic import command, context
    from alembic.util import CommandError
    from sqlalchemy import Connection, Engine, make_url

    from oblivion_schema.server.database import parse

    options = [f"demo={'yes' if demo else 'no'}", *([f"access={access}"] if access is not None else ())]
    configuration = config(Namespace(x=options))
    if isinstance(target, Connection | Engine):
        configuration.attributes["connection"] = target
    else:
        url = target if isinstance(target, str) else make_url(target).render_as_string(hide_password=False)
        configuration.attributes["database"] = parse(url, "the given URL")
    with _ONE_AT_A_TIME:
        with suppress(NameError, AttributeError):  # which tell that no command of Alembic is running
            context.is_offline_mode()
            raise CommandError("upgrade() was called from within an Alembic command: call it before that or after.")
        command.upgrade(configuration, revision)

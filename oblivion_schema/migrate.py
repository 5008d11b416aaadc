"""Upgrading from Python: Alembic on the revisions of the checkout or of the installed wheel."""

# Alembic is imported in the functions: a service that only queries does not pay for it.

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import Namespace

    from alembic.config import Config
    from sqlalchemy import URL, Connection, Engine

_PACKAGE = Path(__file__).parent


def config(cmd_opts: Namespace | None = None) -> Config:
    """Alembic's configuration: the file that `-c` names, alembic.ini of the checkout, or what the wheel carries."""
    from alembic.config import Config

    if cmd_opts is not None and getattr(cmd_opts, "config", None):
        return Config(cmd_opts.config[-1], ini_section=cmd_opts.name, cmd_opts=cmd_opts, stdout=sys.stdout)
    packaged = _PACKAGE / "migrations"
    if packaged.is_dir():
        configuration = Config(cmd_opts=cmd_opts, stdout=sys.stdout)
        configuration.set_main_option("script_location", str(packaged).replace("%", "%%"))
        return configuration
    return Config(_PACKAGE.parent / "alembic.ini", cmd_opts=cmd_opts, stdout=sys.stdout)


def upgrade(target: str | URL | Engine | Connection, revision: str = "head", *, demo: bool = True) -> None:
    """Bring a database to `revision`, the newest by default; `demo=False` leaves the demo accounts out.

    A connection's open transaction is joined, and is the caller's to commit; otherwise the upgrade is a transaction of
    its own. Run side by side, upgrades take turns. Raises alembic.util.CommandError, whose text is one line, where the
    database cannot be reached or refuses; nothing was changed then.
    """
    from argparse import Namespace

    from alembic import command
    from sqlalchemy import Connection, Engine, make_url

    options = [f"demo={'yes' if demo else 'no'}"]
    if not isinstance(target, Connection | Engine):
        url = target if isinstance(target, str) else make_url(target).render_as_string(hide_password=False)
        options.append(f"url={url}")
    configuration = config(Namespace(x=options))
    if isinstance(target, Connection | Engine):
        configuration.attributes["connection"] = target
    command.upgrade(configuration, revision)

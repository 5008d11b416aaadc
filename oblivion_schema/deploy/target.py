"""The database of a command, which the command names on stderr."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from oblivion_schema.deploy.options import Options
from oblivion_schema.progress import say
from oblivion_schema.server.choice import choose
from oblivion_schema.server.database import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from sqlalchemy import Connection

    from oblivion_schema.server.choice import Unnamed
    from oblivion_schema.server.database import Database


def find_database(config: Config, *, unnamed: Unnamed = "make") -> Database:
    """The database of a command: the caller's, or what `oblivion_schema.server.choice.choose()` finds."""
    given: Database | None = config.attributes.get("database")
    if given is not None:
        return given
    url = Options.from_config(config).url
    return choose(url, config.get_main_option("sqlalchemy.url"), os.environ, unnamed=unnamed)


def name_it(config: Config, database: Database, connection: Connection | None = None) -> None:
    """Say which database it is; with -q only if nobody named it, or somebody seems to have meant another."""
    if not getattr(config.cmd_opts, "quiet", False) or database.source == EMBEDDED or database.note:
        say(database.line(connection))


@contextmanager
def connect(config: Config, *, unnamed: Unnamed = "make") -> Iterator[Connection]:
    """Connect to the database of a command, and say which one it is. Raises UserError as `Database.connect()`."""
    database = find_database(config, unnamed=unnamed)
    with database.connect() as connection:
        name_it(config, database, connection)
        yield connection

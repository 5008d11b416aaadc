"""Which database a command works on: the first URL that is given, or the embedded server."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final, Literal

from oblivion_schema.errors import UserError
from oblivion_schema.server import embedded
from oblivion_schema.server.database import EMBEDDED, VARIABLES, Database, parse

if TYPE_CHECKING:
    from collections.abc import Mapping

Unnamed = Literal["make", "start", "running"]
"""What a command may do with the embedded server if no database is named: make and start it, start it, or neither."""

_READ: Final = (*VARIABLES, embedded.DIRECTORY_VARIABLE, embedded.VERSION_VARIABLE)
_PREFIX: Final = "OBLIVION_"
_OF_TESTS: Final = "OBLIVION_TEST_"
_SURELY: Final = 0.9
_LIKELY: Final = 0.7
_HINT: Final = "Open it: oblivion-schema psql. Stop it: oblivion-schema stop."


def find(x_url: str | None, ini_url: str | None, environment: Mapping[str, str]) -> Database | None:
    """The first URL that is given: by `-x url=`, the environment, or alembic.ini. None means the embedded server.

    Raises UserError for a URL that is none, and for a variable that is set and empty, unless a URL before it is given.
    """
    if x_url:
        return parse(x_url, "-x url")
    for name in VARIABLES:
        url = environment.get(name)
        if url is not None and not url.strip():
            raise UserError(
                f"{name} is set and empty, so it names no database: set it to postgresql://user:password@host/database,"
                f" or unset {name}."
            )
        if url:
            return parse(url, name)
    return parse(ini_url, "sqlalchemy.url in alembic.ini") if ini_url else None


def choose(
    x_url: str | None,
    ini_url: str | None,
    environment: Mapping[str, str],
    *,
    unnamed: Unnamed = "make",
) -> Database:
    """As `find()`; without a URL, the embedded server, as far as `unnamed` allows it.

    Unless that is "make", the command changes access, money or calls, and a variable whose name is likely misspelled
    is an error; else it is the note of the database. Raises UserError if there is no database.
    """
    found = find(x_url, ini_url, environment)
    misspelled = ""
    if found is None or found.source not in {"-x url", VARIABLES[0]}:
        misspelled = _misspelled(environment, VARIABLES if found is None else VARIABLES[:1])
    if misspelled and unnamed != "make":
        raise UserError(f"{misspelled} Correct its name, or name the database with -x url=postgresql://...")
    if found is not None:
        return Database(found.url, found.source, misspelled)
    if not embedded.is_installed():
        raise UserError(f"{misspelled or 'No database URL:'} set {VARIABLES[0]}, or install oblivion-schema[embedded].")
    directory = embedded.data_directory()
    runs = embedded.is_running(directory)
    if unnamed != "make" and not embedded.is_made(directory):
        raise UserError(
            f"No database is named, and there is no embedded one in {directory}: set {VARIABLES[0]}, or make the"
            " embedded one with oblivion-schema upgrade head."
        )
    if unnamed == "running" and not runs:
        raise UserError(
            f"No database is named, and the embedded PostgreSQL in {directory} is not running: set {VARIABLES[0]}, or"
            " start the embedded one with oblivion-schema verify."
        )
    server = embedded.start(directory)
    return Database(embedded.url(server), EMBEDDED, " ".join(filter(None, (misspelled, "" if runs else _HINT))))


def _misspelled(environment: Mapping[str, str], urls: tuple[str, ...]) -> str:
    """A sentence for a variable whose name is close to that of one that is read, or nothing; `urls`: those with a URL.

    A name that is less close, or close to that of a variable which other programs read, counts only if its value is a
    URL of PostgreSQL.
    """
    for name, value in environment.items():
        if name in _READ or name.startswith(_OF_TESTS):
            continue
        is_url = value.startswith("postgres")
        for meant in (*urls, embedded.DIRECTORY_VARIABLE, embedded.VERSION_VARIABLE):
            close = SequenceMatcher(None, name.upper(), meant).ratio()
            is_likely = close >= _LIKELY and name.startswith(_PREFIX) and is_url and meant == VARIABLES[0]
            if is_likely or (close >= _SURELY and (is_url or meant.startswith(_PREFIX))):
                return f"{name} is not read: did you mean {meant}?"
    return ""

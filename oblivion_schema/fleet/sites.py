"""The file that names the sites of a fleet and their databases.

It is TOML: `[sites.NAME]`, and below it `url = "postgresql://..."`. No message shows a URL, nor a part of the file that
may be one. What rewrites the file keeps its comments and its order, and replaces it at once.
"""

from __future__ import annotations

import getpass
import os
import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg2.extensions

from oblivion_schema import replacing
from oblivion_schema.errors import UserError
from oblivion_schema.server import database as databases

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from oblivion_schema.server.database import Database

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_KEYS: Final = frozenset({"url"})
_CONNECT_SECONDS: Final = "10"
_HOW: Final = 'Write [sites.NAME] for each site, and below it url = "postgresql://user@host:5432/database".'


@dataclass(frozen=True)
class Site:
    """A site, and its database; its messages name the file as the source of the URL."""

    name: str
    database: Database


def read(path: Path) -> dict[str, Site]:
    """The sites of a file, in its order. Raises UserError if it cannot be read, or names no site, or one twice."""
    found = parse(_text(path), str(path))
    if not found:
        raise UserError(f"{path} names no site. {_HOW}")
    return found


def read_or_none(path: Path) -> dict[str, Site]:
    """As `read()`; of a file that is empty, or not there yet, no sites."""
    return parse(_text(path), str(path)) if path.exists() else {}


def parse(text: str, file: str) -> dict[str, Site]:
    """The sites of the text of `file`. Raises UserError as `read()`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # its message may quote the file
        said = str(error)
        where = re.search(r"line \d+|end of document", said)
        at = f"{file}, {where[0]}" if where else file
        if "twice" in said or "overwrite" in said:
            raise UserError(f"{at}: a name stands there a second time. Name each site once.") from None
        raise UserError(f"{at}: this is no TOML. {_HOW}") from None
    _require_known(document, {"sites"}, file, "The file has tables [sites.NAME] only.")
    tables = document.get("sites", {})
    if not isinstance(tables, dict):
        raise UserError(f"{file}: sites is no table. {_HOW}")
    sites = {name: Site(name, _database(name, table, file)) for name, table in tables.items()}
    _require_distinct({site.name: _place(site.database) for site in sites.values()}, file)
    return sites


def new(name: str, url: str, source: str, file: Path) -> Site:
    """A site that is not in the file yet; `source` gave the URL. Raises UserError for a name or URL that is none."""
    if not _NAME.fullmatch(name):
        shown = name if re.fullmatch(r"[\w .-]{1,63}", name) else "This"
        raise UserError(f"{shown} is no name of a site: take letters, digits, - and _, at most 63.")
    return Site(name, _patient(databases.parse(url, source), str(file)))


def chosen(sites: Mapping[str, Site], names: Sequence[str], option: str, file: Path) -> list[Site]:
    """The sites of these names, in the order of the file. Raises UserError for a name that no site has."""
    for name in names:
        if name not in sites:
            shown = f" {name}" if _NAME.fullmatch(name) else ""
            raise UserError(f"{option}{shown}: {file} has no such site. Its sites are {', '.join(sites)}.")
    return [site for name, site in sites.items() if name in names]


def place(site: Site) -> str:
    """Host, port and name of a site's database, as far as the URL tells."""
    host, port, *name = _place(site.database)
    return f"{host or 'the default socket'}:{port}/{' '.join(name)}"


def is_one_database(one: Site, other: Site) -> bool:
    """Whether the URLs of two sites lead to one database, as far as they tell."""
    return _place(one.database) == _place(other.database)


def require_other_database(site: Site, others: Mapping[str, Site], file: Path) -> None:
    """Raise UserError if the URL of `site` is that of another site."""
    sites = {**others, site.name: site}
    _require_distinct({name: _place(other.database) for name, other in sites.items()}, str(file))


def add(path: Path, name: str, url: str) -> None:
    """Add a site at the end of the file. Raises UserError, and leaves the file, if that cannot be done."""
    path = path.resolve()  # of a symbolic link the file that it leads to
    with replacing.alone(path):
        text = _text(path) if path.exists() else ""
        before = parse(text, str(path))
        end = "\r\n" if "\r\n" in text else "\n"
        gap = "" if not text else end if text.endswith("\n") else end * 2
        lines = [f"[sites.{name}]", f"url = {_toml(url)}", ""]
        after = f"{text}{gap}{end.join(lines)}"
        _require_added(after, before, name, url, path)
        replacing.replace(path, after)


def _require_added(after: str, before: Mapping[str, Site], name: str, url: str, path: Path) -> None:
    """Raise UserError unless the new text says what the old one says, and the new site: TOML has many ways to write."""
    wanted = {**before, name: new(name, url, "the URL", path)}
    try:
        found = parse(after, str(path))
    except UserError:
        found = {}
    if {name: site.database.url for name, site in found.items()} != {n: s.database.url for n, s in wanted.items()}:
        raise UserError(
            f"{path}: site {name} cannot be added to this file as it is written. Add it by hand: [sites.{name}], and"
            " below it its url."
        )


def replace_url(path: Path, name: str, url: str) -> None:
    """Give a site another URL, and keep all else. Raises UserError, and leaves the file, if that cannot be done."""
    path = path.resolve()
    with replacing.alone(path):
        before = _text(path)
        sites = parse(before, str(path))
        wanted = {
            **{n: site.database.url for n, site in sites.items()},
            name: new(name, url, "--to", path).database.url,
        }
        # TOML has many ways to write a table: that place is the right one with which the file says what it should.
        for place in _STRING.finditer(before):
            after = before[: place.start()] + _toml(url) + before[place.end() :]
            with suppress(UserError):
                if {n: site.database.url for n, site in parse(after, str(path)).items()} == wanted:
                    replacing.replace(path, after)
                    return
    raise UserError(f"{path}: the url of site {name} cannot be replaced as it is written: do it by hand.")


_STRINGS: Final = (r'"""(?s:.*?)"""', r"'''(?s:.*?)'''", r'"(?:[^"\\\n]|\\.)*"', r"'[^'\n]*'")
_STRING: Final = re.compile("|".join(_STRINGS))


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path} is no text in UTF-8. {_HOW}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}. Name the file of the sites.") from None


def _require_known(table: Mapping[str, Any], known: set[str] | frozenset[str], where: str, says: str) -> None:
    for key in table.keys() - known:
        shown = f" {key}" if re.fullmatch(r"[\w-]{1,30}", key) else ""  # it may be a URL with a password
        raise UserError(f"{where}: unknown key{shown}. {says}")


def _database(name: str, table: Any, file: str) -> Database:
    if not _NAME.fullmatch(name):
        shown = f" {name}" if re.fullmatch(r"[\w .-]{1,63}", name) else ""
        raise UserError(f"{file}: the name{shown} is none: take letters, digits, - and _, at most 63.")
    if not isinstance(table, dict):
        raise UserError(f"{file}: site {name} is no table. {_HOW}")
    _require_known(table, _KEYS, f"{file}, site {name}", "A site has a url, and nothing else.")
    url = table.get("url")
    if not isinstance(url, str) or not url.strip():
        raise UserError(f"{file}: site {name} has no url. {_HOW}")
    return _patient(databases.parse(url, f"{file}: the url of site {name}"), file)


def _patient(found: Database, file: str) -> Database:
    """The database, with a bound on how long it is waited for where nobody gave one: others wait behind a dead host."""
    url = found.url
    if url.get_driver_name() in databases.LIBPQ and "PGCONNECT_TIMEOUT" not in os.environ:
        url = url.update_query_dict({"connect_timeout": _CONNECT_SECONDS, **url.query})
    return databases.Database(url, file)


def _place(database: Database) -> tuple[str, ...]:
    """What tells a database from others without connecting: host, port and name, after libpq's defaults."""
    url, environment = database.url, os.environ
    if url.get_driver_name() not in databases.LIBPQ:
        return (url.host or "", str(url.port or 5432), url.database or url.username or "")
    given = psycopg2.extensions.parse_dsn(database.conninfo()[0])
    if service := given.get("service") or environment.get("PGSERVICE"):  # libpq reads the rest from a file
        return (f"service {service}", *(given.get(name, "") for name in ("host", "port", "dbname", "user")))
    host = given.get("host") or given.get("hostaddr") or environment.get("PGHOST") or ""
    role = given.get("user") or environment.get("PGUSER") or getpass.getuser()
    return (
        host if host.startswith("/") else host.lower().rstrip("."),
        given.get("port") or environment.get("PGPORT") or "5432",
        given.get("dbname") or environment.get("PGDATABASE") or role,
    )


def _require_distinct(places: Mapping[str, tuple[str, ...]], file: str) -> None:
    seen: dict[tuple[str, ...], str] = {}
    for name, place in places.items():
        if place in seen:
            raise same_database(seen[place], name, file)
        seen[place] = name


def same_database(one: str, other: str, file: object) -> UserError:
    """The error for two sites that are one database."""
    return UserError(
        f"{file}: sites {one} and {other} are one database. Give each site a database of its own. Nothing was changed."
    )


def _toml(text: str) -> str:
    """`text` as a string of TOML."""
    return '"' + re.sub(r'[\x00-\x1f"\\\x7f]', lambda found: f"\\u{ord(found[0]):04x}", text) + '"'

"""The `-x key=value` options of a run, and the PostgreSQL settings that pass them to the revisions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from oblivion_schema.errors import UserError, one_line
from oblivion_schema.tables.access import MODES, PAGE_BILLINGS
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from alembic.config import Config

    from oblivion_schema.tables.access import Mode, PageBilling

MODES_ARE_FOR_UPGRADES: Final = (
    "-x access=... and -x pages=... go with upgrade head only: otherwise use oblivion-schema access, or pages."
)
_YES_NO: Final = ("yes", "no")


@dataclass(frozen=True)
class Options:
    """The `-x key=value` options of the command line.

    - `url`: the database.
    - `access`, `pages`: the modes after the upgrade; None keeps the mode.
    - `demo`: whether the demo accounts are inserted.
    - `drop_data`: whether a downgrade may drop tables and columns that hold data.
    - `drop_unknown`: whether a new revision drops objects that the metadata does not declare.
    - `lock_timeout`: how long a statement waits for a lock, in PostgreSQL's units, such as 5s.
    """

    url: str | None = None
    access: Mode | None = None
    pages: PageBilling | None = None
    demo: bool = True
    drop_data: bool = False
    drop_unknown: bool = False
    lock_timeout: str = "5s"

    @classmethod
    def from_config(cls, config: Config) -> Options:
        """Read the options from Alembic's parsed command line. Raises UserError as `parse()`."""
        given = (option.partition("=") for option in getattr(config.cmd_opts, "x", None) or ())
        return cls.parse({key: value for key, _, value in given})

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Options:
        """Read the options from their keys and values. Raises UserError for an unknown key or value."""
        known = {"access", "demo", "drop-data", "drop-unknown", "lock-timeout", "pages", "url"}
        for key in given.keys() - known:
            shown = f" {key}" if re.fullmatch(r"[a-z-]{1,20}", key) else ""  # it may be a URL with a password
            raise UserError(f"Unknown option -x{shown}: the options are {', '.join(sorted(known))}, as in -x demo=no.")
        mode = parse_mode(given["access"], f"-x access={given['access']}") if "access" in given else None
        pages = parse_pages(given["pages"], f"-x pages={given['pages']}") if "pages" in given else None
        for key in ("demo", "drop-data", "drop-unknown"):
            if given.get(key, "no") not in _YES_NO:
                raise UserError(f"-x {key}={given[key]}: say {key}=yes or {key}=no.")
        timeout = given.get("lock-timeout", cls.lock_timeout)
        if not re.fullmatch(r"[1-9]\d{0,5}(ms|s|min)", timeout):
            raise UserError(f"-x lock-timeout={timeout}: give a number and its unit, ms, s or min, such as 5s.")
        if given.get("url") == "":
            raise UserError("-x url is empty: write -x url=postgresql://user:password@host:5432/database.")
        return cls(
            url=given.get("url"),
            access=mode,
            pages=pages,
            demo=given.get("demo") != "no",
            drop_data=given.get("drop-data") == "yes",
            drop_unknown=given.get("drop-unknown") == "yes",
            lock_timeout=timeout,
        )

    @property
    def sets_modes(self) -> bool:
        """Whether the run switches a mode."""
        return bool(self.access or self.pages)

    def settings(self) -> dict[str, str]:
        """PostgreSQL settings for the run's transaction; the revisions' own are set only if not the default."""
        settings = {"lock_timeout": self.lock_timeout, "search_path": "public"}
        if self.access:
            settings[f"{PRIVATE_SCHEMA}.access"] = self.access
        if self.pages:
            settings[f"{PRIVATE_SCHEMA}.pages"] = self.pages
        if not self.demo:
            settings[f"{PRIVATE_SCHEMA}.demo"] = "no"
        if self.drop_data:
            settings[f"{PRIVATE_SCHEMA}.drop_data"] = "yes"
        return settings


def parse_mode(name: str, said: str) -> Mode:
    """The access mode with that name. Raises UserError for another name, and quotes `said`."""
    for mode in MODES:
        if name == mode:
            return mode
    raise UserError(
        f"{one_line(said)}: the modes are open (everybody may read and write) and authenticated (users reach their own"
        " rows)."
    )


def parse_pages(name: str, said: str) -> PageBilling:
    """The way to bill pages with that name. Raises UserError for another name, and quotes `said`."""
    for pages in PAGE_BILLINGS:
        if name == pages:
            return pages
    raise UserError(
        f"{one_line(said)}: pages are trusted (they bill their calls by themselves) or metered (the database bills"
        " their calls)."
    )

"""Whether objects are as the metadata declares them: all that `oblivion-schema check` compares."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from alembic.runtime.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

from oblivion_schema.drift.compare import find_drift
from oblivion_schema.drift.standin import MayNotBuildError
from oblivion_schema.errors import UserError, sqlstate
from oblivion_schema.tables.access import current_modes
from oblivion_schema.tables.base import metadata
from oblivion_schema.verification.check import Check, named, not_tried, note, result

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

    from oblivion_schema.drift.compare import Difference

SUBJECT: Final = "everything is defined, granted and commented as the code has it"
_MEND: Final = "oblivion-schema check --sql prints what mends it"
# Somebody else's objects on our tables that open or change something; all others at most refuse rows, which is tried.
_OPENS: Final = frozenset({"policy", "row level security", "function", "grant"})
# Those of a foreign key, which a superuser may disable.
_DISABLED: Final = "disabled triggers "
# The sequence of an identity of ours, under another name than PostgreSQL's own.
_RENAMED: Final = re.compile(r"sequence (.+) of identity (?:.+\.)?(.+)\.(.+)")
# Checked as rows, with what they mean for a call.
_ROWS: Final = "reference row"


def check_definitions(connection: Connection, revisions: ScriptDirectory, missing: Collection[str]) -> Iterator[Check]:
    """A line for each object that differs, and one for all grants; `missing` has the names that were missed before."""
    try:
        drift = find_drift(connection, MigrationContext.configure(connection=connection), metadata, revisions)
    except MayNotBuildError:
        yield not_tried(
            SUBJECT,
            "this role may not build the schema for comparison, or the session is read-only:"
            " oblivion-schema check --against URL builds it elsewhere",
        )
        return
    except UserError as error:
        if isinstance(error.__cause__, DBAPIError) and sqlstate(error.__cause__) == "57014":
            raise
        yield not_tried(SUBJECT, f"the schema cannot be built for comparison: {error}")
        return
    differences = [found for found in drift.differences if found.kind != _ROWS and not _is_missed(found, missing)]
    grants = [found.name for found in differences if found.kind == "grant"]
    others = [found for found in differences if found.kind != "grant"]
    mode = current_modes(connection).access
    failed = [found for found in others if not _is_harmless(found)]
    if not grants and not failed:
        yield Check(SUBJECT)
    if grants:
        yield result("grants are those of the code", f"{named(grants, len(grants))}: run oblivion-schema access {mode}")
    for found in failed:
        yield result(f"{found.kind} {found.name}".strip(), f"{_says(found)}: {_mend(found)}")
    for found in others:
        if _is_harmless(found) and found.kind != "trigger":
            yield note(f"{found.kind} {found.name}".strip(), "it is not ours")
    if drift.missing_roles:
        yield not_tried(
            f"grants to {', '.join(drift.missing_roles)}",
            f"the server has no such role; once it has, run oblivion-schema access {mode}",
        )


def _is_missed(found: Difference, missing: Collection[str]) -> bool:
    """Whether an object was missed before, or belongs to one that was."""
    if found.kind == "row level security" and not found.name.endswith(", forced"):
        return True
    name, _, on = found.name.partition("(")[0].partition(" on ")
    names = [part.rpartition(" ")[2].removeprefix("public.") for part in (name, on) if part]
    full = ".".join([*names[1:], names[0].rpartition(".")[2] if on else names[0]])
    return any(full == other or full.startswith(f"{other}.") or other in names for other in missing)


def _mend(found: Difference) -> str:
    """What mends it; an object of somebody else's is dropped by hand, if at all."""
    if found.change != "unknown":
        return _MEND
    if found.name.startswith(_DISABLED):
        return f"nothing checks it: as a superuser, ALTER TABLE {found.name.rpartition(' on ')[2]} ENABLE TRIGGER ALL"
    if renamed := _RENAMED.fullmatch(found.name):
        sequence, table, column = renamed.groups()
        return f"no grants are renewed under this name: ALTER SEQUENCE {sequence} RENAME TO {table}_{column}_seq"
    kind = found.kind or found.name.partition(" ")[0]
    which = found.name.removeprefix(kind).strip()
    return f"it opens or changes what ours do; if that is not wanted, DROP {kind.upper()} {which}"


def _is_harmless(found: Difference) -> bool:
    if found.change != "unknown" or _RENAMED.fullmatch(found.name):
        return False
    return found.kind not in _OPENS and not found.name.startswith(("rule ", _DISABLED))


def _says(found: Difference) -> str:
    return repr(found).removeprefix(f"{found.kind} {found.name}".strip()).strip()

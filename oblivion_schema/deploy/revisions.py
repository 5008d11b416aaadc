"""The revisions of a configuration: their files fit together, and one of them is the newest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from alembic.script import ScriptDirectory

from oblivion_schema.errors import UserError
from oblivion_schema.operations.files import require_sound_files

if TYPE_CHECKING:
    from alembic.config import Config


def read_revisions(config: Config) -> ScriptDirectory:
    """The revisions. Raises UserError if their files do not fit together, or more than one is the newest."""
    revisions = ScriptDirectory.from_config(config)
    require_sound_files(revisions.versions)
    require_one_head(revisions)
    return revisions


def require_one_head(revisions: ScriptDirectory) -> None:
    """Raise UserError, which names them, if no other revision comes after two of them."""
    heads = [Path(revisions.get_revision(head).path).name for head in sorted(revisions.get_heads())]
    if len(heads) > 1:
        raise UserError(
            f"{len(heads)} revisions are the newest, {' and '.join(heads)}. Let one come after the other, by its number"
            " and down_revision. If a database that matters has both, write one that comes after them: alembic merge"
            " heads."
        )

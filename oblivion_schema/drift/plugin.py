"""The Alembic plugin behind `alembic check` and `alembic revision --autogenerate`.

Alembic calls, in this order:

1. `_compare()`, which compares the database with the metadata, refuses a revision that would be wrong, and hands
   Alembic one `ChangeSchema`;
2. `_render()`, which turns `ChangeSchema` into the Python source of upgrade() and downgrade();
3. `write_files()`, a hook after the revision is written, which writes the .sql files beside it.
"""

from __future__ import annotations

import logging
import sys
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations
from alembic.runtime.plugins import Plugin
from alembic.script import write_hooks
from alembic.util import PriorityDispatchResult

from oblivion_schema.drift.compare import Difference, find_drift
from oblivion_schema.drift.plan import Call, File
from oblivion_schema.drift.revision import plan_revision
from oblivion_schema.operations import literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps

    from oblivion_schema.drift.plan import Statement

PLUGIN: Final = "oblivion_schema.drift"
_LOG: Final = logging.getLogger(PLUGIN)


class ChangeSchema(MigrateOperation):
    """Everything that one revision does: the statements of its upgrade and of its downgrade.

    `alembic check` prints `ops`, one entry for each difference. `folder` is where the upgrade's .sql files go, below
    the revision's own folder.
    """

    def __init__(
        self,
        upgrade: Sequence[Statement],
        downgrade: Sequence[Statement],
        differences: Iterable[Difference] = (),
        folder: str = "",
    ) -> None:
        self.upgrade = upgrade
        self.downgrade = downgrade
        self.folder = folder
        self.ops = [_Found(difference) for difference in differences]

    def reverse(self) -> ChangeSchema:
        """The same operation for the downgrade, whose .sql files go to `down/`."""
        return ChangeSchema(self.downgrade, self.upgrade, folder="down/")


class _Found(MigrateOperation):
    """One difference, in the form in which `alembic check` lists it."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference

    def to_diff_tuple(self) -> Difference:
        return self.difference


@renderers.dispatch_for(ChangeSchema)
def _render(context: AutogenContext, change: ChangeSchema) -> list[str]:
    lines = []
    for statement in change.upgrade:
        if isinstance(statement, Call):
            context.imports.add(f"from oblivion_schema.operations import {statement.function}")
            lines.append(f"{statement.function}({', '.join(map(repr, statement.arguments))})")
        elif isinstance(statement, File):
            context.imports |= {"from pathlib import Path", "from oblivion_schema.operations import run_file"}
            lines.append(f'run_file(SQL / "{_keep_file(f"{change.folder}{statement.name}.sql", statement.text)}")')
        elif "\n" in (source := literal(statement)):
            lines.append("run_sql(\n    " + source.replace("\n", "\n    ") + "\n)")
        else:
            lines.append(f"run_sql({source})")
    return lines


# Name and text of the .sql files of the revision that is being rendered. Their folder has the revision's name, which
# Alembic chooses only after rendering.
_kept_files: Final[dict[str, str]] = {}


def _keep_file(name: str, text: str) -> str:
    """Keep a file for `write_files()`; returns its name, numbered where another file has that name already."""
    stem = name.removesuffix(".sql")
    others = (f"{stem}.{number}.sql" for number in count(2))
    free = next(name for name in chain([name], others) if _kept_files.get(name, text) == text)
    _kept_files[free] = text
    return free


@write_hooks.register("oblivion_schema.files")
def write_files(revision: str, _: object = None) -> None:
    """Write the .sql files of a new revision into the folder of its name. Alembic's post-write hook in alembic.ini."""
    folder = Path(revision).with_suffix("")
    for name, text in _kept_files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    _kept_files.clear()


def _compare(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    if "writes_revision" not in context.opts:  # another environment, which lets all plugins compare
        return PriorityDispatchResult.CONTINUE
    _kept_files.clear()  # a run that failed leaves files here
    connection = Operations(context.migration_context).get_bind()
    sides = (connection, context.migration_context, context.opts["target_metadata"], context.opts["revisions"])
    if not context.opts["writes_revision"]:
        drift = find_drift(*sides, drop_unknown=context.opts["drop_unknown"])
        change = ChangeSchema([], [], drift.differences)
    else:
        revision = plan_revision(*sides, drop_unknown=context.opts["drop_unknown"])
        drift = revision.drift
        change = ChangeSchema(revision.upgrade, revision.downgrade, drift.differences)
        if revision.untried:
            _LOG.warning("%s", revision.untried)
    for line in drift.report():
        _LOG.info("%s", line)
    if drift.by_hand:
        _LOG.warning(
            "Altered by hand: %s. The revisions build it otherwise, so this revision and its downgrade may not fit"
            " other databases.",
            ", ".join(drift.by_hand),
        )
    if drift.differences:
        upgrade.ops.append(change)
    return PriorityDispatchResult.CONTINUE


def setup(plugin: Plugin) -> None:
    """Register `_compare()`, which replaces all of Alembic's own comparisons."""
    plugin.add_autogenerate_comparator(_compare, "autogenerate", qualifier="postgresql")


Plugin.setup_plugin_from_module(sys.modules[__name__], PLUGIN)

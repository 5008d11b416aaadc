"""The Alembic plugin: `alembic check` and `revision --autogenerate` by `oblivion_schema.drift`."""

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

from oblivion_schema.drift.compare import Difference, Drift, find_drift
from oblivion_schema.drift.plan import Call, File, in_the_way
from oblivion_schema.errors import UserError
from oblivion_schema.operations import literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps

    from oblivion_schema.drift.plan import Statement

PLUGIN: Final = "oblivion_schema.drift"
_LOG: Final = logging.getLogger(PLUGIN)


class ChangeSchema(MigrateOperation):
    """All that a revision does, both ways."""

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
        """The downgrade."""
        return ChangeSchema(self.downgrade, self.upgrade, folder="down/")


class _Found(MigrateOperation):
    """One difference, as `alembic check` lists them."""

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
            lines.append(f'run_file(SQL / "{_put_aside(f"{change.folder}{statement.name}.sql", statement.text)}")')
        elif "\n" in (source := literal(statement)):
            lines.append("run_sql(\n    " + source.replace("\n", "\n    ") + "\n)")
        else:
            lines.append(f"run_sql({source})")
    return lines


# Files of the revision that is being rendered: the name of its own file, and so of their folder, is known afterwards.
_put_aside_files: Final[dict[str, str]] = {}


def _put_aside(name: str, text: str) -> str:
    """Keep a file until the revision has a name; returns the name that it gets, which no other one has."""
    stem = name.removesuffix(".sql")
    others = (f"{stem}.{number}.sql" for number in count(2))
    free = next(name for name in chain([name], others) if _put_aside_files.get(name, text) == text)
    _put_aside_files[free] = text
    return free


@write_hooks.register("oblivion_schema.files")
def write_files(revision: str, _: object = None) -> None:
    """Write the .sql files of the revision that was just written, into the folder of its name: a hook of Alembic's."""
    folder = Path(revision).with_suffix("")
    for name, text in _put_aside_files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    _put_aside_files.clear()


def _compare(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    _put_aside_files.clear()  # of a run that failed
    connection = Operations(context.migration_context).get_bind()
    drift = find_drift(
        connection,
        context.migration_context,
        context.opts["target_metadata"],
        context.opts["revisions"],
        drop_unknown=context.opts["drop_unknown"],
        writes_revision=context.opts["writes_revision"],
    )
    if context.opts["writes_revision"]:
        _refuse_revision(drift)
    for line in drift.report():
        _LOG.info("%s", line)
    if drift.differences:
        both = (drift.upgrade(), drift.downgrade()) if context.opts["writes_revision"] else ([], [])
        upgrade.ops.append(ChangeSchema(*both, drift.differences))
    return PriorityDispatchResult.CONTINUE


def _refuse_revision(drift: Drift) -> None:
    """Raise UserError where a revision would be wrong, or would not run."""
    if drift.missing_roles:
        raise UserError(
            f"This server has no role {', '.join(drift.missing_roles)}, so the revision would grant them nothing: write"
            " it on a database that a superuser upgraded, such as the embedded one, or create the roles."
        )
    if blocked := in_the_way(drift.steps, drift.others):
        raise UserError(
            f"{', '.join(map(str, blocked))}: not ours, and on or above something that has to make way. Drop it first,"
            " and make it again after the upgrade."
        )
    reordered = [step.after for step in drift.steps if step.differs and step.after and step.after.kind == "view"]
    if drift.misplaced and any(need.startswith("function ") for view in reordered for need in view.needs):
        # PostgreSQL prints the columns of a function's rows by their place: the view would read other ones.
        raise UserError(
            f"{', '.join(drift.misplaced)}: new columns go last in a definition, as they do in a database."
            " Put them there."
        )
    if drift.unclear:
        raise UserError(
            f"{', '.join(drift.unclear)}: gone, while the table has a new column of the same type in another place, or"
            " several, which may be its new name. Write one revision for what is gone, and another for what is new."
        )
    if tables := [item.name for item in drift.kept if item.kind == "table" and item.change == "extra"]:
        raise UserError(
            f"{', '.join(tables)}: no longer in the metadata. Put it back, or drop it, rows included, by"
            " alembic -x drop-unknown=yes revision --autogenerate."
        )


def setup(plugin: Plugin) -> None:
    """Register the comparison; Alembic's own ones are not needed beside it."""
    plugin.add_autogenerate_comparator(_compare, "autogenerate", qualifier="postgresql")


Plugin.setup_plugin_from_module(sys.modules[__name__], PLUGIN)

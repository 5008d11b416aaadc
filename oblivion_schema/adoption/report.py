"""What an inspection found, and how it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from oblivion_schema.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator


class Finding(NamedTuple):
    """One thing that the upgrade will do, will leave, or runs into; `rows` are those that it is about.

    `kind` and `name` are as the adoption log has them, where the upgrade notes it there.
    """

    kind: str
    name: str
    says: str = ""
    rows: int = 0

    def __str__(self) -> str:
        return one_line(self.says or f"{self.kind} {self.name}")


@dataclass
class Inspection:
    """What was found; the upgrade would go through where `obstacles` is empty."""

    state: str = ""
    modes: str = ""
    pending: tuple[str, ...] = ()
    will: list[Finding] = field(default_factory=list)
    stays: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    obstacles: list[Finding] = field(default_factory=list)

    def do(self, kind: str, name: str, says: str = "", rows: int = 0) -> None:
        """Add what the upgrade will do."""
        self.will.append(Finding(kind, name, says or name, rows))

    def leave(self, kind: str, name: str) -> None:
        """Add what it will leave alone."""
        self.stays.append(Finding(kind, name))

    def warn(self, kind: str, name: str, says: str) -> None:
        """Add what people have to know."""
        self.warnings.append(Finding(kind, name, says))

    def stop(self, kind: str, name: str, says: str) -> None:
        """Add what the upgrade would not go through for."""
        self.obstacles.append(Finding(kind, name, says))

    def _state(self) -> Iterator[str]:
        yield f"State: {self.state}."
        if self.pending:
            yield f"Upgrades pending: {', '.join(self.pending)}; one transaction applies them all."
        elif not self.obstacles:
            yield "Upgrades pending: none."
        if self.modes:
            yield f"Modes: {self.modes}."

    def report(self) -> Iterator[str]:
        """The findings for people, group by group."""
        yield from self._state()
        if self.will:
            yield "The upgrade will"
            in_order = sorted(self.will, key=lambda finding: list(_ORDER).index(finding.kind))
            for kind, findings in groupby(in_order, key=lambda finding: finding.kind):
                said = dict.fromkeys(map(str, findings))
                if label := _ORDER[kind]:
                    yield f"  {label} {', '.join(said)}"
                else:
                    yield from (f"  {line}" for line in said)
        if self.stays:
            yield "It will leave alone"
            by_kind = sorted(self.stays, key=lambda finding: finding.kind)
            for kind, findings in groupby(by_kind, key=lambda finding: finding.kind):
                yield f"  {kind} {', '.join(one_line(finding.name) for finding in findings)}"
        if self.warnings:
            yield "Mind that"
            yield from (f"  {finding}" for finding in self.warnings)
        if self.obstacles:
            yield "It would not go through:"
            yield from (f"  {finding}" for finding in self.obstacles)


# The kinds of what the upgrade will do, in the order of the report. One line lists all findings of a kind that has a
# label; each other finding is a line of its own.
_ORDER: Final = {
    "log": "",
    "table": "take over",
    "renamed": "",
    "added": "",
    "row": "",
    "filled": "",
    "default": "",
    "fillfactor": "",
    "forced": "",
    "added rule": "",
    "not valid": "",
    "drop policy": "drop policy",
    "drop index": "drop index",
    "remade": "",
    "replace view": "replace view",
    "replace function": "replace function",
    "grants": "",
    "publish": "add to the publication supabase_realtime:",
    "demo": "",
    "index": "build before it, while clients go on:",
    "backfill": "",
}


def number_of_rows(count: int) -> str:
    """Such as `1 row`."""
    return f"{count} row{'s' * (count != 1)}"

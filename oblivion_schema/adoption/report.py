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

    state: str
    pending: tuple[str, ...] = ()
    will: list[Finding] = field(default_factory=list)
    stays: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    obstacles: list[Finding] = field(default_factory=list)

    def put_in_order(self) -> None:
        """Sort what the upgrade will do as people read it."""
        self.will.sort(key=lambda finding: _ORDER.index(finding.kind))

    def report(self) -> Iterator[str]:
        """The findings for people, group by group."""
        yield f"State: {self.state}."
        if self.pending:
            yield f"Upgrades pending: {', '.join(self.pending)}; one transaction applies them all."
        elif not self.obstacles:
            yield "Upgrades pending: none."
        if self.will:
            yield "The upgrade will"
            for kind, findings in groupby(self.will, key=lambda finding: finding.kind):
                said = list(dict.fromkeys(map(str, findings)))
                if label := _LISTED.get(kind):
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


# Kinds of which all are said in one line, and what it begins with.
_LISTED: Final = {
    "table": "take over",
    "drop policy": "drop policy",
    "drop index": "drop index",
    "replace view": "replace view",
    "replace function": "replace function",
    "make role": "make role",
    "make table": "make table",
    "make view": "make view",
    "make function": "make function",
    "make index": "make index",
    "make trigger": "make trigger",
    "make policy": "make policies on",
    "publish": "let Realtime tell of changes in",
}

_ORDER: Final = (
    "log", "table", "renamed", "added", "row", "filled", "default", "fillfactor", "forced", "added rule", "not valid",
    "drop policy", "drop index", "remade", "replace view", "replace function",
    "make role", "make table", "make view", "make function", "make index", "make trigger", "make policy",
    "grants", "publish", "demo", "ledger", "rollups",
)  # fmt: skip

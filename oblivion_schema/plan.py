"""From one catalog to another: which statements, in which order.

What has to go, goes first, what depends on it before it; then columns get their new names; then everything is made
or altered, what it needs before it. An object that needs one that goes or changes its type makes way, and comes back
with its grants and comments. The way back is the same plan with the two catalogs exchanged.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from . import statements
from .catalog import COLUMN_STATES, CONSTRAINTS, KINDS, Object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# What PostgreSQL does not let stand on a column that changes its type; it rebuilds constraints and indexes itself.
_BLOCKS_TYPE_CHANGE: Final = frozenset({"view", "policy", "trigger", "function", "column", "default"})
_RANK: Final = {kind: rank for rank, kind in enumerate(KINDS)}
_OWN_NAME_IS_TARGET: Final = {"schema": "SCHEMA", "table": "TABLE", "view": "TABLE"}


@dataclass(eq=False)
class Step:
    """One object in the two catalogs: what it is before and after, and whether that is the same definition."""

    before: Object | None
    after: Object | None
    differs: bool = False

    @property
    def either(self) -> Object:
        """The object, as it is on one of the sides."""
        return self.after or cast("Object", self.before)

    def reversed(self) -> Step:
        """The step back."""
        return Step(self.after, self.before, self.differs)


@dataclass(frozen=True)
class Rename:
    """A column that gets another name."""

    table: str
    before: str
    after: str

    @property
    def names(self) -> tuple[str, str]:
        """The column before and after, for people."""
        return f"{self.table}.{self.before}", f"{self.table}.{self.after}"

    def reversed(self) -> Rename:
        """The way back."""
        return Rename(self.table, self.after, self.before)


def plan(steps: Sequence[Step], renames: Sequence[Rename] = (), *, keep_rows: bool = False) -> list[str]:
    """Statements that lead from what the steps have before to what they have after.

    With `keep_rows` they begin by refusing to drop a table or a column in which somebody wrote something.
    """
    return _Plan(list(steps)).statements(renames, keep_rows=keep_rows)


@dataclass
class _Plan:
    steps: list[Step]
    dropped: set[Step] = field(default_factory=set)
    fresh: set[Step] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.before = {step.before.address: step for step in self.steps if step.before and _stands_alone(step.before)}
        self.after = {step.after.address: step for step in self.steps if step.after and _stands_alone(step.after)}
        self._find_dropped()
        self._find_fresh()

    def statements(self, renames: Sequence[Rename], *, keep_rows: bool) -> list[str]:
        return [
            *(self._refusals() if keep_rows else ()),
            *self._removals(),
            *(statements.rename_column(rename.table, rename.before, rename.after) for rename in renames),
            *self._creations(),
        ]

    def _find_dropped(self) -> None:
        self.dropped = {
            step
            for step in self.before.values()
            if step.before and (not step.after or (step.differs and not statements.can_alter(step.before, step.after)))
        }
        moved = {
            step.before.part_of for step in self.steps if step.differs and step.before and step.before.kind == "type"
        }
        while True:
            gone = {step.before.address for step in self.dropped if step.before}
            more = {
                step
                for step in self.before.values()
                if step not in self.dropped and step.before and step.after and _makes_way(step.before, gone, moved)
            }
            if not more:
                return
            self.dropped |= more

    def _find_fresh(self) -> None:
        def is_fresh(step: Step) -> bool:
            if not step.after:
                return False
            parent = self.after.get(step.after.part_of)
            return not step.before or step in self.dropped or (parent is not None and is_fresh(parent))

        self.fresh = {step for step in self.steps if is_fresh(step)}

    def _vanishes(self, step: Step) -> bool:
        """Whether something that it is part of goes, and takes it along."""
        parent = self.before.get(step.before.part_of) if step.before else None
        return parent is not None and (parent in self.dropped or self._vanishes(parent))

    def _refusals(self) -> Iterable[str]:
        for step in sorted(self.dropped, key=lambda step: self._place(step.before, self.before)):
            before = step.before
            if before is None or step.after or self._vanishes(step):
                continue
            if before.kind == "table":
                forced = self._state_of(before.address, "row level security", "FORCE")
                yield statements.refuse_to_drop_rows(before.own_name, forced=forced is not None)
            elif before.kind == "column" and not before.definition:
                forced = self._state_of(before.part_of, "row level security", "FORCE")
                default = self._state_of(before.address, "default", before.own_name)
                value = default.definition if default else ""
                yield statements.refuse_to_drop_rows(before.on_name, before.own_name, value, forced=forced is not None)

    def _state_of(self, address: str, kind: str, own_name: str) -> Object | None:
        found = (step.before for step in self.steps if step.before and step.before.part_of == address)
        return next((item for item in found if (item.kind, item.own_name) == (kind, own_name)), None)

    def _removals(self) -> Iterable[str]:
        # Who needs another one goes before it; what goes with a table needs for the table.
        needs: dict[tuple[Step, Step], list[Step]] = {}
        for step in self.dropped:
            root = self._goes_with(step)
            for needed in _needed(step.before):
                other = self.before.get(needed)
                if other in self.dropped and (other := self._goes_with(other)) is not root:
                    needs.setdefault((root, other), []).append(step)
        # Two tables that need each other cannot each go first: what ties them has to.
        ties = {
            step
            for (root, other), steps in needs.items()
            if _leads(other, root, needs)
            for step in steps
            if step is not root
        }
        waits: dict[Step, set[Step]] = {step: set() for step in {*map(self._goes_with, self.dropped), *ties}}
        for (root, other), steps in needs.items():
            waits[other] |= {step if step in ties else root for step in steps}
        for step in _in_order(waits, lambda step: tuple(-part for part in self._place(step.before, self.before))):
            if step.before:
                yield statements.remove(step.before)
        for step in sorted(self.steps, key=lambda step: self._place(step.before, self.before)):
            before = step.before
            is_state = before is not None and before.kind != "grant" and not _stands_alone(before)
            if before and is_state and not step.after and not self._vanishes(step):
                yield statements.remove(before)

    def _goes_with(self, step: Step) -> Step:
        """What is dropped, and takes it along: itself, or the table that it is part of."""
        parent = self.before.get(step.before.part_of) if step.before else None
        return self._goes_with(parent) if parent in self.dropped and parent else step

    def _creations(self) -> Iterable[str]:
        made: dict[Step, list[str]] = {}
        grants: dict[str, list[Step]] = {}
        for step in self.steps:
            if step.either.kind == "grant":
                grants.setdefault(step.either.on_name, []).append(step)
            elif step.after and step in self.fresh:
                if not self._is_inline(step):
                    made[step] = [statements.create(step.after, self._inline_parts(step))]
            elif step.after and step.differs:
                made[step] = [statements.alter(step.after)]
        extra = dict(self._grant_steps(grants))
        made |= extra
        by_address = {step.after.address: step for step in made if step.after and _stands_alone(step.after)}
        waits: dict[Step, set[Step]] = {}
        for step in made:
            waits[step] = {by_address[needed] for needed in _needed(step.after) if needed in by_address} - {step}
            waits[step] |= {
                other
                for other in made
                if other.after and other.after.kind == "type" and step.after and other.after.part_of in step.after.needs
            } - {step}
            parent = self.after.get(step.after.part_of) if step.after else None
            while parent is not None:
                if parent in made:
                    waits[step].add(parent)
                parent = self.after.get(parent.after.part_of) if parent.after else None
        for step in _in_order(waits, lambda step: self._place(step.after, self.after)):
            yield from made[step]

    def _grant_steps(self, grants: dict[str, list[Step]]) -> Iterable[tuple[Step, list[str]]]:
        """A step for the grants on each object, which on a new one leaves nothing to default privileges."""
        fresh = {target: step for step in self.fresh if (target := _grant_target(step.after))}
        for target, step in fresh.items():
            after = [grant.after for grant in grants.get(target, ()) if grant.after]
            yield _grants_of(step, target), statements.set_grants(target, after)
        for target, steps in grants.items():
            if target in fresh:
                continue
            vanished = [step for step in steps if step.before and self._vanishes(step)]
            removed = [step.before for step in steps if step.before and not step.after and step not in vanished]
            added = [step.after for step in steps if step.after and step in self.fresh]
            changed = [
                statements.alter(step.after) for step in steps if step.after and step.differs and step not in self.fresh
            ]
            if removed or added or changed:
                yield (
                    _grants_of(self.after.get(steps[0].either.part_of), target, steps[0]),
                    [*statements.change_grants(removed, added), *changed],
                )

    def _is_inline(self, step: Step) -> bool:
        """Whether the statement that makes its table or column makes it, too."""
        item = step.after
        parent = self.after.get(item.part_of) if item else None
        if item is None or parent is None or parent not in self.fresh:
            return False
        if item.kind == "foreign key":
            return not any(
                other in self.fresh and other is not parent and other.either.kind == "table"
                for needed in _needed(item)
                if (other := self.after.get(needed)) is not None
            )
        if item.kind == "owner":
            return item.definition == "CURRENT_ROLE"
        return item.kind in {"column", "storage parameter"} | COLUMN_STATES | CONSTRAINTS

    def _inline_parts(self, step: Step) -> list[Object]:
        if step.either.kind not in {"table", "column"}:
            return []

        def belongs(other: Step) -> bool:
            parent = self.after.get(other.after.part_of) if other.after else None
            return parent is step or (parent is not None and belongs(parent))

        parts = [other.after for other in self.steps if other.after and belongs(other) and self._is_inline(other)]
        return sorted(parts, key=lambda part: (_RANK[part.kind], part.sort))

    def _place(self, item: Object | None, side: dict[str, Step]) -> tuple[int, int, int]:
        """Where it comes in the order of creation: with its table, then by kind."""
        if item is None:
            return (0, 0, 0)
        root = item
        while (parent := side.get(root.part_of)) is not None:
            found = parent.before if side is self.before else parent.after
            if found is None:
                break
            root = found
        return (root.sort, _RANK[item.kind], item.sort)


def _leads(start: Step, end: Step, edges: Iterable[tuple[Step, Step]]) -> bool:
    """Whether the edges lead from one step to another."""
    seen = {start}
    while more := {other for step, other in edges if step in seen} - seen:
        seen |= more
    return end in seen


def _stands_alone(item: Object) -> bool:
    """Whether it is an object that can be dropped and depended on, rather than a state of one."""
    return bool(item.address)


def _needed(item: Object | None) -> Iterable[str]:
    """Addresses that `item` needs; who needs a column needs its table."""
    for needed in item.needs if item else ():
        yield needed
        if needed.startswith("column "):
            yield f"relation {needed.removeprefix('column ').partition('.')[0]}"


def _makes_way(item: Object, gone: set[str], moved: set[str]) -> bool:
    if item.kind in {"schema", "table"} or (item.kind == "column" and not item.definition):
        return False
    if not gone.isdisjoint(_needed(item)):
        return True
    return item.kind in _BLOCKS_TYPE_CHANGE and not moved.isdisjoint(item.needs)


def _grant_target(item: Object | None) -> str:
    """How GRANT names a new object, which default privileges may have opened."""
    if item is None:
        return ""
    if item.kind == "function":
        return f"{'PROCEDURE' if item.shape.startswith('p') else 'FUNCTION'} {item.own_name}"
    if item.kind == "identity":
        return f"SEQUENCE {item.shape}"
    word = _OWN_NAME_IS_TARGET.get(item.kind)
    return f"{word} {item.own_name}" if word else ""


def _grants_of(step: Step | None, target: str, like: Step | None = None) -> Step:
    """A step that stands for all grants on `target`, where its owner is made."""
    owner = step.after if step and step.after else None
    part_of = owner.address if owner else (like.either.part_of if like else "")
    return Step(None, Object("grant", "", target, "", "", "", part_of, 0, frozenset()))


def _in_order(waits: dict[Step, set[Step]], place: Callable[[Step], tuple[int, ...]]) -> Iterable[Step]:
    """The steps, each after those that it waits for; else by place."""
    waiting = {step: set(others) for step, others in waits.items()}
    followers: dict[Step, list[Step]] = {}
    for step, others in waits.items():
        for other in others:
            followers.setdefault(other, []).append(step)
    numbered = {step: number for number, step in enumerate(waits)}
    ready = [(place(step), numbered[step], step) for step, others in waiting.items() if not others]
    heapq.heapify(ready)
    done = 0
    while ready:
        _, _, step = heapq.heappop(ready)
        done += 1
        yield step
        for follower in followers.get(step, ()):
            waiting[follower].discard(step)
            if not waiting[follower]:
                heapq.heappush(ready, (place(follower), numbered[follower], follower))
    if done < len(waits):
        raise AssertionError("objects that need each other")

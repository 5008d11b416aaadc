"""Put the steps from one catalog to another in order: `plan()` returns the statements of a revision.

1. Refuse to drop tables and columns that hold data.
2. Drop objects, dependent ones first.
3. Rename columns.
4. Create and alter objects, each after those that it needs.
5. Change grants that depend on the mode.

PostgreSQL refuses to drop or retype what another object needs. Such an object is dropped first, and created again later
with its grants and comments. A downgrade is the same plan with the two catalogs exchanged.

`_Plan` holds the plan; `_Side` answers questions about the steps as they are before, or after.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from oblivion_schema.declare.sql import statements as split
from oblivion_schema.declare.sql import unquoted
from oblivion_schema.drift import statements
from oblivion_schema.drift.catalog import (
    COLUMN_STATES,
    CONSTRAINTS,
    DEPENDENT,
    KINDS,
    OWNER_OF_ALL,
    STORED,
    UNSUPPORTED,
    Object,
)
from oblivion_schema.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from oblivion_schema.drift.catalog import Key

# PostgreSQL changes no column's type under these: they are dropped first. It rebuilds constraints and indexes itself.
_WITHOUT_EQUALITY: Final = frozenset({"json", "xml", "point", "polygon"})
_BLOCKS_TYPE_CHANGE: Final = frozenset(
    {"view", "policy", "trigger", "function", "column", "default", "publication", UNSUPPORTED}
)
# The same for objects of which only their system catalog is known; of pg_class only views need a column.
_CATALOGS_THAT_BLOCK: Final = frozenset(
    {"pg_class", "pg_rewrite", "pg_policy", "pg_trigger", "pg_proc", "pg_attrdef", "pg_publication_rel"}
)
_RANK: Final = {kind: rank for rank, kind in enumerate(KINDS)}
_OWN_NAME_IS_TARGET: Final = {"schema": "SCHEMA", "table": "TABLE", "view": "TABLE"}


@dataclass(eq=False)
class Step:
    """One object in the two catalogs.

    `before` is None for a new object, `after` for one that is dropped. `differs`: both exist, with another definition.
    """

    before: Object | None
    after: Object | None
    differs: bool = False

    @property
    def either(self) -> Object:
        """The object after the step, or before it if it is dropped."""
        return self.after or cast("Object", self.before)

    def reversed(self) -> Step:
        """The same step for the downgrade."""
        return Step(self.after, self.before, self.differs)


@dataclass(frozen=True)
class Call:
    """A call of a function of `oblivion_schema.operations`, by its name."""

    function: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """Statements for an .sql file beside the revision; `name` is the file's name without `.sql`."""

    name: str
    statements: tuple[str, ...]

    @property
    def text(self) -> str:
        """The content of the file."""
        return "\n\n".join(f"{sql};" for sql in self.statements) + "\n"


Statement: TypeAlias = str | Call | File


@dataclass(frozen=True)
class Rename:
    """A column that gets another name; all names are quoted as SQL needs it.

    `sequences` has the old and new name of an identity's sequence, both with the schema, if it has the column's name.
    """

    table: str
    before: str
    after: str
    sequences: tuple[str, str] = ("", "")

    @property
    def names(self) -> tuple[str, str]:
        """The column's old and new name with its table, as messages show them."""
        return f"{self.table}.{self.before}", f"{self.table}.{self.after}"

    def statements(self, texts: Sequence[str] = ()) -> list[str]:
        """The SQL that renames it; `texts` names functions that may have the old name."""
        found = [statements.rename_column(self.table, self.before, self.after, texts)]
        if self.sequences[0] != self.sequences[1]:
            found.append(statements.rename_sequence(*self.sequences))
        return found

    def reversed(self) -> Rename:
        """The same rename for the downgrade."""
        return Rename(self.table, self.after, self.before, self.sequences[::-1])


@dataclass(frozen=True)
class ModeGrants:
    """Grants on one object that are not the same in all modes.

    `statement` looks the mode up, and gives the grants of that mode. `differs_in`: the modes whose grants it changes.
    """

    statement: str
    differs_in: tuple[str, ...]


def plan(
    steps: Sequence[Step], renames: Sequence[Rename] = (), by_mode: Mapping[str, ModeGrants] = MappingProxyType({})
) -> list[Statement]:
    """The statements that lead from `before` to `after` of all steps.

    The first of them refuse to drop a table or column that holds data. `by_mode` has the target of GRANT as its key; it
    replaces the grants of the steps, which are those of one mode. Raises UserError if objects need each other in
    a circle.
    """
    return _Plan(steps, by_mode).statements(renames)


def touched(steps: Sequence[Step]) -> set[Key]:
    """What a revision or its downgrade drops, creates or alters, as it is before and after."""
    found: set[Key] = set()
    for side in (steps, [step.reversed() for step in steps]):
        draft = _Plan(side)
        changed = {*draft.dropped, *draft.fresh, *(step for step in side if step.differs)}
        # A function is written with its comment.
        changed |= {part for step in changed if step.after for part in draft.after.parts[step.after.address or "-"]}
        found |= {item.key for step in changed for item in (step.before, step.after) if item}
    return found


def in_the_way(steps: Sequence[Step], others: Iterable[Object]) -> list[Object]:
    """The objects of `others`, which no step touches, that block a step.

    They need an object that must be dropped, or have the name of one that is new.
    """
    draft = _Plan(steps)
    gone = {step.before.address for step in draft.dropped if step.before}
    new = {_taken_name(step.after) for step in draft.fresh if step.after and not step.before} - {("", "")}
    return [
        item
        for item in others
        if item.part_of in gone or _must_be_dropped(item, gone, draft.retyped) or _taken_name(item) in new
    ]


class _Side:
    """All steps as they are on one side, before or after.

    `steps` finds a step by its object's address; `parts` the steps of the objects that are part of an address.
    """

    def __init__(self, steps: Sequence[Step], item: Callable[[Step], Object | None]) -> None:
        self.item = item
        self.steps: dict[str, Step] = {}
        self.parts: dict[str, list[Step]] = defaultdict(list)
        for step in steps:
            if (found := item(step)) is not None:
                self.parts[found.part_of].append(step)
                if _stands_alone(found):
                    self.steps[found.address] = step

    def ancestors(self, step: Step) -> Iterable[Step]:
        """The object that this one is part of, such as its table, then the one that that is part of, and so on."""
        found = self.item(step)
        while found is not None and (parent := self.steps.get(found.part_of)) is not None:
            yield parent
            found = self.item(parent)

    def place(self, step: Step) -> tuple[int, int, int]:
        """A key that sorts steps by their table's order of creation, then by kind, then by their own order."""
        item = self.item(step)
        if item is None:
            return (0, 0, 0)
        *_, root = (step, *self.ancestors(step))
        top = self.item(root) or item
        return (top.sort, _RANK[item.kind], item.sort)


class _Plan:
    """The plan of one revision in one direction.

    - `retyped`: addresses of the columns whose type changes.
    - `dropped`: steps whose object is dropped, for good or to be created again.
    - `released`: columns that are generated no longer, and keep their values.
    - `taken_back`: grants that are revoked, for good or to be given again by the owner; `revoked` has also those that
      only lose their grant option.
    - `fresh`: steps whose object is created, or is part of one that is created, or has to be set again.
    """

    def __init__(self, steps: Sequence[Step], by_mode: Mapping[str, ModeGrants] = MappingProxyType({})) -> None:
        self.by_mode = by_mode
        self.by_mode_before = [
            step.before
            for step in steps
            if step.before and step.before.kind == "grant" and step.before.on_name in by_mode
        ]
        self.steps = [step for step in steps if not (step.either.kind == "grant" and step.either.on_name in by_mode)]
        self.before = _Side(steps, lambda step: step.before)
        self.after = _Side(steps, lambda step: step.after)
        self.retyped = {
            step.before.part_of for step in steps if step.differs and step.before and step.before.kind == "type"
        }
        self.released = [step for step in self.steps if step.differs and _keeps_its_values(step)]
        self.dropped = self._find_dropped()
        grants = [step for step in self.steps if step.before and step.before.kind == "grant"]
        self.taken_back = {
            step for step in grants if step.before and (not step.after or (step.differs and step.before.grantors))
        }
        self.revoked = [
            step for step in grants if step in self.taken_back or (step.differs and step.before and step.before.option)
        ]
        self.fresh = {
            step
            for step in steps
            if step.after and any(not s.before or s in self.dropped for s in (step, *self.after.ancestors(step)))
        }
        self.fresh |= {step for step in self.steps if step not in self.fresh and self._is_reset(step)}

    def statements(self, renames: Sequence[Rename]) -> list[Statement]:
        """All statements, in order."""
        # Objects that are dropped and created again: roles other than PostgREST's keep their privileges on them.
        back = sorted(name for step in self.dropped if step.after and (name := _granted_name(step.after)))
        return [
            *self._refusals(),
            *([Call("keep_grants", tuple(back))] if back else ()),
            *self._removals(),
            *(sql for rename in renames for sql in rename.statements(self._texts_with(rename))),
            *self._creations(),
            *self._changed_grants(),
            *([Call("restore_grants")] if back else ()),
        ]

    def _texts_with(self, rename: Rename) -> list[str]:
        """Functions that do not change, and whose text has the names of a renamed column and of its table."""
        words = (unquoted(rename.before), unquoted(rename.table.partition(".")[2]))
        return [
            str(step.either)
            for step in self.steps
            if step.either.kind == "function"
            and step.before
            and not step.differs
            and all(re.search(rf"\b{re.escape(word)}\b", step.before.definition) for word in words)
        ]

    def _find_dropped(self) -> set[Step]:
        """The steps to drop: those that nothing can alter, and then, again and again, those that need one of them."""
        dropped = {step for step in self.before.steps.values() if self._must_go(step)}
        while True:
            gone = {step.before.address for step in dropped if step.before}
            more = {
                step
                for step in self.before.steps.values()
                if step not in dropped
                and step not in self.released
                and step.before
                and step.after
                and _must_be_dropped(step.before, gone, self.retyped)
            }
            if not more:
                return dropped
            dropped |= more

    def _must_go(self, step: Step) -> bool:
        """Whether the object is not there after the step, or nothing can alter it."""
        if step.before is None or step.after is None:
            return True
        if step in self.released:
            return False
        if step.before.kind == "column":
            # PostgreSQL retypes no column whose expression it has to compute anew.
            return (step.differs and not self._is_bare(step)) or (
                step.before.definition != "" and step.before.address in self.retyped
            )
        return step.differs and not statements.can_alter(step.before, step.after)

    def _is_bare(self, step: Step) -> bool:
        """Whether a stored column only gets another expression, and nothing stands on it that a DROP would take."""
        if not (step.before and step.after and statements.can_alter(step.before, step.after)):
            return False
        for side, item in ((self.before, step.before), (self.after, step.after)):
            if {part.either.kind for part in side.parts[item.address]} - {"type", "nullability"}:
                return False
            if any(item.address in (found.needs if (found := side.item(other)) else ()) for other in self.steps):
                return False
        return True

    def _is_reset(self, step: Step) -> bool:
        """Whether something else resets what the step leaves alone, so that it has to be set again.

        ALTER TYPE does so with storage and compression of a column, CREATE OR REPLACE with a trigger's state. A REVOKE
        on a table takes the privilege on its columns along, and one from a role that passed it on is a REVOKE from all
        to whom that role gave it.
        """
        before, after = step.before, step.after
        if before is None or after is None:
            return False
        if before.kind == "setting":
            return before.part_of in self.retyped and before.own_name.startswith(("storage ", "compression "))
        if before.kind == "trigger state":
            trigger = self.before.steps.get(before.part_of)
            return bool(trigger and trigger.differs and trigger not in self.dropped and after.definition != "ENABLE")
        if before.kind != "grant":
            return False
        return step in self.taken_back or any(
            (before.on_name, before.privilege) == (gone.on_name, gone.privilege)
            and (before.role in gone.grantors or (before.role == gone.role and gone.own_name == gone.privilege))
            for other in self.revoked
            if other is not step and (gone := other.before)
        )

    def _dropped_by(self, step: Step) -> Step:
        """The step whose DROP removes this one too: the outermost dropped object that it is part of, or itself."""
        *_, root = (step, *(parent for parent in self.before.ancestors(step) if parent in self.dropped))
        return root

    def _refusals(self) -> Iterable[str]:
        """Statements that fail if a table or column that is dropped for good holds data.

        A reference row is not data, nor is a value that equals the column's default.
        """
        for step in sorted(self.dropped, key=self.before.place):
            before = step.before
            if before is None or self._dropped_by(step) is not step:
                continue
            if step.after and (before.kind != "column" or not _loses_values(before, step.after)):
                continue
            table = before.address if before.kind == "table" else before.part_of
            parts = [part.before for part in self.before.parts[table] if part.before]
            rows = [part for part in parts if part.kind == "reference row"]
            forced = any(part.kind == "row level security" and part.own_name == "FORCE" for part in parts)
            if before.kind == "table":
                yield statements.refuse_to_drop_rows(before.own_name, rows=rows, forced=forced)
            elif before.kind == "column" and (step.after or not before.definition):
                its = {part.before.kind: part.before for part in self.before.parts[before.address] if part.before}
                cast = "::text" if its["type"].definition.rstrip("[]") in _WITHOUT_EQUALITY else ""
                default = its.get("default")
                written = f"{cast} IS DISTINCT FROM ({default.definition}){cast}" if default else " IS NOT NULL"
                rows = [row for row in rows if before.own_name in dict(row.row)]
                yield statements.refuse_to_drop_rows(
                    before.on_name, f"{before.own_name}{written}", rows=rows, forced=forced
                )

    def _removals(self) -> Iterable[str]:
        """Statements that drop objects, dependent ones first, and then reset the states of those that stay."""
        for step in self.released:
            if step.before:
                yield statements.drop_expression(step.before)
        # For each pair of drops, the steps for which the first has to precede the second. What a table's constraint
        # needs, the table needs.
        needs: dict[tuple[Step, Step], list[Step]] = defaultdict(list)
        for step in self.dropped:
            root = self._dropped_by(step)
            for needed in _needed(step.before):
                other = self.before.steps.get(needed)
                if other in self.dropped and other and (other := self._dropped_by(other)) is not root:
                    needs[root, other].append(step)
        # Neither of two tables that need each other can be dropped first: the constraints between them are.
        ties = {
            step
            for (root, other), found in needs.items()
            if _leads(other, root, needs)
            for step in found
            if step is not root
        }
        waits: dict[Step, set[Step]] = {step: set() for step in {*map(self._dropped_by, self.dropped), *ties}}
        for (root, other), found in needs.items():
            waits[other] |= {step if step in ties else root for step in found}
        for step in _sorted(waits, lambda step: tuple(-part for part in self.before.place(step))):
            if step.before:
                yield statements.remove(step.before)
        gone = [
            step.before
            for step in sorted(self.steps, key=self.before.place)
            if step.before
            and (not step.after or step in self.taken_back)
            and not _stands_alone(step.before)
            and self._dropped_by(step) is step
        ]
        yield from (statements.remove(item) for item in gone if item.kind != "grant")
        yield from statements.revoke([item for item in gone if item.kind == "grant"])
        yield from statements.take_from_others(self.by_mode_before)

    def _changed_grants(self) -> Iterable[str]:
        """Statements for grants that depend on the access mode, on objects that stay."""
        fresh = {grant_target(step.after) for step in self.fresh}
        # A column that is dropped and created again has lost its own.
        lost = {step.either.on_name for step in self.fresh if step.either.kind == "grant"}
        return [
            its.statement
            for target, its in self.by_mode.items()
            if (its.differs_in or target in lost) and target not in fresh
        ]

    def _creations(self) -> Iterable[str | File]:
        """Statements that create and alter objects, each after those that it needs."""
        made, waits = self._made()
        by_address = {step.after.address: step for step in made if step.after and _stands_alone(step.after)}
        types = {step.after.part_of: step for step in made if step.after and step.after.kind == "type"}
        order = {
            step: {found[address] for found in (by_address, types) for address in needs & found.keys()} - {step}
            for step, needs in waits.items()
        }
        for step, others in order.items():
            # A smaller type comes after the sequence's new bounds, a larger one before them.
            kind = (
                types.get(step.after.part_of) if step.after and step.after.kind == "identity" and step.before else None
            )
            if kind and kind.after and kind.before and statements.is_smaller(kind.after, kind.before):
                others.discard(kind)
                order[kind].add(step)
        yield from self._in_files(list(_sorted(order, self.after.place)), made)

    def _in_files(self, order: Sequence[Step], made: Mapping[Step, list[str]]) -> Iterable[str | File]:
        """The statements in order; those of a table, view or function that follow each other share a file."""
        done: set[Step] = set()
        for place, step in enumerate(order):
            if step in done:
                continue
            item, sql = step.after, made[step]
            name = _file_name(item) if item and "\n" in "".join(sql) else ""
            if item is None or not name:
                yield from sql
                continue
            if item.kind == "function":
                # A function's file has its comment too, but not its grants: they stand in the revision.
                comments = [part for part in self.after.parts[item.address] if part.either.kind == "comment"]
                sql = [*sql, *(statements.create(part.after) for part in comments if part.after)]
                done |= {*comments}
            else:
                for part in order[place + 1 :]:
                    if part.after is None or self._root(part) is not step:
                        break
                    sql = [*sql, *made[part]]
                    done.add(part)
            yield from _in_file(name, sql)

    def _root(self, step: Step) -> Step:
        """The outermost object that this one is part of, or itself."""
        *_, root = (step, *self.after.ancestors(step))
        return root

    def _made(self) -> tuple[dict[Step, list[str]], dict[Step, set[str]]]:
        """The SQL of each step that creates or alters, in no order, and the addresses that each step waits for."""
        made: dict[Step, list[str]] = {}
        waits: dict[Step, set[str]] = {}
        together: dict[tuple[str, str], list[Step]] = defaultdict(list)

        def add(step: Step, *sql: str, parts: Sequence[Step] = ()) -> None:
            made[step] = list(sql)
            waits[step] = {need for part in (step, *parts) for need in self._waits_for(part)}

        fresh_targets = {target: step for step in self.fresh if (target := grant_target(step.after))}
        for step in self.steps:
            if step.after and (step in self.fresh or step.differs) and step.after.kind in {"grant", "reference row"}:
                if step in self.fresh:
                    together[step.after.kind, step.after.on_name].append(step)
                else:
                    add(step, statements.alter(step.after, step.before))
            elif step.after and step in self.fresh:
                if not self._is_inline(step):
                    parts = self._inline_parts(step)
                    inner = [part.after for part in parts if part.after]
                    # An identity that is no part of a new column has rows to go on after.
                    then = [statements.go_on_after(step.after)] if step.after.kind == "identity" else []
                    add(step, self._warning(step) + statements.create(step.after, inner), *then, parts=parts)
            elif step.after and step.differs and step not in self.released:
                parts = self.after.parts[step.after.address] if step.after.kind == "column" else []
                inner = [part.after for part in parts if part.after]
                add(step, self._warning(step) + statements.alter(step.after, step.before, inner))
        for target, step in fresh_targets.items():
            granted = together.pop(("grant", target), [])
            first = granted[0] if granted else Step(None, _no_grant(step, target))
            grants = [grant.after for grant in granted if grant.after]
            its = self.by_mode.get(target)
            add(first, *([its.statement] if its else statements.set_grants(target, grants)), parts=[*granted, step])
        for (kind, _), steps in together.items():
            items = [step.after for step in steps if step.after]
            # One INSERT for all rows of a table, because they may refer to each other.
            sql = statements.grant(items) if kind == "grant" else [self._insert(items)]
            add(steps[0], *sql, parts=steps)
        return made, waits

    def _insert(self, rows: Sequence[Object]) -> str:
        """The INSERT for the reference rows of one table, with what makes PostgreSQL refuse it."""
        is_new = self.after.steps.get(rows[0].part_of) in self.fresh
        return ("" if is_new else "-- Fails if users have a row with such a key.\n") + statements.insert(rows)

    def _warning(self, step: Step) -> str:
        """A comment that says which rows make PostgreSQL refuse the statement, or keep what was; empty if none do."""
        *_, table = (step, *self.after.ancestors(step))
        item = step.after
        if item is None or table.before is None or table in self.dropped:
            return ""
        if item.kind == "function":
            kept = [str(other.either) for other in self.steps if self._was_computed_by(other, step)]
            return f"-- Computed by the old function, and not anew: {', '.join(kept)}.\n" if kept else ""
        states = {part.either.kind: part.either.definition for part in self.after.parts[item.address]}
        cause = ""
        match item.kind:
            case _ if step.before and not step.differs and not self._has_another_function(item):
                pass
            case "nullability" if item.definition == "NOT NULL":
                cause = f"while a row has no {item.own_name}"
            case "column" if item.definition.endswith(STORED):
                null = ", or is null" if states["nullability"] == "NOT NULL" else ""
                cause = f"where the expression fails{null}"
            case "column" if states["nullability"] == "NOT NULL" and not states.keys() & {"default", "identity"}:
                cause = "where the expression is null" if item.definition else "if the table has rows"
            case "type" if item.shape:
                cause = f"where a value is no {item.definition}"
            case "index" if item.definition.startswith("CREATE UNIQUE") and not self._is_on_nulls(item):
                cause = "if two rows have the same values"
            case kind if kind in CONSTRAINTS and item.is_valid and not self._is_on_nulls(item):
                cause = "if rows break it"
        return cause and f"-- Fails {cause}.\n"

    def _was_computed_by(self, step: Step, function: Step) -> bool:
        """Whether an object that stays holds results of a function that is replaced."""
        item = step.before
        return bool(
            item
            and function.before
            and step.after
            and step not in self.dropped
            and function.before.address in item.needs
            and (item.kind == "index" or item.kind in CONSTRAINTS or item.definition.endswith(STORED))
        )

    def _has_another_function(self, item: Object) -> bool:
        """Whether an object that is made again needs a function that is made anew."""
        return any(
            step in self.dropped and step.either.kind == "function" and step.differs
            for need in item.needs
            if (step := self.after.steps.get(need))
        )

    def _is_on_nulls(self, item: Object) -> bool:
        """Whether all columns that it needs are new, and empty in old rows."""
        columns = [self.after.steps.get(need) for need in item.needs if need.startswith("column ")]

        def is_empty(column: Step | None) -> bool:
            if column is None or column not in self.fresh or column.before or column.either.definition:
                return False
            kinds = {part.either.kind: part.either.definition for part in self.after.parts[column.either.address]}
            return not kinds.keys() & {"default", "identity"}

        return bool(columns) and all(map(is_empty, columns))

    def _waits_for(self, step: Step) -> set[str]:
        """The addresses that must exist before the step."""
        parents = {parent.after.address for parent in self.after.ancestors(step) if parent.after}
        return {*_needed(step.after), *parents}

    def _is_inline(self, step: Step) -> bool:
        """Whether CREATE TABLE or ADD COLUMN creates it as well."""
        item = step.after
        parent = self.after.steps.get(item.part_of) if item else None
        if item is None or parent is None or parent not in self.fresh or not item.is_valid:
            return False
        match item.kind:
            case "owner":
                return item.definition == OWNER_OF_ALL
            case "trigger state":
                return item.definition == "ENABLE"
            case "foreign key":
                others = {self.after.steps.get(needed) for needed in _needed(item)} & self.fresh - {parent}
                return not any(other and other.either.kind == "table" for other in others)
            case "default" | "check constraint":
                return not self._needs_its_table(step)
        own_kinds = {"column"} | COLUMN_STATES | CONSTRAINTS
        return item.kind in own_kinds or (item.kind == "storage parameter" and parent.either.kind == "table")

    def _needs_its_table(self, step: Step) -> bool:
        """Whether a new object that it needs, such as a function, itself needs the new table."""
        own = {step, *self.after.ancestors(step)}
        seen: set[Step] = set()
        ahead = [step]
        while ahead:
            for needed in _needed(ahead.pop().after):
                other = self.after.steps.get(needed)
                if other is None or other not in self.fresh or other in seen:
                    continue
                if other in own:
                    if seen:
                        return True
                    continue
                seen.add(other)
                ahead.append(other)
        return False

    def _inline_parts(self, step: Step) -> list[Step]:
        """The parts of a table or column, and their parts, that its CREATE TABLE or ADD COLUMN creates."""
        address = step.after.address if step.after else ""
        if step.either.kind not in {"table", "column"} or not address:
            return []
        own = [part for part in self.after.parts[address] if self._is_inline(part)]
        own = sorted(own, key=lambda part: (_RANK[part.either.kind], part.either.sort))
        return [found for part in own for found in (part, *self._inline_parts(part))]


def _file_name(item: Object) -> str:
    """The file's name for a table, view or function; empty for other kinds, and for names that need quotes."""
    name = item.own_name.partition("(")[0]
    return name if item.kind in {"table", "view", "function"} and re.fullmatch(r"[\w.]+", name) else ""


def _in_file(name: str, sql: Sequence[str]) -> Iterable[str | File]:
    """A file with the statements; the statements themselves if reading the file would split them otherwise."""
    file = File(name, tuple(sql))
    return [file] if split(file.text) == list(sql) else sql


def _stands_alone(item: Object) -> bool:
    """Whether it is an object, which can be dropped and needed, rather than a state of one."""
    return bool(item.address)


def _needed(item: Object | None) -> Iterable[str]:
    """The addresses that `item` needs; with a column, also the column's table."""
    for needed in item.needs if item else ():
        yield needed
        if needed.startswith("column "):
            yield f"relation {needed.removeprefix('column ').partition('.')[0]}"


def _must_be_dropped(item: Object, gone: set[str], retyped: set[str]) -> bool:
    """Whether PostgreSQL cannot drop the objects `gone`, or alter the columns `retyped`, while `item` exists."""
    if item.kind in {"schema", "table"} or (item.kind == "column" and not item.definition):
        return False
    if not gone.isdisjoint(_needed(item)):
        return True
    changed = retyped & item.needs
    if item.kind == DEPENDENT:
        return bool(changed) and item.shape in _CATALOGS_THAT_BLOCK
    # PostgreSQL retypes the two columns of a foreign key one after the other, and checks the key in between.
    return len(changed) > 1 if item.kind == "foreign key" else bool(changed) and item.kind in _BLOCKS_TYPE_CHANGE


def _taken_name(item: Object) -> tuple[str, str]:
    """What no two objects may share: the name of a relation or of a function; empty for other kinds."""
    if item.kind in {"table", "view", "index"}:
        return "relation", item.own_name
    if item.kind in {"primary key", "unique constraint", "exclusion constraint"}:
        return "relation", f"{item.on_name.partition('.')[0]}.{item.own_name}"
    return ("function", item.own_name.partition("(")[0]) if item.kind == "function" else ("", "")


def _keeps_its_values(step: Step) -> bool:
    """Whether a column only stops to be generated; a virtual one has no values to keep."""
    before, after = step.before, step.after
    return bool(
        before and after and before.kind == "column" and before.definition.endswith(STORED) and not after.definition
    )


def _loses_values(before: Object, after: Object) -> bool:
    """Whether a column that is dropped and created again gets other values than it had."""
    return not (before.definition and after.definition)


def _granted_name(item: Object) -> str:
    """How `keep_grants()` names it; empty for a kind that has no grants of its own."""
    if item.kind == "column":
        return item.name
    return item.own_name if item.kind in {"view", "function"} else ""


def grant_target(item: Object | None) -> str:
    """How GRANT names `item`, such as `TABLE public.token_usage`; empty for what has no privileges of its own.

    A new object gets its exact grants, because default privileges may have granted more.
    """
    if item is None:
        return ""
    if item.kind == "function":
        return f"{'PROCEDURE' if item.shape.startswith('p') else 'FUNCTION'} {item.own_name}"
    if item.kind == "identity":
        return f"SEQUENCE {item.sequence}"
    word = _OWN_NAME_IS_TARGET.get(item.kind)
    return f"{word} {item.own_name}" if word else ""


def _no_grant(step: Step, target: str) -> Object:
    """A placeholder for the grants of a new object on which nobody has privileges."""
    part_of = step.after.address if step.after else ""
    return Object("grant", "", target, "", "", "", part_of, 0, frozenset())


def _leads(start: Step, end: Step, edges: Iterable[tuple[Step, Step]]) -> bool:
    """Whether a path of `edges` leads from `start` to `end`."""
    seen = {start}
    while more := {other for step, other in edges if step in seen} - seen:
        seen |= more
    return end in seen


def _sorted(waits: dict[Step, set[Step]], place: Callable[[Step], tuple[int, ...]]) -> Iterable[Step]:
    """The steps, each after those that it waits for, otherwise by `place`. Raises UserError for a circle."""
    waiting = {step: set(others) for step, others in waits.items()}
    followers: dict[Step, list[Step]] = defaultdict(list)
    for step, others in waits.items():
        for other in others:
            followers[other].append(step)
    numbered = {step: number for number, step in enumerate(waits)}
    ready = [(place(step), numbered[step], step) for step, others in waiting.items() if not others]
    heapq.heapify(ready)
    done = 0
    while ready:
        _, _, step = heapq.heappop(ready)
        done += 1
        yield step
        for follower in followers[step]:
            waiting[follower].discard(step)
            if not waiting[follower]:
                heapq.heappush(ready, (place(follower), numbered[follower], follower))
    if done < len(waits):
        left = ", ".join(sorted(str(step.either) for step, others in waiting.items() if others and step.either.address))
        raise UserError(f"No order is possible for {left}, which need each other: write this revision by hand.")

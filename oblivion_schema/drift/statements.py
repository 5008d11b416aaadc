"""The SQL that creates, alters or drops one object of a catalog, laid out as a person would write it.

`create()`, `alter()` and `remove()` have a case for each kind in `catalog.KINDS`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from oblivion_schema.declare.privileges import API_ROLES, GRANT_MODES, PUBLIC, exact_grants, if_role_exists
from oblivion_schema.declare.sql import add_to_publication, block, drop_from_publication, indented, text_literal
from oblivion_schema.drift.catalog import COLUMN_STATES, CONSTRAINTS, INVALID, OWNER_OF_ALL, STORED, Object
from oblivion_schema.drift.sources import as_new, as_replacement
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NEEDS_CAST: Final = "cast"
"""The `shape` of a column's type to which PostgreSQL converts values only with USING."""
NEEDS_TEXT: Final = "text"
"""The same, where PostgreSQL has no cast: the values go by way of their text."""
MAY_NOT_FIT: Final = "narrow"
"""The `shape` of a column's type that not every old value has to fit."""

_WIDTH: Final = 100
_BIGGEST: Final = 2**63 - 1
_OWNER: Final = f"""\
SELECT nspowner::regrole FROM pg_catalog.pg_namespace WHERE nspname = '{PRIVATE_SCHEMA}'"""  # noqa: S608

_BREAK: Final = "\x1f"
"""Marks a place where a statement longer than `_WIDTH` may be broken. catalog.sql has the same mark, chr(31)."""

_QUOTED_OR_CLAUSE: Final = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*")| (?=(?:REFERENCING|FOR EACH|WHEN|EXECUTE FUNCTION|WHERE) )"""
)


def create(item: Object, parts: Sequence[Object] = ()) -> str:
    """The SQL that creates `item`, or sets a state; for a table or column together with its `parts`."""
    own, on, definition = item.own_name, item.on_name, item.definition
    if item.kind in CONSTRAINTS:
        return _laid_out(f"ALTER TABLE {on}{_BREAK}ADD CONSTRAINT {own} {definition}")
    match item.kind:
        case "schema":
            return f"CREATE SCHEMA {own}"
        case "table":
            return _create_table(item, parts)
        case "column":
            return _laid_out(f"ALTER TABLE {on}{_BREAK}ADD COLUMN {_column(item, parts)}")
        case "identity":
            return _laid_out(f"ALTER TABLE {on}{_BREAK}ALTER COLUMN {own} ADD {_identity(item)}")
        case "index":
            return _laid_out(_breakable(definition.removesuffix(INVALID)))
        case "function" | "view" if item.source:
            return as_new(item.source)
        case "function":
            return _function(definition).replace("CREATE OR REPLACE ", "CREATE ", 1)
        case "trigger":
            return _laid_out(_breakable(definition), always=True)
        case "policy":
            return _laid_out(f"CREATE POLICY {own} ON {on}{_BREAK}{definition}", always=True)
        case "view":
            return f"CREATE VIEW {own}{_view(definition)}"
        case "grant":
            return _guarded(item, f"GRANT {own} ON {on} TO {item.role}{item.option and f' {item.option}'}")
        case "publication":
            return block(add_to_publication(own, on, definition))
        case "reference row":
            return insert([item])
        case _:
            return alter(item)


def alter(item: Object, before: Object | None = None, parts: Sequence[Object] = ()) -> str:
    """The SQL that turns `before`, an object of the same name, into `item`; for a state, the SQL that sets it.

    A column is altered with its `parts`.
    """
    own, on, definition = item.own_name, item.on_name, item.definition
    match item.kind:
        case "table":
            return f"ALTER TABLE {own} SET {definition}"
        case "storage parameter":
            return f"ALTER TABLE {on} SET ({own} = {definition})"
        case "setting":
            return _laid_out(f"ALTER TABLE {on}{_BREAK}{definition}")
        case "type":
            # Only where it is needed: a cast to varchar(n) cuts long values, while PostgreSQL's own conversion fails.
            cast = {NEEDS_CAST: "::", NEEDS_TEXT: "::text::"}.get(item.shape)
            using = f" USING {own}{cast}{definition.partition(' COLLATE ')[0]}" if cast else ""
            return _laid_out(f"ALTER TABLE {on}{_BREAK}ALTER COLUMN {own} TYPE {definition}{using}")
        case "nullability":
            changed = {
                "NULL": f"ALTER COLUMN {own} DROP NOT NULL",
                "NOT NULL": f"ALTER COLUMN {own} SET NOT NULL",
                "NOT NULL NOT VALID": f"ALTER COLUMN {own} DROP NOT NULL, ADD NOT NULL {own} NOT VALID",
            }
            return f"ALTER TABLE {on} {changed[definition]}"
        case "default":
            return f"ALTER TABLE {on} ALTER COLUMN {own} SET DEFAULT {definition}"
        case "identity":
            return _alter_identity(item, before or item)
        case "column":
            return _set_expression(item, parts)
        case "function" if own in _MODES:
            return _in_either_mode(own, definition)
        case "function" | "view" if item.source:
            return as_replacement(item.source)
        case "function":
            return _function(definition)
        case "trigger":
            return create(item).replace("CREATE ", "CREATE OR REPLACE ", 1)
        case "trigger state":
            return f"ALTER TABLE {on} {definition} TRIGGER {own}"
        case "row level security":
            return f"ALTER TABLE {on} {own} ROW LEVEL SECURITY"
        case "view":
            return f"CREATE OR REPLACE VIEW {own}{_view(definition)}"
        case "owner":
            if definition != OWNER_OF_ALL:
                return f"ALTER {own} OWNER TO {definition}"
            return block([f"  EXECUTE concat({text_literal(f'ALTER {own} OWNER TO ')}, ({_OWNER}));"])
        case "comment" if item.source:
            return item.source
        case "comment":
            return _laid_out(f"COMMENT ON {own} IS{_BREAK}{text_literal(definition)}")
        case "grant":
            # A privilege with and without GRANT OPTION is the same grant: only the option changes.
            plain = _guarded(item, f"REVOKE GRANT OPTION FOR {own} ON {on} FROM {item.role} CASCADE")
            return create(item) if item.option else plain
        case "reference row":
            return _laid_out(f"UPDATE {on}{_BREAK}SET {definition}{_BREAK}WHERE {item.condition}", always=True)
    raise AssertionError(item)


def can_alter(before: Object, after: Object) -> bool:
    """Whether `alter()` can turn `before` into `after`; otherwise it is dropped and created again."""
    if before.kind in CONSTRAINTS or before.kind in {"index", "policy", "publication"}:
        return False
    if before.kind == "column":
        return before.definition.endswith(STORED) and after.definition.endswith(STORED)
    if before.kind == "identity":  # its sequence may have another name, and keeps its numbers
        return True
    if before.kind == "trigger":  # PostgreSQL has no CREATE OR REPLACE for constraint triggers
        return not before.shape.startswith("t") and not after.shape.startswith("t")
    return after.shape.startswith(before.shape)


def remove(item: Object) -> str:
    """The SQL that drops `item`, or resets a state to its default."""
    own, on = item.own_name, item.on_name
    if item.kind in CONSTRAINTS:
        return f"ALTER TABLE {on} DROP CONSTRAINT {own}"
    match item.kind:
        case "schema" | "table" | "view" | "index":
            return f"DROP {item.kind.upper()} {own}"
        case "function":
            return f"DROP ROUTINE {own}" if item.shape.startswith("p") else f"DROP FUNCTION {own}"
        case "column":
            return f"ALTER TABLE {on} DROP COLUMN {own}"
        case "default":
            return f"ALTER TABLE {on} ALTER COLUMN {own} DROP DEFAULT"
        case "identity":
            return f"ALTER TABLE {on} ALTER COLUMN {own} DROP IDENTITY"
        case "storage parameter":
            return f"ALTER TABLE {on} RESET ({own})"
        case "setting":
            return _laid_out(f"ALTER TABLE {on}{_BREAK}{item.undone_by}")
        case "trigger" | "policy":
            return f"DROP {item.kind.upper()} {own} ON {on}"
        case "row level security":
            return f"ALTER TABLE {on} {'DISABLE' if own == 'ENABLE' else 'NO FORCE'} ROW LEVEL SECURITY"
        case "comment":
            return f"COMMENT ON {own} IS NULL"
        case "publication":
            return block(drop_from_publication(own, on))
        case "reference row":
            return f"DELETE FROM {on} WHERE {item.condition}"  # noqa: S608 - PostgreSQL printed both
    raise AssertionError(item)


def insert(rows: Sequence[Object]) -> str:
    """One INSERT for the reference rows of one table, which may refer to each other."""
    names = ", ".join(name for name, _ in rows[0].row)
    values = [f"({', '.join(value for _, value in row.row)})" for row in rows]
    if len(values) == 1:
        return _laid_out(f"INSERT INTO {rows[0].on_name} ({names}){_BREAK}VALUES {values[0]}", always=True)
    lines = ",\n".join(f"    {value}" for value in values)
    return f"INSERT INTO {rows[0].on_name} ({names})\n  VALUES\n{lines}"


def rename_column(table: str, before: str, after: str, texts: Sequence[str] = ()) -> str:
    """The SQL that renames a column, with a comment for the person who reads the revision; `texts` may name it, too."""
    comment = "-- Taken for the same column, by its place and type: if it is not, drop it and add the other one."
    if texts:
        comment += f"\n-- May have the old name in its text: {', '.join(texts)}."
    return f"{comment}\nALTER TABLE {table} RENAME COLUMN {before} TO {after}"


def rename_sequence(before: str, after: str) -> str:
    """The SQL that renames a sequence within its schema."""
    schema, _, _ = before.partition(".")
    return f"ALTER SEQUENCE {before} RENAME TO {after.removeprefix(f'{schema}.')}"


def refuse_to_drop_rows(table: str, lost: str = "", *, rows: Iterable[Object] = (), forced: bool = False) -> str:
    """A block that fails if `table` holds rows that a DROP would lose, unless -x drop-data=yes is given.

    `lost` is the condition of these rows, `column IS ...`; without it all rows count. The reference `rows` do not
    count. `forced`: the table forces row level security on its owner too, and the block lifts it to see all rows.
    """
    ours = [" AND ".join(f"{name} IS NOT DISTINCT FROM {value}" for name, value in row.row) for row in rows]
    conditions = [*filter(None, [lost]), *(f"NOT ({own})" for own in ours)]
    where = f" WHERE {conditions[0]}" if conditions else ""
    held = f"values in {lost.partition(' IS ')[0].removesuffix('::text')}" if lost else "rows"
    what = f"{table} holds {held}, which would be dropped"
    return block(
        [
            f"  LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;",
            *([f"  ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;"] if forced else ()),
            "  IF coalesce(current_setting('oblivion.drop_data', true), '') <> 'yes' AND EXISTS (",
            f"    SELECT FROM {table}{where}",
            *(f"      AND {condition}" for condition in conditions[1:]),
            "  ) THEN",
            f"    RAISE EXCEPTION {text_literal(what.replace('%', '%%'))}",
            "      USING ERRCODE = 'object_not_in_prerequisite_state',",
            "        HINT = 'Save them first, then say it again with -x drop-data=yes';",
            "  END IF;",
            *([f"  ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"] if forced and lost else ()),
        ]
    )


def set_grants(target: str, grants: Iterable[Object]) -> list[str]:
    """Statements that give PUBLIC and the API roles exactly these grants on a new object.

    They also revoke what default privileges granted.
    """
    granted: dict[str, list[str]] = {}
    further = []
    for item in grants:
        granted.setdefault(item.role, []).append(item.own_name)
        if item.option:
            further.append(create(item))
    return [exact_grants(target, dict.fromkeys(GRANT_MODES, granted)), *further]


def grant(items: Iterable[Object]) -> list[str]:
    """GRANT statements, one for each object and set of privileges."""
    return list(_by_privileges(items, "GRANT {names} ON {on} TO {role}{option}"))


def revoke(items: Sequence[Object]) -> list[str]:
    """REVOKE statements, one for each object and set of privileges, with what the roles passed on."""
    passed_on = [sql for item in items for role in item.grantors for sql in _take_from_grantor(item, role)]
    return passed_on + list(_by_privileges(items, "REVOKE {names} ON {on} FROM {role}{cascade}"))


def take_from_others(items: Iterable[Object]) -> list[str]:
    """The same only for what roles other than PostgREST's passed on."""
    return [
        sql
        for item in items
        for role in item.grantors
        if role not in API_ROLES
        for sql in _take_from_grantor(item, role)
    ]


def _take_from_grantor(item: Object, grantor: str) -> list[str]:
    """Statements that revoke what `grantor` gave by its grant option; only the owner's REVOKE from it does that.

    An API role gets its own privileges again later, another role keeps them.
    """
    own, on = item.own_name, item.on_name
    # Of a role that has the privilege on the whole table, a REVOKE on a column would take nothing.
    lines = [f"GRANT {own} ON {on} TO {grantor} WITH GRANT OPTION;"]
    if grantor in API_ROLES:
        lines += [f"REVOKE {own} ON {on} FROM {grantor} CASCADE;"]
    else:
        lines += [f"REVOKE GRANT OPTION FOR {own} ON {on} FROM {grantor} CASCADE;", lines[0]]
    return [block(if_role_exists(grantor, lines))]


def _by_privileges(items: Iterable[Object], statement: str) -> Iterable[str]:
    names: dict[tuple[str, str, str], list[str]] = {}
    for item in items:
        names.setdefault((item.on_name, item.role, item.option), []).append(item.own_name)
    roles: dict[tuple[str, str, str], list[str]] = {}
    for (on, role, option), its in names.items():
        roles.setdefault((on, ", ".join(its), option and f" {option}"), []).append(role)
    for (on, privileges, option), its in roles.items():
        lines: list[str] = []
        for role in its:
            sql = statement.format(names=privileges, on=on, role=role, option=option, cascade=option and " CASCADE")
            if role == PUBLIC:
                yield sql
            else:
                lines += if_role_exists(role, [f"{sql};"])
        if lines:
            yield block(lines)


def _create_table(table: Object, parts: Sequence[Object]) -> str:
    lines = [
        _column(column, parts)
        for column in sorted((part for part in parts if part.kind == "column"), key=lambda part: part.sort)
    ]
    lines += [f"CONSTRAINT {part.own_name} {part.definition}" for part in parts if part.kind in CONSTRAINTS]
    options = [f"{part.own_name} = {part.definition}" for part in parts if part.kind == "storage parameter"]
    inner = ",\n".join(f"  {line}" for line in lines)
    head = "CREATE UNLOGGED TABLE" if table.definition == "UNLOGGED" else "CREATE TABLE"
    body = f"{head} {table.own_name} (\n{inner}\n)" if lines else f"{head} {table.own_name} ()"
    return f"{body}\nWITH ({', '.join(options)})" if options else body


def _column(column: Object, parts: Sequence[Object]) -> str:
    state = {part.kind: part for part in parts if part.kind in COLUMN_STATES and part.part_of == column.address}
    words = [column.own_name, state["type"].definition]
    if "default" in state:
        words += ["DEFAULT", state["default"].definition]
    if column.definition:
        words.append(column.definition)
    if "identity" in state:
        words.append(_identity(state["identity"]))
    if "nullability" in state and state["nullability"].definition == "NOT NULL":
        words.append("NOT NULL")
    return " ".join(words)


def _identity(item: Object) -> str:
    """`GENERATED ... AS IDENTITY (...)`; the definition lists only the options that are not the default."""
    kind, options = _identity_parts(item.definition)
    return f"{kind} AS IDENTITY" + (f" ({options})" if options else "")


def _identity_parts(definition: str) -> tuple[str, str]:
    kind = "GENERATED ALWAYS" if definition.startswith("GENERATED ALWAYS") else "GENERATED BY DEFAULT"
    return kind, definition.removeprefix(kind).strip()


def is_smaller(after: Object, before: Object) -> bool:
    """Whether a column's type has fewer integers."""
    bytes_of = {"smallint": 2, "integer": 4, "bigint": 8}
    return bytes_of.get(after.definition, 0) < bytes_of.get(before.definition, 0)


class _Sequence(NamedTuple):
    """The numbers of an identity; a bound that is the default of its type and direction is None."""

    increment: int
    lowest: int | None
    highest: int | None
    start: int
    cache: int
    cycle: bool


def _sequence(item: Object) -> _Sequence:
    given = {
        word: int(number)
        for word, number in re.findall(
            r"(INCREMENT|MINVALUE|MAXVALUE|START|CACHE)(?: BY| WITH)? (-?\d+)", item.definition
        )
    }
    increment = given.get("INCREMENT", 1)
    lowest, highest = given.get("MINVALUE"), given.get("MAXVALUE")
    first = (1 if lowest is None else lowest) if increment > 0 else (-1 if highest is None else highest)
    start = given.get("START", first)
    return _Sequence(increment, lowest, highest, start, given.get("CACHE", 1), item.definition.endswith("CYCLE"))


def _alter_identity(item: Object, before: Object) -> str:
    # Every option is set: the definition leaves defaults out, and the old identity may have others.
    old, new = _sequence(before), _sequence(item)
    words = [
        f"SET {_identity_parts(item.definition)[0]}",
        f"SET INCREMENT BY {new.increment}",
        "SET NO MINVALUE" if new.lowest is None else f"SET MINVALUE {new.lowest}",
        "SET NO MAXVALUE" if new.highest is None else f"SET MAXVALUE {new.highest}",
        f"SET START WITH {new.start}",
        f"SET CACHE {new.cache}",
        "SET CYCLE" if new.cycle else "SET NO CYCLE",
    ]
    change = f"ALTER TABLE {item.on_name} ALTER COLUMN {item.own_name} {' '.join(words)}"
    if (old.lowest, old.highest, old.start, old.increment > 0) == (
        new.lowest, new.highest, new.start, new.increment > 0
    ):  # fmt: skip
        return _laid_out(change.replace(" ALTER COLUMN", f"{_BREAK}ALTER COLUMN"))
    lowest, highest = _bounds(new)
    return block(
        [
            f"  LOCK TABLE {item.on_name} IN ACCESS EXCLUSIVE MODE;",
            f"  SELECT last_value, is_called INTO last, used FROM {before.sequence};",  # noqa: S608
            "  -- It starts again only if it hands out no number twice.",
            f"  IF NOT used OR greatest(last, {old.start}) < {lowest} OR least(last, {old.start}) > {highest} THEN",
            f"    {change} RESTART;",
            "  ELSE",
            f"    {change};",
            "  END IF;",
        ],
        ["  last bigint;", "  used boolean;"],
    )


def go_on_after(item: Object) -> str:
    """The SQL that lets a new identity of an old column go on after the numbers that rows have."""
    numbers = _sequence(item)
    last = "max" if numbers.increment > 0 else "min"
    sequence, (lowest, highest) = text_literal(item.sequence), _bounds(numbers)
    return _laid_out(
        f"SELECT setval({sequence}, {last}({item.own_name})){_BREAK}FROM {item.on_name}{_BREAK}"
        f"HAVING {last}({item.own_name}) BETWEEN {lowest} AND {highest}"
    )


def _bounds(numbers: _Sequence) -> tuple[int, int]:
    """Its bounds; PostgreSQL's own are those of the biggest type."""
    lowest = numbers.lowest if numbers.lowest is not None else 1 if numbers.increment > 0 else -_BIGGEST
    highest = numbers.highest if numbers.highest is not None else _BIGGEST if numbers.increment > 0 else -1
    return lowest, highest


def drop_expression(column: Object) -> str:
    """The SQL that makes a stored generated column a plain one, with the values that it has."""
    return _laid_out(f"ALTER TABLE {column.on_name}{_BREAK}ALTER COLUMN {column.own_name} DROP EXPRESSION")


def _set_expression(column: Object, parts: Sequence[Object]) -> str:
    """A block that gives a stored column, on which nothing stands, another expression; before 17 it is a new column."""
    table, own = column.on_name, column.own_name
    expression = column.definition.removeprefix("GENERATED ALWAYS AS ").removesuffix(STORED)
    return block(
        [
            "  IF current_setting('server_version_num')::integer >= 170000 THEN",
            # PL/pgSQL reads both branches, and an older one does not know the words.
            f"    EXECUTE {text_literal(f'ALTER TABLE {table} ALTER COLUMN {own} SET EXPRESSION AS {expression}')};",
            "  ELSE",
            f"    ALTER TABLE {table} DROP COLUMN {own}, ADD COLUMN {_column(column, parts)};",
            "  END IF;",
        ]
    )


def _function(definition: str) -> str:
    """CREATE FUNCTION as PostgreSQL prints it, without the blank before each clause."""
    head, start, body = definition.rstrip("\n").partition("\nAS ")
    if _goes_on_over_a_line(head):
        return head + start + body
    return re.sub(r"^ (?=\S)", "", head, flags=re.MULTILINE) + start + body


# What the functions return that are constants: only that differs between databases.
_MODES: Final = {
    "oblivion.open_access()": ("true", "false"),
    # Whatever else it returns, the metadata is built as for trusted pages.
    "oblivion.page_billing()": ("'metered'::text", "'trusted'::text"),
}


def _in_either_mode(function: str, definition: str) -> str:
    """A block that replaces a function whose result is a mode, and keeps the mode."""
    head, found, _ = _function(definition).rpartition("RETURN ")
    if not found:
        return _function(definition)
    first, other = _MODES[function]
    return block(
        [
            f"  IF {function} = {first} THEN",
            *indented(f"{head}RETURN {first};", 4),
            "  ELSE",
            *indented(f"{head}RETURN {other};", 4),
            "  END IF;",
        ]
    )


def _goes_on_over_a_line(sql: str) -> bool:
    """Whether a literal or quoted name may span lines, so that the layout must not change."""
    return any(line.count("'") % 2 or line.count('"') % 2 for line in sql.splitlines())


def _breakable(statement: str) -> str:
    """`statement`, of one line, with `_BREAK` before each clause outside quotes."""
    return _QUOTED_OR_CLAUSE.sub(lambda found: found[1] or _BREAK, statement)


# PostgreSQL indents the clauses of the outermost query by up to three blanks, its joins by five.
_CLAUSE: Final = re.compile(
    r" {0,3}(?=(?:SELECT|FROM|WHERE|GROUP BY|HAVING|WINDOW|ORDER BY|LIMIT|OFFSET|UNION|EXCEPT|INTERSECT|WITH)\b)"
)
_JOIN: Final = re.compile(r" {5}(?=(?:(?:LEFT|RIGHT|FULL|CROSS) )?JOIN\b)")


def _view(definition: str) -> str:
    """Options and query of a view; the clauses of the outermost query start at the left margin."""
    options, _, query = definition.partition("AS\n")
    head = f" {options.strip()} AS\n" if options else " AS\n"
    if _goes_on_over_a_line(query):
        return head + query
    lines = []
    for line in query.splitlines():
        clause = _CLAUSE.match(line) or _JOIN.match(line)
        if not clause:
            lines.append(line.removeprefix("  "))
        elif (text := line[clause.end() :]).startswith("SELECT ") and text.endswith(","):
            lines += ["SELECT", f"  {text.removeprefix('SELECT ')}"]
        else:
            lines.append(text)
    return head + "\n".join(lines)


def _laid_out(statement: str, *, always: bool = False) -> str:
    """`statement` on one line, or broken at each `_BREAK` if it is too long, or `always`."""
    joined = statement.replace(_BREAK, " ")
    if always or len(joined) > _WIDTH:
        return statement.replace(_BREAK, "\n  ")
    return joined


def _guarded(item: Object, statement: str) -> str:
    """A grant's statement, run only if its role exists."""
    return statement if item.role == PUBLIC else block(if_role_exists(item.role, [f"{statement};"]))

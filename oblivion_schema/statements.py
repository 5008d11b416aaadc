"""The SQL that makes, changes and removes one object of a catalog, laid out as a person would."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from .catalog import COLUMN_STATES, CONSTRAINTS, INVALID, Object
from .privileges import API_ROLES, PUBLIC, block, exact_grants, if_role_exists

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WIDTH: Final = 100
_BREAK: Final = "\x1f"
"""Where a statement that is too long for a line may be broken."""

_QUOTED_OR_CLAUSE: Final = re.compile(
    r"""('(?:[^']|'')*'|"(?:[^"]|"")*")| (?=(?:REFERENCING|FOR EACH|WHEN|EXECUTE FUNCTION|WHERE) )"""
)


def create(item: Object, parts: Sequence[Object] = ()) -> str:
    """What makes `item`; a table or a column together with those of its `parts` that stand in the statement."""
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
        case "function":
            return _function(definition).replace("CREATE OR REPLACE ", "CREATE ", 1)
        case "trigger":
            return _laid_out(_breakable(definition), always=True)
        case "policy":
            return _laid_out(f"CREATE POLICY {own} ON {on}{_BREAK}{definition}", always=True)
        case "view":
            return f"CREATE VIEW {own}{_view(definition)}"
        case "grant":
            return _guarded(item, f"GRANT {own} ON {on} TO {item.shape}{definition and f' {definition}'}")
        case "publication":
            return _if_publication_exists(item, [f"ALTER PUBLICATION {own} ADD TABLE {on}{definition};"])
        case "reference row":
            names, values = zip(*item.row, strict=True)
            return _laid_out(f"INSERT INTO {on} ({', '.join(names)}){_BREAK}VALUES ({', '.join(values)})", always=True)
        case _:
            return alter(item)


def alter(item: Object) -> str:
    """What turns another object of that name, or another state, into `item`; of a state it is what sets it, too."""
    own, on, definition = item.own_name, item.on_name, item.definition
    match item.kind:
        case "table":
            return f"ALTER TABLE {own} SET {definition}"
        case "storage parameter":
            return f"ALTER TABLE {on} SET ({own} = {definition})"
        case "setting":
            return _laid_out(f"ALTER TABLE {on}{_BREAK}{definition}")
        case "type":
            bare = definition.partition(" COLLATE ")[0]
            return _laid_out(f"ALTER TABLE {on}{_BREAK}ALTER COLUMN {own} TYPE {definition} USING {own}::{bare}")
        case "nullability":
            return f"ALTER TABLE {on} ALTER COLUMN {own} {'SET' if definition == 'NOT NULL' else 'DROP'} NOT NULL"
        case "default":
            return f"ALTER TABLE {on} ALTER COLUMN {own} SET DEFAULT {definition}"
        case "identity":
            return _laid_out(f"ALTER TABLE {on}{_BREAK}ALTER COLUMN {own} {_set_identity(definition)}")
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
            return f"ALTER {own} OWNER TO {definition}"
        case "comment":
            return _laid_out(f"COMMENT ON {own} IS{_BREAK}{_literal(definition)}")
        case "grant":
            # What can be granted on to others is not less of a privilege: one of the two becomes the other.
            plain = _guarded(item, f"REVOKE GRANT OPTION FOR {own} ON {on} FROM {item.shape}")
            return create(item) if definition else plain
        case "publication":
            table = f"ALTER PUBLICATION {own} {{}} TABLE {on}"
            return _if_publication_exists(item, [f"{table.format('DROP')};", f"{table.format('ADD')}{definition};"])
        case "reference row":
            return _laid_out(f"UPDATE {on}{_BREAK}SET {definition}{_BREAK}WHERE {item.shape}", always=True)
    raise AssertionError(item)


def can_alter(before: Object, after: Object) -> bool:
    """Whether `alter()` does, or the object has to be dropped and made anew."""
    if before.kind in CONSTRAINTS or before.kind in {"column", "index", "policy", "publication"}:
        return False
    if before.kind == "trigger":  # CREATE OR REPLACE is not for constraint triggers
        return not before.shape.startswith("t") and not after.shape.startswith("t")
    return after.shape.startswith(before.shape)


def remove(item: Object) -> str:
    """What removes `item`, or takes a state back to what it is without it."""
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
            return _laid_out(f"ALTER TABLE {on}{_BREAK}{item.shape}")
        case "trigger" | "policy":
            return f"DROP {item.kind.upper()} {own} ON {on}"
        case "trigger state":
            return f"ALTER TABLE {on} ENABLE TRIGGER {own}"
        case "row level security":
            return f"ALTER TABLE {on} {'DISABLE' if own == 'ENABLE' else 'NO FORCE'} ROW LEVEL SECURITY"
        case "comment":
            return f"COMMENT ON {own} IS NULL"
        case "grant":
            return _guarded(item, f"REVOKE {own} ON {on} FROM {item.shape}")
        case "publication":
            return _if_publication_exists(item, [f"ALTER PUBLICATION {own} DROP TABLE {on};"])
        case "reference row":
            return f"DELETE FROM {on} WHERE {item.shape}"  # noqa: S608 - PostgreSQL printed both
    raise AssertionError(item)


def rename_column(table: str, before: str, after: str) -> str:
    """What renames a column."""
    return f"ALTER TABLE {table} RENAME COLUMN {before} TO {after}"


def refuse_to_drop_rows(table: str, column: str = "", default: str = "", *, forced: bool = False) -> str:
    """What fails where `table` has rows, or `column` values that are not its default, unless told -x drop-data=yes.

    `forced`: row level security holds for the owner, too, who would not see the rows.
    """
    lost = f"{column} IS DISTINCT FROM ({default})" if default else f"{column} IS NOT NULL"
    found = f"SELECT FROM {table}{column and f' WHERE {lost}'}"
    what = f"{table} holds {f'values in {column}' if column else 'rows'}, which this downgrade would drop"
    return block(
        [
            f"  LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;",
            *([f"  ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY;"] if forced else ()),
            "  IF coalesce(current_setting('oblivion.drop_data', true), '') <> 'yes'",
            f"    AND EXISTS ({found})",
            "  THEN",
            f"    RAISE EXCEPTION {_literal(what.replace('%', '%%'))}",
            "      USING ERRCODE = 'object_not_in_prerequisite_state',",
            "        HINT = 'Save them first, then say alembic -x drop-data=yes downgrade';",
            "  END IF;",
            *([f"  ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"] if forced and column else ()),
        ]
    )


def set_grants(target: str, grants: Iterable[Object]) -> list[str]:
    """What gives PUBLIC and the API roles these grants on a new object, whatever default privileges gave them."""
    granted: dict[str, list[str]] = {}
    further = []
    for item in grants:
        granted.setdefault(item.shape, []).append(item.own_name)
        if item.definition:
            further.append(create(item))
    return [exact_grants(target, granted), *further]


def change_grants(removed: Iterable[Object], added: Iterable[Object]) -> Iterable[str]:
    """What takes and gives privileges, a statement for each object and role."""
    revoked: dict[tuple[str, str], list[str]] = {}
    granted: dict[tuple[str, str, str], list[str]] = {}
    first: dict[str, Object] = {}
    for item in removed:
        first[item.shape] = item
        revoked.setdefault((item.on_name, item.shape), []).append(item.own_name)
    for item in added:
        first[item.shape] = item
        granted.setdefault((item.on_name, item.shape, item.definition), []).append(item.own_name)
    for (on, role), names in revoked.items():
        yield _guarded(first[role], f"REVOKE {', '.join(names)} ON {on} FROM {role}")
    for (on, role, option), names in granted.items():
        yield _guarded(first[role], f"GRANT {', '.join(names)} ON {on} TO {role}{option and f' {option}'}")


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
    if state["nullability"].definition == "NOT NULL":
        words.append("NOT NULL")
    return " ".join(words)


def _identity(item: Object) -> str:
    """GENERATED ... AS IDENTITY (...), of which the definition gives what is between and what is not the default."""
    kind, options = _identity_parts(item.definition)
    return f"{kind} AS IDENTITY" + (f" ({options})" if options else "")


def _identity_parts(definition: str) -> tuple[str, str]:
    kind = "GENERATED ALWAYS" if definition.startswith("GENERATED ALWAYS") else "GENERATED BY DEFAULT"
    return kind, definition.removeprefix(kind).strip()


def _set_identity(definition: str) -> str:
    # What the definition leaves out is the default, to which the other one has to be taken back.
    kind, options = _identity_parts(definition)
    given = dict(re.findall(r"(INCREMENT|MINVALUE|MAXVALUE|START|CACHE)(?: BY| WITH)? (-?\d+)", options))
    words = [f"SET {kind}"]
    words.append(f"SET INCREMENT BY {given.get('INCREMENT', 1)}")
    words.append(f"SET MINVALUE {given['MINVALUE']}" if "MINVALUE" in given else "SET NO MINVALUE")
    words.append(f"SET MAXVALUE {given['MAXVALUE']}" if "MAXVALUE" in given else "SET NO MAXVALUE")
    words.append(f"SET START WITH {given.get('START', given.get('MINVALUE', 1))}")
    words.append(f"SET CACHE {given.get('CACHE', 1)}")
    words.append("SET CYCLE" if options.endswith("CYCLE") else "SET NO CYCLE")
    return " ".join(words)


def _function(definition: str) -> str:
    head, start, body = definition.rstrip("\n").partition("\nAS ")
    return re.sub(r"^ (?=\S)", "", head, flags=re.MULTILINE) + start + body


def _breakable(statement: str) -> str:
    """`statement` of one line with a place for a break before each clause, but in quotes."""
    return _QUOTED_OR_CLAUSE.sub(lambda found: found[1] or _BREAK, statement)


# PostgreSQL indents the clauses of the outermost query by up to three blanks, its joins by five.
_CLAUSE: Final = re.compile(
    r" {0,3}(?=(?:SELECT|FROM|WHERE|GROUP BY|HAVING|WINDOW|ORDER BY|LIMIT|OFFSET|UNION|EXCEPT|INTERSECT|WITH)\b)"
)
_JOIN: Final = re.compile(r" {5}(?=(?:(?:LEFT|RIGHT|FULL|CROSS) )?JOIN\b)")


def _view(definition: str) -> str:
    """Options and query, with the clauses of the outermost query at the margin."""
    options, _, query = definition.partition("AS\n")
    head = f" {options.strip()} AS\n" if options else " AS\n"
    if any(line.count("'") % 2 for line in query.splitlines()):  # a literal goes on over the line's end
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
    joined = statement.replace(_BREAK, " ")
    if always or len(joined) > _WIDTH:
        return statement.replace(_BREAK, "\n  ")
    return joined


def _guarded(item: Object, statement: str) -> str:
    if item.shape == PUBLIC or item.shape not in API_ROLES:
        return statement
    return block(if_role_exists(item.shape, [f"{statement};"]))


def _if_publication_exists(item: Object, lines: Sequence[str]) -> str:
    name = _literal(item.own_name.strip('"'))
    condition = f"EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = {name})"
    return block([f"  IF {condition} THEN", *(f"    {line}" for line in lines), "  END IF;"])


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

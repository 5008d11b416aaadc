"""What becomes of a table that people made by hand, and of what is on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from oblivion_schema.adoption.presence import take_over_presence, types_of_presence
from oblivion_schema.adoption.report import number_of_rows
from oblivion_schema.declare.access import REALTIME
from oblivion_schema.declare.sql import quoted, unquoted
from oblivion_schema.operations.adoption import index_sql, others_on
from oblivion_schema.tables.base import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Row

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.adoption.snapshot import Snapshot
    from oblivion_schema.operations import Request


@dataclass
class Table:
    """A table that people made, and what is known so far of what the upgrade makes of it."""

    there: Snapshot
    found: Inspection
    row: Row[Any]
    dropped: set[str]
    """The indexes that the upgrade drops in the end."""
    gone: set[str] = field(init=False)
    """The names of what is no longer on it then."""
    rows: str = field(init=False)
    """The rows that it has after duplicates are moved, as a query."""

    def __post_init__(self) -> None:
        self.gone = {f"{self.row.name}_prepared_check"}
        self.rows = self.name

    @property
    def name(self) -> str:
        """The table's name in SQL."""
        return f"public.{self.row.name}"


def inspect_table(table: Table, requests: Sequence[Request], *, is_new: bool) -> None:
    """Tell what the requests for a table come to; `is_new` where no upgrade took it over before."""
    if is_new and not _take_over(table, requests):
        return
    for request in requests:
        if request.function in _TOLD:
            _TOLD[request.function](table, request.arguments)
    for index in sorted(table.dropped & table.row.indexes.keys() - table.gone):
        table.found.do("drop index", index)
    if is_new:
        _compare_columns(table, requests)
        _compare_keys(table)


def _compare_columns(table: Table, requests: Sequence[Request]) -> None:
    """Warn of columns that the upgrade leaves as they are, and that are not as ours, or refuse our rows."""
    asked = {function: _columns_of(requests, function) for function in ("fill_nulls", "set_defaults")}
    ours = metadata.tables[table.row.name].columns
    for name, column in table.row.columns.items():
        on = f"{table.name}.{name}"
        alter = f"ALTER TABLE {table.name} ALTER {quoted(name)}"
        if (table.row.name, name) == ("user_presence", "user_id"):  # it becomes host_id, or may be NULL
            continue
        if name not in ours:
            if not column["nullable"] and column["default"] is None:
                says = (
                    f"{on} takes no NULL and has no default, so nobody can add a row without it, as pages and functions"
                )
                table.found.warn("column", on, f"{says} do: {alter} DROP NOT NULL, or give it a default")
            continue
        if not column["nullable"] and ours[name].nullable:
            says = f"{on} takes no NULL, and stays so: whoever leaves it out, as pages and functions may, fails"
            table.found.warn("column", on, f"{says}: {alter} DROP NOT NULL")
        if column["nullable"] and not ours[name].nullable and name not in asked["fill_nulls"]:
            if (table.row.name, name) in _SUMMED_UP:
                _require_no_null(table, name)
                continue
            says = f"{on} takes NULL, and stays so: oblivion-schema check shows it"
            table.found.warn("column", on, f"{says}. When no row has a NULL: {alter} SET NOT NULL")
        if column["default"] is not None and ours[name].server_default is None and name not in asked["set_defaults"]:
            says = f"{on} has the default {column['default']}, and keeps it: oblivion-schema check shows it"
            table.found.warn("column", on, f"{says}; {alter} DROP DEFAULT")


_SUMMED_UP: Final = frozenset(("token_usage", name) for name in ("user_id", "tokens_used", "mode", "used_turn"))
"""Columns without which no report can sum up a row: the upgrade lets them take no NULL."""


def _require_no_null(table: Table, name: str) -> None:
    on = f"{table.name}.{name}"
    table.found.do("added rule", on, f"let {on} take no NULL")
    if table.row.may_read:
        for count in _count(table, f"t.{quoted(name)} IS NULL"):
            rows = f"{number_of_rows(count)} of {table.name} with a NULL in {name}, which no report can sum up"
            table.found.stop("column", on, f"{rows}: correct or delete them")


def _columns_of(requests: Sequence[Request], function: str) -> set[str]:
    return {unquoted(name) for asked in requests if asked.function == function for name in asked.arguments["columns"]}


def _compare_keys(table: Table) -> None:
    """Warn of a second foreign key on a column that has ours."""
    ours = {key.name: key.column_keys for key in metadata.tables[table.row.name].foreign_key_constraints}
    for name, constraint in table.row.constraints.items():
        on = [column for columns in ours.values() for column in columns]
        if constraint["kind"] == "f" and name not in ours and any(f"({key})" in constraint["definition"] for key in on):
            says = (
                f"{name} on {table.name} is a second foreign key beside ours: each row is looked up twice, and its own"
            )
            table.found.warn(
                "foreign key",
                name,
                f"{says} rule for deletions holds, too: ALTER TABLE {table.name} DROP CONSTRAINT {name}",
            )


def _take_over(table: Table, requests: Sequence[Request]) -> bool:
    row, found, name = table.row, table.found, table.name
    columns = next(asked.arguments["columns"] for asked in requests if asked.function == "begin_adoption")
    is_presence = row.name == "user_presence"
    types = types_of_presence(row) if is_presence else {key: column["type"] for key, column in row.columns.items()}
    if wrong := _wrong(row, columns, types):
        found.stop("table", name, f"{name} cannot be taken over: {', '.join(wrong)}")
        return False
    found.do("table", name)
    if row.forced:
        found.do("forced", name, f"remove FORCE ROW LEVEL SECURITY from {name}: its owner has to see all rows")
    if not row.may_read:
        found.warn("rows", name, f"this role may not read {name}: its rows are not counted")
    elif row.sees_some_rows:
        found.warn("rows", name, f"row level security may hide rows of {name} from this role: they are not counted")
    if is_presence:
        table.rows, gone = take_over_presence(table.there, found, row)
        table.gone |= gone
    return True


def _wrong(row: Row[Any], columns: Mapping[str, str], types: Mapping[str, str]) -> list[str]:
    wrong = [] if row.is_ordinary else ["it is no ordinary table"]
    if row.is_ordinary and not row.is_ours:
        wrong.append(f"it belongs to {row.owner}, who has to run this")
    if lacks := sorted(columns.keys() - types.keys()):
        wrong.append(f"it lacks {', '.join(lacks)}")
    return wrong + [
        f"its {name} is {types[name]}, not {type_}"
        for name, type_ in sorted(columns.items())
        if types.get(name, type_) != type_
    ]


# Rows.


def _fill_nulls(table: Table, asked: Mapping[str, Any]) -> None:
    row = table.row
    nullable = [name for name in asked["columns"] if row.columns.get(name, {}).get("nullable")]
    prepared = row.constraints.get(f"{row.name}_prepared_check")
    if not nullable or not row.may_read or (prepared and prepared["valid"]):
        return
    counts = ", ".join(f"count(*) FILTER (WHERE {quoted(name)} IS NULL)" for name in nullable)
    any_null = " OR ".join(f"{quoted(name)} IS NULL" for name in nullable)
    sql = f"SELECT count(*) FILTER (WHERE {any_null}), {counts} FROM {table.rows} AS t"
    by_column: list[int]
    for filled, *by_column in table.there.counts(table.found, table.name, sql):
        if filled:
            named = ", ".join(f"{name} {count}" for name, count in zip(nullable, by_column, strict=True) if count)
            says = f"fill NULLs in {number_of_rows(filled)} of {table.name}: {named}"
            table.found.do("filled", table.name, says, filled)
            _find_broken_checks(table, any_null)


def _find_broken_checks(table: Table, any_null: str) -> None:
    """Find checks NOT VALID that rows break: PostgreSQL looks at a row again where a NULL is filled."""
    for name, constraint in table.row.constraints.items():
        if constraint["kind"] == "c" and not constraint["valid"]:
            for count in _count(table, f"({any_null}) AND NOT ({constraint['expression']})"):
                says = f"{number_of_rows(count)} of {table.name} with a NULL, which is filled, would break {name}"
                table.found.stop("check", name, f"{says}, NOT VALID so far: mend them, or drop it")


def _count(table: Table, condition: str) -> list[int]:
    """The number of rows of `t` that meet a condition, where there are any."""
    sql = f"SELECT count(*) FROM {table.rows} AS t WHERE {condition}"
    return [count for (count,) in table.there.counts(table.found, table.name, sql) if count]


# Columns, storage and rules.


def _set_defaults(table: Table, asked: Mapping[str, Any]) -> None:
    for written, new in asked["columns"].items():
        column = table.row.columns[unquoted(written)]
        old = column["default"]
        if old is None or not table.there.reads_alike(*(f"CAST({sql} AS {column['type']})" for sql in (old, new))):
            on = f"{table.name}.{unquoted(written)}"
            table.found.do("default", on, f"change the default of {on} from {old or 'none'} to {new}")


def _set_fillfactor(table: Table, asked: Mapping[str, Any]) -> None:
    old, new = table.row.fillfactor, str(asked["percent"])
    if old != new:
        table.found.do("fillfactor", table.name, f"change the fillfactor of {table.name} from {old or 'none'} to {new}")


def _add_check(table: Table, asked: Mapping[str, Any]) -> None:
    name, condition = asked["name"], asked["condition"]
    old = table.row.constraints.get(name)
    if not old or not old["valid"]:
        _add_rule(table, name, f"NOT ({condition})")
    elif table.row.may_read and not table.there.reads_alike(
        f"({old['expression']})", f"({condition})", table=table.name
    ):
        says = f"{name} on {table.name} differs from ours, and stays so: oblivion-schema check shows how"
        table.found.warn("rule", name, says)


def _add_foreign_key(table: Table, asked: Mapping[str, Any]) -> None:
    column, other, key = asked["column"], asked["other"], asked["key"]
    old = table.row.constraints.get(asked["name"])
    if old and old["valid"]:
        return
    is_broken = f"t.{column} IS NOT NULL"
    if other in table.there.relations:
        is_broken += f" AND NOT EXISTS (SELECT FROM public.{other} AS other WHERE other.{key} = t.{column})"
    _add_rule(table, asked["name"], is_broken)


def _add_rule(table: Table, name: str, is_broken: str) -> None:
    if not table.row.may_read:
        return
    on = f"{name} on {table.name}"
    sql = f"SELECT count(*) FROM {table.rows} AS t WHERE {is_broken}"
    for (count,) in table.there.counts(table.found, table.name, sql):
        if count:
            breaks = "breaks" if count == 1 else "break"
            says = f"add {on} as NOT VALID, for new rows alone: {number_of_rows(count)} {breaks} it"
            table.found.do("not valid", on, says, count)
        else:
            table.found.do("added rule", on, f"add {on}")


# What is dropped, and what stays.


def _drop_policy_as_made(table: Table, asked: Mapping[str, Any]) -> None:
    name = asked["name"]
    policy = table.row.policies.get(name)
    if policy and policy["as_made"] == ("r true" if asked["reads_only"] else "* true true"):
        table.gone.add(name)
        table.found.do("drop policy", name, quoted(name))


def _drop_index_as_made(table: Table, asked: Mapping[str, Any]) -> None:
    index = table.row.indexes.get(asked["name"])
    if index and index["definition"] == index_sql(table.row.name, asked["name"], asked["columns"], method="btree"):
        _drop_index(table, asked["name"])


def _drop_index_unless(table: Table, asked: Mapping[str, Any]) -> None:
    index = table.row.indexes.get(asked["name"])
    if index and not (index["valid"] and table.there.is_like(index["definition"], asked["definition"])):
        _drop_index(table, asked["name"])


def _drop_index(table: Table, name: str) -> None:
    table.gone.add(name)
    table.found.do("drop index", name)


def _create_index(table: Table, index: Mapping[str, Any]) -> None:
    old = table.row.indexes.get(index["name"])
    # As PostgreSQL prints an index.
    where = f"({index['where']})" if index["where"] else ""
    ours = index_sql(**{**index, "method": index["method"] or "btree", "where": where}).replace("\n", " ")
    if old and index["name"] not in table.gone | table.dropped and old["definition"] != ours:
        says = f"index {index['name']} differs from ours, and stays so: oblivion-schema check shows how"
        table.found.warn("index", index["name"], says)


def _join_realtime(table: Table, _: Mapping[str, Any]) -> None:
    if REALTIME in table.there.facts.publications and REALTIME not in table.row.publications:
        table.found.do("publish", table.name)


def _note_others(table: Table, asked: Mapping[str, Any]) -> None:
    ours = [*asked["ours"], *table.gone]
    sql = others_on(table.row.name, [*asked["columns"], *table.gone], ours)
    for other in table.there.query(f"{sql} ORDER BY 1, 2"):
        table.found.leave(other.kind, other.name)
    for name, policy in table.row.policies.items():
        if policy["permissive"] and name not in ours:
            says = f"policy {quoted(name)} on {table.name} is permissive: in the authenticated mode it allows what ours"
            table.found.warn("policy", name, f"{says} refuse")


_TOLD: Final[Mapping[str, Callable[[Table, Mapping[str, Any]], None]]] = {
    "fill_nulls": _fill_nulls,
    "set_defaults": _set_defaults,
    "set_fillfactor": _set_fillfactor,
    "add_check": _add_check,
    "add_foreign_key": _add_foreign_key,
    "drop_policy_as_made": _drop_policy_as_made,
    "drop_index_as_made": _drop_index_as_made,
    "drop_index_unless": _drop_index_unless,
    "create_index": _create_index,
    "join_realtime": _join_realtime,
    "note_others": _note_others,
}
"""The operations that change a table, and what tells of them."""
